"""Where the positions of a map stand in a tensor.

Every dimension of a tensor is a product of factors: channels 'c', columns 'w', rows 'h', depth 'd',
and copies 'b' of one value. A sequence has columns only, an image has rows as well. Views and
permutations only regroup factors, so windows (Swin), tokens and channel shuffles need no special
case. Factors of size 1 are left out; the batch is always 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from operator import lt
from typing import NamedTuple

import numpy as np

SPATIAL = "dhw"  # the axes of positions; a map of k axes has the last k
CONSTANT = -1  # the label of a channel that does not depend on the input


class Factor(NamedTuple):
    """Part of a dimension. The position along an axis: the sum of index * step over its factors."""

    axis: str
    size: int
    step: int = 1


Dim = tuple[Factor, ...]
Slot = tuple[int, int]  # of a factor: the dimension, and the index among the dimension's factors


class Scrambled(Exception):
    """A view or combination after which the positions of the map are no longer known."""


@dataclass(eq=False)  # never changed; not frozen, as a Node
class Value:
    """A tensor that depends on the input.

    labels: the node of the spatial graph behind each channel, an array with one axis a dimension,
    as long as the product of the dimension's 'c' factors.
    """

    dims: tuple[Dim, ...]
    labels: np.ndarray

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return tuple([d[0].size if len(d) == 1 else prod([f.size for f in d]) for d in self.dims])

    @cached_property
    def classes(self) -> "Classes":
        """The labels sorted out."""
        return sort_out(self.labels)

    def relabelled(self, ids: list[int], dims: tuple[Dim, ...]) -> "Value":
        """A tensor of which the channels of each class have a label of their own."""
        _, index, counts = self.classes
        if len(ids) == 1:
            return uniform(dims, index.shape, ids[0])
        new = Value(dims, np.array(ids)[index])
        if all(map(lt, ids, ids[1:])):
            vars(new)["classes"] = Classes(ids, index, counts)  # no need to sort them out again
        return new

    def factors(self, axis: str) -> list[Factor]:
        """The factors of one axis, in the order of the dimensions."""
        return [f for dim in self.dims for f in dim if f.axis == axis]

    def slots(self, axis: str) -> dict[Slot, Factor]:
        """The factors of one axis by where they stand: (dimension, index in it)."""
        whole = enumerate(self.dims)
        return {(i, j): f for i, d in whole for j, f in enumerate(d) if f.axis == axis}

    @cached_property
    def share(self) -> dict[int, int]:
        """Number of channels behind every node, constant ones left out."""
        ids, _, counts = self.classes
        return {i: n for i, n in zip(ids, counts, strict=True) if i != CONSTANT}

    @property
    def depends_on_input(self) -> bool:
        """Whether any channel depends on the input."""
        ids = self.classes.ids
        return bool(ids) and ids[-1] != CONSTANT

    @property
    def spatial(self) -> bool:
        """Whether any dimension counts positions."""
        return any([f.axis in SPATIAL for dim in self.dims for f in dim])


class Classes(NamedTuple):
    """Labels, ascending, which of them every channel has, and how many channels each has."""

    ids: list[int]
    which: np.ndarray
    counts: list[int]


def uniform(dims: tuple[Dim, ...], form: Sequence[int], label: int) -> Value:
    """A tensor of one class of channels, as most are; form: of its labels."""
    new = Value(dims, np.full(form, label))
    vars(new)["classes"] = Classes([label], np.zeros(form, int), [new.labels.size])
    return new


def sort_out(labels: np.ndarray) -> Classes:
    """The classes of an array of labels."""
    if not labels.size:
        return Classes([], labels, [])
    low, high = int(labels.min()), int(labels.max())
    if high == low:
        return Classes([low], np.zeros(labels.shape, int), [labels.size])
    if high - low > 4 * labels.size:
        ids, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return Classes(ids.tolist(), index.reshape(labels.shape), counts.tolist())
    number = np.bincount((labels - low).ravel())  # faster than sorting
    ids = np.flatnonzero(number)
    table = np.empty(len(number), int)
    table[ids] = np.arange(len(ids))
    return Classes((ids + low).tolist(), table[labels - low], number[ids].tolist())


def dim_of(value: Value, dim: int) -> int:
    """The number of a dimension, counted from the end where it is negative."""
    return dim % len(value.dims)


def tidy(factors: list[Factor]) -> Dim:
    """Join neighbouring factors that count on from each other; drop those of size 1."""
    out: list[Factor] = []
    for f in factors:
        if f.size == 1:
            continue
        last = out[-1] if out else None
        if last and last.axis == f.axis and (f.axis in "cb" or last.step == f.step * f.size):
            out[-1] = Factor(f.axis, last.size * f.size, f.step)
        else:
            out.append(f)
    return tuple(out)


def positions(factors: Sequence[Factor]) -> np.ndarray:
    """Positions that factors of one axis count, in their row-major order."""
    parts = [np.arange(f.size) * f.step for f in factors]
    return reduce(lambda a, b: np.add.outer(a, b).reshape(-1), parts, np.zeros(1, int))


def channels_in(value: Value, dim: int, over: Sequence[int]) -> str:
    """What a step takes for channels that has them in dimension `dim` and moves along others.

    As `SpatialGraph.channels_in` says it.
    """
    mine = {f.axis for f in value.dims[dim]}
    elsewhere = {i for i, d in enumerate(value.dims) if i != dim and any(f.axis == "c" for f in d)}
    if mine and mine <= {*SPATIAL}:
        return "positions" if elsewhere else "one channel"
    if not elsewhere:
        return "input"
    return "windows" if elsewhere.intersection(over) else "input" if "c" in mine else ""


def channels(dim: Dim) -> int:
    """Number of channels in a dimension: the product of its 'c' factors."""
    return prod(f.size for f in dim if f.axis == "c")


def split(dim: Dim, sizes: list[int]) -> list[Dim]:
    """Cut a dimension's factors into consecutive groups of the given sizes."""
    stack, groups = list(reversed(dim)), []
    for size in sizes:
        group: list[Factor] = []
        while size > 1:
            f = stack.pop()
            if size % f.size == 0:
                group.append(f)
                size //= f.size
            elif f.size % size == 0:
                inner = f.size // size
                group.append(Factor(f.axis, size, f.step * inner if f.axis in SPATIAL else 1))
                stack.append(Factor(f.axis, inner, f.step))
                size = 1
            else:
                raise Scrambled(f"{f.size} positions cut into {size}")
        groups.append(tuple(group))
    return groups


