"""The feature pyramid of a classifier: the last map at every stride, and the layers around it.

A network is a chain of modules in the order in which they run; a module that halves its map more
than once is replaced by its children. This works for any network of torchvision, timm or a user,
without renaming its parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError, suggest
from rfbench.models import variants
from rfbench.models.colors import why_not

SIDE = 256  # px of the image by which strides are measured
MOST = 3  # 1x1 convolutions that may be the classifier's; a stage of attention has more


@dataclass(frozen=True)
class Part:
    """A module of the chain; `stride` and `channels` of its output map, 0 if it has none.

    positions: the shape of an output (1, L, C) or (1, H, W, C): tokens, or the channels last.
    """

    path: str
    stride: int
    channels: int
    positions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pyramid:
    """levels: the feature of every stride (2, 4, 8, ...). chain: all parts, in running order.

    stem: number of parts before the first that convolves at stride 4.
    """

    levels: dict[int, Part]
    chain: list[Part]
    stem: int


def find(
    model: nn.Module,
    label: str,
    names: Sequence[str] = (),
    sizes: Sequence[tuple[int, int]] = (),
) -> Pyramid:
    """The pyramid of `model`, called `label` in errors.

    names: paths of the modules to use, from fine to coarse; empty: at every stride the last one
    with a convolution larger than 1x1, with the norms and activations after it (a 1x1 that only
    widens for the classifier is not a feature, a stage of attention is; where no part has a larger
    one, the last with weights). sizes: (H, W) of images to be tried if it does not run on
    256 x 256. Nothing is computed: the model runs on the meta device. Raises UsageError for an
    unknown name, for no pyramid or where the coarsest map is followed by tokens or maps with the
    channels last, RfbenchError if it does not run.
    """
    ran = _run(model, label, sizes)
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
        levels = _levels(chain, modules)
    if not levels:
        raise UsageError(f"{label} has no maps of strides 2, 4, 8, ..., so it has no pyramid.")
    if not names:
        _refuse_tokens(chain[chain.index(levels[max(levels)]) :], modules, label)
    coarse = [
        i for i, part in enumerate(chain) if part.stride >= 4 and _kernels(modules[part.path])
    ]
    return Pyramid(levels, chain, coarse[0] if coarse else len(chain))


def _levels(chain: Sequence[Part], modules: Mapping[str, nn.Module]) -> dict[int, Part]:
    """The last feature at every stride; see `find`."""
    levels: dict[int, Part] = {}
    weighted: dict[int, Part] = {}
    before: Part | None = None
    for part in chain:
        kernels = _kernels(modules[part.path])
        learns = any(True for _ in modules[part.path].parameters())
        follows = not kernels and before is not None and before.stride == part.stride
        stage = max(kernels, default=0) > 1 or len(kernels) > MOST
        before = part if part.stride and (follows or stage) else None
        if before is not None:
            levels[part.stride] = part
        elif part.stride and (learns or part.stride in weighted):
            weighted[part.stride] = part
    # a stage halves its map; a classifier's own pooling goes further
    for stride, part in weighted.items():
        if stride not in levels and stride // 2 in levels:
            levels[stride] = part
    return dict(sorted(levels.items()))


def _refuse_tokens(behind: Sequence[Part], modules: Mapping[str, nn.Module], label: str) -> None:
    """Raise UsageError if parts with weights follow the last map of which none is a map."""
    last, *rest = behind
    for part in rest:
        if part.positions and any(True for _ in modules[part.path].parameters()):
            raise UsageError(
                f"{label} has no pyramid: its last map (N, C, H, W) is that of {last.path}, and "
                f"{part.path} behind it returns {list(part.positions)}, tokens or the channels last"
            )


def _run(model: nn.Module, label: str, sizes: Sequence[tuple[int, int]]) -> dict[str, Part]:
    """The outputs of all modules on the first size that the network takes, as they start to run."""
    errors: dict[tuple[int, int], Exception] = {}
    for size in dict.fromkeys([(SIDE, SIDE), *sizes]):
        try:
            return _run_on(model, size)
        except Exception as error:
            errors[size] = error
    size = next(iter(sizes), (SIDE, SIDE))
    first = errors[size]  # at the size that is asked for
    tried = " or ".join("{}x{}".format(*size) for size in errors)
    raise RfbenchError(
        f"{label} does not run on {tried} px images: {why_not(model, size, first)}"
    ) from first


def _run_on(model: nn.Module, size: tuple[int, int]) -> dict[str, Part]:
    copy = variants.meta_copy(model)
    ran: dict[str, Part] = {}

    def begins(path: str) -> Any:
        return lambda *_: ran.setdefault(path, Part(path, 0, 0)) and None

    def ends(path: str) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            ran[path] = Part(path, *_map(output, size), _positions(output, size))

        return note

    for path, module in copy.named_modules():
        if path:
            module.register_forward_pre_hook(begins(path))
            module.register_forward_hook(ends(path))
    with torch.no_grad():
        copy(torch.empty(1, 3, *size, device="meta"))
    return ran


def _map(output: Any, size: tuple[int, int]) -> tuple[int, int]:
    """(stride, channels) of a map (1, C, H / stride, W / stride); zeros for anything else."""
    if not isinstance(output, Tensor) or output.ndim != 4 or min(output.shape[2:]) < 2:
        return 0, 0
    channels, height, width = output.shape[1:]
    stride = size[0] // height
    return (stride, channels) if (height * stride, width * stride) == size else (0, 0)


def _positions(output: Any, size: tuple[int, int]) -> tuple[int, ...]:
    """The shape of tokens (1, L, C) or of a map (1, H / stride, W / stride, C); () if neither."""
    if not isinstance(output, Tensor) or output.ndim not in (3, 4) or _map(output, size)[0]:
        return ()
    shape = tuple(output.shape)
    even = output.ndim == 3 or shape[1] * size[1] == shape[2] * size[0]
    return shape if even and min(shape[1:3]) > 1 else ()


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
