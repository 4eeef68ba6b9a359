"""The feature pyramid of a classifier: the last map at every stride, and the layers around it.

A network is a chain of modules in the order in which they run; a module that halves its map more
than once is replaced by its children. This works for any network of torchvision, timm or a user,
without renaming its parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError, suggest
from rfbench.models import variants
from rfbench.models.colors import why_not

SIDE = 256  # px of the image by which strides are measured


@dataclass(frozen=True)
class Part:
    """A module of the chain; `stride` and `channels` of its output map, 0 if it has none."""

    path: str
    stride: int
    channels: int


@dataclass(frozen=True)
class Pyramid:
    """levels: the feature of every stride (2, 4, 8, ...). chain: all parts, in running order.

    stem: number of parts before the first that convolves at stride 4.
    """

    levels: dict[int, Part]
    chain: list[Part]
    stem: int


def find(model: nn.Module, label: str, names: Sequence[str] = ()) -> Pyramid:
    """The pyramid of `model`, called `label` in errors.

    names: paths of the modules to use, from fine to coarse; empty: at every stride the last one
    with a convolution larger than 1x1, with the norms and activations after it (a 1x1 that only
    widens for the classifier is not a feature). Nothing is computed: the model runs on the meta
    device. Raises UsageError for an unknown name or no pyramid, RfbenchError if it does not run.
    """
    ran = _run(model, label)
    chain = _chain(model, "", 1, ran)
    modules = dict(model.named_modules())
    levels: dict[int, Part] = {}
    if names:
        for name in names:
            if name not in ran or not ran[name].stride:
                near = suggest(name, (path for path, part in ran.items() if part.stride))
                raise UsageError(f"features: {label} has no map '{name}'.{near}")
            levels[ran[name].stride] = ran[name]
        chain = _through(model, chain, names, ran)
    else:
        before: Part | None = None
        for part in chain:
            kernels = _kernels(modules[part.path])
            follows = not kernels and before is not None and before.stride == part.stride
            before = part if part.stride and (follows or max(kernels, default=0) > 1) else None
            if before is not None:
                levels[part.stride] = part
    if not levels:
        raise UsageError(f"{label} has no maps of strides 2, 4, 8, ..., so it has no pyramid.")
    coarse = [
        i for i, part in enumerate(chain) if part.stride >= 4 and _kernels(modules[part.path])
    ]
    return Pyramid(levels, chain, coarse[0] if coarse else len(chain))


def _run(model: nn.Module, label: str) -> dict[str, Part]:
    """The output of every module, in the order in which they start to run."""
    copy = variants.meta_copy(model)
    ran: dict[str, Part] = {}

    def begins(path: str) -> Any:
        return lambda *_: ran.setdefault(path, Part(path, 0, 0)) and None

    def ends(path: str) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            ran[path] = Part(path, *_map(output))

        return note

    for path, module in copy.named_modules():
        if path:
            module.register_forward_pre_hook(begins(path))
            module.register_forward_hook(ends(path))
    try:
        with torch.no_grad():
            copy(torch.empty(1, 3, SIDE, SIDE, device="meta"))
    except Exception as error:
        what = why_not(model, (SIDE, SIDE), error)
        raise RfbenchError(f"{label} does not run on {SIDE} px images: {what}") from error
    return ran


def _map(output: Any) -> tuple[int, int]:
    """(stride, channels) of a map (1, C, SIDE / stride, SIDE / stride); zeros for anything else."""
    if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[2] != output.shape[3]:
        return 0, 0
    channels, side = output.shape[1:3]
    return (SIDE // side, channels) if side > 1 and SIDE % side == 0 else (0, 0)


def _chain(module: nn.Module, path: str, stride: int, ran: dict[str, Part]) -> list[Part]:
    """The children of `module` in the order in which they run, down to at most one halving each."""
    own = _children(module, path, ran)
    parts: list[Part] = []
    for name in (name for name in ran if name in own):
        part = ran[name]
        inside = _chain(own[name], name, stride, ran) if part.stride > 2 * stride else []
        parts += inside or [part]
        stride = part.stride or stride
    return parts


def _children(module: nn.Module, path: str, ran: dict[str, Part]) -> dict[str, nn.Module]:
    """The children by path; those of a ModuleList, which does not run itself, in its place."""
    own: dict[str, nn.Module] = {}
    for name, child in module.named_children():
        place = f"{path}.{name}".strip(".")
        own |= {place: child} if place in ran else _children(child, place, ran)
    return own


def _through(
    model: nn.Module, chain: list[Part], names: Sequence[str], ran: dict[str, Part]
) -> list[Part]:
    """The chain, with parts that contain a module named by the user replaced by their children."""
    opened: list[Part] = []
    for part in chain:
        if not any(name.startswith(f"{part.path}.") for name in names):
            opened.append(part)
            continue
        own = _children(model.get_submodule(part.path), part.path, ran)
        opened += _through(model, [ran[path] for path in ran if path in own], names, ran)
    return opened


def _kernels(module: nn.Module) -> list[int]:
    """Sizes of the convolutions in a module."""
    return [max(m.kernel_size) for m in module.modules() if isinstance(m, nn.Conv2d)]
