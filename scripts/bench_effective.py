"""Time an effective field over images: rfbench beside openerf, the same network, images and map.

    python3 -m venv .peers && .peers/bin/pip install openerf==0.6.1
    python scripts/bench_effective.py --peers .peers/bin/python

Every measurement is a fresh process with one thread: CPU seconds from the network and a folder of
images of its size to the map. The tools take turns; a figure is the median of the turns. Weights
are random, but for the scale of the last normalisation: behind a LayerNorm of equal scales the sum
over channels, which openerf differentiates, is constant.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click
import numpy as np
import timm
import torch
from bench_rf import ONE_THREAD, PEERS, check
from photos import photo
from torch import nn
from tqdm import tqdm

TOOL = str(Path(__file__).with_name("bench_effective_tool.py"))
NETWORKS = ("resnet50", "swin_tiny_patch4_window7_224")
SIZE = 224  # px


def prepare(folder: Path, models: list[str], count: int) -> None:
    """Write images and weights, which both tools read."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        photo(rng, SIZE, SIZE).save(folder / "images" / f"{i:03}.png")
    for name in models:
        torch.manual_seed(0)
        module = timm.create_model(name)
        norms = [m for m in module.modules() if isinstance(m, nn.LayerNorm)]
        for norm in norms[-1:]:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.save(module.state_dict(), folder / f"{name}.pth")


def one(python: str, tool: str, model: str, folder: Path) -> dict:
    """One measurement in a new process."""
    command = [python, TOOL, tool, model, str(folder)]
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise click.ClickException(f"{tool} on {model} fails: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def difference(folder: Path) -> float:
    """The largest difference of the two maps of one sum, as a share of the largest value."""
    ours, theirs = (np.load(folder / f"{tool}.npy") for tool in ("rfbench", "openerf"))
    ours, theirs = ours / ours.sum(), theirs / theirs.sum()
    return float(abs(ours - theirs).max() / theirs.max())


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.option("--peers", required=True, metavar="PYTHON", help=f"With openerf. Make it: {PEERS}")
@click.option("--models", default=",".join(NETWORKS), help="timm's, for 224 px, with commas.")
@click.option("--images", default=20, show_default=True, type=click.IntRange(1))
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Turns.")
def main(peers: str, models: str, images: int, repeats: int) -> None:
    check(peers)
    names = models.split(",")
    pythons = {"rfbench": sys.executable, "openerf": peers}
    click.echo("| network | images | rfbench | openerf | maps differ by |\n|---|---|---|---|---|")
    versions: set[str] = set()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, names, images)
        for name in names:
            seconds: dict[str, list[float]] = {tool: [] for tool in pythons}
            for tool in tqdm([*pythons] * repeats, desc=name, unit="process", disable=None):
                got = one(pythons[tool], tool, name, folder)
                seconds[tool].append(got["seconds"])
                versions.add(f"{tool}: {got['versions']}")
            middle = {tool: median(values) for tool, values in seconds.items()}
            cells = [
                f"{middle[tool]:.3g} ({min(values):.3g} to {max(values):.3g}) s"
                for tool, values in seconds.items()
            ]
            ratio = middle["openerf"] / middle["rfbench"]
            cells[1] += f", **{ratio:.2f}×**"
            click.echo(f"| {name} | {images} | {' | '.join(cells)} | {difference(folder):.0e} |")
    click.echo(f"\nCPU seconds, median (min to max) of {repeats} processes of one thread; ")
    click.echo("; ".join(sorted(versions)) + ".")


if __name__ == "__main__":
    main()
