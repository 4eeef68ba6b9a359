"""Unfolding windows into channels, and folding them back: im2col and col2im."""

import numpy as np

from rfbench.spatial_graph.axis import Axis, Window
from rfbench.spatial_graph.builder import Builder
from rfbench.spatial_graph.layout import SPATIAL, Factor, Scrambled, Value, solid, tidy, view
from rfbench.spatial_graph.ops.convolution import transposed_windows
from rfbench.spatial_graph.ops.indexing import select
from rfbench.spatial_graph.ops.registry import register_op
from rfbench.spatial_graph.ops.slide import along, slide
from rfbench.spatial_graph.spread import spread


@register_op("aten::im2col")
def im2col(
    b: Builder,
    x: Value,
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Value:
    """Every tap of a window as channels of its own: (N, C k k, h w)."""
    b.rigid = True
    x = solid(spread(b, spread(b, x, 2), 3), 1)
    if any(f.axis in SPATIAL for f in x.dims[1]):
        raise Scrambled("positions among the channels are unfolded with them")
    dims = x.dims
    taps = []
    for ty in range(kernel[0]):
        for tx in range(kernel[1]):
            windows: dict[int, Axis] = {}
            for i, tap in enumerate((ty, tx)):
                n, before = x.shape[2 + i], padding[i] - tap * dilation[i]
                out = Window(kernel[i], stride[i], padding[i], padding[i], dilation[i]).out_size(n)
                after = (out - 1) * stride[i] + 1 - n - before
                windows[2 + i] = Window(1, stride[i], before, after)
            axes, dims = along(b, x, windows)
            taps.append(b.moved(x, axes, dims).labels)
    batch, width = x.labels.shape[:2]
    apart = [t.reshape(batch, width, 1, 1) for t in taps]
    labels = np.concatenate(apart, axis=2).reshape(batch, -1, 1)
    channels = tidy([Factor("c", labels.shape[1])])
    return Value((x.dims[0], channels, tidy([*dims[2], *dims[3]])), labels)


@register_op("aten::col2im")
def col2im(
    b: Builder,
    x: Value,
    out: list[int],
    kernel: list[int],
    dilation: list[int],
    padding: list[int],
    stride: list[int],
) -> Value:
    """Sum taps back to where they came from: the transpose of im2col."""
    k = kernel[0] * kernel[1]
    sizes = [
        Window(kernel[i], stride[i], padding[i], padding[i], dilation[i]).out_size(out[i])
        for i in (0, 1)
    ]
    x = view(x, (x.shape[0], x.shape[1] // k, k, *sizes))
    taps = []
    for tap, (ty, tx) in enumerate(np.ndindex(*kernel)):
        part = select(b, x, 2, tap)
        shift = [padding[0] - ty * dilation[0], padding[1] - tx * dilation[1]]
        axes = transposed_windows(b, part, [1, 1], stride, shift, [1, 1], out)
        taps.append(slide(b, part, axes, "structure"))
    return b.combine(taps)
