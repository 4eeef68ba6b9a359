"""Each question's answer as a `Report`: the command's own table and figure, for notebooks.

Figures are imported when they are drawn: Matplotlib is slow to import.
"""

import functools
from typing import TYPE_CHECKING, Any

from rfbench.rf.core import randomness
from rfbench.rf.core.path_map import PathMap
from rfbench.rf.questions.audit import table as audit_table
from rfbench.rf.questions.effective import table as effective_table
from rfbench.rf.questions.effective.gradients import Gradients
from rfbench.rf.questions.maps import maps
from rfbench.rf.questions.maps import table as maps_table
from rfbench.rf.questions.maps.drawn import Drawn
from rfbench.rf.questions.mirror import table as mirror_table
from rfbench.rf.questions.theory import table as theory_table
from rfbench.rf.questions.tiles import table as tiles_table
from rfbench.rf.results import Measured, Record, Report
from rfbench.schemas.rf import RfConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def of_theory(known: Record) -> Report:
    """known: of `api.theory`."""
    return Report(known, _theory_text)


def _theory_text(known: Record) -> str:
    lines = [theory_table.short({name: known[name] for name in "zyx" if name in known})]
    if apart := known["misaligned"]:
        lines.append(f"misaligned: {', '.join(apart)}")
    if mixed := known.get("global_along"):
        lines.append(f"global along {', '.join(mixed)}")
    lines += randomness.lines(known)
    return "\n".join(lines)


def of_map(counts: PathMap, layer: str, figures: Record) -> Measured:
    """The path counts of a unit of `layer`."""
    draw = functools.partial(_draw_map, counts, layer)
    return Measured(counts.counts, Report(figures, maps_table.figures, draw))


def _draw_map(counts: PathMap, layer: str, figures: Record) -> "Figure":
    from rfbench.rf.questions.maps.figure import Panel

    unit = ", ".join(map(str, counts.unit))
    note = f"Unit ({unit}) of {layer}. Engine: graph; {counts.convention}, norms=identity."
    config = RfConfig.model_validate({"model": "own"})
    return maps.figure_of(config, [Panel("", counts, figures)], "Path counts", note)


def of_maps(config: RfConfig, drawn: list[Drawn]) -> Report:
    """Maps side by side."""
    draw = functools.partial(_draw_maps, config, drawn)
    return Report(maps.record_of(drawn), maps_table.table, draw)


def _draw_maps(config: RfConfig, drawn: list[Drawn], _: Record) -> "Figure":
    return maps.whole_figure(config, drawn)


def of_field(name: str, seen: Gradients, figures: Record) -> Measured:
    """The effective field of the network `name`."""
    draw = functools.partial(_draw_field, name, seen)
    return Measured(seen, Report(figures, functools.partial(_field_text, name), draw))


def _field_text(name: str, figures: Record) -> str:
    return effective_table.table({"fields": [{"model": name, "variant": "", **figures}]})


def _draw_field(name: str, seen: Gradients, figures: Record) -> "Figure":
    from rfbench.rf.questions.effective.figure import of_axes
    from rfbench.rf.questions.effective.panel import panel_of

    unit = ", ".join(map(str, seen.unit))
    note = f"Unit ({unit}) of {seen.layer or 'the output'}; mean {figures['definition']}."
    return of_axes([panel_of("", seen, None, figures)], f"Effective field of {name}", note)


def of_audit(found: Record) -> Report:
    """found: of `questions.audit`."""
    return Report(found, audit_table.text, _draw_audit)


def _draw_audit(found: Record) -> "Figure":
    from rfbench.rf.questions.audit.figure import audit_figure

    return audit_figure(found)


def of_tiles(found: Record, without: Any) -> Report:
    """without: the differences without a halo; see `questions.tiles`."""
    draw = functools.partial(_draw_tiles, without)
    return Report(found, tiles_table.text, draw)


def _draw_tiles(without: Any, found: Record) -> "Figure":
    from rfbench.rf.questions.tiles.figure import tiles_figure

    return tiles_figure(found, without)


def of_mirror(found: Record, lines: Record) -> Report:
    """lines: by axis, what the figure shows; none of networks that are not drawn."""
    draw = functools.partial(_draw_mirror, lines) if lines else None
    return Report(found, mirror_table.text, draw)


def _draw_mirror(lines: Record, found: Record) -> "Figure":
    from rfbench.rf.questions.mirror.figure import mirror_figure

    return mirror_figure(found, lines)
