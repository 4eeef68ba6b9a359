"""Where the shift arises: the paper's Figure 3 as a curve over the layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rfbench.errors import UsageError
from rfbench.plotting import look
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, key_columns, line, text_width, wrap
from rfbench.plotting.palette import MARKS, colours

LEFT = 0.54


def layers_figure(
    rows: Mapping[str, Sequence[tuple[str, float]]], title: str, caption: str, unit: str = "px"
) -> Figure:
    """Where the shift arises: for each variant, the shift (px of the input) layer by layer.

    rows: (layer, shift) in order of execution; NaN leaves a gap. unit: what shifts are counted in.
    Raises UsageError without any.
    """
    names = list(dict.fromkeys(name for row in rows.values() for name, _ in row))
    if not names:
        raise UsageError("a figure of layers needs at least one layer")
    width, tall = look.page_width(7.0), 2.0
    ticks = _labelled(names, rows, width)
    room = max(text_width(names[i], SMALL) for i in ticks) + 0.12
    head, foot = wrap(title, width - 0.16, LARGE), wrap(caption, width - 0.16, SMALL)
    columns = min(4, key_columns(list(rows), width))
    top = 0.1 + len(head) * line(LARGE)
    keys = -(-len(rows) // columns) * 0.15 + 0.04
    below = top + keys + tall + room + 0.08
    page = Page(width, below + len(foot) * line(SMALL) + 0.06)
    page.lines(0.08, 0.06, head, LARGE, weight="bold")
    page.lines(0.08, below, foot, SMALL)
    axes = page.axes(LEFT, top + keys, width - LEFT - 0.1, tall)
    axes.axhline(0, color="#888888", linewidth=0.6)
    colour = colours(rows)
    for i, (variant, row) in enumerate(rows.items()):
        x, y = [names.index(name) for name, _ in row], [shift for _, shift in row]
        # the first lines are the widest, so that lines on top of each other are all seen
        style: dict[str, Any] = {
            "color": colour[variant],
            "marker": MARKS[i % 8],
            "markersize": 3.2,
        }
        style |= {"linewidth": max(0.8, 2.6 - 0.5 * i), "markevery": (i, max(1, len(x) // 12))}
        axes.plot(x, y, label=variant, **style)
    page.legend(axes.get_legend_handles_labels()[0], top, columns)
    axes.set_xticks(ticks, [names[i] for i in ticks], rotation=90, parse_math=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel(f"shift, {unit} of the input", fontsize=TEXT)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    return page.figure


def _labelled(
    names: list[str], rows: Mapping[str, Sequence[tuple[str, float]]], width: float
) -> list[int]:
    """The layers with a label: those at which most happens come first, as long as there is room."""
    jump = np.zeros(len(names))
    for row in rows.values():
        steps = np.abs(np.diff([0.0, *(shift for _, shift in row)]))
        np.maximum.at(jump, [names.index(name) for name, _ in row], np.nan_to_num(steps))
    chosen: list[int] = []
    most = 48 * width / 7  # labels beside each other
    for i in np.argsort(-jump.round(3), kind="stable").tolist():
        if all(abs(i - j) >= len(names) / most for j in chosen):
            chosen.append(i)
    return sorted(chosen)
