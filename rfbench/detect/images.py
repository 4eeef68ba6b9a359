"""Predictions beside ground truth: two copies of an image with boxes, masks, classes and scores."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from rfbench.data import decode
from rfbench.files import aside

FOLDER = "predictions"
DPI = 200
WIDTH, TALLEST, GAP, HEAD = 7.0, 4.5, 0.1, 0.2  # inches; the text of a two-column paper is 7 wide
TITLE, LABEL = 8.0, 6.0  # points
MIN_SCORE = 0.3  # of a prediction that is drawn
ALPHA = 0.45  # of masks

Color = tuple[float, float, float]


def save(
    annotations: Path,
    images: Path,
    predictions: Sequence[dict[str, Any]],
    folder: Path,
    count: int,
    min_score: float = MIN_SCORE,
    masks: bool = True,
) -> list[str]:
    """Draw the first `count` images of a COCO set, a PNG each in `folder`/predictions.

    predictions: COCO's results, with "bbox" and perhaps "segmentation". Those that score less than
    `min_score` are not drawn. masks: whether to draw masks, on both sides.
    Returns the files' names, relative to `folder`.
    """
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
    colors = palette(sorted(truth.cats))
    by_image: dict[int, list[dict[str, Any]]] = {}
    for one in predictions:
        if one["score"] >= min_score and one["category_id"] in colors:
            by_image.setdefault(one["image_id"], []).append(one)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    names = []
    for number, image in enumerate(truth.dataset["images"][:count], start=1):
        objects = truth.loadAnns(truth.getAnnIds(imgIds=image["id"]))
        drawn = by_image.get(image["id"], [])
        which = "predictions (score of" if drawn else "no prediction (none with a score of"
        sides = {"ground truth": objects, f"{which} {min_score:g} or more)": drawn}
        figure = draw(read(images / image["file_name"]), sides, truth, colors, masks)
        names.append(f"{FOLDER}/{number:03d}-{Path(image['file_name']).stem}.png")
        with aside(folder / names[-1]) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    return names


def read(path: Path) -> np.ndarray:
    """An image (H, W, 3) uint8, rotated as EXIF says; raises `decode.BadImage`."""
    return decode.read(str(path), upright=True).numpy()


def palette(categories: Sequence[int]) -> dict[int, Color]:
    """A colour for every category: ten distinct ones, or twenty, which repeat."""
    colors = matplotlib.colormaps["tab10" if len(categories) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    return {one: colors[i % len(colors)] for i, one in enumerate(categories)}


def draw(
    image: np.ndarray,
    sides: dict[str, list[dict[str, Any]]],
    truth: Any,
    colors: dict[int, Color],
    masks: bool = True,
) -> Figure:
    """The image (H, W, 3) once for every title in `sides`, each with its boxes.

    truth: pycocotools' COCO, for category names and decoded masks.
    """
    height, width, _ = image.shape
    panel = (WIDTH - GAP * (len(sides) - 1)) / len(sides)
    panel = min(panel, TALLEST * width / height)
    tall = panel * height / width
    across = panel * len(sides) + GAP * (len(sides) - 1)
    figure = Figure((across, tall + HEAD), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for i, (title, boxes) in enumerate(sides.items()):
        bounds = (i * (panel + GAP) / across, 0, panel / across, tall / (tall + HEAD))
        axes = figure.add_axes(bounds)
        axes.set_axis_off()
        axes.set_title(title, fontsize=TITLE, pad=3)
        # small images are shown pixel by pixel
        smooth = "antialiased" if panel * DPI < 3 * width else "nearest"
        # COCO's coordinates: a pixel spans i to i + 1
        axes.imshow(
            overlaid(image, boxes if masks else [], truth, colors),
            interpolation=smooth,
            aspect="auto",
            extent=(0, width, height, 0),
        )
        taken: list[Bbox] = []
        for one in by_area(boxes):
            outline(axes, one, colors[one["category_id"]])
        for one in by_area(boxes)[::-1]:  # small boxes first: they have the fewest spots
            label(axes, one, caption(one, truth), colors[one["category_id"]], taken)
    return figure


def by_area(boxes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Large boxes first, so that they do not hide small ones."""
    return sorted(boxes, key=lambda one: -one["bbox"][2] * one["bbox"][3])


def caption(one: dict[str, Any], truth: Any) -> str:
    """The class name and, for a prediction, the score."""
    name = str(truth.cats[one["category_id"]]["name"])
    if "score" in one:
        return f"{name} {one['score']:.2f}"
    return f"{name} (crowd)" if one.get("iscrowd") else name


def overlaid(
    image: np.ndarray, boxes: Sequence[dict[str, Any]], truth: Any, colors: dict[int, Color]
) -> np.ndarray:
    """The image with masks overlaid in the colours of their classes."""
    pixels = image.astype(np.float32) / 255
    for one in by_area(boxes):
        if one.get("segmentation"):
            mask = truth.annToMask(one).astype(bool)
            color = np.array(colors[one["category_id"]])
            pixels[mask] = (1 - ALPHA) * pixels[mask] + ALPHA * color
    return pixels


def outline(axes: Axes, one: dict[str, Any], color: Color) -> None:
    """A box, dashed for a crowd, over a dark line that is visible on any background."""
    x, y, w, h = one["bbox"]
    style: dict[str, Any] = {"fill": False, "linestyle": "--" if one.get("iscrowd") else "-"}
    for edge, line in (("black", 1.8), (color, 1.1)):
        axes.add_patch(Rectangle((x, y), w, h, edgecolor=edge, linewidth=line, **style))


def label(axes: Axes, one: dict[str, Any], words: str, color: Color, taken: list[Bbox]) -> None:
    """Write above, below or inside a box, where it hides the least of the labels at `taken`."""
    bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 0.55
    ground = {"boxstyle": "square,pad=0.12", "facecolor": color, "edgecolor": "none"}
    style: dict[str, Any] = {"color": "black" if bright else "white", "fontsize": LABEL}
    text = axes.text(0, 0, words, va="top", parse_math=False, bbox=ground, **style)
    # its extent with background at (0, 0), in px of the image
    figure: Any = axes.figure
    text.update_bbox_position_size(figure.canvas.get_renderer())
    patch: Any = text.get_bbox_patch()
    extent = patch.get_window_extent().transformed(axes.transData.inverted())
    x, y, w, h = one["bbox"]
    wide, tall = abs(extent.width), abs(extent.height)
    right, bottom = axes.get_xlim()[1] - wide, axes.get_ylim()[0] - tall
    spots = [
        Bbox.from_bounds(max(0, min(left, right)), max(0, min(top, bottom)), wide, tall)
        for left in (x, x + w - wide)
        for top in (y - tall, y + h, y, y + h - tall)
    ]
    best = min(spots, key=lambda spot: sum(shared(spot, other) for other in taken))
    text.set_position((best.x0 - extent.xmin, best.y0 - extent.ymin))
    taken.append(best)


def shared(a: Bbox, b: Bbox) -> float:
    """The area of the intersection of two boxes."""
    both = Bbox.intersection(a, b)
    return 0.0 if both is None else abs(both.width * both.height)
