"""The images that an effective field is averaged over, as a network wants them."""

import logging
import os
from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor, nn

from rfbench.data import augment, decode, sources, walk
from rfbench.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core import memory
from rfbench.spatial_graph.inputs import trace_as_fits
from rfbench.spatial_graph.size import Size, by
from rfbench.spatial_graph.trace import input_channels

# images of a pass forward and back: few are the fastest on a CPU, whose cache holds no more
BATCH = {"cpu": 4, "cuda": 32}

log = logging.getLogger(__name__)


def batches(
    source: str,
    module: nn.Module,
    size: Size,
    count: int,
    seed: int,
    channels: int | None = None,
    at_once: int = BATCH["cpu"],
) -> list[Tensor]:
    """`count` images (N, C, H, W) of `size`, a few at a time, on the CPU.

    source: 'noise' (N(0, 1) in every pixel), a data set by name, such as 'digits' (the embedded
    scenes; of others the validation images below datasets/NAME), or a folder, whose images
    (below it too, by name) are resized, cropped and normalised as at a validation. channels: None:
    as the trace finds them.
    Raises RfbenchError where the folder has none that can be read.
    """
    channels = channels or _channels(module, size)
    what = f"{count} images of {channels} x {by(size)}"
    memory.check(4 * channels * prod(size) * count, what, "Take fewer with --count.")
    if source != "noise" and len(size) != 2:
        raise UsageError(
            "--images is for networks of images; one of sequences or volumes takes noise here, and "
            "in Python what you give it: rfbench.rf.effective(model, batches)"
        )
    if source == "noise":
        generator = torch.Generator().manual_seed(seed)
        chosen = [torch.randn(channels, *size, generator=generator) for _ in range(count)]
    else:
        mean, std = _statistics(source, module)
        normalize = augment.Normalize(mean, std)
        of_a_set = source in sources.SOURCES
        images = _data_set(source, count) if of_a_set else _folder(source, count)
        chosen = [normalize(_fit(image, size)[None])[0] for image in images]
        if channels != 3:
            chosen = [image.mean(0, keepdim=True).expand(channels, *size) for image in chosen]
    return [torch.stack(chosen[i : i + at_once]) for i in range(0, len(chosen), at_once)]


def _channels(module: nn.Module, size: Size) -> int:
    """Channels of the input, as the trace finds them."""
    try:
        trace = trace_as_fits(module, size)
    except RfbenchError:  # not to be traced; the network itself says whether these fit
        return input_channels(module, len(size))
    return next(trace.shapes[i][1] for i in trace.inputs.values())


def _statistics(source: str, module: nn.Module) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation: of the data set, else those of the network, else of ImageNet."""
    if source in sources.SOURCES:
        data = sources.load(source, eval_only=True)
        return data.mean, data.std
    known = getattr(module, "default_cfg", None) or {}
    return known.get("mean", IMAGENET_MEAN), known.get("std", IMAGENET_STD)


def _data_set(name: str, count: int) -> Iterator[Tensor]:
    split = sources.load(name, eval_only=True).val
    for i in range(min(count, len(split))):
        yield split.read(i)


def _folder(folder: str, count: int) -> Iterator[Tensor]:
    """The first `count` images that can be read; the log names the others."""
    if not os.path.isdir(folder):
        raise UsageError(
            f"no folder {folder}. --images takes a folder, noise or a data set: "
            f"{', '.join(sources.SOURCES)}."
        )
    paths = sorted(os.path.join(folder, name) for name in walk.images(folder).names)
    read, bad = 0, []
    for path in paths:
        if read == count:
            return
        try:
            yield decode.read(path)
            read += 1
        except decode.BadImage as error:
            bad.append(str(error))
            log.warning(f"left out: {error}")
    if not read:
        why = f"; the first: {bad[0]}" if bad else ""
        raise RfbenchError(f"{folder} has no image that can be read ({len(paths)} files{why}).")


def _fit(image: Tensor, size: Size) -> Tensor:
    """The middle of an image, resized so that it fills `size`: (H, W, 3) uint8."""
    height, width = image.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    h, w = max(size[0], round(height * scale)), max(size[1], round(width * scale))
    whole = augment.resize(image, h, w) if (h, w) != (height, width) else image
    top, left = (h - size[0]) // 2, (w - size[1]) // 2
    return whole[top : top + size[0], left : left + size[1]]
