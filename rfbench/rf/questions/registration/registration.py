"""Where a detector takes its features to be, and where they are: per level of its pyramid.

In px of the image, whose pixel i reaches from i to i + 1: unit u of a level with stride S is
taken to be at (u + OFFSET) S by anchors and at (u + 0.5) S by RoIAlign; its field's centroid
(path counts) lies at u S + `field`. The field is that of the backbone's feature below the level's
lateral connection. Those of the level itself are told beside it: by their number, paths of deeper
levels that come down to it outweigh its own, and neighbouring units take turns in what they get.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rfbench.errors import RfbenchError
from rfbench.plotting import look
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.plotting.palette import COLOURS, MARKS
from rfbench.rf.core.levels import Level
from rfbench.rf.core.network import Network

LARGEST = 4096  # px of an input on which a field is still cut off: then it is told as cut
START = 1024


def measure(module: Any, levels: list[Level], offset: float) -> list[dict[str, Any]]:
    """For every level: its stride, where its field is, and what anchors and RoIAlign miss it by."""
    network = Network(module, (START, START), 3)
    turns = max(level.stride for level in levels if level.feature != level.output)
    rows = []
    for level in levels:
        field = _offsets(network, level.feature, level.stride, 1)[0]
        whole = _offsets(network, level.output, level.stride, max(1, turns // level.stride))
        row: dict[str, Any] = {
            "level": level.name,
            "stride": level.stride,
            "feature": level.feature,
            "field": field,
            "field_size": _size(network, level.feature),
            "output": {"mean": float(np.mean(whole)), "least": min(whole), "most": max(whole)},
        }
        if level.anchors:
            row["anchors"] = offset * level.stride
            row["field_minus_anchors"] = field - row["anchors"]
        if level.rois:
            row["roi_align"] = level.stride / 2
            row["field_minus_roi_align"] = field - row["roi_align"]
        rows.append(row)
    return rows


def _offsets(network: Network, layer: str, stride: int, turns: int) -> list[float]:
    """Centroid minus u S, of neighbouring units u along the diagonal; x and y are alike."""
    side = START
    while True:
        target = network.target((side, side), layer)
        first = (target.units[0] // 2) // turns * turns
        units = range(first, first + turns)
        maps = [target.counts((u, u)) for u in units]
        edges = [c for m in maps for c in (m.counts[0], m.counts[-1], m.counts[:, 0])]
        if not any(edge.any() for edge in edges) or 2 * side > LARGEST:
            break
        side *= 2
    centers = [m.centroid for m in maps]
    if any(abs(y - x) > 1e-6 for y, x in centers):
        raise RfbenchError(f"the field of {layer} is not the same along y and x")
    return [round(y + 0.5 - u * stride, 9) for (y, _), u in zip(centers, units, strict=True)]


def _size(network: Network, layer: str) -> int:
    """The theoretical size of a layer's fields, the larger along both axes."""
    fields = network.target((START, START), layer).geometry.fields
    return max(field.size for field in fields)


def figure(variants: dict[str, list[dict[str, Any]]], title: str, offset: float) -> Figure:
    """By variant: what the levels' fields miss anchors and RoIAlign by, in px and in strides."""
    kinds = [
        (key, name)
        for key, name in (
            ("field_minus_anchors", f"field minus anchors (OFFSET {offset:g})"),
            ("field_minus_roi_align", "field minus RoIAlign"),
        )
        if any(key in row for rows in variants.values() for row in rows)
    ]
    left, gap = 0.55, 0.75
    side = look.side(2.6, left + len(kinds) * gap, len(kinds))
    width = look.page_width(max(3.6, left + len(kinds) * (side + gap)))
    head = wrap(title, 0.9 * (width - 0.16), LARGE)
    note = wrap(
        "Centroid of the path counts of the backbone's feature below each level, minus where "
        "the detector takes it to be, along either axis; px of the image. 0: registered.",
        width - 0.16,
        SMALL,
    )
    top = 0.1 + len(head) * line(LARGE)
    rows = -(-len(variants) // 4)
    below = top + 2.1 + 0.3 + rows * 0.16 + 0.1
    page = Page(width, below + len(note) * line(SMALL) + 0.06)
    page.lines(0.08, 0.06, head, LARGE, weight="bold")
    for i, (key, name) in enumerate(kinds):
        axes = page.axes(left + i * (side + gap), top + 0.18, side, 1.85)
        axes.set_title(name, fontsize=TEXT, pad=3)
        axes.axhline(0, color="#888888", linewidth=0.6)
        for number, (variant, levels) in enumerate(variants.items()):
            told = [row for row in levels if key in row]
            style: dict[str, Any] = {"color": COLOURS[number % 8], "marker": MARKS[number % 8]}
            style |= {"markersize": 3.5, "linewidth": max(0.8, 2.2 - 0.4 * number)}
            axes.plot([r["level"] for r in told], [r[key] for r in told], label=variant, **style)
        axes.set_ylabel("px", fontsize=TEXT)
        axes.grid(axis="y", color="#dddddd", linewidth=0.5)
        handles = axes.get_legend_handles_labels()[0]
    page.legend(handles, below - rows * 0.16 - 0.06, min(4, len(variants)))
    page.lines(0.08, below, note, SMALL)
    return page.figure
