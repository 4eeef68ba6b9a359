"""Draw the figures of docs/concepts into docs/figures/concepts: `make figures-concepts`.

python scripts/concept_figures.py [--output DIR] [NAME ...]

Every number in them is measured here, by `rfbench.rf` and what it is made of.
"""

import argparse
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from rfbench import rf
from rfbench.plotting.page import LARGE, TEXT, Page, save
from rfbench.plotting.palette import BLUE, CENTROID, EMPTY, GREY, MAPS, UNIT, VERMILION

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 3.5  # inches at 200 dots: 700 px, as pages show it
SIDE = 1.42  # of a panel


def _nets() -> Any:
    spec = importlib.util.spec_from_file_location("nets", DOCS / "concepts" / "nets.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nets = _nets()


def shift() -> Figure:
    """Three strided convolutions: where a unit stands, and where the mass of its map is."""
    page = _panels("One unit behind three strided 3x3s", 2.44)
    for i, (variant, title) in enumerate([("baseline", "as it is"), ("3x3", "fixed: 3x3")]):
        counts, figures = rf.path_counts(rf.record(nets.strided(), 64, variant))
        axes = _panel(page, i, title, counts, (4, 52))
        y, x = figures["centroid"]
        dy, dx = figures["shift"]
        axes.plot([x - dx], [y - dy], **UNIT | {"markersize": 8})
        axes.plot([x], [y], **CENTROID | {"markersize": 9})
        _below(page, i, f"shift {_signed(dy)}, {_signed(dx)} px", 0.22)
    page.lines(0.3, 2.27, ["+ the unit's position     ◯ the map's centroid"], 7.5)
    return page.figure


def gridding() -> Figure:
    """Two strided convolutions: the counts, and their sums over pixels of one phase."""
    page = _panels("Two strided 3x3 convolutions: S = 4", 2.12)
    counts, figures = rf.path_counts(rf.record(nets.strided(2), 32))
    top, left = figures["support"]["top"], figures["support"]["left"]
    shown = counts[top : top + 7, left : left + 7]
    axes = _panel(page, 0, "paths from each pixel", shown)
    _numbers(axes, shown)
    sums = counts.reshape(8, 4, 8, 4).sum((0, 2))
    even = sums / sums.mean()
    axes = _panel(page, 1, "sums by phase / mean", even, top=even.max())
    _numbers(axes, even, ".2f")
    assert abs(even.std() - figures["gridding"]) < 1e-12
    _below(page, 0, f"{int(counts.sum())} paths in all")
    _below(page, 1, f"gridding {figures['gridding']:.4f}")
    return page.figure


def registration() -> Figure:
    """ResNet-18's layer2, stride 8: where fields lie, and where a detector takes them to be."""
    page = Page(WIDTH, 1.75)
    page.lines(0.1, 0.06, ["Four units of ResNet-18's layer2, S = 8 px"], LARGE, weight="bold")
    axes = page.axes(0.95, 0.32, WIDTH - 1.05, 1.05)
    rows = [("anchors, u S", [8.0 * u for u in range(4)], BLUE)]
    rows += [("RoIs, (u + 0.5) S", [8 * (u + 0.5) for u in range(4)], BLUE)]
    for variant, color in [("baseline", VERMILION), ("1x1+3x3", VERMILION)]:
        _, figures = rf.path_counts(rf.record("resnet18", 256, variant), "layer2")
        # pixel i reaches from i to i + 1
        first = figures["centroid"][1] + 0.5 - figures["unit"][1] * 8
        rows.append((f"fields, {variant}", [first + 8 * u for u in range(4)], color))
    for y, (_, places, color) in enumerate(rows):
        axes.axhline(y, color="#dddddd", linewidth=0.6, zorder=0)
        axes.plot(places, [y] * 4, "o", color=color, markersize=5)
        for place in places:
            axes.annotate(f"{place:g}", (place, y), (4, 3), textcoords="offset points", fontsize=6)
    axes.set(xlim=(-1.5, 33), ylim=(len(rows) - 0.4, -0.6), xticks=range(0, 33, 8))
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("px of the image; pixel i reaches from i to i + 1", fontsize=7, labelpad=2)
    return page.figure


def path_counts() -> Figure:
    """Two convolutions of three taps, without and with a skip connection."""
    page = _panels("Paths from each input position to one unit", 2.0)
    plain = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1), nn.Conv1d(1, 1, 3, padding=1))
    both = [("two convolutions", plain), ("and a skip connection", nets.Skip())]
    for i, (title, net) in enumerate(both):
        counts, _ = rf.path_counts(rf.record(net, 7), unit=(3,))
        x = 0.15 + i * (SIDE + 0.32)
        page.lines(x, 0.32, [title], 7.5, weight="bold")
        axes = page.axes(x, 0.52, SIDE, 1.2)
        _taps(axes, skip=i == 1)
        held = {(3, 2): 1} | {(2 + d, 1): 1 for d in range(3)}
        for (at, y), n in (held | {(k, 0): int(n) for k, n in enumerate(counts)}).items():
            style: dict[str, Any] = {"markersize": 11, "markeredgecolor": "black"}
            axes.plot([at], [y], "o", color="white", zorder=2, **style)
            words: dict[str, Any] = {"ha": "center", "va": "center_baseline", "zorder": 3}
            axes.text(at, y, str(n), fontsize=7.5, color="black" if n else "#aaaaaa", **words)
        axes.set(xlim=(-0.6, 6.6), ylim=(-0.4, 2.4))
        axes.axis("off")
        total = " + ".join(str(int(n)) for n in counts if n)
        page.lines(x, 1.78, [f"{total} = {int(counts.sum())}"], 7.5)
    return page.figure


