"""Tiles over an image, each with its halo, and what they differ by without one."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from rfbench import files
from rfbench.plotting import look, page
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.plotting.palette import BLACK, BLUE, SKY, VERMILION
from rfbench.rf.core.subjects import short
from rfbench.rf.questions.tiles import lines
from rfbench.rf.questions.tiles.table import by, caption
from rfbench.runs import records

SIDE, LEFT, GAP = 2.5, 0.5, 0.75  # inches: of a panel, before and between them


Found = tuple[dict[str, Any], np.ndarray | None]  # a record, and the differences without a halo


def write(found: list[Found], folder: Path) -> list[str]:
    """A figure (PNG, PDF) a record and, last, result.json; returns the names of the files."""
    records.open_folder(folder)
    names: list[str] = []
    for record, without in found:
        stem = files.default_folder(record["model"], record["variant"]).name
        end = f"-{record['to']}" if len(found) > 1 else ""
        drawn = page.save(tiles_figure(record, without), folder / f"{stem}{end}")
        names += [path.name for path in drawn]
    records.write_record(folder, "rf-tiles", {"tiles": [r for r, _ in found], "files": names})
    return [*names, records.RECORD]


def tiles_figure(record: dict[str, Any], without: np.ndarray | None) -> Figure:
    """The image with its crops; beside it the differences without a halo, if crops fit so.

    Of a sequence: its crops one below the other, and below them the differences.
    """
    if len(record["crop"]) == 1:
        return lines.tiles_figure(record, without)
    panels = 1 if without is None else 2
    beside = LEFT + (panels - 1) * GAP + 0.25 + 0.45 * (panels - 1)
    side = look.side(SIDE, beside, panels)
    width = beside + panels * side
    title = f"{short(record['model'])} / {record['variant']} to {record['to']}"
    head = wrap(title, width - 0.16, LARGE)
    foot = wrap(caption(record), width - 0.16, SMALL)
    titles = [wrap(text, side, TEXT) for text in (_title(record), "crops side by side, no halo")]
    top = 0.22 + len(head) * line(LARGE) + 0.09 + max(map(len, titles)) * line(TEXT)
    height = side * min(1.5, record["shown"]["size"][0] / record["shown"]["size"][1])
    below = top + height + 0.42
    sheet = Page(width, below + len(foot) * line(SMALL) + 0.06)
    sheet.lines(0.08, 0.06, head, LARGE, weight="bold")
    first = sheet.axes(LEFT, top, side, height)
    first.set_title("\n".join(titles[0]), fontsize=TEXT, pad=3)
    _scheme(first, record)
    handles = [
        Patch(color=BLUE, label="tile: taken from the crop"),
        Patch(color=SKY, label="its crop"),
    ]
    sheet.legend(handles, 0.1 + len(head) * line(LARGE), 2)
    if without is not None:
        second = sheet.axes(LEFT + side + GAP, top, side, height)
        second.set_title("\n".join(titles[1]), fontsize=TEXT, pad=3)
        _differences(sheet, second, record, without)
    sheet.lines(0.08, below, foot, SMALL)
    return sheet.figure


def _title(record: dict[str, Any]) -> str:
    used = next(c["used"] for c in record["crops"] if c["crop"] == record["crop"])
    return f"crop {by(record['crop'])}, of which {by(used)} px are used"


def _scheme(axes: Axes, record: dict[str, Any]) -> None:
    """The image, the grid of tiles, and one crop in its middle with what is taken from it."""
    (height, width), crop = record["shown"]["size"], record["crop"]
    used = next(c["used"] for c in record["crops"] if c["crop"] == crop)
    start = [u * ((n - c) // 2 // u) for n, c, u in zip((height, width), crop, used, strict=True)]
    lost = [f * s for (f, _), s in zip(record["lost"], record["stride"], strict=True)]
    ends = zip(start, lost, used, strict=True)
    (y, h), (x, w) = [(at + gone, step) for at, gone, step in ends]
    axes.add_patch(Rectangle((start[1], start[0]), crop[1], crop[0], color=SKY, alpha=0.6, lw=0))
    axes.add_patch(Rectangle((x, y), w, h, color=BLUE, lw=0))
    for k, draw in ((0, axes.axhline), (1, axes.axvline)):
        inner = -(-((height, width)[k] - crop[k]) // used[k])
        for i in range(1, inner + 1):
            draw(lost[k] + i * used[k], color=BLACK, linewidth=0.3, alpha=0.6)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    axes.set_xlabel("px of the image", fontsize=TEXT, labelpad=1)


def _differences(sheet: Page, axes: Axes, record: dict[str, Any], apart: np.ndarray) -> None:
    """By unit, without a halo."""
    height, width = record["shown"]["size"]
    drawn = axes.imshow(
        np.log10(np.maximum(apart, 1e-16)), cmap="viridis", vmin=-16, vmax=0, aspect="auto",
        extent=(0, width, height, 0), interpolation="nearest",
    )  # fmt: skip
    for k, draw in ((0, axes.axhline), (1, axes.axvline)):
        for at in range(record["crop"][k], (height, width)[k], record["crop"][k]):
            draw(at, color=VERMILION, linewidth=0.6)
    axes.set_xlabel("px of the image", fontsize=TEXT, labelpad=1)
    bar = sheet.figure.colorbar(drawn, ax=axes, fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=SMALL, length=2, width=0.5)
    tall = axes.get_position().height * sheet.height
    words = wrap("log10 of the difference / largest value", 1.1 * tall, SMALL)
    bar.set_label("\n".join(words), fontsize=SMALL)
