"""The whole of `rfbench visualize-rf`: networks and variants in, maps, figures, files out."""

import contextlib
import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from tqdm import tqdm

from rfbench import files
from rfbench.config import load
from rfbench.errors import NoPath, RfbenchError, UsageError
from rfbench.models import variants
from rfbench.rf.autograd import path_counts as autograd
from rfbench.rf.core import memory, randomness
from rfbench.rf.core.geometry import NotUniform
from rfbench.rf.core.metric import merged, of_channels, unit_of
from rfbench.rf.core.metrics import measure_known, shift
from rfbench.rf.core.path_map import Convention, PathMap
from rfbench.rf.core.position import Pair
from rfbench.rf.core.subjects import Subject, models, short
from rfbench.rf.core.target import Target
from rfbench.runs import records
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.graph import Size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LAYERS = 40  # in the figure of the shift by layer


@dataclass
class Drawn:
    """What was measured of a subject: on an uncut input or of the unit given, and at its size.

    turns: maps and figures of the units that take turns, of images behind resizing. causal: of a
    sequence, whether its units read nothing ahead, so that their shift is meant; ends_agree: and
    branches that disagree as well.
    """

    subject: Subject
    counts: PathMap
    metrics: dict[str, Any]
    own: tuple[PathMap, dict[str, Any]] | None
    turns: list[tuple[PathMap, dict[str, Any]]] = field(default_factory=list)
    causal: bool = False
    ends_agree: bool = False


def draw(config: RfConfig, chosen: list[Subject]) -> Iterator[Drawn]:
    """Count and measure the subjects.

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
        f"--engine autograd on {_size_text(size)}",
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


def _text(size: Size) -> str:
    return "x".join(merged(size))


def caption(config: RfConfig, drawn: list[Drawn], unit: str | None = None) -> str:
    """What a reader must know of the maps: from where to where, unit, sizes, conventions."""
    first = drawn[0]
    at, start = ", ".join(map(str, first.counts.unit)), config.from_ or "input"
    to = config.to or first.subject.network.graph(first.subject.size).target or "output"
    sizes = {"x".join(map(str, d.metrics["input_size"])) for d in drawn}
    units = {(d.counts.unit, d.counts.units) for d in drawn}
    unit = unit or (f"unit ({at})" if len(units) == 1 else "the central unit")
    channels = of_channels(first.metrics["input_channels"])
    sides = f"{sizes.pop()} {unit_of(len(first.counts.units))}, " if len(sizes) == 1 else ""
    size = f" Input {sides}{channels}."
    return (
        f"From {start} to {unit} of {to}.{size} Engine: {config.engine}; "
        f"{first.counts.convention}, norms=identity."
        + "".join(f" {line}" for line in randomness.lines(first.metrics))
    )


def save(config: RfConfig, drawn: list[Drawn], folder: Path) -> dict[str, Any]:
    """Write figure (PNG, PDF), raw maps (.npz), config.yaml and the record. Returns the record."""
    from rfbench.plotting import page

    title = title_of(config, drawn)
    figures = {"maps": whole_figure(config, drawn), **_figures_of_turns(config, drawn, title)}
    records.open_folder(folder)
    written = [path for name, one in figures.items() for path in page.save(one, folder / name)]
    arrays: dict[str, Any] = {}
    for d in drawn:
        key = f"{d.subject.backbone.name} {d.subject.backbone.variant}"
        values = d.counts.counts
        arrays[key] = values.astype(str) if values.dtype == object else values
    with files.aside(folder / "maps.npz") as temporary:
        np.savez_compressed(temporary, **arrays)
    return finish(config, folder, {**record_of(drawn), "files": [p.name for p in written]})


def title_of(config: RfConfig, drawn: list[Drawn]) -> str:
    """The title that was asked for, else the networks' names."""
    names = dict.fromkeys(short(d.subject.backbone.name) for d in drawn)
    return config.title or ", ".join(names)


def whole_figure(config: RfConfig, drawn: list[Drawn]) -> "Figure":
    """The figure of all maps, a panel each."""
    from rfbench.rf.questions.maps import figure as maps

    panels = [
        maps.Panel(d.subject.title, d.counts, d.metrics, d.own, f"at {_size_text(d.subject.size)}")
        for d in drawn
    ]
    return figure_of(config, panels, title_of(config, drawn), caption(config, drawn))


def record_of(drawn: list[Drawn]) -> dict[str, Any]:
    """The figures of all maps, ready for JSON."""
    panels = [
        {
            "model": d.subject.backbone.name,
            "variant": d.subject.backbone.variant,
            "replaced": d.subject.backbone.replaced,
            "exponent": d.counts.exponent,
            "metrics": d.metrics,
            "at_own_size": d.own[1] if d.own else None,
            "causal": d.causal,
            "misaligned_meant": d.ends_agree,
        }
        for d in drawn
    ]
    return {"panels": panels}


