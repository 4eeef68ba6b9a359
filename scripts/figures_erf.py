"""Luo et al.'s figures drawn again: growth with depth, subsampling and dilation, training.

python scripts/figures_erf.py [--output docs/figures] [--draws 20]

Slopes are fitted here and reported as they come out. The trained network is that of
configs/cls/cifar10.yaml where datasets/cifar10 holds its files, else that of digit scenes; it is
trained first where results/erf has none.
"""

import argparse
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from rfbench.models import backbones
from rfbench.plotting import page
from rfbench.plotting.page import SMALL, TEXT, Page
from rfbench.plotting.palette import COLOURS, EMPTY, MAPS, MARKS
from rfbench.rf.questions.effective import images as pictures
from rfbench.rf.questions.effective.extent import Position, extent, measure, nominal
from rfbench.rf.questions.effective.gradients import Gradients, gradients

DEPTHS = (5, 10, 20, 40, 60, 80)


def chain(depth: int, channels: int, init: str, relu: bool, **special: dict[int, int]) -> nn.Module:
    """3x3 convolutions without bias; `special`: stride or dilation of some layers, by number.

    init: 'ones' or 'normal'. The scale of a layer's weights does not change a field's shape; this
    one keeps the numbers finite over 80 layers.
    """
    layers: list[nn.Module] = []
    for i in range(depth):
        stride = special.get("stride", {}).get(i, 1)
        dilation = special.get("dilation", {}).get(i, 1)
        into, out = (1 if i == 0 else channels), channels
        conv = nn.Conv2d(into, out, 3, stride, dilation, dilation, bias=False)
        (nn.init.ones_ if init == "ones" else nn.init.normal_)(conv.weight)
        conv.weight.data /= conv.weight.data.norm() / out**0.5
        layers += [conv, nn.ReLU()] if relu else [conv]
    return nn.Sequential(*layers).double()


def draws(make: Callable[[], nn.Module], count: int) -> Iterator[nn.Module]:
    """`count` networks of other weights."""
    for seed in range(count):
        torch.manual_seed(seed)
        yield make()


def field(make: Callable[[], nn.Module], side: int, count: int) -> Gradients:
    """The mean field of the central unit."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, side, side, dtype=torch.double, generator=generator)
    return gradients(draws(make, count), [noise])


def center(found: Gradients) -> float:
    """The value at the unit's own pixel."""
    y, x = nominal(found.unit, found.units, found.magnitude.shape)  # type: ignore[arg-type]
    return float(found.magnitude[round(y), round(x)])


KINDS: dict[str, tuple[int, str, bool]] = {
    "uniform": (1, "ones", False),
    "random": (1, "normal", False),
    "random, 16 channels": (16, "normal", False),
    "random, 16 channels, ReLU": (16, "normal", True),
}


def growth(folder: Path, count: int) -> list[str]:
    """Size against depth, and its share of the theoretical field, with fitted slopes."""
    figure = Page(7.0, 2.7)
    left, right = figure.axes(0.5, 0.15, 2.9, 2.1), figure.axes(4.0, 0.15, 2.9, 2.1)
    lines = []
    bar = tqdm(total=len(KINDS) * len(DEPTHS), desc="depth", disable=None)
    for number, (name, (channels, init, relu)) in enumerate(KINDS.items()):
        sizes = []
        for depth in DEPTHS:
            make = functools.partial(chain, depth, channels, init, relu)
            found = field(make, 2 * depth + 1, 1 if init == "ones" else count)
            sizes.append(extent(found.magnitude, center(found)))
            bar.update()
        whole = [2 * depth + 1 for depth in DEPTHS]
        slope = np.polyfit(np.log(DEPTHS), np.log(sizes), 1)[0]
        share = np.polyfit(np.log(DEPTHS), np.log(np.divide(sizes, whole)), 1)[0]
        lines.append(f"{name}: size ~ n^{slope:.3f}, size / r ~ n^{share:.3f}")
        style = {"color": COLOURS[number], "marker": MARKS[number], "markersize": 3, "linewidth": 1}
        left.loglog(DEPTHS, sizes, label=f"{name}: slope {slope:.2f}", **style)
        right.loglog(DEPTHS, np.divide(sizes, whole), label=f"slope {share:.2f}", **style)
    bar.close()
    for axes, what in ((left, "size, px"), (right, "size / theoretical size")):
        axes.set_xlabel("3x3 convolutions", fontsize=TEXT)
        axes.set_ylabel(what, fontsize=TEXT)
        axes.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
        low, high = axes.get_ylim()
        marks = [m for m in (0.1, 0.2, 0.4, 0.8, 8, 16, 32, 64) if low < m < high]
        axes.set_yticks(marks, [f"{m:g}" for m in marks])
        axes.minorticks_off()
        axes.legend(fontsize=SMALL, frameon=False)
    keep_png(figure, folder / "erf_depth")
    return lines


