"""The sizes of a set's objects beside the fields of a detector's levels: `--objects`.

Sizes are those of boxes in the image that the detector sees: Detectron2 resizes its shorter side to
INPUT.MIN_SIZE_TEST, unless the longer one would exceed INPUT.MAX_SIZE_TEST.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from rfbench import files
from rfbench.data import text
from rfbench.errors import UsageError, one_line
from rfbench.plotting import look
from rfbench.plotting.columns import columns
from rfbench.plotting.page import LARGE, SMALL, TEXT, Page, line, wrap
from rfbench.plotting.palette import COLOURS, GREY

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class Objects:
    """The boxes of a set as (n, 2) heights and widths in px of the resized images.

    images: how many have some. crowds, empty: boxes that are left out. resize: shorter and longest
    side; (0, 0): as they are.
    """

    boxes: np.ndarray
    images: int
    crowds: int
    empty: int
    resize: tuple[int, int]

    @property
    def sides(self) -> np.ndarray:
        """The root of each box's area."""
        return np.sqrt(self.boxes.prod(1))


def read(path: Path, resize: tuple[int, int]) -> Objects:
    """The objects of a set in COCO's format. Raises UsageError for a file that is none.

    resize: the shorter side of the image that the detector sees and the most of the longer one;
    a shorter side of 0: images are not resized.
    """
    content = _load(path)
    scales: dict[Any, tuple[float, float]] = {}
    for one in content["images"]:
        size: Any = (one.get("height"), one.get("width")) if isinstance(one, dict) else (0, 0)
        if not all(_is_number(n) and n > 0 for n in size):
            raise UsageError(f"{path}: an image has no height and width: {one_line(repr(one), 80)}")
        scales[one.get("id")] = _scale(size, *resize)
    boxes, images, crowds, empty = [], set(), 0, 0
    for one in content["annotations"]:
        box = one.get("bbox") if isinstance(one, dict) else None
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            raise UsageError(f"{path}: an annotation has no bbox: {one_line(repr(one), 80)}")
        if one.get("image_id") not in scales:
            raise UsageError(
                f"{path}: annotation {one.get('id')} is of image {one.get('image_id')}, which is "
                "not there"
            )
        if one.get("iscrowd"):
            crowds += 1
        elif min(box[2:]) <= 0:
            empty += 1
        else:
            y, x = scales[one["image_id"]]
            boxes.append((box[3] * y, box[2] * x))
            images.add(one["image_id"])
    if not boxes:
        raise UsageError(f"{path}: no object has a box")
    return Objects(np.array(boxes, float), len(images), crowds, empty, resize)


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(text.of(files.read_bytes(path), path))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {one_line(error)}") from None
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UsageError(f"{path}: no list '{key}'; expected annotations in COCO's format")
    return content


def _is_number(value: Any) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and bool(np.isfinite(value))


def _scale(size: tuple[Any, Any], short: int, longest: int) -> tuple[float, float]:
    """By how much Detectron2's ResizeShortestEdge enlarges an image along y and x."""
    if short == 0:
        return 1.0, 1.0
    y, x = (n * short / min(size) for n in size)
    if max(y, x) > longest:
        y, x = y * longest / max(y, x), x * longest / max(y, x)
    return int(y + 0.5) / size[0], int(x + 0.5) / size[1]


def figures(found: Objects, variants: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Quantiles, and by variant and level the shares of objects smaller and larger, for JSON."""
    kinds = {"root of area": found.sides, "height": found.boxes[:, 0], "width": found.boxes[:, 1]}
    levels = {
        variant: [
            {
                "level": row["level"],
                "stride": row["stride"],
                "field_size": row["field_size"],
                "smaller_than_stride": float((found.sides < row["stride"]).mean()),
                "larger_than_field": float((found.sides > row["field_size"]).mean()),
            }
            for row in rows
        ]
        for variant, rows in variants.items()
    }
    return {
        "objects": len(found.boxes),
        "images": found.images,
        "left_out": {"crowds": found.crowds, "empty": found.empty},
        "resize": found.resize,
        "quantiles": {
            name: {f"{q:g}": float(np.quantile(values, q)) for q in QUANTILES}
            for name, values in kinds.items()
        },
        "levels": levels,
    }


def table(record: dict[str, Any]) -> list[str]:
    """The same as lines of text."""
    short, longest = record["resize"]
    size = f"resized to {short} px, at most {longest} px" if short else "not resized"
    gone = [f"{n} {name}" for name, n in record["left_out"].items() if n]
    left = f"; left out: {', '.join(gone)}" if gone else ""
    lines = [f"{record['objects']} objects in {record['images']} images, {size}{left}"]
    head = ("px, quantiles", *(f"{q:.0%}" for q in QUANTILES))
    rows = [
        (name, *(f"{v:.1f}" for v in own.values())) for name, own in record["quantiles"].items()
    ]
    lines += columns([head, *rows], "  ")
    shares: list[tuple[str, ...]] = [
        ("variant", "level", "stride", "field", "objects < stride", "objects > field")
    ]
    for variant, levels in record["levels"].items():
        for row in levels:
            small, large = row["smaller_than_stride"], row["larger_than_field"]
            own = (str(row["stride"]), str(row["field_size"]), f"{small:.1%}", f"{large:.1%}")
            shares.append((variant, row["level"], *own))
    return lines + columns(shares, "  ")


def figure(found: Objects, record: dict[str, Any], title: str) -> Figure:
    """Objects by size; below, a bar from the stride to the field of every level and variant."""
    rows = [(v, r) for v, levels in record["levels"].items() for r in levels]
    width, tall, bar = look.page_width(5.2), 1.5, 0.13
    note = wrap(
        "Above: objects by the root of their box's area, in the image that the detector sees. "
        "Below: from a level's stride to its theoretical field, that of the backbone's feature.",
        width - 0.16, SMALL,
    )  # fmt: skip
    head = wrap(title, width - 0.16, LARGE)
    top = 0.12 + len(head) * line(LARGE)
    below = top + tall + 0.12 + bar * len(rows)
    sheet = Page(width, below + 0.4 + len(note) * line(SMALL))
    sheet.lines(0.08, 0.06, head, LARGE, weight="bold")
    least = min(float(found.sides.min()), *(r["stride"] for _, r in rows))
    most = max(float(found.sides.max()), *(r["field_size"] for _, r in rows))
    one = sheet.axes(1.15, top, width - 1.3, tall)
    one.hist(found.sides, bins=np.geomspace(least, most, 50).tolist(), color=GREY)
    one.set_ylabel("objects", fontsize=TEXT)
    two = sheet.axes(1.15, top + tall + 0.12, width - 1.3, bar * len(rows))
    names = list(record["levels"])
    for i, (variant, row) in enumerate(rows):
        wide, colour = row["field_size"] - row["stride"], COLOURS[names.index(variant) % 8]
        two.barh(i, wide, left=row["stride"], color=colour, height=0.7)
    labels = [f"{variant} {row['level']}" for variant, row in rows]
    two.set_yticks(range(len(rows)), labels, parse_math=False)
    two.set_ylim(len(rows) - 0.5, -0.5)
    for axes in (one, two):
        axes.set_xscale("log", base=2)
        axes.set_xlim(0.9 * least, 1.1 * most)
    one.set_xticklabels([])
    two.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    two.set_xlabel("px", fontsize=TEXT, labelpad=1)
    sheet.lines(0.08, below + 0.34, note, SMALL)
    return sheet.figure
