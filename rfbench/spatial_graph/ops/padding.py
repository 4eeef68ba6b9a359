"""Padding and cropping: by constants, by reflection, by the border. (Circular: see trace.py.)"""

from typing import Any

import numpy as np

from rfbench.spatial_graph.axis import Axis, Window
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import SPATIAL, Value
from rfbench.spatial_graph.ops.indexing import pick
from rfbench.spatial_graph.ops.join import join
from rfbench.spatial_graph.ops.registry import register_op
from rfbench.spatial_graph.ops.resize import by_example
from rfbench.spatial_graph.ops.slide import slide, whole_axis


@register_op("aten::constant_pad_nd")
def pad(b: Builder, x: Value, amounts: list[int], value: Any = 0) -> Value | None:
    """Constant padding or cropping of channels or of whole axes."""
    windows: dict[int, Axis] = {}
    for i in range(0, len(amounts), 2):
        dim, before, after = len(x.dims) - 1 - i // 2, amounts[i], amounts[i + 1]
        if not (before or after):
            continue
        factors, n = x.dims[dim], x.shape[dim]
        is_axis = whole_axis(b, x, dim, i // 2 + 1)[0] is not None if not factors else False
        if is_axis or any(f.axis in SPATIAL for f in factors):
            windows[dim] = Window(1, 1, before, after)
            continue
        middle = pick(b, x, dim, np.arange(n)[max(-before, 0) : n + min(after, 0)])
        sizes = [max(before, 0), middle.shape[dim], max(after, 0)]
        joined = join(b, [None, middle, None], dim, sizes)
        if joined is None:
            return None
        x = joined
    b.rigid = True
    return slide(b, x, windows, "structure") if windows else x


@register_op(*(f"aten::{how}_pad{n}d" for how in ("reflection", "replication") for n in (1, 2, 3)))
def pad_with_pixels(b: Builder, x: Value, amounts: list[int]) -> Value:
    """amounts: before and after along every axis, the last axis first."""
    ends = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)][::-1]
    inner = [Window(1, 1, *end) for end in ends]
    others = [0, 0] * (len(ends) - 1)
    return by_example(b, x, lambda t, i: b.func(t, [*others, *ends[i]]), inner)