def subsampling(folder: Path, count: int) -> list[str]:
    """Fifteen layers: plain, with three strides of 2, and with dilation."""
    kinds: dict[str, dict[str, dict[int, int]]] = {
        "plain": {},
        "stride 2 in layers 4, 8, 12": {"stride": {3: 2, 7: 2, 11: 2}},
        "dilation 2 in every layer": {"dilation": dict.fromkeys(range(15), 2)},
        "dilation 1, 2, 4, 8, 16, twice": {"dilation": {i: 2 ** (i % 5) for i in range(10)}},
    }
    shown, words = {}, []
    for name, special in tqdm(kinds.items(), desc="subsampling", disable=None):
        make = functools.partial(chain, 15, 16, "normal", True, **special)
        found = field(make, 193, count)
        shown[name] = found.magnitude
        words.append(f"{name}: size {extent(found.magnitude, float(found.magnitude.max())):.1f} px")
    draw(folder / "erf_layers", shown, words)
    return words


def training(folder: Path, count: int) -> list[str]:
    """A residual network before and after training."""
    cifar = Path("datasets/cifar10").exists()
    config = f"configs/cls/{'cifar10' if cifar else 'digits'}.yaml"
    run = Path("results/erf", Path(config).stem)
    command = [sys.executable, "-m", "rfbench", "train-cls", config, "--output", str(run)]
    if not (run / "result.json").exists():
        subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL)
    held = torch.load(run / "last.pth", map_location="cpu", weights_only=True)
    name = held["model"]
    blank = backbones.build(name, meta=True).module
    images = pictures.batches("noise" if cifar else "digits", blank, (96, 96), 64, 0)
    found = {
        "before training": gradients(
            draws(lambda: backbones.build(name).module, count), images[:2]
        ),
        "after training": gradients(
            [backbones.build(name, weights=str(run / "last.pth")).module], images
        ),
    }
    words = []
    for when, gradient in found.items():
        at = nominal(gradient.unit, gradient.units, (96, 96))
        metrics = measure(gradient, Position(at, at, None))
        fit = metrics["gaussian"]
        words.append(
            f"{when}: size {metrics['size_by_maximum']:.1f} px, "
            f"sigma {fit['sigma'][0]:.1f} px, 50 % in {metrics['areas']['50%']['share']:.1%}"
        )
    shown = {when: gradient.magnitude for when, gradient in found.items()}
    what = "CIFAR-10" if cifar else "digit scenes (no CIFAR-10 files in datasets/cifar10)"
    draw(folder / "erf_training", shown, [*words, f"{name.rpartition(':')[2]} on {what}, 96 px"])
    return words


def draw(stem: Path, shown: dict[str, np.ndarray], words: list[str]) -> None:
    """Fields side by side."""
    side, gap = 1.6, 0.12
    figure = Page(
        max(3.6, 0.08 + len(shown) * (side + gap)), side + 0.5 + len(words) * page.line(SMALL)
    )
    for i, (name, values) in enumerate(shown.items()):
        left = 0.08 + i * (side + gap)
        figure.lines(left, 0.06, page.wrap(name, side, TEXT), TEXT, weight="bold")
        axes = figure.axes(left, 0.33, side, side)
        axes.set_facecolor(EMPTY)
        masked = np.ma.masked_equal(values, 0)
        axes.imshow(np.ma.sqrt(masked), cmap=MAPS, interpolation="nearest")
        axes.set_xticks([], [])
        axes.set_yticks([], [])
    figure.lines(0.08, side + 0.42, words, SMALL)
    keep_png(figure, stem)


def keep_png(figure: Page, stem: Path) -> None:
    """The documentation shows PNG files only."""
    for path in page.save(figure.figure, stem):
        if path.suffix == ".pdf":
            path.unlink()


def main() -> None:
    """Draw all three, and print the figures in them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--draws", type=int, default=20, help="of random weights")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for part in (growth, subsampling, training):
        print(f"{part.__name__}:", *part(given.output, given.draws), sep="\n  ", flush=True)


if __name__ == "__main__":
    main()
