"""Random programs of tensor operations, to find forms that nobody thought of."""

import random
from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[list[Tensor]], Tensor]
Draw = random.Random


class Program(nn.Module):
    """Steps that each take earlier results; the last one's result is the output."""

    def __init__(self, seed: int, linear: bool = False, axes: int = 2) -> None:
        """linear: only sums and means, with all weights 1, so that gradients are path counts."""
        super().__init__()
        draw = Draw(seed)
        sides = [[5, 6, 8], [6, 7, 8, 9, 12], [4, 6, 8, 10]] if axes < 3 else [[4, 5]] * 3
        self.size: tuple[int, ...] = tuple(draw.choice(side) for side in sides[-axes:])
        self.channels, self.axes = 3, axes
        self.steps: list[Step] = []
        self.text: list[str] = []
        results = [torch.rand(1, 3, *self.size)]
        length = draw.randrange(2, 9)
        for attempt in range(200):
            if len(self.steps) < length:
                self._try(draw, results, linear, 1000 * seed + attempt)

    def _try(self, draw: Draw, results: list[Tensor], linear: bool, seed: int) -> None:
        at = len(results) - 1 if draw.random() < 0.6 else draw.randrange(len(results))
        left_out = {"softmax", "amax", "write"} if linear else set()
        left_out |= {"shuffle", "unshuffle"} if self.axes != 2 else set()
        names = [n for n in STEPS if n not in left_out]
        name = draw.choice(names)
        try:
            made = STEPS[name] if self.axes == 2 else OTHER.get(name, STEPS[name])
            step = made(draw, results, at, 0 if linear else seed + 1)
            out = step(results)
        except (RuntimeError, IndexError, ValueError, TypeError):
            return  # this operation does not fit this shape
        if out.dim() and 0 < out.numel() <= 6000:
            self.steps.append(step)
            self.text.append(f"{name}[{at}] -> {tuple(out.shape)}")
            results.append(out)

    def forward(self, x: Tensor) -> Tensor:
        results = [x]
        for step in self.steps:
            results.append(step(results))
        return results[-1]


def weights(seed: int, form: tuple[int, ...], like: Tensor) -> Tensor:
    """Positive random weights of sum about 1 a row; ones for seed 0."""
    if not seed:
        return torch.ones(form, dtype=like.dtype, device=like.device)
    draw = torch.Generator().manual_seed(seed)
    made = (torch.rand(form, generator=draw, dtype=torch.float64) + 0.5) / max(1, prod(form[1:]))
    return made.to(like.dtype).to(like.device)


def one(at: int, run: Callable[[Tensor], Tensor]) -> Step:
    return lambda results: run(results[at])


