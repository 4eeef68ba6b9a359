"""The first hour on a GPU: seven checks, each a call of less than ten minutes.

python scripts/gpu_hour.py --points 1 [--timm CHECKOUT --vision CHECKOUT] [--output FOLDER]
python scripts/gpu_hour.py --dry-run               # what each point runs
python scripts/gpu_hour.py --device cpu --small    # all of them with small numbers, without a GPU

Figures and the device's name are appended to FOLDER/measurements.md, ready for
docs/measurements.md; what the commands print, to FOLDER/logs. A point that fails says so there, the
others go on, and the exit code is 1. docs/scale.md tells how to prepare a machine without network.
"""

import argparse
import importlib.util
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import timing
import torch
from photos import write_tree
from timing import Section

from rfbench.runs import checkpoint, progress

ROOT = Path(__file__).parents[1]
LIMIT = 570  # seconds of a point
SMALL_NETWORK = "rfbench.classify.nets:resnet14"


class Failed(Exception):
    """A check did not come out as it should."""


def script(name: str, *options: object) -> list[str]:
    """The command of a script beside this one."""
    return [sys.executable, str(ROOT / "scripts" / name), *map(str, options)]


def training(given: argparse.Namespace, output: str, images: int, *settings: str) -> list[str]:
    """A training of a classifier on artificial photos."""
    data = given.output / f"photos-{images}"
    keys = [f"data.root={data}", "log_every=1", "schedule.warmup_epochs=0", "optim.lr=0.01"]
    parts = [part for key in (*keys, *settings) for part in ("-o", key)]
    folder = str(given.output / output)
    command = [sys.executable, "-m", "rfbench", "train-cls", "cls/resnet50"]
    return [*command, "--device", given.device.type, "--output", folder, *parts]


def photos(given: argparse.Namespace, images: int) -> None:
    """The images of `training`."""
    if not (folder := given.output / f"photos-{images}").exists():
        write_tree(folder, images)


def call(given: argparse.Namespace, command: list[str], name: str, **env: str) -> tuple[int, str]:
    """Exit code of a command and what it said, which also goes to a log."""
    log = given.output / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    print("$", shlex.join(command), flush=True)
    with open(log, "w") as file:
        code = subprocess.run(
            command,
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env={**os.environ, **env},
            timeout=max(1.0, given.end - time.monotonic()),
        ).returncode
    return code, log.read_text()


def done(given: argparse.Namespace, command: list[str], name: str, **env: str) -> str:
    """What a command said; Failed where it ended with an error."""
    code, text = call(given, command, name, **env)
    if code:
        end = " ".join(text.strip().splitlines()[-1:])
        raise Failed(f"{name}: exit code {code}: {end}")
    return text


# --- the points: their commands by name, and what is made of them ---------------------------------


def tests(given: argparse.Namespace) -> dict[str, list[str]]:
    """1. Tests of the loader, whose pinned memory only a GPU uses, and of classification."""
    paths = ["tests/data/test_order.py" if given.small else "tests/data/test_loader.py"]
    paths += [] if given.small else ["tests/test_gpu.py", "tests/classify"]
    paths += ["-n", "4"] if not given.small and importlib.util.find_spec("xdist") else []
    return {"tests": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]}


def run_tests(given: argparse.Namespace, commands: dict[str, list[str]], section: Section) -> None:
    text = done(given, commands["tests"], "tests")
    section.add(f"Tests: {text.strip().splitlines()[-1].strip('= ')}.")


def benchmarks(given: argparse.Namespace) -> dict[str, list[str]]:
    """2. Step, end to end, loading and variants, beside timm and torchvision."""
    options = ["--device", given.device.type, "--markdown", given.output / "measurements.md"]
    for name in ("timm", "vision"):
        if path := getattr(given, name):
            options += [f"--{name}", path]
    if given.small:
        options += ["--model", SMALL_NETWORK, "--size", 32, "--images", 12, "--batch", 4]
        options += ["--end-batch", 4, "--rounds", 1, "--only", "steps", "end-to-end"]
    else:
        options += ["--rounds", 4]
    return {"bench_cls": script("bench_cls.py", *options)}


def run_all(given: argparse.Namespace, commands: dict[str, list[str]], section: Section) -> None:
    for name, command in commands.items():
        done(given, command, name)
    section.add(f"{', '.join(commands)}: see the sections of their own.")


def profiles(given: argparse.Namespace) -> dict[str, list[str]]:
    """3. Idle gaps, layout conversions, and how often compile: true compiles."""
    options = ["--device", given.device.type, "--markdown", given.output / "measurements.md"]
    if given.small:
        options += ["--model", SMALL_NETWORK, "--size", 32, "--batch", 4, "--steps", 3]
        options += ["--workers", 0]
    found = {"gpu_profile": script("gpu_profile.py", *options)}
    if not given.small:
        settings = ("batch_size=64", "max_batch_per_gpu=64", "schedule.epochs=2", "compile=true")
        found["compiled"] = training(given, "compiled", 640, *settings)
    return found


