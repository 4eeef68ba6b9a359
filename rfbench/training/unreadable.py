"""--check-images: every image is read before training, not when its turn comes.

Copies of a file are found too: of a validation image in training, of one image in two classes.
"""

import hashlib
import logging
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rfbench.data import decode
from rfbench.data.dataset import some
from rfbench.data.loader import Loader
from rfbench.data.order import evaluation_tasks
from rfbench.errors import RfbenchError, counted, printable
from rfbench.runs import processes
from rfbench.runs.processes import Processes
from rfbench.runs.progress import bar
from rfbench.training.images import Reader

logger = logging.getLogger(__name__)

BATCH = 64


class Digest:
    """A transform to twelve bytes that tell the pixels of an image, without its mask."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.size = (1, 12 // channels)

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        """(H, W, C) uint8 to (1, 12 / C, C)."""
        digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=12)
        digest.update(image[..., :3].contiguous().numpy().data)
        made = torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
        return made.reshape(*self.size, self.channels)


class Copies:
    """Images of equal pixels, by their names."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[Any, int]] = {}  # digest -> a split, and an image's number
        self.evaluated: list[str] = []  # validation images that are trained on
        self.classes: list[str] = []  # images that are of two classes

    def add(self, split: Any, digests: Tensor, indices: list[int]) -> None:
        """digests: (n, 12); indices: of the n images of a split; those of training come first."""
        for row, i in zip(digests.numpy(), indices, strict=True):
            first, j = self._first.setdefault(row.tobytes(), (split, i))
            if first is split and j == i:
                continue
            told = printable(f"{split.name(i)} (as {first.name(j)})")
            if first is not split:
                self.evaluated.append(told)
            if first.labels[j] != split.labels[i]:
                self.classes.append(told)

    def tell(self) -> None:
        """A warning for each kind that there is."""
        for what, names in (
            ("the pixels of training images in validation", self.evaluated),
            ("the pixels of images of another class", self.classes),
        ):
            if names:
                logger.warning("%s: %s: %s", what, counted(len(names), "image"), some(names, 3))


def check(config: Any, opened: Callable[[Any, Processes, bool], Reader], eval_only: bool) -> None:
    """Read all images of both splits; name those that cannot be read, and tell of copies.

    config: of a training. opened: its `Images`. eval_only: the validation images alone. With
    several processes the first reads. Raises RfbenchError if more than `data.max_bad_share` of
    either split cannot be read.
    """
    with processes.started(config.device) as group:
        data = group.alike(lambda: opened(config, group, eval_only))
        group.by_first(lambda: _check(data, config.data.max_bad_share))


def _tell_frames(part: str, split: Any) -> None:
    """A warning for animations and files of many pages, of which one image is taken."""
    paths = split.paths() if hasattr(split, "paths") else []
    several = [path for path in paths if decode.frames(path) > 1]
    if several:
        files = counted(len(several), f"{part} file")
        verb = "holds" if len(several) == 1 else "hold"
        names = some([*map(printable, several)], 3)
        logger.warning("%s %s more than one image; the first is read: %s", files, verb, names)


def _check(data: Reader, allowed: float) -> None:
    problems, copies = [], Copies()
    for part, split in (("training", data.set.train), ("validation", data.set.val)):
        if not len(split):
            continue
        loader = Loader(
            split,
            Digest(data.channels),
            train=False,
            workers=data.workers,
            max_bad_share=1,
            channels=data.channels,
        )
        tasks = evaluation_tasks(len(split), BATCH)
        progress = bar(len(tasks), 0, f"checking the {part} images", True)
        try:
            for batch in loader.batches(tasks):
                copies.add(split, batch.images.flatten(1), batch.indices.tolist())
                progress.update()
        finally:
            progress.close()
            loader.close()
        _tell_frames(part, split)
        lines = [printable(f"{path}: {reason}") for path, reason in sorted(loader.bad.items())]
        found = f"{len(lines)} of {len(split)} {part} images cannot be read"
        logger.info("\n".join([found, *lines]), extra={"lines": True})
        if len(lines) > allowed * len(split):
            problems.append(found)
    copies.tell()
    if problems:
        raise RfbenchError(
            f"{'; '.join(problems)}, more than data.max_bad_share = {allowed:g} "
            "allows. Replace them, or raise it."
        )
