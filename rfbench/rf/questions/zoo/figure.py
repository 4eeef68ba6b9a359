"""The zoo in one figure: the shift of every network, by family, its gridding as colour."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, text_width, wrap

ROW = 0.115  # inches of a family


def figure(rows: Sequence[dict[str, Any]], families: Sequence[str], caption: str) -> Figure:
    """rows: of networks with a shift; families: the family of each row."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row, name in zip(rows, families, strict=True):
        groups[name].append(row)
    order = sorted(groups, key=lambda name: (max(abs(r["shift"]) for r in groups[name]), name))
    names = [f"{name} ({len(groups[name])})" for name in order]
    width = 7.0
    left = 0.2 + max((text_width(name, SMALL) for name in names), default=1)
    foot = wrap(caption, width - 0.16, SMALL)
    top, tall = 0.14 + line(LARGE), ROW * max(4, len(order)) + 0.1
    below = top + tall + 0.42
    page = Page(width, below + len(foot) * line(SMALL) + 0.06)
    page.lines(0.08, 0.06, ["Shift of the last map's receptive field"], LARGE, weight="bold")
    page.lines(0.08, below, foot, SMALL)
    axes = page.axes(left, top, width - left - 0.75, tall)
    most = max((row["gridding"] for row in rows), default=0.0)
    norm = Normalize(0, max(0.1, math.ceil(10 * most) / 10))  # of the darkest dot
    for y, name in enumerate(order):
        shifts = [row["shift"] for row in groups[name]]
        grids = [row["gridding"] for row in groups[name]]
        style: dict[str, Any] = {"cmap": "viridis_r", "norm": norm, "linewidths": 0.25}
        axes.scatter(shifts, [y] * len(shifts), c=grids, s=9, edgecolors="black", **style)
    axes.axvline(0, color="#888888", linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(order)), names)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlabel("shift along its larger axis, px (negative: up and left)", fontsize=TEXT)
    axes.grid(axis="x", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    bar = page.axes(width - 0.6, top, 0.12, min(tall, 1.6))
    page.figure.colorbar(ScalarMappable(norm, "viridis_r"), cax=bar)
    bar.tick_params(labelsize=SMALL)
    bar.set_ylabel("gridding", fontsize=TEXT)
    return page.figure