def run_profiles(
    given: argparse.Namespace, commands: dict[str, list[str]], section: Section
) -> None:
    run_all(given, {"gpu_profile": commands["gpu_profile"]}, section)
    if "compiled" in commands:
        photos(given, 640)
        command = [*commands["compiled"], "--overwrite"]
        text = done(given, command, "compiled", TORCH_LOGS="recompiles")
        times = len(re.findall(r"Recompiling function", text))
        section.add(f"compile: true: recompiled {times} times in two epochs with validation.")


def detection(given: argparse.Namespace) -> dict[str, list[str]]:
    """4. A detector's step beside Detectron2's, and Mask R-CNN in both precisions."""
    options = ["--device", given.device.type, "--markdown", given.output / "measurements.md"]
    size = ["--size", 64, "--batch", 1, "--rounds", 1, "--variants", "baseline"]
    size = size if given.small else ["--size", 800, "--batch", 16, "--rounds", 5]
    found = {"bench_det": script("bench_det.py", *options, *size)}
    if given.small:
        return found
    found["bench_det_fp16"] = [*found["bench_det"], "--amp"]
    for precision in ("fp32", "fp16"):
        keys = ["weights=null", f"precision={precision}", "opts.SOLVER.MAX_ITER=100"]
        parts = [part for key in keys for part in ("-o", key)]
        found[f"mask_rcnn_{precision}"] = [
            *(sys.executable, "-m", "rfbench", "train-det", "det/digits_mask_rcnn", *parts),
            *("--device", given.device.type, "--output", str(given.output / f"mask-{precision}")),
            "--overwrite",
        ]
    return found


def run_detection(
    given: argparse.Namespace, commands: dict[str, list[str]], section: Section
) -> None:
    if importlib.util.find_spec("detectron2") is None:
        section.add("Detection: not run, Detectron2 is not installed.")
        return
    run_all(given, commands, section)


def resumption(given: argparse.Namespace) -> dict[str, list[str]]:
    """5. A run with deterministic: true, stopped by SIGTERM or killed, ends with the same bits."""
    size = ["data.image_size=32", f"model={SMALL_NETWORK}", "batch_size=16", "data.workers=2"]
    settings = [*size, "deterministic=true", "schedule.epochs=2", "checkpoint.every=3"]
    names = ("whole", "SIGTERM", "SIGKILL")
    images = 96 if given.small else 960
    return {name: training(given, f"resumed-{name}", images, *settings) for name in names}


