"""A line of a map and of that of the mirrored image, mirrored back: as they are, and moved."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rfbench import files
from rfbench.plotting import look, page
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, key_columns, line, wrap
from rfbench.plotting.palette import BLACK, BLUE, VERMILION
from rfbench.rf.core.metric import unit_of
from rfbench.rf.core.subjects import short
from rfbench.runs import records

WIDTH, TALL, LEFT, GAP = 7.0, 1.7, 0.5, 0.55  # inches
Found = tuple[dict[str, Any], dict[str, Any]]  # a record, and its lines by axis


def write(found: list[Found], folder: Path) -> list[str]:
    """A figure (PNG, PDF) a record and, last, result.json; returns the names of the files."""
    records.open_folder(folder)
    names: list[str] = []
    for record, lines in found:
        stem = files.default_folder(record["model"], record["variant"]).name
        end = f"-{record['to']}" if len(found) > 1 else ""
        if lines:
            drawn = page.save(mirror_figure(record, lines), folder / f"{stem}{end}")
            names += [path.name for path in drawn]
    content = {"mirrors": [record for record, _ in found], "files": names}
    records.write_record(folder, "rf-mirror", content)
    return [*names, records.RECORD]


def mirror_figure(record: dict[str, Any], lines: dict[str, Any]) -> Figure:
    """A panel an axis."""
    title = f"{short(record['model'])} / {record['variant']} to {record['to']}: flip test"
    width = look.page_width(WIDTH)
    foot = wrap(_caption(record), width - 0.16, SMALL)
    style: dict[str, Any] = {"linewidth": 1.2}
    handles = [
        Line2D([], [], color=BLACK, label="the image's map", **style),
        Line2D([], [], color=VERMILION, label="the mirrored image's, mirrored back", **style),
        Line2D([], [], color=BLUE, linestyle="--", label="moved", **style),
    ]
    across = key_columns([str(handle.get_label()) for handle in handles], width)
    beside = LEFT + 0.12 + (len(lines) - 1) * GAP
    wide = look.side((width - beside) / len(lines), beside, len(lines))
    titles = [wrap(_title(record, name), wide, TEXT) for name in lines]
    top = 0.2 + line(LARGE) + -(-len(handles) // across) * 0.15 + max(map(len, titles)) * line(TEXT)
    below = top + TALL + 0.42
    sheet = Page(width, below + len(foot) * line(SMALL) + 0.06)
    sheet.lines(0.08, 0.06, [title], LARGE, weight="bold")
    for i, (name, held) in enumerate(lines.items()):
        axes = sheet.axes(LEFT + i * (wide + GAP), top, wide, TALL)
        axes.set_title("\n".join(titles[i]), fontsize=TEXT, pad=3)
        _panel(axes, record["axes"][name], held)
    sheet.legend(handles, 0.12 + line(LARGE), across)
    sheet.lines(0.08, below, foot, SMALL)
    return sheet.figure


def _title(record: dict[str, Any], name: str) -> str:
    row, unit = record["axes"][name], unit_of(len(record["input_size"]))
    return f"along {name}: off by {row['off']:+g} {unit}, {row['units']:+.3f} units"


def _panel(axes: Axes, row: dict[str, Any], held: dict[str, Any]) -> None:
    units = held["units"]
    axes.plot(units, held["plain"], color=BLACK, linewidth=1.6)
    axes.plot(units, held["back"], color=VERMILION, linewidth=1.0)
    if row["move"]:
        axes.plot(units + row["move"], held["back"], color=BLUE, linewidth=1.0, linestyle="--")
    axes.set_xlabel("unit", fontsize=TEXT, labelpad=1)
    axes.set_ylabel("value of one channel", fontsize=TEXT)
    axes.margins(x=0.01)


def _caption(record: dict[str, Any]) -> str:
    said = []
    for name, row in record["axes"].items():
        moved = f", moved by {row['move']:+d} {row['apart_moved']:.3f}" if row["move"] else ""
        said.append(f"along {name} {row['apart']:.3f}{moved}")
    size = "x".join(map(str, record["run_at"]))
    return (
        f"Run at {size} {unit_of(len(record['run_at']))} with random mirror-symmetric kernels. "
        "Root of the mean square difference of all units far from the border, as a share of the "
        "channels' deviation: "
        f"{'; '.join(said)}."
    )
