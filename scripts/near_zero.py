"""How many weights of trained classifiers are near zero, and whether the smallest are needed.

python scripts/near_zero.py RUN... [--images 1000] [--json]

An article on networks without downsampling says that more than half of a trained network's weights
are redundant. RUN: folders of finished train-cls runs. Of the weights of convolutions and linear
layers: the share below 1 % and below 10 % of their layer's root mean square (of a normal
distribution 0.8 % and 8.0 %), and top-1 when the smallest of each layer are set to zero, without
further training.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trained_run import TrainedRun

from rfbench.training import pruning

BELOW = (1, 10)  # percent of the root mean square
ZEROED = (25, 50, 75, 85)  # percent of a layer's weights


def share_below(weights: list[Tensor], percent: float) -> float:
    """Percent of all weights that are below `percent` of the root mean square of their tensor."""
    small = sum(int((w.abs() < w.square().mean().sqrt() * percent / 100).sum()) for w in weights)
    return 100 * small / sum(w.numel() for w in weights)


def without_smallest(weight: Tensor, percent: float) -> Tensor:
    """A copy of a weight, `percent` of it zero (rounded down): the smallest."""
    zeroed = weight.detach().clone()
    count = int(percent * weight.numel() / 100)
    zeroed.view(-1)[weight.detach().abs().view(-1).sort(stable=True).indices[:count]] = 0
    return zeroed


def measure(folder: Path, count: int) -> dict[str, Any]:
    """{"run", "below 1 %", ..., "whole", "25 % zero", ...}: shares and top-1 in percent."""
    run = TrainedRun(folder, count)
    own = {name: w.detach().clone() for name, w in pruning.weights(run.model).items()}
    found: dict[str, Any] = {"run": run.name}
    for percent in BELOW:
        found[f"below {percent} %"] = share_below(list(own.values()), percent)
    found["whole"] = run.top1()
    for percent in ZEROED:
        with torch.no_grad():
            for name, weight in pruning.weights(run.model).items():
                weight.copy_(without_smallest(own[name], percent))
        found[f"{percent} % zero"] = run.top1()
    return found


def main() -> None:
    """Measure all runs, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = [measure(run, given.images) for run in given.runs]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    names = list(rows[0])[1:]
    print(f"{'run':44} " + " ".join(f"{name:>10}" for name in names))
    for row in rows:
        print(f"{row['run']:44} " + " ".join(f"{row[name]:10.2f}" for name in names))


if __name__ == "__main__":
    main()
