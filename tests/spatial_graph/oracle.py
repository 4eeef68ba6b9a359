"""What the spatial graph is tested against: torch itself, on the real module.

`gradients`: which inputs one output unit reads, by autograd with positive random weights.
`forward_counts`: path counts by sending one-hot images forward through all-ones weights.
"""

import copy
import math
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rfbench.rf.core.path_counts import count_tensor
from rfbench.rf.core.path_map import Convention
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value

Index = tuple[int, ...]
Size = tuple[int, ...]


class Alive(TorchFunctionMode):
    """No unit is dead: norms are the identity, maxima are means over the same window."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name == "local_response_norm" or (name.endswith("_norm") and name != "vector_norm"):
            return args[0] * 1
        if name == "pad" and kwargs.get("value") == -math.inf:
            kwargs["value"] = 0.0
        if (
            name.startswith(("max_pool1d", "max_pool2d", "max_pool3d"))
            or name == "boolean_dispatch"
        ):
            return _mean_pool(*args, **kwargs)
        if name in ("hardtanh", "relu6", "clamp", "hardsigmoid"):  # never saturated
            return args[0] * 1
        if name == "softmax":  # of a single entry it is constant, summed over all it is 1
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            return (args[0] + args[0].mean(dim, keepdim=True)) / args[0].shape[dim]
        both = all(isinstance(a, Tensor) and a.requires_grad for a in args)
        if both and name in ("matmul", "__matmul__", "bmm"):  # alive also where one factor is zero
            return func(*(a + 1 for a in args)) / args[0].shape[-1]
        if both and name in ("mul", "__mul__"):
            return args[0] + args[1]
        if name in ("maximum", "minimum"):
            return args[0] + args[1]
        if name.startswith("adaptive_max_pool"):
            return _of("adaptive_avg_pool", args[0])(args[0], args[1])
        if name in ("sort", "topk"):  # each value depends on all
            mean = args[0].mean(kwargs["dim"], keepdim=True)
            return mean.expand_as(func(*args, **kwargs)[0]), None
        if name.startswith("max_unpool"):  # to every position of its window
            x, axes, k = args[0], args[0].dim() - 2, args[2]
            ones = x.new_ones(x.shape[1], 1, *(k if isinstance(k, tuple) else [k] * axes))
            return _of("conv_transpose", x)(x, ones, stride=k, groups=x.shape[1])
        if name in ("amax", "amin"):
            return torch.mean(*args, **kwargs)
        if name in ("max", "min") and len(args) > 1 and isinstance(args[1], Tensor):
            return args[0] + args[1]
        if name in ("max", "min", "median", "prod") and (len(args) > 1 or kwargs):
            mean = torch.mean(*args, **kwargs)
            if name == "prod":
                return mean
            return torch.return_types.max((mean, torch.zeros_like(mean, dtype=torch.long)))
        return func(*args, **kwargs)


def _mean_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices:
        mean = _mean_pool(x, kernel_size, stride, padding, dilation, ceil_mode)
        return mean, torch.zeros_like(mean, dtype=torch.long)
    if {dilation} == {1} if isinstance(dilation, int) else {*dilation} == {1}:
        return _of("avg_pool", x)(x, kernel_size, stride, padding, ceil_mode)
    axes = x.dim() - 2
    k = (kernel_size,) * axes if isinstance(kernel_size, int) else tuple(kernel_size)
    ones = x.new_ones(x.shape[1], 1, *k) / prod(k)
    return _of("conv", x)(x, ones, None, stride or k, padding, dilation, x.shape[1])


def _of(name: str, x: Tensor) -> Any:
    """The function for so many axes: F.conv1d of sequences."""
    return getattr(F, f"{name}{x.dim() - 2}d")


def prepared(module: nn.Module) -> nn.Module:
    """A float64 copy in evaluation mode with positive random weights that keep maps near 1."""
    model = copy.deepcopy(module).double().eval()
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        fan = max(1, p[0].numel()) if p.dim() > 1 else 1
        with torch.no_grad():
            p.copy_((torch.rand(p.shape, generator=draw, dtype=p.dtype) + 0.5) / fan)
    return model.requires_grad_(False)


def gradients(module: nn.Module, size: Size, channels: int, at: list[Index]) -> list[np.ndarray]:
    """For each index of the output, which pixels have a gradient: bool, as large as the input."""
    model = prepared(module)
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(1, channels, *size, generator=draw, dtype=torch.float64) + 0.5
    x.requires_grad_()
    with Alive():
        out = next(t for t in tree_leaves(model(x.clone())) if isinstance(t, Tensor))
    assert out.isfinite().all()
    found = []
    for i in at:
        (grad,) = torch.autograd.grad(out[i], x, retain_graph=True, allow_unused=True)
        found.append((grad[0] != 0).any(0).numpy() if grad is not None else np.zeros(size, bool))
    return found


def place(value: Value, index: Index) -> tuple[int, dict[str, int]]:
    """The node behind one entry of a tensor, and its position in the map, by axis."""
    at, where = {"d": 0, "h": 0, "w": 0}, []
    for dim, i in zip(value.dims, index, strict=True):
        channel, rest = 0, i
        places = []
        for f in reversed(dim):
            rest, here = divmod(rest, f.size)
            places.append((f, here))
        for f, here in reversed(places):
            if f.axis in at:
                at[f.axis] += here * f.step
            elif f.axis == "c":
                channel = channel * f.size + here
        where.append(channel)
    return int(value.labels[tuple(where)]), at


def reached(graph: SpatialGraph, value: Value, index: Index, **convention: str) -> np.ndarray:
    """The graph's own path counts of one entry of a tensor: (H, W), or of other axes."""
    label, at = place(value, index)
    if label < 0:
        return np.zeros(graph.size)
    one = Value(value.dims, np.full((1,) * value.labels.ndim, label))
    unit = tuple(at[axis] for axis in graph.letters)
    found = count_tensor(graph, one, unit, convention=Convention(**convention))
    return np.zeros(graph.size) if found is None else found.counts


