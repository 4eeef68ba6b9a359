"""Luo et al.'s figures drawn again: depth, layers, activations, borders, shapes, training.

python scripts/figures_erf.py [--output docs/figures] [--draws 20] [--only PART ...]

Slopes, sizes and fits are computed here and reported as they come out. The networks of the parts
named training are trained first where results/erf has none of them.
That of 17 blocks takes CIFAR-10 where datasets/cifar10 holds its files.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import yaml
from erf_chains import SHAPES, Chain, draws, fits, measured, size
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from tqdm import tqdm

from rfbench.classify.trained import classifier
from rfbench.data.segmentation.digits import digits
from rfbench.models import backbones
from rfbench.plotting import page
from rfbench.plotting.page import SMALL, TEXT, Page
from rfbench.plotting.palette import BLACK, BLUE, COLOURS, EMPTY, GREY, MAPS, MARKS, VERMILION
from rfbench.rf.questions.effective import images as own_images
from rfbench.rf.questions.effective.extent import extent
from rfbench.rf.questions.effective.gradients import gradients
from rfbench.segment.trained import segmenter

DEPTHS = (5, 10, 20, 40, 60, 80)
KINDS: dict[str, Chain] = {
    "uniform": Chain(0, init="ones"),
    "random": Chain(0),
    "random, 16 channels": Chain(0, 16),
    "random, 16 channels, ReLU": Chain(0, 16, activation="ReLU"),
}


def growth(folder: Path, count: int) -> list[str]:
    """Size against depth, and its share of the theoretical field, with fitted slopes."""
    figure = Page(7.0, 2.7)
    left, right = figure.axes(0.5, 0.15, 2.9, 2.1), figure.axes(4.0, 0.15, 2.9, 2.1)
    lines = []
    bar = tqdm(total=len(KINDS) * len(DEPTHS), desc="depth", disable=None)
    for number, (name, kind) in enumerate(KINDS.items()):
        sizes = []
        for depth in DEPTHS:
            found = measured(replace(kind, depth=depth), 2 * depth + 1, count).magnitude
            sizes.append(extent(found, float(found[depth, depth])))
            bar.update()
        whole = [2 * depth + 1 for depth in DEPTHS]
        slope = np.polyfit(np.log(DEPTHS), np.log(sizes), 1)[0]
        share = np.polyfit(np.log(DEPTHS), np.log(np.divide(sizes, whole)), 1)[0]
        lines.append(f"{name}: size ~ n^{slope:.3f}, size / r ~ n^{share:.3f}")
        style = {"color": COLOURS[number], "marker": MARKS[number], "markersize": 3, "linewidth": 1}
        left.loglog(DEPTHS, sizes, label=f"{name}: slope {slope:.2f}", **style)
        right.loglog(DEPTHS, np.divide(sizes, whole), label=f"{name}: slope {share:.2f}", **style)
    bar.close()
    for axes, what in ((left, "size, px"), (right, "size / theoretical size")):
        axes.set_xlabel("3x3 convolutions", fontsize=TEXT)
        axes.set_ylabel(what, fontsize=TEXT)
        axes.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
        low, high = axes.get_ylim()
        marks = [m for m in (0.1, 0.2, 0.4, 0.8, 8, 16, 32, 64) if low < m < high]
        axes.set_yticks(marks, [f"{m:g}" for m in marks])
        axes.minorticks_off()
        axes.legend(
            fontsize=SMALL, frameon=False, loc="upper left" if axes is left else "lower left"
        )
    keep_png(figure, folder / "erf_depth")
    return lines


THREE = (3, 7, 11)  # of 15 layers, counted from 0
LAYERS: dict[str, Chain] = {
    "plain": Chain(15, 16),
    "stride 2 in three": Chain(15, 16, stride=dict.fromkeys(THREE, 2)),
    "dilation 2, 4, 8 in these": Chain(15, 16, dilation=dict(zip(THREE, (2, 4, 8), strict=True))),
    "skips": Chain(15, 16, skips=True),
    "plain, light in the middle": Chain(15, 16, init="light"),
}


def layers(folder: Path, count: int) -> list[str]:
    """Fifteen layers: plain, with strides, dilations, skips, light middles; also by hand."""
    shown, words = {}, []
    for name, chain in tqdm(LAYERS.items(), desc="layers", disable=None):
        side = 121 if chain.stride else chain.theoretical + 8
        values = measured(chain, side, count).magnitude
        shown[name] = np.pad(values, (121 - side) // 2)  # all at one scale
        exact = chain.by_hand()
        words.append(
            f"{name}: {size(values):.1f} px of {chain.theoretical}; by hand {size(exact):.1f}; by "
            f"the kernels' variance alone {chain.by_variance:.1f}"
        )
    for name, init in (("uniform", "ones"), ("random", "normal"), ("random, light", "light")):
        chain = Chain(15, init=init)
        words.append(
            f"plain, {name} weights of one channel: by hand {size(chain.by_hand()):.1f}; by the "
            f"kernels' variance alone {chain.by_variance:.1f} px"
        )
    draw(folder / "erf_layers", shown, words, centred=True)
    return words


ACTIVATED: dict[str, Chain] = {
    "linear": Chain(20, 16),
    "ReLU": Chain(20, 16, activation="ReLU"),
    "tanh": Chain(20, 16, activation="tanh"),
    "sigmoid": Chain(20, 16, activation="sigmoid"),
    "ReLU, dropout 0.5": Chain(20, 16, activation="ReLU", dropout=0.5),
}


def activations(folder: Path, count: int) -> list[str]:
    """Twenty layers of random weights with each activation, and with dropout as in training."""
    shown, words = {}, []
    for name, chain in tqdm(ACTIVATED.items(), desc="activations", disable=None):
        values = shown[name] = measured(chain, 41, count).magnitude
        words.append(f"{name}: {size(values):.1f} px; r2 of {ranked(symmetric(values))}")
    hand = ACTIVATED["linear"]
    sizes = f"{size(hand.by_hand()):.1f}; by the kernels' variance alone {hand.by_variance:.1f} px"
    words.append(f"by hand {sizes}")
    draw(folder / "erf_activations", shown, words, centred=True)
    return words


def border(folder: Path, count: int) -> list[str]:
    """Units at the border of a zero-padded map beside the central one."""
    units = {"centre": (20, 20), "edge": (0, 20), "corner": (0, 0)}
    shown, words, chain = {}, [], Chain(15, 16, activation="ReLU")
    for name, unit in units.items():
        values = shown[name] = measured(chain, 41, count, unit).magnitude
        y, x = (int(c) for c in np.unravel_index(values.argmax(), values.shape))
        size_there = extent(values, float(values.max()))
        words.append(f"{name} ({unit[0]}, {unit[1]}): {size_there:.1f} px, largest at ({y}, {x})")
    draw(folder / "erf_border", shown, [*words, "15 layers, 16 channels, ReLU, an image of 41 px"])
    return words


DRAWN = ("Gaussian", "pyramid", "exponential")  # of the shapes, as curves
DASHED = ((BLACK, "-"), (VERMILION, "--"), (BLUE, ":"))
SHAPED: dict[str, Chain] = {
    "uniform, 15 layers": Chain(15, init="ones"),
    "random, 15 layers": Chain(15, 16),
    "ReLU, 15 layers": Chain(15, 16, activation="ReLU"),
    "random, 3 layers": Chain(3, 16),
    "dilation 2, 4, 8": LAYERS["dilation 2, 4, 8 in these"],
}


def shapes(folder: Path, count: int) -> list[str]:
    """A Gaussian against other shapes of one height and one width: which fits best."""
    fields = {
        name: symmetric(measured(chain, chain.theoretical + 8, count).magnitude)
        for name, chain in tqdm(SHAPED.items(), desc="shapes", disable=None)
    }
    words = [f"{name}: {ranked(values)}" for name, values in fields.items()]
    top, tall, wide = 0.14 + page.line(TEXT), 1.2, 1.2
    below = top + tall + 0.66
    figure = Page(7.0, below + (len(words) + 1) * page.line(SMALL) + 0.06)
    for number, (name, values) in enumerate(fields.items()):
        left, side, best = 0.54 + 1.3 * number, len(values), fits(values)
        figure.lines(left, 0.06, page.wrap(name, wide, TEXT), TEXT, weight="bold")
        axes = figure.axes(left, top, wide, tall)
        at = np.arange(side) - side // 2
        row = {"markersize": 1.8, "color": GREY, "label": "measured"}
        axes.plot(at, values[side // 2] / values.max(), "o", **row)
        fine = np.linspace(at[0], at[-1], 400)
        for (colour, dashes), label in zip(DASHED, DRAWN, strict=True):
            curve = best[label].height * SHAPES[label](np.zeros(1), fine / best[label].width)
            style = {"linewidth": 0.9, "color": colour, "linestyle": dashes, "label": label}
            axes.plot(fine, curve / values.max(), **style)
        axes.set(ylim=(-0.05, 1.7), yticks=[0, 0.5, 1, 1.5])
        axes.grid(axis="y", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.set_xlabel("offset, px", fontsize=TEXT, labelpad=1)
        ticks = 5 * round(0.3 * side / 5) or 5
        axes.set_xticks([-ticks, 0, ticks])
        if number:
            axes.tick_params(left=False, labelleft=False)
        else:
            axes.set_ylabel("mean |gradient| / largest", fontsize=TEXT)
            handles = axes.get_legend_handles_labels()[0]
    figure.legend(handles, below - 0.24, len(handles))
    title = "The middle row. Share of the whole field's variance that each shape explains (r2):"
    figure.lines(0.08, below, [title, *words], SMALL)
    keep_png(figure, folder / "erf_shapes")
    return words


def symmetric(values: np.ndarray) -> np.ndarray:
    """The mean over the square's eight symmetries, which the field of many draws has."""
    both = (values + values[::-1]) / 2
    both = (both + both[:, ::-1]) / 2
    return (both + both.T) / 2