def _conv(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    if results[at].dim() == 3 and results[at].shape[0] == 1:
        raise ValueError("torch would take its batch for channels")
    k = draw.choice([(1, 1), (2, 2), (3, 3), (1, 3), (3, 1)])
    channels = results[at].shape[1]
    groups = draw.choice([1, 1, channels, *(g for g in (2, 3, 4) if channels % g == 0)])
    out = groups * draw.choice([1, 2])
    more = draw.choice([1, 1, 2]), draw.choice([0, 1]), draw.choice([1, 1, 2]), groups
    form = (min(out, 32), channels // groups, *k)
    return one(at, lambda x: F.conv2d(x, weights(seed, form, x), None, *more))


def _pool(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    k, s, p = draw.choice([(1, 2, 0), (2, 2, 0), (2, 1, 1), (3, 2, 1), ((2, 1), 1, 0)])
    more = draw.random() < 0.4, draw.random() < 0.5
    return one(at, lambda x: F.avg_pool2d(x, k, s, p, *more))


def _view(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    form = list(results[at].shape)
    dim = draw.randrange(len(form))
    if draw.random() < 0.5 and dim + 1 < len(form):
        return one(at, lambda x: x.flatten(dim, dim + 1))
    outer = draw.choice([n for n in range(1, form[dim] + 1) if form[dim] % n == 0])
    return one(at, lambda x: x.unflatten(dim, (outer, -1)))


def _four(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    form = list(results[at].shape)
    while len(form) > 4:
        dim = draw.randrange(len(form) - 1)
        form[dim : dim + 2] = [form[dim] * form[dim + 1]]
    form = [1] * (4 - len(form)) + form
    return one(at, lambda x: x.reshape(form))


def _permute(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    order = draw.sample(range(results[at].dim()), results[at].dim())
    return one(at, lambda x: x.permute(order))


def _span(draw: Draw, form: Any) -> tuple[int, int, int, int]:
    dim = draw.randrange(len(form))
    start = draw.randrange(form[dim])
    return dim, start, draw.randrange(start, form[dim]) + 1, draw.choice([1, 1, 2])


def _slice(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    dim, start, end, step = _span(draw, results[at].shape)
    where = (slice(None),) * dim + (slice(start, end, step),)
    return one(at, lambda x: x[where])


def _select(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    dim, place, *_ = _span(draw, results[at].shape)
    return one(at, lambda x: x.select(dim, place))


def _write(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    dim, start, end, step = _span(draw, results[at].shape)
    count = len(range(start, end, step))
    source = draw.randrange(results[at].shape[dim] - count + 1)
    kind = draw.choice(["relu", "add", "zero", "copy"])

    def run(x: Tensor) -> Tensor:
        y = x.clone()
        part = y[(slice(None),) * dim + (slice(start, end, step),)]
        if kind == "relu":
            part.relu_()
        elif kind == "zero":
            part.zero_()
        elif kind == "add":
            part += x.narrow(dim, source, count)
        else:
            part.copy_(x.narrow(dim, source, count))
        return y

    return one(at, run)


def _join(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    other = draw.randrange(len(results))
    dim = draw.randrange(results[at].dim())
    join = draw.choice([torch.cat, torch.stack])
    return lambda r: join([r[at], r[other]], dim)


def _combine(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    other, kind = draw.randrange(len(results)), draw.choice([torch.add, torch.mul])
    return lambda r: kind(r[at], r[other])


def _reduce(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    dims = draw.sample(range(results[at].dim()), draw.choice([1, 1, 2]))
    kind, keep = draw.choice(["mean", "sum"]), draw.random() < 0.5
    return one(at, lambda x: getattr(x, kind)(dims, keepdim=keep))


def _gate(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    dims = draw.sample(range(results[at].dim()), draw.choice([1, 2]))
    return one(at, lambda x: x * x.mean(dims, keepdim=True))


def _linear(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    out = draw.choice([1, 2, 4])
    if draw.random() < 0.5:
        return one(at, lambda x: F.linear(x, weights(seed, (out, x.shape[-1]), x)))
    return one(at, lambda x: weights(seed, (out, x.shape[-2]), x) @ x)


def _pad(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    amounts = [draw.choice([0, 0, 1, 2, -1]) for _ in range(2 * draw.choice([1, 2, 3]))]
    return one(at, lambda x: F.pad(x, amounts))


def _move(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    dim, shift = draw.randrange(results[at].dim()), draw.choice([1, -1, 2])
    return one(at, draw.choice([lambda x: x.roll(shift, dim), lambda x: x.flip(dim)]))


def _slide(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    dim, size = draw.randrange(results[at].dim()), draw.choice([1, 2, 3, 4])
    step = draw.choice([1, 2, size])
    return one(at, lambda x: x.unfold(dim, size, step))


def _copy(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    form = list(results[at].shape)
    dim = draw.randrange(len(form))
    times = [2 if i == dim else 1 for i in range(len(form))]
    if draw.random() < 0.5:
        return one(at, lambda x: x.repeat(times))
    return one(at, lambda x: x.expand([2 if i == dim else -1 for i in range(len(form))]))


def _resize(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    mode, scale = draw.choice(["nearest", "bilinear"]), draw.choice([2, 1.5])
    return one(at, lambda x: F.interpolate(x, scale_factor=scale, mode=mode))


def _table(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    dim = draw.randrange(results[at].dim())
    table = torch.tensor([draw.randrange(results[at].shape[dim]) for _ in range(3)])
    return one(at, lambda x: x.index_select(dim, table))


STEPS: dict[str, Callable[[Draw, list[Tensor], int, int], Step]] = {
    "conv": _conv,
    "pool": _pool,
    "view": _view,
    "four": _four,
    "permute": _permute,
    "slice": _slice,
    "select": _select,
    "write": _write,
    "join": _join,
    "combine": _combine,
    "reduce": _reduce,
    "gate": _gate,
    "linear": _linear,
    "pad": _pad,
    "move": _move,
    "slide": _slide,
    "copy": _copy,
    "resize": _resize,
    "table": _table,
    "amax": lambda draw, results, at, seed: one(at, lambda x: x.amax(-1)),
    "softmax": lambda draw, results, at, seed: one(at, lambda x: x.softmax(-1)),
    "shuffle": lambda draw, results, at, seed: one(at, lambda x: F.pixel_shuffle(x, 2)),
    "unshuffle": lambda draw, results, at, seed: one(at, lambda x: F.pixel_unshuffle(x, 2)),
}


# -- of sequences and volumes ----------------------------------------------------------------------


def _of(name: str, axes: int) -> Callable[..., Tensor]:
    return getattr(F, f"{name}{axes}d")


def _axes(results: list[Tensor]) -> int:
    """Of the input."""
    return results[0].dim() - 2


def _conv_any(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    axes, channels = _axes(results), results[at].shape[1]
    k = tuple(draw.choice([1, 2, 3]) for _ in range(axes))
    s, p, d = (
        tuple(draw.choice(some) for _ in range(axes)) for some in ([1, 1, 2], [0, 1], [1, 2])
    )
    groups = draw.choice([1, 1, channels])
    form = (min(groups * draw.choice([1, 2]), 32), channels // groups, *k)
    if results[at].dim() != axes + 2:
        raise ValueError("torch would take its batch for channels")
    if draw.random() < 0.3:
        turned = (channels, draw.choice([1, 2, 4]), *k)
        return one(
            at, lambda x: _of("conv_transpose", axes)(x, weights(seed, turned, x), None, s, p)
        )
    return one(at, lambda x: _of("conv", axes)(x, weights(seed, form, x), None, s, p, d, groups))


def _pool_any(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    axes = _axes(results)
    k, s, p = draw.choice([(1, 2, 0), (2, 2, 0), (2, 1, 1), (3, 2, 1)])
    more = draw.random() < 0.4, draw.random() < 0.5
    if results[at].dim() != axes + 2:
        raise ValueError("torch would take its batch for channels")
    if draw.random() < 0.2:
        n = draw.choice([1, 2, 3])
        return one(at, lambda x: _of("adaptive_avg_pool", axes)(x, n))
    return one(at, lambda x: _of("avg_pool", axes)(x, k, s, p, *more))


def _resize_any(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    smooth = {1: "linear", 3: "trilinear"}[_axes(results)]
    mode, scale = draw.choice(["nearest", smooth]), draw.choice([2, 1.5])
    return one(at, lambda x: F.interpolate(x, scale_factor=scale, mode=mode))


def _form_any(draw: Draw, results: list[Tensor], at: int, seed: int) -> Step:
    """As many dimensions as the input has."""
    form, rank = list(results[at].shape), results[0].dim()
    while len(form) > rank:
        dim = draw.randrange(len(form) - 1)
        form[dim : dim + 2] = [form[dim] * form[dim + 1]]
    form = [1] * (rank - len(form)) + form
    return one(at, lambda x: x.reshape(form))


OTHER = {"conv": _conv_any, "pool": _pool_any, "resize": _resize_any, "four": _form_any}
