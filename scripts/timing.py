"""Timing in turns, and a section of docs/measurements.md of what comes out; for the benchmarks."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision

Calls = Mapping[str, Callable[[], object]]


def device(name: str) -> torch.device:
    """The device of an option; of GPUs the first, as a run has it: with its number."""
    found = torch.device(name)
    return torch.device("cuda", 0) if found.type == "cuda" and found.index is None else found


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call: on a CPU those of this process and of its ended children.

    On a GPU between two events around all that the call queues, waiting for images included.
    """
    if device.type == "cpu":
        begun = sum(os.times()[:4])
        call()
        return sum(os.times()[:4]) - begun
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def in_turns(
    calls: Calls, device: torch.device, rounds: int, unmeasured: int = 1
) -> dict[str, list[float]]:
    """Seconds of `rounds` calls of each, after some that are not measured.

    Each starts a round equally often, so that what warms or slows the machine meets all.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for name in names * unmeasured:
        seconds(calls[name], device)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(seconds(calls[name], device))
    return times


def where(device: torch.device) -> str:
    """The device and the versions that a figure belongs to."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        name += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    else:
        name = f"CPU ({platform.machine()}, {torch.get_num_threads()} thread)"
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


class Section:
    """A section of Markdown: printed as it grows, and appended to a file at the end."""

    def __init__(self, title: str, command: str, device: torch.device) -> None:
        self.lines = [f"## {title}", "", f"`{command}`. {where(device)}."]
        print("\n".join(self.lines), flush=True)

    def add(self, *lines: str) -> None:
        """Paragraphs, or the rows of a table."""
        self.lines += ["", *lines]
        print("", *lines, sep="\n", flush=True)

    def table(
        self, times: Mapping[str, Sequence[float]], images: int, base: str, what: str
    ) -> None:
        """Medians an image, and how many times as fast as `base` (least to most, by round).

        images: of a call.
        """
        rows = [f"| {what} | ms an image | images/s | speed beside {base} |", "|---|---|---|---|"]
        for name, values in times.items():
            ratios = [b / v for b, v in zip(times[base], values, strict=True)]
            low, middle, high = np.quantile(ratios, [0, 0.5, 1])
            each = float(np.median(values)) / images
            ratio = "1" if name == base else f"**{middle:.3f}** ({low:.3f} to {high:.3f})"
            rows.append(f"| {name} | {1000 * each:.3f} | {1 / each:.1f} | {ratio} |")
        self.add(*rows)

    def write(self, path: Path | None) -> None:
        """Append the section to a file."""
        if path:
            with open(path, "a") as file:
                file.write("\n".join(self.lines) + "\n\n")
