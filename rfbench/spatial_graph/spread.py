"""Maps enlarged by copies or channels among the positions of an axis: that axis, made longer.

repeat_interleave, expand and reshape, maps stacked row by row, a pixel shuffle by permuting: such
a dimension holds one axis and copies or channels. Position by position it becomes a whole axis.
"""

from typing import TYPE_CHECKING

import numpy as np

from rfbench.spatial_graph.axis import Index, from_matrix
from rfbench.spatial_graph.layout import CONSTANT, SPATIAL, Factor, Value, channels

if TYPE_CHECKING:
    from rfbench.spatial_graph.builder import Builder


def is_spread(value: Value, dim: int) -> bool:
    """Whether a dimension holds all of one axis, and copies or channels among its positions.

    Rows in front of which channels stand (C x H flattened) are channels.
    """
    factors = value.dims[dim]
    names = {f.axis for f in factors if f.axis in SPATIAL}
    if len(names) != 1 or all(f.axis in SPATIAL for f in factors):
        return False
    if (factors[0].axis == "b" and any(f.axis == "c" for f in factors)) or factors[0].axis == "c":
        return False
    return len(value.factors(*names)) == sum(f.axis in SPATIAL for f in factors)


def spread(b: "Builder", value: Value, dim: int) -> Value:
    """The tensor with a whole axis in such a dimension; itself where it is none."""
    if not is_spread(value, dim):
        return value
    factors = value.dims[dim]
    name = next(f.axis for f in factors if f.axis in SPATIAL)
    axis, n = b.letters.index(name), b.graph.map_size(value)[b.letters.index(name)]
    index = np.indices([f.size for f in factors]).reshape(len(factors), -1)
    at, channel = np.zeros(index.shape[1], int), np.zeros(index.shape[1], int)
    for i, f in zip(index, factors, strict=True):
        at = at + i * f.step if f.axis == name else at
        channel = channel * f.size + i if f.axis == "c" else channel
    b.rigid = True
    dims = (*value.dims[:dim], (Factor(name, len(at)),), *value.dims[dim + 1 :])
    rows = np.moveaxis(value.labels, dim, 0).reshape(channels(factors), -1)
    classes, which = np.unique(rows, axis=0, return_inverse=True)
    which = which.reshape(-1)
    copies = len(at) // n if factors[0].axis == name and factors[0].size == n else 0
    parts = []
    for k in range(len(classes)):
        if (classes[k] == CONSTANT).all():
            continue
        table = np.where(which[channel] == k, at, -1)
        made = from_matrix(table[:, None], n)
        if copies and len(classes) == 1 and isinstance(made, Index):
            made = Index(made.at, period=(copies, 1))
        labels = value.labels.take([int(np.argmax(which == k))], axis=dim)
        parts.append(b.moved(Value(dims, labels), b.on_axis(axis, made), dims))
    return parts[0] if len(parts) == 1 else b.combine(parts)
