"""Effective fields of sequences, as curves, and of volumes, as three sections each."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rfbench.plotting import look
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, key_columns, line, wrap
from rfbench.plotting.palette import BLUE, CENTROID, EMPTY, MAPS, ORANGE, SHARE, UNIT, VERMILION
from rfbench.rf.questions.effective.panel import Panel, words

WIDTH, TALL, LEFT = 7.0, 1.3, 0.5
SIDE, GAP, BAR = 1.7, 0.42, 0.62  # of sections: width, between them, room for the colour bar
NAMES = ("depth", "y", "x")
ROOT = PowerNorm(0.5, 0, 1)  # the square root shows a field's skirts
TICKS = {0: "0", 0.1: "0.1", 0.25: "0.25", 0.5: "0.5", 1: "1"}


def lines(panels: Sequence[Panel], title: str, caption: str) -> Figure:
    """Path counts and effective field over the offset from the unit's position, in samples."""
    note = f"Square roots of shares of the largest value. {caption}"
    keys = [
        Line2D([], [], color=ORANGE, alpha=0.5, linewidth=4, label="path counts"),
        Line2D([], [], color=BLUE, linewidth=0.9, label="effective field"),
        Line2D([], [], color="black", linewidth=0.8, label="unit"),
        Line2D([], [], color=VERMILION, linewidth=0.9, linestyle="--", label="centroid"),
    ]
    page, tops = _page(panels, title, note, look.page_width(WIDTH), TALL + 0.38, keys)
    ends = _ends(panels)
    for panel, top in zip(panels, tops, strict=True):
        axes = page.axes(LEFT, top, page.width - LEFT - 0.12, TALL)
        at = np.arange(len(panel.field)) - panel.origin[0]
        if panel.counts is not None:
            axes.fill_between(
                at, np.sqrt(panel.counts), step="mid", color=ORANGE, alpha=0.35, linewidth=0
            )
        axes.plot(at, np.sqrt(panel.field), color=BLUE, linewidth=0.9)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.axvline(panel.metrics["shift"][0], color=VERMILION, linewidth=0.9, linestyle="--")
        for low, high in ((ends[0], at[0] - 0.5), (at[-1] + 0.5, ends[1])):
            if high > low:  # no input there
                axes.axvspan(low, high, color=EMPTY, linewidth=0)
        axes.set(xlim=ends, ylim=(0, 1.05))
        axes.set_yticks([math.sqrt(t) for t in TICKS], list(TICKS.values()))
        axes.set_ylabel("share of the largest", fontsize=TEXT)
        axes.set_xlabel("offset, samples", fontsize=TEXT, labelpad=1)
    return page.figure


def sections(panels: Sequence[Panel], title: str, caption: str) -> Figure:
    """Three sections through the unit's position: path counts above, effective field below."""
    beside = LEFT + 2 * GAP + BAR
    side = look.side(SIDE, beside, 3)
    width = beside + 3 * side
    rows = 2 if any(panel.counts is not None for panel in panels) else 1
    note = f"Sections through the unit's position, shares of the largest value. {caption}"
    named = [("unit", UNIT), ("centroid", CENTROID)]
    keys = [Line2D([], [], label=name, **style) for name, style in named]
    page, tops = _page(panels, title, note, width, rows * (side + 0.42), keys)
    reach = max(map(_reach, panels))
    for panel, top in zip(panels, tops, strict=True):
        maps = [("path counts", panel.counts), ("effective field", panel.field)][-rows:]
        for row, (name, values) in enumerate(maps):
            for i, plane in enumerate(reversed([*combinations(range(3), 2)])):
                x, y = LEFT + i * (side + GAP), top + row * (side + 0.42)
                _section(page.axes(x, y, side, side), panel, values, plane, reach)
                if i == 0:
                    page.lines(x, y - 0.14, [name], SMALL)
        bar = page.axes(width - BAR + 0.08, top, 0.07, side)
        page.figure.colorbar(ScalarMappable(ROOT, MAPS), cax=bar).set_ticks(
            list(TICKS), labels=list(TICKS.values())
        )
        bar.set_ylabel("share of the largest", fontsize=TEXT)
    return page.figure


