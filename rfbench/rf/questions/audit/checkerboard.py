"""What would mend a checkerboard: transposed convolutions with a kernel that the stride divides.

A transposed convolution whose stride does not divide its kernel reaches some positions of its
output by more taps than others (Odena et al., Distill 2016). Counterfactually it gets the next
larger kernel that the stride divides, with as many outputs and padded alike on both sides; or
nearest-neighbour resizing and a convolution of its kernel size, the next odd one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from rfbench.rf.core import metrics
from rfbench.rf.core.target import Target
from rfbench.rf.questions.audit.counterfactual import Step, is_uneven
from rfbench.spatial_graph.axis import Axis, Index

LEAST = 1e-6  # what is no checkerboard


@dataclass(frozen=True)
class Transposed:
    """A transposed convolution along one axis: output o reads (o + padding - tap dilation) / s."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    def at(self, inputs: int, outputs: int) -> np.ndarray:
        """The input of every output and tap, -1 for none."""
        at, reads = self._taps(outputs)
        return np.where(reads & (at >= 0) & (at < inputs), at, -1)

    @property
    def phases(self) -> tuple[tuple[int, int], ...]:
        """First and last inputs of outputs 0 ... stride - 1 if there were no border; see Index.

        Of a kernel that the stride divides: each of them reads some.
        """
        rows = [at[reads] for at, reads in zip(*self._taps(self.stride), strict=True)]
        return tuple((int(row.min()), int(row.max())) for row in rows)

    def _taps(self, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each tap of each output is, in inputs, and whether it reads one there."""
        taps = np.arange(self.kernel) * self.dilation
        places = np.add.outer(np.arange(outputs) + self.padding, -taps)
        at, rest = np.divmod(places, self.stride)
        return at, rest == 0


def even_steps(target: Target) -> list[Step]:
    """The transposed convolutions on the way that make a checkerboard, each evened; in order."""
    return _steps(target, larger_kernel)


def resizing_steps(target: Target) -> list[Step]:
    """The same, each replaced by nearest-neighbour resizing and a convolution."""
    return _steps(target, nearest)


Mend = Callable[[Transposed, int, int], tuple[Index, str, int]]  # its map, and what it is


def _steps(target: Target, mend: Mend) -> list[Step]:
    if (metrics.checkerboard(target.counts(), target.geometry) or 0.0) < LEAST:
        return []  # there is none, or later layers even it out
    groups: dict[int, list[int]] = defaultdict(list)
    for i in sorted(target.ancestors):
        node = target.graph.nodes[i]
        if node.kind == "conv" and any(map(is_uneven, node.axes)):
            groups[node.step].append(i)
    found = (_step(target, number, nodes, mend) for number, nodes in groups.items())
    return [step for step in found if step is not None]


def _step(target: Target, number: int, nodes: list[int], mend: Mend) -> Step | None:
    """One of them; None where its taps are not those of a transposed convolution."""
    graph = target.graph
    new: dict[int, tuple[Axis, ...] | None] = {}
    words: list[tuple[int, int, str, int]] = []
    for i in nodes:
        node, axes = graph.nodes[i], []
        before = graph.nodes[node.sources[0]].size
        for axis, n, m in zip(node.axes, before, node.size, strict=True):
            if not is_uneven(axis):
                axes.append(axis)
                continue
            assert isinstance(axis, Index)
            own = read(axis.at, n)
            if own is None or own.dilation > 1:
                return None
            made, name, kernel = mend(own, n, m)
            axes.append(made)
            words.append((own.kernel, own.stride, name, kernel))
        new[i] = tuple(axes)
    kernels, strides, names, larger = zip(*words[: len(graph.size)], strict=True)
    first = graph.nodes[nodes[0]]
    what = f"transposed convolution {_by(kernels)} stride {_by(dict.fromkeys(strides))}"
    return Step(number, first.layer, f"{what}: {names[0]} {_by(larger)}", new)


def _by(numbers: Iterable[int]) -> str:
    return "x".join(map(str, numbers))


def larger_kernel(own: Transposed, inputs: int, outputs: int) -> tuple[Index, str, int]:
    """With the next larger kernel that the stride divides."""
    kernel = -(-own.kernel // own.stride) * own.stride
    spare = (inputs - 1) * own.stride + kernel - outputs
    even = Transposed(kernel, own.stride, spare // 2, 1)
    return Index(even.at(inputs, outputs), phases=even.phases), "kernel", kernel


def nearest(own: Transposed, inputs: int, outputs: int) -> tuple[Index, str, int]:
    """Every input `stride` times over, and a convolution at stride 1, centred on the outputs."""
    kernel, wide = own.kernel + 1 - own.kernel % 2, inputs * own.stride
    first = (wide - outputs) // 2 - kernel // 2
    places = np.add.outer(np.arange(outputs) + first, np.arange(kernel))
    at = np.where((places >= 0) & (places < wide), places // own.stride, -1)
    ends = np.add.outer(np.arange(own.stride) + first, [0, kernel - 1]) // own.stride
    phases = tuple((int(low), int(high)) for low, high in ends)
    return Index(at, phases=phases), "nearest and convolution", kernel


def read(at: np.ndarray, inputs: int) -> Transposed | None:
    """The transposed convolution that reads `inputs` positions so; None where none does."""
    first = np.flatnonzero(at[:, 0] >= 0)
    if len(first) < 2:
        return None
    stride = int(first[1] - first[0])
    padding = int(at[first[0], 0]) * stride - int(first[0])
    dilation = 1
    if at.shape[1] > 1:
        second = np.flatnonzero(at[:, 1] >= 0)
        if len(second) == 0:
            return None
        dilation = int(second[0]) + padding - int(at[second[0], 1]) * stride
    found = Transposed(at.shape[1], stride, padding, dilation)
    return found if np.array_equal(found.at(inputs, len(at)), at) else None
