"""Receptive fields without a graph: the module is run in float64, and differentiated.

Every weight is 1 over the channels that it sums, pools sum their windows, and whatever else is
done to values is left out. What is left is linear and positive. Its gradient is a map of path
counts; its outputs on images of ones and of positions tell the centroid of every unit at once.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Size = tuple[int, ...]
Take = Callable[[Any], Tensor]  # the map that is looked at, of what a network returns
SAME = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "elu", "gelu", "silu", "mish",
    "sigmoid", "sigmoid_", "tanh", "hardswish", "hardsigmoid", "hardtanh", "softplus", "dropout",
    "batch_norm", "group_norm", "layer_norm", "instance_norm", "local_response_norm", "clamp",
    "dropout2d", "celu", "selu", "exp", "__neg__", "neg", "abs", "rsqrt", "sqrt",
}  # fmt: skip


class Linear(TorchFunctionMode):
    """Weights and windows of ones. weighed: an interpolation's taps weigh what they do."""

    def __init__(self, weighed: bool = False) -> None:
        super().__init__()
        self.weighed = weighed

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        x: Any = args[0] if args else kwargs.get("input")
        if name in SAME:
            return x * 1 if isinstance(x, Tensor) else func(*args, **kwargs)
        if name.startswith(("conv", "linear")) and isinstance(x, Tensor):
            return _convolved(func, name, *args, **kwargs)
        if name.startswith(("max_pool", "avg_pool")):
            return _sums(func, name, *args, **kwargs)
        if name == "interpolate" and not self.weighed:
            return _taps(x, *args[1:], **kwargs)
        if name == "pad" and kwargs.get("value", args[3] if len(args) > 3 else None):
            return func(args[0], args[1])
        if name in ("mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "__truediv__"):
            return _product(x, args[1])
        if name in ("sub", "__sub__") and isinstance(args[1], Tensor):
            return x + args[1]
        return func(*args, **kwargs)


def _product(a: Any, b: Any) -> Any:
    """Of maps the paths of both; of a map and its gate or a constant those of the map."""
    maps = [t for t in (a, b) if isinstance(t, Tensor) and t.requires_grad]
    if not maps:
        return a * b
    large = [t for t in maps if t.dim() < 3 or any(n > 1 for n in t.shape[2:])] or maps
    return sum(large[1:], large[0] * 1)


def _convolved(func: Any, name: str, x: Tensor, weight: Tensor, *args: Any, **more: Any) -> Tensor:
    transposed = name.startswith("conv_transpose")
    groups = more.get("groups", args[4] if len(args) > 4 else 1)
    channels = weight.shape[0] // groups if transposed else weight.shape[1]
    if isinstance(weight, nn.Parameter):  # of many that are drawn, one may be 0
        ones = torch.ones_like(weight) / channels
    elif weight.grad_fn is None and channels == 1:  # BlurPool's own
        ones = weight
    else:
        ones = (weight.detach() != 0).double() / channels
    more.pop("bias", None)
    return func(x, ones, None, *args[1:], **more)


def _sums(func: Any, name: str, x: Tensor, size: Any, *args: Any, **more: Any) -> Any:
    """A pool as a convolution with ones, whatever hangs over the end."""
    axes = x.dim() - 2
    keys = ["stride", "padding", *(["dilation"] if name.startswith("max") else []), "ceil_mode"]
    given = dict(zip(keys, args, strict=False)) | more
    each = {k: _each(given.get(k) or d, axes) for k, d in
            (("stride", size), ("padding", 0), ("dilation", 1))}  # fmt: skip
    window = _each(size, axes)
    with torch._C.DisableTorchFunction():
        out = func(x, size, *args, **more)
        form = (out[0] if isinstance(out, tuple) else out).shape[2:]
        wide = F.pad(x, [n for k in reversed(window) for n in (0, k)])
        ones = x.new_ones(x.shape[1], 1, *window)
        conv = getattr(F, f"conv{axes}d")
        made = conv(wide, ones, None, *each.values(), x.shape[1])
    return made[(..., *(slice(n) for n in form))]


def _each(value: Any, axes: int) -> Size:
    return (value,) * axes if isinstance(value, int) else tuple(value) * (axes // len(value))


def _taps(x: Tensor, *args: Any, **more: Any) -> Tensor:
    """Resizing, every pixel that takes part once."""
    with torch._C.DisableTorchFunction():
        form = F.interpolate(x, *args, **more).shape[2:]
        keys = ["size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"]
        given = dict(zip(keys, args, strict=False)) | more
        mode = given.get("mode", "nearest")
        given["mode"] = "linear" if mode.endswith("linear") else mode
        for axis, n in enumerate(form):
            own = {
                k: _each(v, len(form))[axis] if k == "size" else v
                for k, v in given.items()
                if v is not None
            }
            if "scale_factor" in own and not isinstance(own["scale_factor"], int | float):
                own["scale_factor"] = own["scale_factor"][axis]
            line = torch.eye(x.shape[axis + 2], dtype=x.dtype)[None]
            if mode == "bicubic":  # of images only
                own = {k: (v, 1) if k in ("size", "scale_factor") else v for k, v in own.items()}
                line = F.interpolate(line[..., None], **own)[0, ..., 0]
            else:
                line = F.interpolate(line, **own)[0]
            assert line.shape[1] == n
            taps = (line.abs() > 1e-12).to(x)
            x = torch.tensordot(x, taps, ([axis + 2], [0])).movedim(-1, axis + 2)
    return x


@dataclass(eq=False)
class Seen:
    """One map of a network, seen from one of its inputs.

    shapes: (C, ...) of every input. others: what it takes besides, after them. take: the map, of
    what it returns.
    """

    net: nn.Module
    shapes: list[Size]
    source: int = 0
    take: Take = lambda out: out
    others: tuple = ()

    @cached_property
    def module(self) -> nn.Module:
        """A copy in float64."""
        return copy.deepcopy(self.net).double().eval().requires_grad_(False)

    @property
    def side(self) -> Size:
        """The size of the input that is looked from."""
        return tuple(self.shapes[self.source][1:])

    def run(self, image: np.ndarray | float, weighed: bool = False) -> tuple[Tensor, Tensor]:
        """The input and the map, where every channel of the input holds an image."""
        xs = [torch.zeros(1, *s, dtype=torch.float64) for s in self.shapes]
        xs[self.source] += torch.as_tensor(image, dtype=torch.float64)
        for x in xs:
            x.requires_grad_()
        with Linear(weighed):
            out = self.take(self.module(*(x.clone() for x in xs), *self.others))
        return xs[self.source], out

    @cached_property
    def moments(self) -> list[np.ndarray]:
        """Of every unit the paths to it, and the sums of their positions along each axis."""
        places = np.indices(self.side).astype(float)
        return [self.run(p)[1][0].mean(0).detach().numpy() for p in (1.0, *places)]

    @cached_property
    def totals(self) -> np.ndarray:
        """The paths to every unit, an interpolation's taps as much as they weigh."""
        return self.run(1.0, weighed=True)[1][0].mean(0).detach().numpy()

    @property
    def units(self) -> Size:
        """The size of the map."""
        return self.moments[0].shape

    @property
    def centre(self) -> Size:
        """The unit that is looked at."""
        return tuple((n - 1) // 2 for n in self.units)

    @cached_property
    def centroids(self) -> np.ndarray:
        """Of every unit along each axis."""
        with np.errstate(invalid="ignore"):
            return np.stack(self.moments[1:]) / self.moments[0]

    @cached_property
    def _once(self) -> tuple[Tensor, Tensor]:
        return self.run(0.0)

    def field(self, unit: Size) -> np.ndarray:
        """The path counts of a unit."""
        x, out = self._once
        (grad,) = torch.autograd.grad(out[(0, slice(None), *unit)].mean(), x, retain_graph=True)
        return grad[0].sum(0).numpy()

    @cached_property
    def turns(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """How many units take turns along each axis, and their mean distance.

        The input has to be large: of 3 periods around the middle no field may be cut.
        """
        found = [self._along(axis) for axis in range(len(self.units))]
        return tuple(p for p, _ in found), tuple(s for _, s in found)

    def _along(self, axis: int, most: int = 32) -> tuple[int, float]:
        middle = self.centre
        line: Any = (*middle[:axis], slice(None), *middle[axis + 1 :])
        at, paths = self.centroids[axis][line], self.moments[0][line]
        for p in range(1, most + 1):
            near = range(middle[axis] - p - 1, middle[axis] + 2)
            if near[0] < 0 or near[-1] + p >= len(at):
                break
            steps = [at[u + p] - at[u] for u in near]
            same = np.ptp(steps) < 1e-7 and np.allclose(paths[near], paths[[u + p for u in near]])
            if not same or abs(steps[0] - round(steps[0])) > 1e-6:
                continue
            units = [(*middle[:axis], u, *middle[axis + 1 :]) for u in range(near[0], near[-1] + p)]
            fields, step = [self.field(u) for u in units], round(steps[0])
            if all(
                np.allclose(np.roll(a, step, axis), b)
                for a, b in zip(fields, fields[p:], strict=False)
            ):
                return p, step / p
        raise AssertionError(f"units have no stride in common along axis {axis}")

    def period(self, phases: Size) -> list[Size]:
        """The units around the central one that take turns."""
        each = [range(max(0, c - p // 2), max(0, c - p // 2) + p)
                for c, p in zip(self.centre, phases, strict=True)]  # fmt: skip
        return list(product(*each))

    def shift(self, phases: Size, stride: tuple[float, ...]) -> np.ndarray:
        """Centroids minus places in a grid centred on the input, on the mean of a period."""
        return np.mean([
            [
                self.centroids[(a, *u)] - (u[a] - (n - 1) / 2) * s - (h - 1) / 2
                for a, (n, s, h) in enumerate(zip(self.units, stride, self.side, strict=True))
            ]
            for u in self.period(phases)
        ], axis=0)  # fmt: skip

    def registration(self, phases: Size, stride: tuple[float, ...]) -> np.ndarray:
        """Centroids minus (u + 0.5) S - 0.5, on the mean of a period."""
        return np.mean([
            [self.centroids[(a, *u)] - (u[a] + 0.5) * s + 0.5 for a, s in enumerate(stride)]
            for u in self.period(phases)
        ], axis=0)  # fmt: skip

    def sizes(self, phases: Size) -> list[int]:
        """The largest field of a period, along each axis."""
        every = []
        for axis, p in enumerate(phases):
            c = self.centre
            first = max(0, c[axis] - p // 2)
            line = [(*c[:axis], u, *c[axis + 1 :]) for u in range(first, first + p)]
            every.append(max(b - a + 1 for a, b in (box(self.field(u))[axis] for u in line)))
        return every

    def checkerboard(self, phases: Size) -> float:
        """Of the paths to the units of a period, their deviation by their mean."""
        paths = [self.totals[u] for u in self.period(phases)]
        return float(np.std(paths) / np.mean(paths))

    def read(self) -> float:
        """The share of the central unit's box that it reads."""
        field = self.field(self.centre)
        return float((field[tuple(slice(a, b + 1) for a, b in box(field))] != 0).mean())

    def gridding(self, period: Size) -> float:
        """The deviation of the central unit's counts over the phases of a period of pixels."""
        field = self.field(self.centre)
        sums = [
            field[tuple(slice(i, None, p) for i, p in zip(phase, period, strict=True))].sum()
            for phase in np.ndindex(*period)
        ]
        return float(np.std(sums) / np.mean(sums))


def box(field: np.ndarray) -> list[tuple[int, int]]:
    """The first and the last position along each axis that is not zero."""
    return [(int(at.min()), int(at.max())) for at in np.nonzero(field)]


def periods(names: Any, axes: int) -> Iterator[tuple[str, Size]]:
    """The periods of a record: '2', '2x4'."""
    for name in names:
        each = [int(n) for n in name.split("x")]
        yield name, tuple(each * axes)[:axes] if len(each) == 1 else tuple(each)