def view(value: Value, form: Sequence[int]) -> Value:
    """The same elements in row-major order under another shape."""
    flat = tidy([f for dim in value.dims for f in dim])
    dims = split(flat, list(form))
    return Value(
        tuple(tidy(list(d)) for d in dims), value.labels.reshape([channels(d) for d in dims])
    )


def permute(value: Value, order: list[int]) -> Value:
    """Dimensions in another order."""
    return Value(tuple(value.dims[i] for i in order), value.labels.transpose(order))


def take(value: Value, dim: int, indices: np.ndarray | slice) -> Value:
    """Some channels of a dimension that holds nothing but channels (or copies)."""
    factors = value.dims[dim]
    size = prod(f.size for f in factors)
    picked = np.arange(size)[indices]
    if len(picked) == size and (picked == np.arange(size)).all():
        return value
    if all(f.axis == "c" for f in factors):
        labels = value.labels.take(picked, axis=dim)
        new = tidy([Factor("c", len(picked))])
    elif all(f.axis == "b" for f in factors):
        labels, new = value.labels, tidy([Factor("b", len(picked))])
    else:
        return _take_block(value, dim, picked)
    return Value((*value.dims[:dim], new, *value.dims[dim + 1 :]), labels)


def _take_block(value: Value, dim: int, picked: np.ndarray) -> Value:
    """A block of channels where channels are the outer factor of a mixed dimension."""
    lead, *rest = value.dims[dim]
    inner = prod(f.size for f in rest)
    blocks, offset = np.divmod(picked.reshape(-1, inner) if len(picked) % inner == 0 else -1, inner)
    if all(f.axis in SPATIAL for f in value.dims[dim]):
        raise Scrambled("positions are selected across a dimension that holds several axes")
    if lead.axis != "c" or any(f.axis == "c" for f in rest) or np.ndim(blocks) == 0:
        raise Scrambled("positions are selected across a dimension that mixes them with channels")
    if (blocks != blocks[:, :1]).any() or (offset != np.arange(inner)).any():
        raise Scrambled("a selection does not follow the positions of the map")
    new = tidy([Factor("c", len(blocks)), *rest])
    labels = value.labels.take(blocks[:, 0], axis=dim)
    return Value((*value.dims[:dim], new, *value.dims[dim + 1 :]), labels)


def windows_over(labels: np.ndarray, dim: int, at: np.ndarray) -> np.ndarray:
    """Labels of the channels `at` (outputs, taps; -1: none) of a dimension, with a last axis of
    taps."""
    edge = np.full_like(labels.take([0], axis=dim), CONSTANT)  # -1 in `at`: the last
    return np.moveaxis(np.concatenate([labels, edge], axis=dim).take(at, axis=dim), dim + 1, -1)


def solid(value: Value, dim: int) -> Value:
    """Copies in a dimension as channels of the same history."""
    factors = value.dims[dim]
    if all(f.axis != "b" for f in factors):
        return value
    left, right = value.labels.shape[:dim], value.labels.shape[dim + 1 :]
    labels = value.labels.reshape(*left, *(f.size for f in factors if f.axis == "c"), *right)
    spots = [f for f in factors if f.axis in "bc"]
    for i, f in enumerate(spots):
        if f.axis == "b":
            labels = np.repeat(np.expand_dims(labels, dim + i), f.size, axis=dim + i)
    new = tidy([f._replace(axis="c") if f.axis == "b" else f for f in factors])
    dims = (*value.dims[:dim], new, *value.dims[dim + 1 :])
    return Value(dims, labels.reshape(*left, channels(new), *right))


def insert(value: Value, dim: int) -> Value:
    """A new dimension of size 1."""
    return Value((*value.dims[:dim], (), *value.dims[dim:]), np.expand_dims(value.labels, dim))