def _taps(axes: Axes, skip: bool) -> None:
    """The lines of two convolutions of three taps, from the unit at 3 downwards."""
    for d in (-1, 0, 1):
        axes.plot([3, 3 + d], [2, 1], color=GREY, linewidth=0.9, zorder=1)
        for e in (-1, 0, 1):
            axes.plot([3 + d, 3 + d + e], [1, 0], color=GREY, linewidth=0.9, zorder=1)
    if skip:
        style: dict[str, Any] = {"arrowstyle": "-", "color": VERMILION, "linewidth": 1.3}
        style["connectionstyle"] = "arc3,rad=-0.9"
        axes.annotate("", (3.2, 0), (3.2, 2), arrowprops=style, zorder=1)


def effective_field() -> Figure:
    """Twenty 3x3 convolutions: the theoretical field, the path counts, the mean |gradient|."""
    page = _panels("20 convolutions of 3x3: a field of 41x41 px", 2.3)
    counts, _ = rf.path_counts(rf.record(nets.plain(), 64))
    fields = []
    for seed in range(32):
        torch.manual_seed(seed)
        seen, _ = rf.effective(nets.plain(), torch.randn(2, 1, 64, 64))
        fields.append(seen.magnitude)
    field = np.mean(fields, 0)
    size = np.sqrt((field > (1 - 0.9545) * field[31, 31]).sum())
    for i, (title, values) in enumerate([("path counts", counts), ("mean |gradient|", field)]):
        axes = _panel(page, i, title, values / values.max(), (8, 56), root=False)
        box = Rectangle((10.5, 10.5), 41, 41, fill=False, edgecolor="white", linewidth=0.9)
        axes.add_patch(box)
    _below(page, 0, "white frame: 41x41 px", 0.22)
    _below(page, 1, f"Luo et al.'s size: {size:.1f} px", 0.22)
    return page.figure


def checkerboard() -> Figure:
    """Transposed convolutions of stride 2: paths to each position of the output."""
    page = _panels("Paths that reach each position of the output", 2.1)
    for i, kernel in enumerate((3, 4)):
        net = nn.ConvTranspose2d(1, 1, kernel, 2, 1, output_padding=kernel % 2)
        graph = rf.record(net, inputs=[torch.zeros(1, 1, 16, 16)])
        units = [[(y, x) for x in range(13, 19)] for y in range(13, 19)]
        totals = np.array([[rf.path_counts(graph, unit=u)[0].sum() for u in row] for row in units])
        axes = _panel(page, i, f"kernel {kernel}, stride 2", totals, top=4)
        _numbers(axes, totals)
        _below(page, i, f"checkerboard {totals.std() / totals.mean():.4f}")
    return page.figure