def sampled(value: Value, units: int) -> list[Index]:
    """Entries of a tensor: the corners, every class of channels, and some at random."""
    form = [prod(f.size for f in dim) for dim in value.dims]
    draw = np.random.default_rng(0)
    corners = [tuple(0 for _ in form), tuple(n - 1 for n in form), tuple(n // 2 for n in form)]
    seen, out = set(), list(dict.fromkeys(corners))
    for _ in range(units * 20):
        index = tuple(int(draw.integers(n)) for n in form)
        label = place(value, index)[0]
        if index not in out and (label not in seen or len(out) < units):
            out.append(index)
        seen.add(label)
    return out


def channels_of(module: nn.Module) -> int:
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d
    convs = (m for m in module.modules() if isinstance(m, kinds))
    return next((c.in_channels for c in convs), 3)


def box(support: np.ndarray) -> str:
    if not support.any():
        return "nothing"
    ends = (f"{at.min()}:{at.max() + 1}" for at in np.nonzero(support))
    return f"{support.sum()} in {', '.join(ends)}"


def forward_counts(
    module: nn.Module,
    size: Size,
    unit: tuple[int, int],
    channels: str = "single",
    pool: str = "count",
    c_in: int = 3,
) -> np.ndarray:
    """Paths from every pixel to a unit, by one-hot images: for modules that are linear.

    Weights are ones for channels=real, 1 / fan-in for channels=single; pools are sums for
    pool=count. Rectifiers do nothing to such images.
    """
    model = copy.deepcopy(module).double().eval()
    for m in model.modules():
        for name, p in m.named_parameters(recurse=False):
            with torch.no_grad():
                p.fill_(0 if name == "bias" else 1 / _fan_in(m, p) if channels == "single" else 1)
    pixels = prod(size)
    x = torch.eye(pixels, dtype=torch.float64).view(pixels, 1, *size).repeat(1, c_in, 1, 1)
    with torch.no_grad(), Sums(pool == "count"):
        out = model(x)[:, :, unit[0], unit[1]]
    total = out.mean(1) if channels == "single" else out.sum(1)
    return total.view(size).numpy()


def _fan_in(layer: nn.Module, weight: Tensor) -> int:
    if isinstance(layer, nn.ConvTranspose2d):
        return weight.shape[0] // layer.groups
    if isinstance(layer, nn.Conv1d | nn.Conv3d):  # across channels, in these tests
        return weight[0].numel() // (9 if weight.dim() == 5 else 1)
    return weight.shape[1] if weight.dim() > 1 else 1


class Sums(TorchFunctionMode):
    """Pooling windows sum (averages only if `count`); norms are the identity."""

    def __init__(self, count: bool) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name.endswith("_norm"):
            return args[0]
        if name.startswith(("max_pool2d", "boolean_dispatch")):
            return _sum_pool(*args, **kwargs)
        if name == "avg_pool2d" and self.count:
            x, k, s, p, ceil = (*args, None, 0, False)[:5] if len(args) < 5 else args[:5]
            return _sum_pool(x, k, s, p, 1, kwargs.get("ceil_mode", ceil))
        return func(*args, **kwargs)


def _sum_pool(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode, True, 1)


def graph_counts(
    graph: SpatialGraph, unit: tuple[int, int], channels: str = "single", **more: str
) -> np.ndarray:
    """The graph's counts of a unit of the output."""
    assert isinstance(graph.output, Value)
    found = count_tensor(graph, graph.output, unit, convention=Convention(channels, **more))
    assert found is not None
    return np.ldexp(found.counts, found.exponent)
