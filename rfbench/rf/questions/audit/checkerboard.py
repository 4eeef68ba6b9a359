"""What would mend a checkerboard: transposed convolutions with a kernel that the stride divides.

A transposed convolution whose stride does not divide its kernel reaches some positions of its
output by more taps than others (Odena et al., Distill 2016). Counterfactually it gets the next
larger kernel that the stride divides, with as many outputs and padded alike on both sides.
"""

from collections import defaultdict
from collections.abc import Iterable
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
        taps = np.arange(self.kernel) * self.dilation
        places = np.add.outer(np.arange(outputs) + self.padding, -taps)
        at, rest = np.divmod(places, self.stride)
        return np.where((rest == 0) & (at >= 0) & (at < inputs), at, -1)


def even_steps(target: Target) -> list[Step]:
    """The transposed convolutions on the way that make a checkerboard, each evened; in order."""
    if (metrics.checkerboard(target.counts(), target.geometry) or 0.0) < LEAST:
        return []  # there is none, or later layers even it out
    groups: dict[int, list[int]] = defaultdict(list)
    for i in sorted(target.ancestors):
        node = target.graph.nodes[i]
        if node.kind == "conv" and any(map(is_uneven, node.axes)):
            groups[node.step].append(i)
    found = (_step(target, number, nodes) for number, nodes in groups.items())
    return [step for step in found if step is not None]


def _step(target: Target, number: int, nodes: list[int]) -> Step | None:
    """One of them; None where its taps are not those of a transposed convolution."""
    graph = target.graph
    new: dict[int, tuple[Axis, ...] | None] = {}
    words: list[tuple[int, int, int]] = []
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
            even = _even(own, n, m)
            axes.append(Index(even.at(n, m)))
            words.append((own.kernel, own.stride, even.kernel))
        new[i] = tuple(axes)
    kernels, strides, larger = zip(*words[: len(graph.size)], strict=True)
    first = graph.nodes[nodes[0]]
    what = f"transposed convolution {_by(kernels)} stride {_by(dict.fromkeys(strides))}"
    return Step(number, first.layer, f"{what}: kernel {_by(larger)}", new)


def _by(numbers: Iterable[int]) -> str:
    return "x".join(map(str, numbers))


def _even(own: Transposed, inputs: int, outputs: int) -> Transposed:
    """With the next larger kernel that the stride divides."""
    kernel = -(-own.kernel // own.stride) * own.stride
    spare = (inputs - 1) * own.stride + kernel - outputs
    return Transposed(kernel, own.stride, spare // 2, 1)


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