def ranked(values: np.ndarray) -> str:
    """'Gaussian 0.998, pyramid 0.989, ...': the share of the variance that each shape explains."""
    return ", ".join(f"{name} {fit.r2:.3f}" for name, fit in fits(values).items())


@dataclass(frozen=True)
class Trained:
    """A network along its training. size: of the images that its field is measured on, in px."""

    title: str
    command: str
    config: str
    size: int
    every: int  # steps between kept checkpoints
    layer: str | None = None


UNTRAINED = 8  # images that each draw of random weights sees
RESNET14 = Trained("ResNet-14", "train-cls", "cls/digits", 96, 75)
BLOCKS17 = Trained("ResNet of 17 blocks", "train-cls", "cls/resnet17_blocks", 32, 75)
BLOCKS16 = Trained(
    "16 blocks for every pixel", "train-seg", "seg/resnet16_blocks", 256, 25, "net.classifier"
)


def training(folder: Path, count: int) -> list[str]:
    """A ResNet-14 on digit scenes."""
    return along(RESNET14, folder / "erf_training", count)


def training_17_blocks(folder: Path, count: int) -> list[str]:
    """A deeper classifier, on CIFAR-10 where its files are there."""
    return along(BLOCKS17, folder / "erf_training_17_blocks", count)


def training_16_blocks(folder: Path, count: int) -> list[str]:
    """A deep network for segmentation."""
    return along(BLOCKS16, folder / "erf_training_16_blocks", count)


