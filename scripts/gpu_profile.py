"""A profile of training steps: whether the GPU waits, for what, and which kernels convert layouts.

python scripts/gpu_profile.py --device cuda [--steps 30 --batch 256] [--markdown FILE]

Trace events are those of torch.profiler, as chrome://tracing shows them. On a CPU the same figures
are of the operations that no other contains.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import timing
import torch
from bench_cls import Given, our_epoch, prepared
from photos import write_tree
from timing import Section
from torch.profiler import ProfilerActivity, profile

WORK = {"cuda": ("kernel", "gpu_memcpy", "gpu_memset"), "cpu": ("cpu_op",)}
WAITS = ("Synchronize", "cudaMemcpy", "cudaMalloc", "cudaFree")  # but not cudaMemcpyAsync
CONVERSIONS = ("nchwToNhwc", "nhwcToNchw")
GAP = 100  # microseconds that count as idle


@dataclass(frozen=True)
class Found:
    """Microseconds of a trace. waits: (times, microseconds) by the name of a call on the host."""

    whole: float
    busy: float
    gaps: list[float]  # longer than GAP
    conversions: float  # of kernels that only convert layouts
    copies: float  # of copies from the host that run beside kernels
    waits: dict[str, tuple[int, float]]


def read(events: Iterable[dict[str, Any]], device: str) -> Found:
    """What the events of a trace say; ValueError where the device has done nothing."""
    complete = [event for event in events if event.get("ph") == "X"]
    work = sorted(
        (event["ts"], event["ts"] + event["dur"], event["name"])
        for event in complete
        if event.get("cat") in WORK[device]
    )
    if not work:
        raise ValueError(f"the trace has no work of {device}")
    end, busy, gaps, beside, conversions = work[0][0], 0.0, [], 0.0, 0.0
    for first, last, name in work:
        if first - end > GAP:
            gaps.append(first - end)
        busy += max(0.0, last - max(first, end))
        if "HtoD" in name:
            beside += max(0.0, min(last, end) - first)
        if any(text in name for text in CONVERSIONS):
            conversions += last - first
        end = max(end, last)
    waits: dict[str, tuple[int, float]] = {}
    for event in complete:
        name = event["name"]
        if event.get("cat") == "cuda_runtime" and _waits(name):
            times, spent = waits.get(name, (0, 0.0))
            waits[name] = (times + 1, spent + event["dur"])
    return Found(end - work[0][0], busy, gaps, conversions, beside, waits)


def _waits(name: str) -> bool:
    return any(text in name for text in WAITS) and not name.endswith("Async")


def lines(found: Found, steps: int, images: int) -> list[str]:
    """The figures as rows of a table. images: a step."""
    per_step, speed = 1000 * steps, 1e6 * images * steps / found.whole
    idle = f"{len(found.gaps)} times, {sum(found.gaps) / per_step:.3f} ms a step"
    rows = {
        "a step": f"{found.whole / per_step:.2f} ms, {speed:.0f} images/s",
        "busy": f"{100 * found.busy / found.whole:.1f} %",
        f"idle for more than {GAP / 1000:g} ms": idle,
        "kernels that convert layouts": f"{found.conversions / per_step:.3f} ms a step",
        "copies from the host beside kernels": f"{found.copies / per_step:.3f} ms a step",
    }
    rows |= {
        f"host in {name}": f"{times / steps:.1f} times, {spent / per_step:.3f} ms a step"
        for name, (times, spent) in sorted(found.waits.items())
    }
    return ["| of the device | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())]


def profiled(root: Path, given: argparse.Namespace) -> Found:
    """A run of the recipe on batches that a loader has put into pinned memory."""
    made = prepared(root, given.model, given.size, given.batch, given)
    batches = list(made.data.train(0, min(8, made.per_epoch), made.split))
    made.data.close()
    made.data = Given(made.data, batches)
    kinds = [ProfilerActivity.CPU]
    if given.device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    made.per_epoch = given.steps
    our_epoch(made)  # algorithms are chosen, memory is allocated
    with profile(activities=kinds) as seen:
        our_epoch(made)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        if given.trace:
            given.trace.write_bytes(path.read_bytes())
        return read(json.loads(path.read_text())["traceEvents"], given.device.type)


def main() -> None:
    """Profile, print, and write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", type=timing.device, default=torch.device("cpu"))
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--size", type=int, default=224, help="of the images in px")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2, help="loading processes")
    parser.add_argument("--trace", type=Path, help="a file for the trace itself")
    parser.add_argument("--markdown", type=Path, help="a file that the section is appended to")
    given = parser.parse_args()
    if given.device.type == "cpu":
        torch.set_num_threads(1)
    command = shlex.join(["python", "scripts/gpu_profile.py", *sys.argv[1:]])
    section = Section("A profile of training steps", command, given.device)
    with tempfile.TemporaryDirectory() as name:
        write_tree(Path(name), 8 * given.batch)
        found = profiled(Path(name), given)
    section.add(f"{given.model}, {given.size} px, {given.steps} steps of {given.batch} images.")
    section.add(*lines(found, given.steps, given.batch))
    section.write(given.markdown)


if __name__ == "__main__":
    main()
