"""Receptive fields of sequences: path counts over time, and what lies ahead of the unit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rfbench.errors import UsageError
from rfbench.plotting import look
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.plotting.palette import BLUE, EMPTY, ORANGE, SHARE, VERMILION
from rfbench.rf.core.metrics import caption as words_of
from rfbench.rf.questions.maps.figure import Panel, Scale

WIDTH, TALL, LEFT = 7.0, 1.25, 0.46  # inches; the width is the usual one
HEAD, FOOT = 0.32, 0.36  # above and below each curve: the axis of time, ticks and label
NOTE = (
    "Curves: {root}the number of paths from each sample to one unit, 1 where most. Offsets: "
    "samples from the unit's position in a grid centred on the source; shaded: what comes after "
    "it. Shift: centroid minus that position. "
    "Gridding: coefficient of variation of the counts' sums over the phases of a period, the "
    "largest of all periods; 0 is even."
)


def lines_figure(
    panels: Sequence[Panel],
    title: str,
    caption: str,
    scale: Scale = "sqrt",
    rate: float | None = None,
) -> Figure:
    """The path counts of one unit of each panel over the offset from the unit's position.

    rate: samples a second, for a second axis in milliseconds. Raises UsageError without panels.
    """
    if not panels:
        raise UsageError("a figure of maps needs at least one panel")
    note = NOTE.format(root="square root of " if scale == "sqrt" else "")
    width = look.page_width(WIDTH)
    head, foot = wrap(title, width - 0.3, LARGE), wrap(f"{note}\n{caption}", width - 0.16, SMALL)
    words = [wrap(_words(panel, rate), width - LEFT - 0.1, TEXT) for panel in panels]
    above = HEAD + (0.22 if rate else 0)
    heights = [above + TALL + FOOT + len(some) * line(TEXT) + 0.06 for some in words]
    top = 0.1 + len(head) * line(LARGE)
    page = Page(width, top + sum(heights) + len(foot) * line(SMALL) + 0.1)
    page.lines(0.08, 0.06, head, LARGE, weight="bold")
    page.lines(0.08, top + sum(heights), foot, SMALL)
    ends = _ends(panels)
    for panel, some, height in zip(panels, words, heights, strict=True):
        page.lines(LEFT, top + 0.02, [panel.title.replace("\n", " ")], TEXT + 1, weight="bold")
        _curve(page, top + above - 0.1, panel, ends, scale, rate)
        page.lines(LEFT, top + above - 0.1 + TALL + FOOT - 0.02, some, TEXT)
        top += height
    return page.figure


def look_ahead(panel: Panel) -> float:
    """Samples that the unit reads after its place; 0: it is causal."""
    return max(0.0, float(np.flatnonzero(panel.path_map.counts)[-1]) - panel.origin[0])


def milliseconds(samples: float, rate: float | None) -> str:
    """'63 samples', with the time where the rate is known."""
    text = f"{samples:g} sample{'' if samples == 1 else 's'}"
    return f"{text} ({1000 * samples / rate:.4g} ms)" if rate else text


def _words(panel: Panel, rate: float | None) -> str:
    ahead = look_ahead(panel)
    more = f"looks ahead {milliseconds(ahead, rate)}" if ahead else "causal: nothing ahead is read"
    time = f", field {milliseconds(panel.metrics['size'][0], rate)}" if rate else ""
    text = f"{words_of(panel.metrics)}{time}, {more}"
    if panel.own:
        text += f"\n{panel.own_at}: {words_of(panel.own[1], brief=True)}"
    return text


def _ends(panels: Sequence[Panel]) -> tuple[float, float]:
    """The offsets of the first and the last sample that matter to any panel."""
    offsets = [np.flatnonzero(panel.counts > SHARE) - panel.origin[0] for panel in panels]
    low, high = min(at[0] for at in offsets), max(at[-1] for at in offsets)
    room = 0.04 * (high - low + 1) + 0.5
    return min(low, 0) - room, max(high, 0) + room


def _curve(
    page: Page,
    top: float,
    panel: Panel,
    ends: tuple[float, float],
    scale: Scale,
    rate: float | None,
) -> None:
    axes = page.axes(LEFT, top, page.width - LEFT - 0.12, TALL)
    counts = np.sqrt(panel.counts) if scale == "sqrt" else panel.counts
    at = np.arange(len(counts)) - panel.origin[0]
    near = (at >= ends[0]) & (at <= ends[1])
    style: dict[str, Any] = {"color": BLUE, "linewidth": 0.9}
    after = at[at > 1e-9]  # the unit's position may lie between two samples
    if len(after) and after[0] - 0.5 < ends[1]:
        axes.axvspan(after[0] - 0.5, ends[1], color=ORANGE, alpha=0.16, linewidth=0)
    if near.sum() > 400:  # a step a sample would be all edges
        axes.plot(at[near], counts[near], **style)
        axes.fill_between(at[near], counts[near], color=BLUE, alpha=0.15, linewidth=0)
    else:
        axes.bar(at[near], counts[near], 0.86, color=BLUE, linewidth=0)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(panel.offset[0], color=VERMILION, linewidth=0.9, linestyle=(0, (3, 2)))
    for x, name, colour in ((0, "unit", "black"), (panel.offset[0], "centroid", VERMILION)):
        left = (panel.offset[0] <= 0) == (name == "centroid")
        axes.annotate(
            name,
            (x, 1.17),
            (-3 if left else 3, -1),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            fontsize=SMALL,
            color=colour,
        )
    axes.set(xlim=ends, ylim=(0, 1.18))
    ticks = [0, 0.1, 0.25, 0.5, 1]
    axes.set_yticks([t**0.5 if scale == "sqrt" else t for t in ticks], [f"{t:g}" for t in ticks])
    first, last = at[0] - 0.5, at[-1] + 0.5
    for lo, hi in ((ends[0], first), (last, ends[1])):  # no source there
        if hi > lo:
            axes.axvspan(lo, hi, color=EMPTY, linewidth=0)
    axes.set_ylabel("paths / most paths", fontsize=TEXT)
    axes.set_xlabel("offset, samples", fontsize=TEXT, labelpad=1)
    if rate:
        both = (lambda x: np.multiply(x, 1000 / rate), lambda x: np.multiply(x, rate / 1000))
        time = axes.secondary_xaxis("top", functions=both)
        time.tick_params(labelsize=SMALL, length=2, width=0.5, pad=1.5)
        time.set_xlabel("ms", fontsize=TEXT, labelpad=1)
