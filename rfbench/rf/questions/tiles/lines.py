"""Tiles over a sequence, each with its halo, and what they differ by without one."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfbench.plotting import look
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.plotting.palette import BLACK, BLUE, SKY, VERMILION
from rfbench.rf.core.subjects import short
from rfbench.rf.questions.tiles.scheme import keys
from rfbench.rf.questions.tiles.table import caption, side_by_side

WIDTH, LEFT = 6.0, 0.55  # inches: of the page, before the panels
ROW, MOST = 0.16, 8  # height of a crop's row, and how many crops are drawn
TALL, GAP = 1.2, 0.55  # of the curve, and above it


def tiles_figure(record: dict[str, Any], without: np.ndarray | None) -> Figure:
    """The first crops, a row each; below them the differences without a halo, if crops fit so."""
    spans, width = _spans(record), look.page_width(WIDTH)
    title = f"{short(record['model'])} / {record['variant']} to {record['to']}"
    head, foot = wrap(title, width - 0.16, LARGE), wrap(caption(record), width - 0.16, SMALL)
    top, scheme = 0.1 + len(head) * line(LARGE) + 0.42, ROW * len(spans) + 0.1
    curve = 0.0 if without is None else GAP + TALL
    below = top + scheme + curve + 0.42
    sheet = Page(width, below + len(foot) * line(SMALL) + 0.06)
    sheet.lines(0.08, 0.06, head, LARGE, weight="bold")
    first = sheet.axes(LEFT, top, width - LEFT - 0.15, scheme)
    _scheme(first, record, spans)
    sheet.legend(keys(), 0.1 + len(head) * line(LARGE), 2)
    if without is not None:
        axes = sheet.axes(LEFT, top + scheme + GAP, width - LEFT - 0.15, TALL)
        _differences(axes, record, without)
    sheet.lines(0.08, below, foot, SMALL)
    return sheet.figure


Span = tuple[float, float, float, float]  # a crop's first and last sample, and those of its tile


def _spans(record: dict[str, Any]) -> list[Span]:
    """The first crops of a sequence."""
    (side,), (crop,) = record["shown"]["size"], record["crop"]
    used = next(c["used"] for c in record["crops"] if c["crop"] == record["crop"])[0]
    begin = record["lost"][0][0] * record["stride"][0]
    count = 1 + max(0, -(-(side - crop) // used))
    spans = []
    for i in range(count):
        start, tile = i * used, i * used + begin
        end = side if i == count - 1 else tile + used
        spans.append((start, min(start + crop, side), tile if i else 0, end))
    return spans[:MOST]


def _scheme(axes: Axes, record: dict[str, Any], spans: list[Span]) -> None:
    """A row a crop, with what is taken from it."""
    for i, (start, end, first, last) in enumerate(spans):
        axes.barh(i, end - start, left=start, height=0.8, color=SKY, alpha=0.6, linewidth=0)
        axes.barh(i, last - first, left=first, height=0.8, color=BLUE, linewidth=0)
    side, count = record["shown"]["size"][0], record["shown"]["tiles"]
    end = side if count <= MOST else spans[-1][1]
    axes.set(xlim=(0, end), ylim=(len(spans) - 0.4, -0.6), yticks=[])
    rest = "" if count <= MOST else f", the first {MOST} of {count}"
    used = next(c["used"] for c in record["crops"] if c["crop"] == record["crop"])[0]
    text = f"crops of {record['crop'][0]} samples, {used} used of each{rest}"
    axes.set_title(text, fontsize=TEXT, pad=3)
    axes.set_xlabel("sample", fontsize=TEXT, labelpad=1)


def _differences(axes: Axes, record: dict[str, Any], apart: np.ndarray) -> None:
    """By unit, without a halo."""
    side = record["shown"]["size_without_halo"][0]
    at = (np.arange(len(apart)) + 0.5) * side / len(apart)
    axes.plot(at, np.maximum(apart, 1e-16), color=BLACK, linewidth=0.8)
    for edge in range(record["crop"][0], side, record["crop"][0]):
        axes.axvline(edge, color=VERMILION, linewidth=0.6)
    axes.set(xlim=(0, side), ylim=(1e-17, 10), yscale="log")
    axes.set_title(side_by_side(record), fontsize=TEXT, pad=3)
    axes.set_xlabel("sample", fontsize=TEXT, labelpad=1)
    axes.set_ylabel("difference / largest value", fontsize=SMALL)
