"""Top-1 of trained classifiers under a faint texture of period 2, 4, ..., S px, S their stride.

python scripts/textures.py RUN... [--contrast 8] [--images 1000] [--json]

The paper suspects that gridding makes a network see textures that are not there. If so, a texture
of the grid's own period should cost a gridded variant more than others. RUN: folders of finished
train-cls runs. The texture is contrast * cos(2 pi y / p) cos(2 pi x / p), in levels of 255, added
to the validation images as the network gets them; at p = 2 a checkerboard. All periods and runs,
and the clean images, are of the same images, chosen as for consistency.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trained_run import TrainedRun


def texture(size: int, period: int, contrast: float) -> Tensor:
    """The texture (size, size, 1), whole levels, its mean 0 where the period divides the size."""
    wave = torch.cos(2 * torch.pi * torch.arange(size, dtype=torch.double) / period)
    return (contrast * wave[:, None] * wave[None]).round()[..., None]


def textured(images: Tensor, added: Tensor) -> Tensor:
    """Images (N, H, W, 3) uint8 with a texture, cut off at 0 and 255."""
    return (images.double() + added).clamp(0, 255).to(torch.uint8)


def periods(stride: int) -> list[int]:
    """2, 4, ..., up to the stride."""
    return [2**i for i in range(1, stride.bit_length()) if 2**i <= stride]


def measure(folder: Path, stride: int, contrast: float, count: int) -> dict[str, Any]:
    """{"variant", "seed", "clean", "2", "4", ...}: top-1 in percent."""
    run = TrainedRun(folder, count)
    found = {"variant": run.record["variant"], "seed": run.record["seed"], "clean": run.top1()}
    for period in periods(stride):
        added = texture(run.data.image_size, period, contrast)
        found[str(period)] = run.top1(lambda images, added=added: textured(images, added))
    return found


def main() -> None:
    """Measure all runs, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--stride", type=int, default=16, help="total stride S (default: 16)")
    parser.add_argument("--contrast", type=float, default=8, help="levels of 255 (default: 8)")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = [measure(run, given.stride, given.contrast, given.images) for run in given.runs]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    names = ["clean", *map(str, periods(given.stride))]
    print(f"{'variant':28} seed " + " ".join(f"{name:>6}" for name in names))
    for row in rows:
        cells = " ".join(f"{row[name]:6.2f}" for name in names)
        print(f"{row['variant']:28} {row['seed']:4} {cells}")


if __name__ == "__main__":
    main()
