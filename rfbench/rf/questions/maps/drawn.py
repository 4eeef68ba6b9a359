"""What `rfbench visualize-rf` measures of each network: counts, figures, units that take turns."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rfbench.errors import NoPath, RfbenchError, UsageError
from rfbench.rf.autograd import path_counts as autograd
from rfbench.rf.core import memory, randomness, subjects
from rfbench.rf.core.geometry import NotUniform
from rfbench.rf.core.metric import merged, unit_of
from rfbench.rf.core.metrics import measure_known, shift
from rfbench.rf.core.path_map import Convention, PathMap
from rfbench.rf.core.position import Pair
from rfbench.rf.core.subjects import Subject
from rfbench.rf.core.target import Target
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.size import Size

MOST_LAYERS = 40  # in the figure of the shift by layer


@dataclass
class Drawn:
    """What was measured of a subject: on an uncut input or of the unit given, and at its size.

    turns: maps and figures of the units that take turns, of images behind resizing. causal: of a
    sequence, whether its units read nothing ahead, so that their shift is meant; ends_agree: and
    branches that disagree as well. source: of several inputs the one, where none was named.
    """

    subject: Subject
    counts: PathMap
    metrics: dict[str, Any]
    own: tuple[PathMap, dict[str, Any]] | None
    turns: list[tuple[PathMap, dict[str, Any]]] = field(default_factory=list)
    causal: bool = False
    ends_agree: bool = False
    source: str | None = None

    @property
    def variant(self) -> str:
        """'3x3'; 'baseline from input.1'."""
        return self.subject.backbone.variant + self._from

    @property
    def title(self) -> str:
        """Of its panel."""
        return self.subject.title + self._from

    @property
    def _from(self) -> str:
        return f" from {self.source}" if self.source else ""


def draw(config: RfConfig, chosen: list[Subject]) -> Iterator[Drawn]:
    """Count and measure the subjects; of several inputs, where none is named, from each."""
    sources = subjects.sources(chosen[0], config.from_)
    if len(sources) == 1:
        yield from _draw(config, chosen)
        return

    def of_input(_: Any, source: str) -> list[Drawn]:
        one = config.model_copy(update={"from_": source})
        return [replace(drawn, source=source) for drawn in _draw(one, chosen)]

    for part in subjects.measured([(config.to, source) for source in sources], of_input):
        yield from part


def _draw(config: RfConfig, chosen: list[Subject]) -> Iterator[Drawn]:
    """Count and measure the subjects, from one source.

    With a unit given, the map is of that unit at the size given; otherwise of the central unit on
    an input that cuts nothing off, the same for all variants of a model, with the figures at the
    size given beside it.
    """
    targets = [subject.target(config.to, config.from_) for subject in chosen]
    own = [_measured(config, s, target) for s, target in zip(chosen, targets, strict=True)]
    if config.unit is None:
        targets = [s.network.uncut(target) for s, target in zip(chosen, targets, strict=True)]
    sizes: dict[str, Size] = {}
    for subject, target in zip(chosen, targets, strict=True):
        size, name = target.graph.size, subject.backbone.name
        sizes[name] = tuple(map(max, size, sizes.get(name, size)))
    for subject, target, at_own in zip(chosen, targets, own, strict=True):
        size = sizes[subject.backbone.name]
        if size == subject.size:
            if at_own[1]["cut"] and at_own[1]["shift"] is not None:
                with contextlib.suppress(RfbenchError):  # a network may insist on its own size
                    uncut = subject.network.uncut(target)
                    counts = uncut.counts(None, convention_of(config))
                    _blame_border(at_own[1], shift(counts, uncut.geometry))
            yield Drawn(subject, *at_own, None, _turns(config, target), *_meant(target))
            continue
        if size != target.graph.size:
            target = subject.target(config.to, config.from_, size)
        whole = _measured(config, subject, target)
        _blame_border(at_own[1], whole[1]["shift"])
        yield Drawn(subject, *whole, at_own, _turns(config, target), *_meant(target))


def _meant(target: Target) -> tuple[bool, bool]:
    """Whether it is causal, and all its branches end where they meet."""
    return target.is_causal, target.is_causal and target.ends_agree


def _turns(config: RfConfig, target: Target) -> list[tuple[PathMap, dict[str, Any]]]:
    """Maps and figures of the units of one period; none where all units look alike."""
    from rfbench.rf.questions.maps import phases

    convention = convention_of(config)
    period = target.period(config.unit, convention)
    if period is None or len(target.units) != 2:
        return []
    every = (target.counts(u, convention, config.exact) for u in phases.chosen_units(period))
    return [(counts, _of_this_unit(counts, target)) for counts in every]


def _of_this_unit(counts: PathMap, target: Target) -> dict[str, Any]:
    """The figures of a map, with the shift and size of its own unit, not of the period."""
    figures = measure_known(counts, target.geometry)
    size = [last - first + 1 for first, last in target.geometry.regions(counts.unit)]
    own = {"shift": figures["unit_shift"], "shift_range": None, "size": size, "least_size": size}
    return {**figures, **own}


def _blame_border(figures: dict[str, Any], whole: Pair | None) -> None:
    """Say how much of a cut map's shift the border adds to that of a whole one."""
    if figures["cut"] and whole is not None:
        both = zip(figures["shift"], whole, strict=True)
        figures["shift_by_border"] = [None if None in p else p[0] - p[1] for p in both]