def conventions() -> Figure:
    """Where units stand: on the grid centred on the image, and on the half-pixel grid."""
    page = Page(WIDTH, 2.05)
    page.lines(0.1, 0.06, ["A convolution of kernel 1 and stride 2"], LARGE, weight="bold")
    for i, side in enumerate((8, 9)):
        _, figures = rf.path_counts(rf.record(nn.Conv2d(1, 1, 1, 2), side), unit=(0, 0))
        units = figures["units"][1]
        axes = page.axes(1.12, 0.34 + i * 0.83, WIDTH - 1.22, 0.62)
        for pixel in range(side):
            style: dict[str, Any] = {"facecolor": EMPTY, "edgecolor": "white", "linewidth": 1}
            axes.add_patch(Rectangle((pixel - 0.5, -0.5), 1, 1, **style))
            axes.text(pixel, 0, str(pixel), fontsize=7, ha="center", va="center_baseline")
        centred = [(u - (units - 1) / 2) * 2 + (side - 1) / 2 for u in range(units)]
        half = [(u + 0.5) * 2 - 0.5 for u in range(units)]
        read = [figures["centroid"][1] + 2.0 * u for u in range(units)]
        for y, (places, mark, color) in enumerate(
            [(read, "v", VERMILION), (centred, "+", BLUE), (half, "x", "black")], 1
        ):
            axes.plot(places, [y] * units, mark, color=color, markersize=5, markeredgewidth=1.3)
        names = [f"{side} pixels", "it reads", "centred grid", "half-pixel grid"]
        axes.set_yticks(range(4), names, fontsize=7)
        axes.set(xlim=(-0.7, 8.7), ylim=(3.6, -0.6), xticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0)
        shift, registration = (_signed(figures[name][1]) for name in ("shift", "registration"))
        told = f"shift {shift} px, registration {registration} px"
        page.lines(1.12 + 0.1, 0.34 + i * 0.83 + 0.63, [told], 7)
    return page.figure


def _panels(title: str, height: float) -> Page:
    page = Page(WIDTH, height)
    page.lines(0.1, 0.06, [title], LARGE, weight="bold")
    return page


def _panel(
    page: Page,
    i: int,
    title: str,
    values: np.ndarray,
    window: tuple[int, int] | None = None,
    top: float | None = None,
    root: bool = True,
) -> Axes:
    """A map in its place, left or right. window: of px shown; root: square roots are shown."""
    x = 0.3 + i * (SIDE + 0.3)
    page.lines(x, 0.28, [title], 7.5, weight="bold")
    axes = page.axes(x, 0.44, SIDE, SIDE)
    shown = np.sqrt(values) if root else values
    most = shown.max() if top is None else (np.sqrt(top) if root else top)
    axes.imshow(shown, cmap=MAPS, vmin=0, vmax=most, interpolation="nearest")
    if window:
        axes.set(xlim=(window[0] - 0.5, window[1] - 0.5), ylim=(window[1] - 0.5, window[0] - 0.5))
    else:
        axes.set(xticks=[], yticks=[])
    axes.tick_params(labelsize=TEXT)
    return axes


def _below(page: Page, i: int, text: str, gap: float = 0.08) -> None:
    page.lines(0.3 + i * (SIDE + 0.3), 0.44 + SIDE + gap, [text], 7.5)


def _signed(value: float) -> str:
    return "0" if abs(value) < 1e-9 else f"{value:+.1f}".replace("-", "−")


def _numbers(axes: Axes, values: np.ndarray, form: str = "g") -> None:
    for (y, x), value in np.ndenumerate(values):
        color = "black" if value > 0.4 * values.max() else "white"
        words: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 6.5}
        axes.text(x, y, f"{value:{form}}", color=color, **words)


FIGURES: dict[str, Callable[[], Figure]] = {
    figure.__name__: figure
    for figure in (
        shift,
        gridding,
        registration,
        path_counts,
        effective_field,
        checkerboard,
        conventions,
    )
}


def main() -> None:
    """Draw the figures that are named, or all."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, default=DOCS / "figures" / "concepts")
    parser.add_argument("names", nargs="*", choices=[*FIGURES, []])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.names or FIGURES:
        save(FIGURES[name](), given.output / name, ["png"])


if __name__ == "__main__":
    main()
