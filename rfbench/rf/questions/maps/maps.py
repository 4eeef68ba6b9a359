"""The whole of `rfbench visualize-rf`: networks and variants in, maps, figures, files out."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from tqdm import tqdm

from rfbench import files
from rfbench.config import load
from rfbench.errors import UsageError
from rfbench.models import variants
from rfbench.rf.core import randomness, subjects
from rfbench.rf.core.metric import of_channels, unit_of
from rfbench.rf.core.subjects import Subject, models, short
from rfbench.rf.questions.maps.drawn import Drawn, convention_of, draw, shift_by_layer, size_text
from rfbench.runs import records
from rfbench.schemas.rf import RfConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def caption(config: RfConfig, drawn: list[Drawn], unit: str | None = None) -> str:
    """What a reader must know of the maps: from where to where, unit, sizes, conventions."""
    first = drawn[0]
    at = ", ".join(map(str, first.counts.unit))
    start = "each input" if first.source else config.from_ or "input"
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
        key = f"{d.subject.backbone.name} {d.variant}"
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
        maps.Panel(d.title, d.counts, d.metrics, d.own, f"at {size_text(d.subject.size)}")
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
            **({"from": d.source} if d.source else {}),
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
            panels.append(maps.Panel(f"{d.title}\nunit {unit}", counts, figures))
        if (period := d.counts.period) is not None and d.turns and phases.is_uneven(period):
            periods.append((d.title, period, d.metrics["checkerboard"]))
    many = {(d.counts.period.totals.size, len(d.turns)) for d in drawn if d.counts.period}
    of_all = {f"{shown} of a period's {all_} units" for all_, shown in many if shown < all_}
    which = of_all.pop() if len(of_all) == len(many) == 1 else "a period's units"
    if any(d.metrics["stride"] is None for d in drawn):  # a stretched map
        which = "the outermost units whose fields are whole"
    note, out = caption(config, drawn, which), {}
    if panels:
        out["phases"] = maps.maps_figure(panels, f"{title}: units that take turns", note)
    if periods:  # all of a period
        note = caption(config, drawn, which if "outermost" in which else "a period's units")
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
            several = value if isinstance(value[0], list | tuple) else [value]
            parts.append("-".join([key, *("x".join(map(str, one)) for one in several)]))
        else:
            parts.append(f"{key}-{Path(str(value)).name}")
    return parts


def run(config: RfConfig, chosen: list[Subject], folder: Path) -> dict[str, Any]:
    """Measure and draw all subjects; returns the record."""
    panels = len(chosen) * len(subjects.sources(chosen[0], config.from_))
    bar = functools.partial(tqdm, total=panels, unit="panel", disable=None)
    if config.by_layer:
        rows = {s.title.replace("\n", " "): shift_by_layer(config, s) for s in bar(chosen)}
        return save_by_layer(config, rows, folder, len(chosen[0].size))
    return save(config, list(bar(draw(config, chosen))), folder)


def check(config: RfConfig) -> None:
    """Refuse what only shows when options meet."""
    if config.exact and config.engine == "autograd":
        raise UsageError("--exact counts on the graph; leave out --engine autograd")