def _figures_of_turns(config: RfConfig, drawn: list[Drawn], title: str) -> dict[str, "Figure"]:
    """By name: the maps of each phase, and the checkerboard where there is one."""
    from rfbench.rf.questions.maps import figure as maps
    from rfbench.rf.questions.maps import phases

    panels, periods = [], []
    for d in drawn:
        for counts, figures in d.turns:
            unit = ",".join(map(str, counts.unit))
            panels.append(maps.Panel(f"{d.subject.title}\nunit {unit}", counts, figures))
        if (period := d.counts.period) is not None and d.turns and phases.is_uneven(period):
            periods.append((d.subject.title, period, d.metrics["checkerboard"]))
    many = {(d.counts.period.totals.size, len(d.turns)) for d in drawn if d.counts.period}
    of_all = {f"{shown} of a period's {all_} units" for all_, shown in many if shown < all_}
    which = of_all.pop() if len(of_all) == len(many) == 1 else "a period's units"
    note, out = caption(config, drawn, which), {}
    if panels:
        out["phases"] = maps.maps_figure(panels, f"{title}: units that take turns", note)
    if periods:
        out["checkerboard"] = phases.checkerboard_figure(periods, f"{title}: checkerboard", note)
    return out


def figure_of(config: RfConfig, panels: Sequence[Any], title: str, note: str) -> "Figure":
    """The figure for the number of axes that the maps have."""
    from rfbench.rf.questions.maps import figure as maps
    from rfbench.rf.questions.maps import lines, volumes

    axes = {len(panel.origin) for panel in panels}
    if len(axes) > 1:
        raise UsageError("networks of sequences, images and volumes need a figure each")
    if axes == {1}:
        return lines.lines_figure(panels, title, note, config.scale, config.rate)
    if config.rate is not None:
        raise UsageError("--rate is the sampling rate of a sequence; this network takes none")
    if axes == {3}:
        return volumes.volumes_figure(panels, title, note, config.scale)
    return maps.maps_figure(panels, title, note, config.scale)


def _size_text(size: Size) -> str:
    return f"{_text(size)} {unit_of(len(size))}"


def save_by_layer(
    config: RfConfig, rows: dict[str, list[tuple[str, float]]], folder: Path, axes: int
) -> dict[str, Any]:
    """Write the figure of the shift by layer, config.yaml and the record. Returns the record."""
    from rfbench.plotting import page
    from rfbench.rf.questions.maps import by_layer as layers

    title = config.title or ", ".join(short(n) for n in models(config))
    convention, unit = convention_of(config), unit_of(axes)
    along = f"in {unit}" + (" along y" if axes > 2 else "")
    note = f"Centroid minus the position in a centred grid, {along}; {convention}."
    figure = layers.layers_figure(rows, title, note, unit)
    records.open_folder(folder)
    written = page.save(figure, folder / "shift_by_layer")
    return finish(config, folder, {"shift_by_layer": rows, "files": [p.name for p in written]})


def finish(config: RfConfig, folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write config.yaml, and the record as the last file."""
    resolved = config.model_dump(by_alias=True, mode="json")
    files.write_text(folder / "config.yaml", yaml.safe_dump(resolved, sort_keys=False))
    return records.write_record(folder, "rf", {"config": resolved, **content})


def choose_folder(
    config: RfConfig, output: Path | None, overwrite: bool, source: str | None = None
) -> Path:
    """The folder for the results, checked; by default named after the models and what differs.

    source: a configuration's file, which the folder is named after where it was taken unchanged.
    """
    names = [Path(name).name for name in models(config)] + _differs(config)
    # what a run writes is called config.yaml, whatever it is of
    if source and (stem := Path(source).stem) != "config" and config == load(RfConfig, source):
        names = [stem]
    folder = output or files.default_folder("rf", *names)
    files.check_folder(folder, overwrite)
    return folder


def _differs(config: RfConfig) -> list[str]:
    """What sets a map apart from another of the same models, as parts of a folder's name."""
    given = config.model_dump(by_alias=True, exclude_defaults=True)
    parts = []
    for key in (key for key in given if key not in ("model", "model_args", "title", "scale")):
        value = given[key]
        if key == "variants":
            parts += [variants.get(variant).name for variant in value]
        elif value is True:
            parts.append(key)
        elif isinstance(value, list | tuple):  # sizes: of a unit, of one input or of several
            parts.append(f"{key}-{'x'.join(re.findall('[0-9]+', str(value)))}")
        else:
            parts.append(f"{key}-{Path(str(value)).name}")
    return parts


def run(config: RfConfig, chosen: list[Subject], folder: Path) -> dict[str, Any]:
    """Measure and draw all subjects; returns the record."""
    bar = functools.partial(tqdm, total=len(chosen), unit="panel", disable=None)
    if config.by_layer:
        rows = {s.title.replace("\n", " "): shift_by_layer(config, s) for s in bar(chosen)}
        return save_by_layer(config, rows, folder, len(chosen[0].size))
    return save(config, list(bar(draw(config, chosen))), folder)


def check(config: RfConfig) -> None:
    """Refuse what only shows when options meet."""
    if config.exact and config.engine == "autograd":
        raise UsageError("--exact counts on the graph; leave out --engine autograd")