def along(trained: Trained, stem: Path, count: int) -> list[str]:
    """A network along its training, over the checkpoints that the run kept."""
    cifar = trained is BLOCKS17 and Path("datasets/cifar10").exists()
    name = Path(trained.config).name + "-cifar10" * cifar
    run = Path("results/erf", name)
    command = [sys.executable, "-m", "rfbench", trained.command, f"configs/{trained.config}.yaml"]
    flags = ["checkpoint.keep=60", f"checkpoint.every={trained.every}"]
    flags += ["data={name: cifar10, root: datasets/cifar10}"] * cifar
    command += [part for flag in flags for part in ("-o", flag)]
    if not (run / "result.json").exists():
        subprocess.run(
            [*command, "--output", str(run), "--resume"], check=True, stdout=subprocess.DEVNULL
        )
    held = {}
    for path in sorted(run.glob("last*.pth")):
        held[torch.load(path, map_location="cpu", weights_only=True)["step"]] = path.name
    load = segmenter if trained.command == "train-seg" else classifier
    images = seen(trained, load(str(run), "last.pth"), "cifar10" if cifar else "digits")
    model = torch.load(run / "last.pth", map_location="cpu", weights_only=True)["model"]
    plain = draws(lambda: backbones.build(model).module, count)
    # by number: how many images a batch holds is no part of the measurement
    found = {0: gradients(plain, [torch.cat(images)[:UNTRAINED]], trained.layer)}
    for step, path in tqdm(sorted(held.items()), desc=trained.title, disable=None):
        found[step] = gradients([load(str(run), path)], images, trained.layer)
    sizes = {s: extent(g.magnitude, float(g.magnitude.max())) for s, g in found.items()}
    words = [
        f"{trained.title} on {'CIFAR-10' if cifar else 'digit scenes'} of {trained.size} px; "
        f"step 0: {count} draws of random weights, {UNTRAINED} images. Size: of the pixels above "
        "4.55 % of the largest value, as the side of a square.",
    ]
    some = [0, *sorted(held)[:1], sorted(held)[len(held) // 2], max(held)]
    shown = {f"step {step}": found[step].magnitude for step in dict.fromkeys(some)}
    draw(stem, shown, words, sizes)
    return [", ".join(f"step {s}: {v:.1f} px" for s, v in sizes.items()), *words]


def seen(trained: Trained, module: nn.Module, source: str) -> list[Tensor]:
    """Validation images (N, C, H, W), normalised as in the training, to measure a field on."""
    size = (trained.size, trained.size)
    if trained.command == "train-cls":
        return own_images.batches(source, module, size, 64, 0)
    options = yaml.safe_load(Path("configs", f"{trained.config}.yaml").read_text())["data"][
        "options"
    ]
    drawn = digits(**{**options, "train_scenes": 0, "val_scenes": 8})
    images = torch.as_tensor(drawn.val.pixels[..., :3]).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (drawn.mean, drawn.std))
    return list(((images - mean) / std).split(2))


READ = "Brightness: square root of the mean |gradient|, each map by its largest. Pale: 0."


def draw(
    stem: Path,
    shown: dict[str, np.ndarray],
    words: list[str],
    sizes: dict[int, float] | None = None,
    centred: bool = False,
) -> None:
    """Fields side by side; below them their sizes by step of a training, if given, and words.

    centred: positions are told from the middle of the map.
    """
    gap, first = 0.12, 0.42
    side = min(1.6, (6.92 - first) / len(shown) - gap)
    width = max(4.5, first + 0.08 + len(shown) * (side + gap))
    wrapped = [line for text in [*words, READ] for line in page.wrap(text, width - 0.16, SMALL)]
    titles = [page.wrap(name, side, TEXT) for name in shown]
    top = 0.12 + max(map(len, titles)) * page.line(TEXT)
    below = top + side + 0.4 + (1.5 if sizes else 0)
    figure = Page(width, below + 0.08 + len(wrapped) * page.line(SMALL))
    part = reached([*shown.values()])
    for i, (title, values) in enumerate(zip(titles, shown.values(), strict=True)):
        left, half = first + 0.04 + i * (side + gap), (len(values) - 1) / 2 if centred else 0.0
        figure.lines(left, 0.06, title, TEXT, weight="bold")
        axes = figure.axes(left, top, side, side)
        axes.set_facecolor(EMPTY)
        masked = np.ma.sqrt(np.ma.masked_equal(values, 0))
        ends = (-half - 0.5, len(values) - half - 0.5)
        axes.imshow(masked, cmap=MAPS, interpolation="nearest", extent=(*ends, *ends[::-1]))
        low, high = ends if centred else part
        ticks = MaxNLocator(3, steps=[1, 2, 5, 10], integer=True).tick_values(low, high)
        ticks = [tick for tick in ticks if low <= tick <= low + 0.92 * (high - low)]
        axes.set(xticks=ticks, yticks=ticks, xlim=(low, high), ylim=(high, low))
        what = "offset, px" if centred else "px of the image"
        axes.set_xlabel(what, fontsize=TEXT, labelpad=1)
        if i:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(what, fontsize=TEXT, labelpad=1)
    if sizes:
        axes = figure.axes(0.45, top + side + 0.44, width - 0.57, 1.05)
        axes.plot(
            list(sizes),
            list(sizes.values()),
            color=COLOURS[0],
            marker="o",
            markersize=2.5,
            linewidth=1,
        )
        axes.set(ylim=(0, 1.15 * max(sizes.values())), xlabel="step of the training")
        axes.xaxis.label.set_size(TEXT)
        axes.set_ylabel("size, px", fontsize=TEXT)
    figure.lines(0.08, below, wrapped, SMALL)
    keep_png(figure, stem)


def reached(maps: list[np.ndarray]) -> tuple[float, float]:
    """From where to where along both axes some map has a gradient, and 2 px more."""
    some = np.any([values > 0 for values in maps], axis=0)
    at = np.flatnonzero(some.any(0) | some.any(1))
    return max(at[0] - 2, 0) - 0.5, min(at[-1] + 2, len(some) - 1) + 0.5


def keep_png(figure: Page, stem: Path) -> None:
    """The documentation shows PNG files only."""
    for path in page.save(figure.figure, stem):
        if path.suffix == ".pdf":
            path.unlink()


PARTS = (
    growth,
    layers,
    activations,
    border,
    shapes,
    training,
    training_17_blocks,
    training_16_blocks,
)


def main() -> None:
    """Draw all figures, or some, and print what is measured in them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--draws", type=int, default=20, help="of random weights")
    parser.add_argument("--only", nargs="*", choices=[part.__name__ for part in PARTS])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if not given.only or part.__name__ in given.only:
            print(f"{part.__name__}:", *part(given.output, given.draws), sep="\n  ", flush=True)


if __name__ == "__main__":
    main()
