"""Time path counts and effective fields of networks on a device, beside a gradient by hand.

    python scripts/bench_maps.py --device cuda [--markdown FILE]

All in one process, in turns: CPU seconds on a CPU, on a GPU those between two events. Path counts
need no weights, so they take as long of a network on a GPU as of one on a CPU. The effective field
and the gradient by hand see the same images at once; the last column compares the field with that
of the same network on the CPU.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

import timing
import timm
import torch
from torch import Tensor, nn

from rfbench import rf

MODELS = ("resnet50", "swin_tiny_patch4_window7_224")


def by_hand(module: nn.Module, images: Tensor) -> Tensor:
    """The mean |gradient| of the central unit's sum of |output| (Luo et al., 2016), ten lines."""
    x = images.detach().clone().requires_grad_()
    module.requires_grad_(False)
    out = module.forward_features(x)  # type: ignore[operator]
    if out.shape[1] < out.shape[-1]:  # Swin has the channels last
        out = out.movedim(-1, 1)
    middle = [(n - 1) // 2 for n in out.shape[2:]]
    (gradient,) = torch.autograd.grad(out[:, :, middle[0], middle[1]].abs().sum(), x)
    return gradient.abs().sum((0, 1)) / len(x)


def main() -> None:
    """Measure, print a table and append it to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", type=timing.device, default=timing.device("cuda"))
    parser.add_argument("--models", nargs="+", default=MODELS, help="timm's, of 224 px")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="append to this file")
    given = parser.parse_args()
    command = f"python scripts/bench_maps.py --device {given.device.type} --images {given.images}"
    section = timing.Section("Maps and effective fields", command, given.device)
    section.add(
        f"| network | path counts | effective field of {given.images} images | gradient by hand | "
        "by hand / field | from the CPU's field |",
        "|---|---|---|---|---|---|",
        *(row(name, given) for name in given.models),
    )
    section.add(
        f"Seconds, medians of {given.rounds} after one that is not measured; the last column: the "
        "largest difference, of eight images, as a share of the largest value."
    )
    section.write(given.markdown)


def row(name: str, given: argparse.Namespace) -> str:
    """A line of the table."""
    torch.manual_seed(0)
    module = timm.create_model(name).eval()
    images = torch.randn(given.images, 3, 224, 224)
    few = images[:8]
    own = rf.effective(module, few).map
    module, images = module.to(given.device), images.to(given.device)
    there = rf.effective(module, few).map
    calls: dict[str, Callable[[], object]] = {
        "field": lambda: rf.effective(module, images),
        "by hand": lambda: by_hand(module, images),
    }
    if "resnet" in name:  # path counts end at attention
        calls["counts"] = lambda: rf.path_counts(module)
    times = timing.in_turns(calls, given.device, given.rounds)
    middle = {key: median(values) for key, values in times.items()}
    counts = f"{middle['counts']:.3g} s" if "counts" in middle else "attention"
    ratio = middle["by hand"] / middle["field"]
    differs = abs(there.magnitude - own.magnitude).max() / own.magnitude.max()
    return (
        f"| {name} | {counts} | {middle['field']:.3g} s | {middle['by hand']:.3g} s | "
        f"**{ratio:.2f}×** | {differs:.0e} |"
    )


if __name__ == "__main__":
    main()
