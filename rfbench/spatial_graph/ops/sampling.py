"""Maps read at other places: grids that are known, and pooling undone where its maxima were."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from rfbench.spatial_graph.axis import Axis, Window
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import Scrambled, Value
from rfbench.spatial_graph.node import Opaque, Reach
from rfbench.spatial_graph.ops.convolution import transposed_windows
from rfbench.spatial_graph.ops.registry import Constant, register_op
from rfbench.spatial_graph.ops.resize import by_example
from rfbench.spatial_graph.ops.slide import slide

ROUNDING = 1e-4  # of a grid in float32: a weight below it is none


@register_op("aten::grid_sampler", "aten::grid_sampler_2d", "aten::grid_sampler_3d")
def grid_sample(
    b: Builder, x: Value | Constant, grid: Value | Constant, mode: int, padding: int, corners: bool
) -> Value:
    """A resampling at fixed places, the same in every row and every column."""
    if isinstance(grid, Value) or isinstance(x, Constant):
        raise Scrambled("the places where it samples depend on the values of the image")
    if grid.values is None:
        raise Scrambled("the places where it samples are not known, or depend on weights")
    lines = _lines(grid.values.double())
    others = len(lines) - 1

    def run(t: Tensor, i: int) -> Tensor:
        line = lines[i]
        places = torch.zeros(1, len(line), *[1] * others, others + 1, dtype=torch.float64)
        places[0, ..., -1] = line.view(-1, *[1] * others)
        columns = t.view(*t.shape[:3], -1)[..., 0]
        out = b.func(columns.view(*t.shape[:3], *[1] * others), places, mode, padding, corners)
        out = torch.where(out.abs() < ROUNDING, 0, out)
        out = torch.where((out - 1).abs() < ROUNDING, 1, out)
        return out.repeat(1, 1, 1, *[2] * others)

    sizes = x.shape[-len(lines) :]
    periods = [_period(line, n, corners) for line, n in zip(lines, sizes, strict=True)]
    return by_example(b, x, run, [None] * len(lines), periods)


@register_op("aten::affine_grid_generator")
def affine_grid(b: Builder, *_: object) -> Opaque:
    """Of a transformation that is computed from the input (spatial transformers)."""
    return b.opaque(
        Reach.UNSUPPORTED, "the places where it samples depend on the values of the image"
    )


def _period(line: Tensor, n: int, corners: bool) -> tuple[int, int]:
    """After how many places they repeat, and by how many inputs they move: see axis.Index.

    More than there are, where they are not even.
    """
    at = (line + 1) / 2 * (n - 1) if corners else ((line + 1) * n - 1) / 2
    steps = at.diff()
    never = len(line) + 1, 1
    if not len(steps) or bool(((steps - steps.mean()).abs() > ROUNDING).any()):
        return never
    step = Fraction(float(steps.mean())).limit_denominator(64)
    even = step > 0 and abs(float(step) - float(steps.mean())) * len(line) < ROUNDING
    return (step.denominator, step.numerator) if even else never


def _lines(grid: Tensor) -> list[Tensor]:
    """The places along each axis of a grid, 1 x the axes x their number (the last axis first)."""
    axes, lines = grid.shape[-1], []
    for i in range(axes):
        along = grid[0, ..., axes - 1 - i].movedim(i, 0).reshape(grid.shape[1 + i], -1)
        if bool(((along - along[:, :1]).abs() > ROUNDING * 2 / max(grid.shape)).any()):
            raise Scrambled("the grid where it samples is no product of rows and columns")
        lines.append(along[:, 0])
    return lines


@register_op("aten::max_unpool2d", "aten::max_unpool3d")
def unpool(b: Builder, x: Value, at: Value | Constant, out: Sequence[int], *_: Any) -> Value:
    """Each value to where in its window the maximum was: any position of the window may be it."""
    made = b.graph.plain(at.labels.flat[0]) if isinstance(at, Value) else -1
    windows = b.graph.nodes[made].axes if made >= 0 else ()
    known = [w for w in windows if isinstance(w, Window) and w.dilation == 1]
    if len(known) != len(out) or b.graph.nodes[made].kind != "pool" or len(x.dims) < len(out):
        raise Scrambled("which windows its indices are of is not known")
    k, s, p = ([getattr(w, name) for w in known] for name in ("kernel", "stride", "before"))
    axes: dict[int, Axis] = transposed_windows(b, x, k, s, p, [1] * len(out), out)
    return slide(b, x, axes, "structure")
