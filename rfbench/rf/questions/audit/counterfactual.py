"""Fix one layer of a spatial graph: sample evenly, centred and without holes.

Everything else is left as it is.

What the paper does to a stride-2 convolution, done to any window: average s x s pixels, then apply
the same window at stride 1, centred on the input. Before a kernel of dilation d, average d x d
pixels: its taps then meet. Both together are one window again, so that nothing is traced again.
Where whole pixels do not allow a centre (odd sizes, even kernels), two neighbouring windows are
averaged. An audit asks what remains of a fault after fixing only one layer.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise, permutations

import numpy as np

from rfbench.rf.core.split import is_put_back
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.axis import SAME, Axis, Index, Window
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.node import Node
from rfbench.spatial_graph.operations import plain_name

Taps = tuple[Fraction, ...]


@dataclass(frozen=True)
class Step:
    """An operation that samples unevenly or off the centre, and what would fix it.

    number: of the operation in the trace. nodes: the new axes (y, x) by node; those of the
    padding before it, which joins it, are None.
    """

    number: int
    layer: str
    what: str
    nodes: dict[int, tuple[Axis, ...] | None]


def steps(target: Target) -> list[Step]:
    """The operations on the way to a target that have something to fix, in order."""
    graph, parts = target.graph, _parts(target.graph)
    readers: dict[int, set[int]] = defaultdict(set)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in sorted(target.ancestors):
        node = graph.nodes[i]
        for source in node.sources:
            readers[source].add(i)
        if node.kind in ("conv", "pool", "structure", "sum") and _moves(node):
            groups[node.step].append(i)
    absorbed: set[int] = set()
    out = []
    whole = target.theory.slices | parts  # together they sample evenly
    for number, nodes in reversed(groups.items()):  # a padding belongs to what it pads for
        step = _step(graph, number, [i for i in nodes if i not in absorbed | whole], readers, parts)
        if step is not None and not all(is_put_back(graph, i, readers) for i in nodes):
            absorbed.update(i for i, axes in step.nodes.items() if axes is None)
            out.append(step)
    return out[::-1]


def fixed(target: Target, done: Sequence[Step]) -> Target:
    """The target after fixing these steps; sizes of maps stay as they are."""
    if not done:
        return target
    nodes = list(target.graph.nodes)
    for step in done:
        for i, axes in sorted(step.nodes.items()):
            size = nodes[nodes[i].sources[0]].size if axes is None else nodes[i].size
            still = (SAME,) * len(size)
            nodes[i] = replace(nodes[i], axes=axes or still, size=size)
    return Target(replace(target.graph, nodes=nodes), target.layer, target.source)


def uneven_layers(target: Target) -> list[str]:
    """The transposed convolutions that reach some positions of their output by more taps."""
    names = []
    for i in sorted(target.ancestors):
        node = target.graph.nodes[i]
        if node.kind == "conv" and any(is_uneven(axis) for axis in node.axes):
            names.append(node.layer)
    return list(dict.fromkeys(names))


def is_uneven(axis: Axis) -> bool:
    """Whether inner outputs of a map have different numbers of taps."""
    if not isinstance(axis, Index) or axis.inner is not None or axis.weights is not None:
        return False
    low = np.where(axis.at >= 0, axis.at, axis.at.max() + 1).min(1)
    inner = (low > 0) & (axis.at.max(1) < axis.at.max())
    if axis.phases is not None and inner.sum() < len(axis.phases):  # a small map
        return len({phase and phase[1] - phase[0] for phase in axis.phases}) > 1
    return len(set((axis.at[inner] >= 0).sum(1).tolist())) > 1


def _moves(node: Node) -> bool:
    return any(a != SAME for a in node.axes)


def _parts(graph: SpatialGraph) -> set[int]:
    """The crops that share out a map, such as its halves: none is off the centre by mistake."""
    crops: dict[int, list[int]] = defaultdict(list)
    for i, node in enumerate(graph.nodes):
        if len(node.sources) == 1 and _moves(node) and all(map(_is_padding, node.axes)):
            crops[node.sources[0]].append(i)
    return {
        i
        for some in crops.values()
        for i, other in permutations(some, 2)
        if _are_apart(graph.nodes[i], graph.nodes[other])
    }


def _are_apart(one: Node, other: Node) -> bool:
    """Whether two crops of a map have no position in common."""
    starts = ((-_amounts(node, k)[0] for node in (one, other)) for k in range(len(one.axes)))
    return any(
        a + n <= b or b + m <= a for (a, b), n, m in zip(starts, one.size, other.size, strict=True)
    )


def _step(
    graph: SpatialGraph,
    number: int,
    nodes: list[int],
    readers: dict[int, set[int]],
    parts: set[int],
) -> Step | None:
    """What would fix an operation; None where nothing is wrong, or nothing is known to help."""
    if not nodes:
        return None
    pads, changed = _paddings(graph, nodes, readers, parts), False
    new: dict[int, tuple[Axis, ...] | None] = {}
    for i in nodes:
        node, axes = graph.nodes[i], []
        for k, own in enumerate(node.axes):
            if not isinstance(own, Window):
                return None
            before, after = (sum(_amounts(graph.nodes[p], k)[end] for p in pads) for end in (0, 1))
            window = replace(own, before=own.before + before, after=own.after + after)
            n = graph.nodes[pads[-1]].sources[0] if pads else node.sources[0]
            made = _centred(window, graph.nodes[n].size[k], node.size[k])
            changed = changed or made is not window
            axes.append(made)
        new[i] = tuple(axes)
    if not changed:
        return None
    first = graph.nodes[nodes[0]]
    return Step(number, first.layer, _what(first), new | dict.fromkeys(pads))


def _paddings(
    graph: SpatialGraph, nodes: list[int], readers: dict[int, set[int]], parts: set[int]
) -> list[int]:
    """The paddings and crops right before an operation that nothing else reads, last one first."""
    pads: list[int] = []
    wanted = set(nodes)
    # several classes of channels are padded by several nodes: left alone
    sources = {s for i in nodes for s in graph.nodes[i].sources}
    while len(sources) == 1:
        (i,) = sources
        node = graph.nodes[i]
        if readers[i] != wanted or len(node.sources) != 1 or i in parts:
            break
        if all(_is_padding(a) for a in node.axes):
            pads.append(i)
        elif node.kind != "same":
            break
        wanted, sources = {i}, set(node.sources)
    # a name alone is no padding, and none behind the first padding is needed
    return [i for i in pads if _moves(graph.nodes[i])]


def _is_padding(axis: Axis) -> bool:
    if isinstance(axis, Index) and axis.inner is not None:
        axis = axis.inner
    return isinstance(axis, Window) and axis.kernel == axis.stride == 1 and not axis.taps


def _amounts(node: Node, k: int) -> tuple[int, int]:
    """How much a padding adds before and after."""
    axis = node.axes[k]
    window = axis.inner if isinstance(axis, Index) else axis
    assert isinstance(window, Window)
    return window.before, window.after


def _centred(window: Window, n: int, m: int) -> Window:
    """The window from n positions to m that samples evenly and looks at the centre.

    Returns taps, kernel and padding before of the window itself where it does so already.
    """
    weights, s = _weights(window), window.stride
    if window.kernel > 1 and window.dilation > 1:
        # averages of d, and the window at dilation 1
        weights = [w for w in weights[:: window.dilation] for _ in range(window.dilation)]
    if not _is_even(weights, s):
        # averages of s, and the window at stride 1
        weights = [w for w in weights for _ in range(s)]
    need = (m - 1) * s + len(weights) - n  # what the padding before and after must add up to
    if need % 2:
        weights = [a + b for a, b in pairwise([Fraction(0), *weights, Fraction(0)])]
    before = -(-need // 2)
    if weights == _weights(window) and before == window.before:
        return window
    taps = None if set(weights) == {1} else tuple(weights)
    return Window(len(weights), s, before, before, taps=taps)


def _weights(window: Window) -> list[Fraction]:
    """The taps of a window by position."""
    taps = window.taps or (Fraction(1),) * window.kernel
    out = [Fraction(0)] * window.extent
    out[:: window.dilation] = taps
    return out


def _is_even(weights: list[Fraction], stride: int) -> bool:
    """Whether every pixel phase has the same weight."""
    return len({sum(weights[i::stride], Fraction(0)) for i in range(stride)}) == 1


def _what(node: Node) -> str:
    kernel = "x".join(str(a.kernel) for a in node.axes if isinstance(a, Window))
    strides = dict.fromkeys(str(a.stride) for a in node.axes if isinstance(a, Window))
    name = plain_name(node.op).removesuffix("_with_indices")
    rates = dict.fromkeys(a.dilation for a in node.axes if isinstance(a, Window) and a.kernel > 1)
    dilation = f" dilation {'x'.join(map(str, rates))}" if max(rates, default=1) > 1 else ""
    return f"{name} {kernel} stride {'x'.join(strides)}{dilation}"
