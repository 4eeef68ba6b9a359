"""Resizing: interpolation, and pixels shuffled into channels and back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rfbench.spatial_graph.axis import Axis, Index, Window, from_matrix
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import SPATIAL, Scrambled, Value, permute, view
from rfbench.spatial_graph.ops.indexing import select
from rfbench.spatial_graph.ops.registry import axes_of, register_op
from rfbench.spatial_graph.ops.slide import slide
from rfbench.spatial_graph.ops.views import copies
from rfbench.spatial_graph.spread import spread

ROUNDING = 1e-12  # no weight: what is left where a place falls on a pixel (5 times as large: 3e-17)


def by_example(
    b: Builder,
    x: Value,
    run: Callable[[Tensor, int], Tensor],
    inner: Sequence[Window | None],
    periods: Sequence[tuple[int, int] | None] | None = None,
) -> Value:
    """A map along each of the last dimensions as torch itself computes it: `run` on columns.

    run: takes (1, k, n, 2) and the axis, returns (1, k, m, 2); with as many axes as there are.
    inner, periods: one for each axis, see axis.Index.
    """
    b.rigid = True
    axes: dict[int, Axis] = {}
    others = len(inner) - 1
    for i in range(len(inner)):
        dim = len(x.dims) - len(inner) + i
        n = x.shape[dim]
        at, weights = _copied(run, i, n, others) or _taps(run, i, n, others)
        whole = (weights == 1).all()
        made = from_matrix(at, n, None if whole else weights)
        if isinstance(made, Index):
            made = replace(made, inner=inner[i], period=periods[i] if periods else None)
        axes[dim] = made
    return slide(b, x, axes, "structure")


def _columns(run: Callable[[Tensor, int], Tensor], i: int, rows: Tensor, others: int) -> np.ndarray:
    """What becomes of each of some rows (k, n) along axis i: (k, m)."""
    # two columns alike: torch 2.15 resizes maps of width 1 wrongly with antialiasing
    columns = rows.view(1, *rows.shape, *[1] * others).repeat(1, 1, 1, *[2] * others)
    return run(columns, i)[0].reshape(len(rows), -1, 2**others)[:, :, 0].numpy()


def _copied(
    run: Callable[[Tensor, int], Tensor], i: int, n: int, others: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Which input (m, 1) each output is a copy of, and weights of 1; None where some are not.

    A table for a sequence of n samples would take n times as long.
    """
    draw = torch.Generator().manual_seed(0)
    values = torch.rand(n, generator=draw, dtype=torch.float64)
    numbers = torch.arange(n, dtype=torch.float64)
    places, found = _columns(run, i, torch.stack([numbers, values]), others)
    at = np.clip(np.rint(places), 0, n - 1).astype(np.int64)
    if not np.array_equal(values.numpy()[at], found):
        return None
    return at[:, None], np.ones((len(at), 1))


def _taps(
    run: Callable[[Tensor, int], Tensor], i: int, n: int, others: int
) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of every output, -1 for none, and their weights: (m, taps)."""
    table = _columns(run, i, torch.eye(n, dtype=torch.float64), others).T
    table = np.where(np.abs(table) < ROUNDING, 0, table)
    most = int((table != 0).sum(1).max())
    at = np.argsort(table == 0, axis=1, kind="stable")[:, :most]
    weights = np.take_along_axis(table, at, axis=1)
    return np.where(weights != 0, at, -1), weights


@register_op(
    *(f"aten::upsample_nearest{n}d" for n in (1, 2, 3)),
    *(f"aten::_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
    "aten::upsample_linear1d",
    "aten::upsample_bilinear2d",
    "aten::upsample_trilinear3d",
    "aten::upsample_bicubic2d",
    "aten::_upsample_bilinear2d_aa",
    "aten::_upsample_bicubic2d_aa",
)
def interpolate(b: Builder, x: Value, _: object, *more: Any) -> Value:
    """more: align_corners where the mode has it, then a scale for each axis.

    What has one position along an axis is repeated there, as a context that is broadcast.
    """
    axes = axes_of(b.op)
    single = [n == 1 and not x.dims[i - axes] for i, n in enumerate(x.shape[-axes:])]
    size = [1 if one else m for one, m in zip(single, b.out_shape[-axes:], strict=True)]
    if all(n == m for n, m in zip(x.shape[-axes:], size, strict=True)):
        return copies(b.same(x), b.out_shape)
    align = [m for m in more if isinstance(m, bool)]
    scales = [m for m in more if isinstance(m, float) or m is None] or [None] * axes
    sizes = zip(x.shape[-axes:], size, scales, strict=True)
    periods = [_period(n, m, scale, any(align)) for n, m, scale in sizes]

    def run(t: Tensor, i: int) -> Tensor:
        others = axes - 1
        return b.func(t, [size[i], *[2] * others], *align, scales[i], *[None] * others)

    return copies(by_example(b, x, run, [None] * axes, periods), b.out_shape)


def _period(n: int, m: int, scale: float | None, align: bool) -> tuple[int, int]:
    """After how many of m outputs a resizing of n inputs repeats, and by how many inputs it moves.

    scale: the factor that torch uses in place of m / n. (0, 0): it does not repeat. Aligned corners
    seldom do: from 8 to 16 the step is 7/15, at every other size another one, and a larger map
    holds no more of its periods.
    """
    if align:
        step = Fraction(n - 1, m - 1) if m > 1 else Fraction(1)
        if 2 * step.denominator > m:
            return 0, 0
    elif scale:
        step = 1 / Fraction(scale).limit_denominator(10**4)
    else:
        step = Fraction(n, m)
    return step.denominator, step.numerator


@register_op("aten::pixel_unshuffle")
def pixel_unshuffle(b: Builder, x: Value, r: int) -> Value:
    _, c, h, w = x.shape
    x = permute(view(x, (1, c, h // r, r, w // r, r)), [0, 1, 3, 5, 2, 4])
    return view(x, (1, c * r * r, h // r, w // r))


@register_op("aten::pixel_shuffle")
def pixel_shuffle(b: Builder, x: Value, r: int) -> Value:
    _, c, h, w = x.shape
    apart = view(x, (1, c // r**2, r * r, h, w))
    if any(f.axis in SPATIAL for f in apart.dims[2]):
        raise Scrambled("positions among the channels become positions again")
    if (apart.labels != apart.labels[:, :, :1]).any():  # of different history
        apart = view(x, (1, c // r**2, r, r, h, w))
        x = view(permute(apart, [0, 1, 4, 2, 5, 3]), b.out_shape)
        return spread(b, spread(b, x, 2), 3)
    x = select(b, apart, 2, 0)
    return by_example(b, x, lambda t, i: t.repeat_interleave(r, 2), [None, None])
