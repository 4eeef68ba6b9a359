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

    def __init__(self, seed: int, linear: bool = False) -> None:
        """linear: only sums and means, with all weights 1, so that gradients are path counts."""
        super().__init__()
        draw = Draw(seed)
        self.size, self.channels = (draw.choice([6, 7, 8, 9, 12]), draw.choice([4, 6, 8, 10])), 3
        self.steps: list[Step] = []
        self.text: list[str] = []
        results = [torch.rand(1, 3, *self.size)]
        length = draw.randrange(2, 9)
        for attempt in range(200):
            if len(self.steps) < length:
                self._try(draw, results, linear, 1000 * seed + attempt)

    def _try(self, draw: Draw, results: list[Tensor], linear: bool, seed: int) -> None:
        at = len(results) - 1 if draw.random() < 0.6 else draw.randrange(len(results))
        names = [n for n in STEPS if not (linear and n in ("softmax", "amax", "write"))]
        name = draw.choice(names)
        try:
            step = STEPS[name](draw, results, at, 0 if linear else seed + 1)
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
