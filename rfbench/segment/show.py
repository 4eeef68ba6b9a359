"""Predictions drawn beside the truth: an image, its mask and the predicted mask."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rfbench.data.decode import BadImage
from rfbench.data.segmentation.pairs import IGNORED
from rfbench.errors import printable
from rfbench.files import aside
from rfbench.schemas.seg import SegConfig
from rfbench.segment.heads import upsampled
from rfbench.segment.images import Images
from rfbench.segment.network import OUT, scores_of

logger = logging.getLogger(__name__)

FOLDER = "predictions"
LONGEST = 150  # bytes of an image's name in a file's
DPI = 200
WIDTH, TALLEST, GAP, HEAD = 7.0, 3.0, 0.08, 0.2  # inches; a two-column paper is 7 wide
LEGEND = 0.17  # inches of a line of it
ACROSS = 6  # classes in a line of the legend


def draw(model: nn.Module, config: SegConfig, data: Images, folder: Path, count: int) -> list[str]:
    """Draw the first `count` validation images, a PNG each in `folder`/predictions.

    Returns the files' names, relative to `folder`; without those of images that cannot be read.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for number in range(min(count, len(data.set.val))):
        try:
            pixels = data.set.val.read(number)
        except BadImage as error:
            logger.warning("not drawn: %s", error)
            continue
        predicted = predict(model, config, data, pixels)
        # of bytes that are no text nothing, so that the record can name the file; and not too long
        stem = os.fsencode(Path(data.set.val.name(number)).stem)[:LONGEST].decode(errors="ignore")
        names.append(f"{FOLDER}/{number + 1:03d}-{stem}.png")
        figure = panels(pixels.numpy(), predicted, data.set.classes, data.set.background)
        with aside(folder / names[-1]) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    return names


def predict(model: nn.Module, config: SegConfig, data: Images, pixels: torch.Tensor) -> np.ndarray:
    """The predicted classes (H, W) of one image (H, W, 4)."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            images, truth = data.split(pixels[None].to(data.group.device))
            scores = scores_of(model, config, len(data.set.classes))(images)[OUT]
            return upsampled(scores, truth.shape[-2:]).argmax(1)[0].cpu().numpy()
    finally:
        model.train(was_training)


def panels(
    pixels: np.ndarray, predicted: np.ndarray, names: list[str], background: int | None
) -> Any:
    """Image, truth and prediction side by side, with the colours of the classes that are there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from rfbench.plotting.page import literal

    truth = pixels[..., 3]
    height, width = truth.shape
    colors = colours(len(names), background)
    there = [c for c in np.union1d(np.unique(truth), np.unique(predicted)).tolist() if c != IGNORED]
    lines = -(-(len(there) + bool((truth == IGNORED).any())) // ACROSS)
    panel = min((WIDTH - 2 * GAP) / 3, TALLEST * width / height)
    across, tall = 3 * panel + 2 * GAP, panel * height / width
    whole = tall + HEAD + LEGEND * lines + 0.05
    figure = Figure((across, whole), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    sides = {"image": pixels[..., :3], "truth": colors[truth], "prediction": colors[predicted]}
    for i, (title, side) in enumerate(sides.items()):
        bottom = (LEGEND * lines + 0.05) / whole
        axes = figure.add_axes((i * (panel + GAP) / across, bottom, panel / across, tall / whole))
        axes.set_axis_off()
        axes.set_title(title, fontsize=8, pad=3)
        smooth = "antialiased" if i == 0 and panel * DPI < 3 * width else "nearest"
        axes.imshow(side, interpolation=smooth, aspect="auto")
    marks = [Patch(fc=colors[c] / 255, ec="0.4", lw=0.4, label=printable(names[c])) for c in there]
    if (truth == IGNORED).any():
        marks.append(Patch(fc=colors[IGNORED] / 255, ec="0.4", lw=0.4, label="ignored"))
    style: dict[str, Any] = {"fontsize": 6.5, "handlelength": 1.0, "handleheight": 1.0}
    style |= {"columnspacing": 1.2, "loc": "lower center", "frameon": False, "borderpad": 0}
    columns = min(ACROSS, len(marks))
    literal(figure.legend(handles=marks, ncols=columns, **style))
    return figure


def colours(classes: int, background: int | None) -> np.ndarray:
    """A colour for each value of a mask, (256, 3) uint8: background black, ignored white."""
    table = np.full((256, 3), 255, np.uint8)
    own = [c for c in range(classes) if c != background]
    for number, c in enumerate(own):
        table[c] = distinct(number, len(own))
    if background is not None:
        table[background] = 0
    return table


def distinct(number: int, count: int) -> tuple[int, int, int]:
    """One of `count` colours: matplotlib's ten or twenty, else around the circle of hues."""
    import colorsys

    import matplotlib

    if count <= 20:
        map_ = matplotlib.colormaps["tab10" if count <= 10 else "tab20"]
        red, green, blue, _ = map_(number)
    else:
        light = (0.42, 0.58, 0.72)[number % 3]
        red, green, blue = colorsys.hls_to_rgb(number / count, light, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)