def run_resumption(
    given: argparse.Namespace, commands: dict[str, list[str]], section: Section
) -> None:
    images = 96 if given.small else 960
    photos(given, images)
    done(given, [*commands["whole"], "--overwrite"], "whole")
    whole = checkpoint.load_last(given.output / "resumed-whole")
    total = 2 * (images // 16)
    for name in ("SIGTERM", "SIGKILL"):
        folder = given.output / f"resumed-{name}"
        stopped = stop_at(given, total // 2, [*commands[name], "--overwrite"], folder, name)
        done(given, [*commands[name], "--resume"], f"{name}-resumed")
        again = checkpoint.load_last(folder)
        assert whole and again
        for key, value in whole["state_dict"].items():
            if not torch.equal(value, again["state_dict"][key]):
                raise Failed(f"{name} at step {stopped}: {key} is not bit-equal after --resume")
        section.add(f"{name} at step {stopped} of {total}, resumed: bit-equal weights.")


def stop_at(
    given: argparse.Namespace, step: int, command: list[str], folder: Path, name: str
) -> int:
    """Start a run and send it a signal after a step; the step that it had got to."""
    print("$", shlex.join(command), f"# {name} after step {step}", flush=True)
    metrics = folder / progress.METRICS
    metrics.unlink(missing_ok=True)
    started = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while started.poll() is None and time.monotonic() < given.end:
        if metrics.exists() and metrics.read_bytes().count(b'"train"') >= step:
            started.send_signal(signal.Signals[name])
            break
        time.sleep(0.002)
    started.wait(60)
    if not (folder / checkpoint.LAST).exists() or (folder / "result.json").exists():
        raise Failed(f"{name} did not stop the run")
    return metrics.read_bytes().count(b'"train"')


def memory(given: argparse.Namespace) -> dict[str, list[str]]:
    """6. What a checkpoint every 20 steps costs; what too large a batch says."""
    model = SMALL_NETWORK if given.small else "torchvision:resnet50"
    size, batch, images = (32, 4, 168) if given.small else (64, 64, 5120)
    keys = [f"model={model}", f"data.image_size={size}", f"batch_size={batch}"]
    keys += [f"max_batch_per_gpu={batch}", "schedule.epochs=1", "checkpoint.every=20"]
    found = {"stall": training(given, "stall", images, *keys)}
    if given.device.type == "cuda":
        keys = ["model=torchvision:resnet50", "batch_size=4096", "max_batch_per_gpu=4096"]
        keys += ["precision=fp32", "data.workers=1", "schedule.epochs=1"]
        found["too-large"] = training(given, "too-large", 4096, *keys)
    return found


def run_memory(given: argparse.Namespace, commands: dict[str, list[str]], section: Section) -> None:
    photos(given, 168 if given.small else 5120)
    done(given, [*commands["stall"], "--overwrite"], "stall")
    usual, after = stalls(given.output / "stall" / progress.METRICS, 20)
    size = (given.output / "stall" / checkpoint.LAST).stat().st_size / 1e6
    section.add(
        f"A checkpoint of {size:.0f} MB every 20 steps: {1000 * usual:.1f} ms a step, "
        f"{1000 * after:.1f} ms where one is written (medians)."
    )
    if "too-large" not in commands:
        section.add("Too large a batch: not run, there is no GPU.")
        return
    photos(given, 4096)
    code, text = call(given, [*commands["too-large"], "--overwrite"], "too-large")
    said = [line for line in text.splitlines() if "out of memory" in line]
    if code != 1 or "Traceback" in text or not said:
        raise Failed(f"a batch that is too large: exit code {code}, see logs/too-large.log")
    section.add(f"Too large a batch: exit code 1, `{said[-1].strip()}`")


def stalls(path: Path, every: int) -> tuple[float, float]:
    """Median seconds of steps before which no checkpoint was written, and of the others."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "train"]
    spent: dict[bool, list[float]] = {True: [], False: []}
    for before, row in itertools.pairwise(rows[5:]):
        spent[before["step"] % every == 0].append(row["seconds"] - before["seconds"])
    usual, after = (sorted(spent[key])[len(spent[key]) // 2] for key in (False, True))
    return usual, after


def fields(given: argparse.Namespace) -> dict[str, list[str]]:
    """7. Maps and effective fields, beside a gradient by hand and the CPU's field."""
    options = ["--device", given.device.type, "--markdown", given.output / "measurements.md"]
    if given.small:
        options += ["--models", "resnet18", "--images", 1, "--rounds", 1]
    return {"bench_maps": script("bench_maps.py", *options)}


Commands = dict[str, list[str]]
Making = Callable[[argparse.Namespace], Commands]
Running = Callable[[argparse.Namespace, Commands, Section], None]
POINTS: dict[int, tuple[Making, Running]] = {
    1: (tests, run_tests),
    2: (benchmarks, run_all),
    3: (profiles, run_profiles),
    4: (detection, run_detection),
    5: (resumption, run_resumption),
    6: (memory, run_memory),
    7: (fields, run_all),
}


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument("--device", type=timing.device, default=timing.device("cuda"))
    parser.add_argument("--output", type=Path, default=Path("results/gpu_hour"))
    parser.add_argument("--timm", type=Path, help="checkout of pytorch-image-models")
    parser.add_argument("--vision", type=Path, help="checkout of pytorch/vision")
    parser.add_argument("--small", action="store_true", help="small numbers, to try this script")
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    given = parser.parse_args()
    given.output = given.output.absolute()
    return given


def main() -> None:
    """Run the points; exit code 1 where one failed."""
    given = parsed()
    if given.dry_run:
        for number in given.points:
            making = POINTS[number][0]
            print(f"\n# {making.__doc__}")
            for command in making(given).values():
                print(shlex.join(command))
        return
    if given.device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("Error: there is no GPU. --device cpu --small tries the script without one.")
    given.output.mkdir(parents=True, exist_ok=True)
    # of timm the checkout, whose training script needs its own library
    paths = [str(ROOT), *([str(given.timm)] if given.timm else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    failed = False
    for number in given.points:
        given.end = time.monotonic() + LIMIT
        making, running = POINTS[number]
        title = f"First hour on a GPU, point {making.__doc__}"
        section = Section(title, f"python scripts/gpu_hour.py --points {number}", given.device)
        try:
            running(given, making(given), section)
        except Exception as error:  # whatever it is, the other points are worth their time
            failed = True
            if not isinstance(error, Failed | subprocess.TimeoutExpired):
                traceback.print_exc()
            section.add(f"**Failed**: {error}")
        section.write(given.output / "measurements.md")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