def convention_of(config: RfConfig) -> Convention:
    """What counts as how many paths."""
    return Convention(config.channels, config.pool, config.gates)


def _measured(config: RfConfig, subject: Subject, target: Target) -> tuple[PathMap, dict[str, Any]]:
    counts = target.counts(config.unit, convention_of(config), config.exact)
    geometry = target.geometry
    if config.engine == "autograd":
        counts = _second_opinion(config, subject, target, counts)
    graph = target.graph
    taken = {"input_size": graph.size, "input_channels": graph.channels}
    said = randomness.drawn(graph, target.value)
    return counts, {**measure_known(counts, geometry), **taken, **said}


def _second_opinion(config: RfConfig, subject: Subject, target: Target, ours: PathMap) -> PathMap:
    """The same map by the paper's own procedure."""
    size = target.graph.size
    if said := randomness.sources(randomness.drawn(target.graph, target.value)):
        raise UsageError(
            f"--engine autograd would count in one draw alone: it draws at random, by {said}. "
            "Leave the option out."
        )
    memory.check(
        subject.network.memory(size, 1, 8),
        f"--engine autograd on {size_text(size)}",
        "Leave it out: the graph engine needs far less.",
    )
    counts = autograd.path_counts(
        subject.backbone.module,
        size,
        to=target.name,
        source=target.source,
        unit=ours.unit,
        channels=config.channels,
        pool=config.pool,
        gates=config.gates,
    )
    return replace(ours, counts=counts, exponent=0)


def shift_by_layer(config: RfConfig, subject: Subject) -> list[tuple[str, float]]:
    """The paper's Figure 3: the shift in input px after every layer, none of them cut.

    Along y; of sequences along their only axis.
    """
    end = subject.network.uncut(subject.target(config.to, config.from_))
    graph = end.graph
    names = [n for n in graph.maps() if end.ancestors.issuperset(graph.share(graph.layer(n)))]
    depth = max(d for d in range(9) if sum(n.count(".") < d for n in names) <= MOST_LAYERS)
    rows = []
    for name in (n for n in names if n.count(".") < depth):
        target = Target(graph, name, config.from_)
        try:
            counts = target.counts(convention=convention_of(config))
        except NoPath:  # it comes before --from
            continue
        if counts.counts.any():
            axis = max(0, graph.names.find("y"))
            with contextlib.suppress(NotUniform):
                along = shift(counts, target.geometry)[axis]
                rows.append((name, math.nan if along is None else along))
    return rows


def size_text(size: Size) -> str:
    """'224x224 px'."""
    return f"{'x'.join(merged(size))} {unit_of(len(size))}"
