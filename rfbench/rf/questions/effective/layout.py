"""Which elements of a layer's output belong to which unit of its map.

Known from the trace, or said by the user (`--axes`); never told from the proportions of a shape.
"""

import re
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from rfbench.errors import UsageError
from rfbench.spatial_graph.layout import SPATIAL, Dim, Value, positions
from rfbench.spatial_graph.size import Size

NOWHERE = -(10**9)  # the row of an element that belongs to no unit: a class token


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the units of a map stand in a tensor of one image.

    shape: of the tensor. places: along every axis of the map, for every dimension, what each of its
    indices adds to the position of the unit. units: (h, w), or of other axes. channels: the
    dimensions that hold channels.
    """

    shape: tuple[int, ...]
    places: tuple[tuple[np.ndarray, ...], ...]
    units: Size
    channels: tuple[int, ...]

    @property
    def is_nchw(self) -> bool:
        """Whether the tensor is (N, C, H, W)."""
        inner = any(self._places(i) for i in range(len(self.shape) - 2))
        return len(self.shape) == 4 and self.shape[2:] == tuple(self.units) and not inner

    def same_as(self, other: "Layout") -> bool:
        """Whether both say the same of every element."""
        mine, theirs = sum(self.places, ()), sum(other.places, ())
        return self.shape == other.shape and all(
            np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True)
        )

    def unit(self, output: Tensor, unit: Size) -> Tensor:
        """The channels of one unit, (N, channels), of an output for N images.

        N other than 1 only where `takes` says so.
        """
        placed = [i for i in range(len(self.shape)) if self._places(i)]
        at = (
            sum(np.ix_(*(part[i] for i in placed)), np.zeros((1,) * len(placed), int))
            for part in self.places
        )
        own = [position == u for position, u in zip(at, unit, strict=True)]
        found = np.nonzero(np.logical_and.reduce(own))
        rest = [i for i in range(len(self.shape)) if i not in placed]
        values = output.permute(*placed, *rest)
        if placed:
            values = values[tuple(torch.as_tensor(i) for i in found)].movedim(0, -1)
        # the batch comes first, and is the first of what is left where there are several images
        return values.reshape(len(output) if self._is_batch(0) else 1, -1)

    def takes(self, output: Tensor) -> bool:
        """Whether an output for several images has them, for certain, in its first dimension."""
        return self._is_batch(0) and tuple(output.shape[1:]) == self.shape[1:]

    def _is_batch(self, dim: int) -> bool:
        return self.shape[dim] == 1 and not self._places(dim)

    def _places(self, dim: int) -> bool:
        return any(bool(part[dim].any()) for part in self.places)


def of_value(value: Value, units: Size) -> Layout | None:
    """The layout of a traced tensor; None where its factors do not make up its map of `units`."""
    axes = SPATIAL[-len(units) :]
    counted = [prod(f.size for f in value.factors(axis)) for axis in axes]
    if counted != list(units):
        return None
    places = tuple(tuple(_part(dim, axis) for dim in value.dims) for axis in axes)
    channels = tuple(i for i, dim in enumerate(value.dims) if any(f.axis == "c" for f in dim))
    return Layout(value.shape, places, units, channels)


def _part(dim: Dim, axis: str) -> np.ndarray:
    """What each index of a dimension adds to the position along an axis."""
    parts = np.zeros(1, int)
    for f in dim:
        own = positions([f]) if f.axis == axis else np.zeros(f.size, int)
        parts = np.add.outer(parts, own).reshape(-1)
    return parts


def of_tokens(shape: tuple[int, ...], dim: int, grid: Size, first: int) -> Layout:
    """Tokens in a dimension, row by row behind the `first` ones, which belong to no unit."""
    h, w = grid
    spare = np.full(first, NOWHERE)
    zeros = [np.zeros(n, int) for n in shape]
    rows, columns = list(zeros), list(zeros)
    rows[dim] = np.concatenate([spare, np.repeat(np.arange(h), w)])
    columns[dim] = np.concatenate([spare, np.tile(np.arange(w), h)])
    channels = tuple(i for i, n in enumerate(shape) if i != dim and n > 1)
    return Layout(shape, (tuple(rows), tuple(columns)), grid, channels)


AXES = re.compile(r"(?P<letters>[NCHWL]+)(:((?P<first>\d+)\+)?(?P<h>\d+)x(?P<w>\d+))?")
FORMS = "NCHW or NHWC, or for tokens NLC:14x14, with a class token first NLC:1+14x14"


def of_axes(axes: str, shape: tuple[int, ...]) -> Layout:
    """The layout that a user says, such as NHWC or NLC:1+14x14; UsageError where it cannot be."""
    match = AXES.fullmatch(axes)
    letters = match["letters"] if match else ""
    tokens = bool(match and match["h"])
    wanted = "CLN" if tokens else "CHNW"
    if "".join(sorted(letters)) != wanted:
        raise UsageError(f"--axes {axes}: expected {FORMS}")
    what = "x".join(map(str, shape))
    if len(letters) != len(shape) or shape[letters.index("N")] != 1:
        raise UsageError(f"--axes {axes} does not fit the output, {what} for one image")
    channels = (letters.index("C"),)
    if not match or not tokens:
        y, x = letters.index("H"), letters.index("W")
        parts = [[np.zeros(n, int) for n in shape] for _ in "yx"]
        parts[0][y], parts[1][x] = np.arange(shape[y]), np.arange(shape[x])
        return Layout(shape, tuple(map(tuple, parts)), (shape[y], shape[x]), channels)
    first, h, w = int(match["first"] or 0), int(match["h"]), int(match["w"])
    dim = letters.index("L")
    if min(h, w) < 1 or shape[dim] != first + h * w:
        raise UsageError(f"--axes {axes} does not fit the output, {what}: {first} + {h} * {w}")
    laid = of_tokens(shape, dim, (h, w), first)
    return Layout(shape, laid.places, (h, w), channels)