def _page(
    panels: Sequence[Panel], title: str, note: str, width: float, tall: float, keys: list[Line2D]
) -> tuple[Page, list[float]]:
    """A page with title, legend, caption, each panel's name and figures; where its maps begin."""
    head, foot = wrap(title, 0.9 * width, LARGE), wrap(note, width - 0.16, SMALL)
    texts = [words(panel.metrics, width - LEFT - 0.1) for panel in panels]
    legend = 0.1 + len(head) * line(LARGE)
    across = key_columns([str(key.get_label()) for key in keys], width)
    start = legend + 0.05 + 0.15 * math.ceil(len(keys) / across)
    heights = [0.4 + tall + len(text) * line(TEXT) + 0.08 for text in texts]
    page = Page(width, start + sum(heights) + len(foot) * line(SMALL) + 0.08)
    page.lines(0.08, 0.06, head, LARGE, weight="bold")
    page.legend(keys, legend, across)
    page.lines(0.08, start + sum(heights), foot, SMALL)
    tops, top = [], start
    for panel, text, height in zip(panels, texts, heights, strict=True):
        page.lines(LEFT, top, [panel.title.replace("\n", " ")], TEXT + 1, weight="bold")
        page.lines(LEFT, top + 0.36 + tall, text, TEXT)
        tops.append(top + 0.36)
        top += height
    return page, tops


def _seen(panel: Panel) -> np.ndarray:
    """Where there is something to see."""
    seen = panel.field > SHARE
    return seen if panel.counts is None else seen | (panel.counts > 0)


def _ends(panels: Sequence[Panel]) -> tuple[float, float]:
    """The offsets between which there is something to see, with a margin."""
    at = [np.flatnonzero(_seen(panel)) - panel.origin[0] for panel in panels]
    low, high = min(float(a[0]) for a in at), max(float(a[-1]) for a in at)
    room = 0.04 * (high - low + 1) + 0.5
    return min(low, 0.0) - room, max(high, 0.0) + room


def _reach(panel: Panel) -> float:
    """Half the width of a cube around the unit that holds all that there is to see."""
    ends = zip(panel.origin, np.nonzero(_seen(panel)), strict=True)
    return 1.03 * max(max(at - hits.min(), hits.max() - at) + 0.5 for at, hits in ends)


def _section(
    axes: Axes, panel: Panel, values: np.ndarray | None, plane: tuple[int, ...], reach: float
) -> None:
    """The plane through the unit's position; between two planes, their mean."""
    rows, columns = plane
    (third,) = {0, 1, 2} - {*plane}
    y, x, at = panel.origin[rows], panel.origin[columns], panel.origin[third]
    axes.set_facecolor(EMPTY)
    if values is not None:
        near = {math.floor(at + 1e-6), math.ceil(at - 1e-6)}
        inside = sorted({min(max(n, 0), values.shape[third] - 1) for n in near})
        cut = values.take(inside, third).mean(third)
        extent = (-0.5 - x, cut.shape[1] - 0.5 - x, cut.shape[0] - 0.5 - y, -0.5 - y)
        style: dict[str, Any] = {"cmap": MAPS, "norm": ROOT, "interpolation": "nearest"}
        axes.imshow(cut, extent=extent, aspect="auto", **style)
    axes.set(xlim=(-reach, reach), ylim=(reach, -reach))
    axes.locator_params(nbins=4, integer=True)
    axes.set_ylabel(f"{NAMES[rows]}, voxels", fontsize=SMALL, labelpad=0)
    axes.set_xlabel(f"{NAMES[columns]}, voxels", fontsize=SMALL, labelpad=1)
    shift = panel.metrics["shift"]
    axes.plot([shift[columns]], [shift[rows]], **CENTROID)
    axes.plot([0], [0], **UNIT)
