"""What a training needs on 1 to 64 GPUs, by the formulas of docs/scale.md, and a check of them.

python scripts/scale.py                  # the tables of docs/scale.md
python scripts/scale.py --measure        # one and two processes on this CPU, beside the formulas

The check takes CPU seconds of user and system, which others on the machine change little. Parts are
measured apart, in as many processes at once as the run has: reading images, the passes over them,
an update, what DDP adds to it, a checkpoint. Whole runs of one and of three epochs are then
predicted: their difference is two epochs without the start.
"""

import argparse
import contextlib
import json
import math
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Task:
    """A training. images, val: how many; batch: a step, over all processes; parameters of the
    network, which are trained with momentum.
    """

    images: int = 1_281_167
    val: int = 50_000
    size: int = 224
    batch: int = 4096
    largest: int = 256  # images a pass: max_batch_per_gpu
    parameters: int = 25_557_032  # ResNet-50
    keep: int = 2  # checkpoint.keep


# --- the formulas of docs/scale.md ---------------------------------------------------------------


def steps(task: Task) -> int:
    """Updates an epoch."""
    return task.images // task.batch


def passes(task: Task, gpus: int) -> tuple[int, int]:
    """Passes an update in each process, and images in each."""
    count = math.ceil(task.batch / (gpus * task.largest))
    return count, task.batch // (gpus * count)


def cores(speed: float, reading: float) -> int:
    """CPU cores a GPU that trains `speed` images/s. reading: CPU seconds an image."""
    return math.ceil(speed * reading) + 1


def shared_memory(task: Task, gpus: int, workers: int) -> int:
    """Bytes of /dev/shm a GPU: batches that the loaders of both sets hold."""
    _, micro = passes(task, gpus)
    held = 2 * workers + 2
    val = min(held, math.ceil(task.val / gpus / micro))
    return (held + val) * micro * 3 * task.size**2


def checkpoint(task: Task) -> int:
    """Bytes of a checkpoint: weights and momentum, in float32."""
    return 2 * 4 * task.parameters


def disk(task: Task) -> int:
    """Bytes of the checkpoints that are kept, of the best, and of the one being written."""
    return (task.keep + 2) * checkpoint(task)


def exchanged(task: Task, gpus: int) -> float:
    """Bytes that each GPU sends an update: a ring's share of the gradients."""
    return 2 * (gpus - 1) / gpus * 4 * task.parameters


def epoch(task: Task, gpus: int, speed: float) -> float:
    """Seconds of an epoch whose GPUs never wait; to validate an image is a third of its step."""
    return (steps(task) * task.batch + task.val / 3) / (gpus * speed)


@dataclass(frozen=True)
class Costs:
    """CPU seconds of a process: an image read, trained on, evaluated; an update; an exchange.

    saving: of the first process, the checkpoint and the best weights.
    """

    reading: float
    training: float
    evaluating: float
    update: float
    saving: float
    exchange: float = 0.0


def of_epoch(task: Task, processes: int, costs: Costs) -> float:
    """CPU seconds of an epoch, of all processes together."""
    trained = steps(task) * task.batch
    read = (trained + task.val) * costs.reading
    computed = trained * costs.training + task.val * costs.evaluating
    updated = steps(task) * processes * (costs.update + costs.exchange)
    return read + computed + updated + costs.saving


# --- the tables ----------------------------------------------------------------------------------


def tables(reading: float, speeds: tuple[int, ...] = (1000, 2500), task: Task | None = None) -> str:
    """Markdown. reading: CPU seconds an image. speeds: images/s that a GPU is assumed to train."""
    task, rows = task or Task(), []
    rows.append("| GPUs | passes x images | images/s of one GPU | cores a GPU | /dev/shm a GPU | ")
    rows[-1] += "sent by a GPU an update | epoch |"
    rows.append("|---|---|---|---|---|---|---|")
    for gpus in (1, 8, 32, 64):
        for speed in speeds:
            need = cores(speed, reading)
            count, micro = passes(task, gpus)
            shared = shared_memory(task, gpus, need - 1) / 2**30
            sent, seconds = exchanged(task, gpus) / 1e6, epoch(task, gpus, speed)
            took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
            cells = [gpus, f"{count} x {micro}", f"{speed:,}", need, f"{shared:.2f} GB"]
            rows.append(f"| {' | '.join(map(str, [*cells, f'{sent:.0f} MB', took]))} |")
    return "\n".join(rows)


# --- the check -----------------------------------------------------------------------------------

SETTINGS = {"model": "torchvision:resnet18", "size": 64, "batch": 16, "images": 128, "val": 32}
PARAMETERS = 11_181_642  # of ResNet-18 with ten classes


def used(call: Callable[[], object], times: int) -> float:
    """CPU seconds of a call, the median of several."""
    found = []
    for _ in range(times + 1):
        begun = time.process_time()
        call()
        found.append(time.process_time() - begun)
    return statistics.median(found[1:])


def keys(root: Path, epochs: int, batch: int) -> list[str]:
    """Settings of the runs that are measured."""
    fixed = [f"data.root={root}", "data.workers=0", "schedule.warmup_epochs=0", "optim.lr=0.001"]
    fixed += ["device=cpu", "threads=1", "checkpoint.every=0", "consistency_images=0"]
    given = [f"model={SETTINGS['model']}", f"data.image_size={SETTINGS['size']}"]
    sizes = [f"batch_size={SETTINGS['batch']}", f"max_batch_per_gpu={batch}"]
    return [*fixed, *given, *sizes, f"schedule.epochs={epochs}"]


def parts(root: Path, processes: int) -> Costs:
    """The costs of a process beside the others of its run: the mean of them."""
    found = [json.loads(text) for text in together([__file__, "--part", str(root)], processes)]
    names = found[0].keys()
    return Costs(**{name: statistics.mean(one[name] for one in found) for name in names})


def together(arguments: list[str], processes: int) -> list[str]:
    """What processes print that find each other, as torchrun starts them."""
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    env |= {"WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(processes)
    ]
    printed = [one.communicate()[0] for one in started]
    if any(one.returncode for one in started):
        sys.exit(f"Error: one of {processes} processes failed: {' '.join(arguments)}")
    return printed


def part(root: Path) -> None:
    """One of them: prints its costs. Each is measured by itself."""
    from rfbench.classify import network
    from rfbench.classify.images import Images
    from rfbench.classify.train import backward
    from rfbench.config import load
    from rfbench.runs import checkpoint as checkpoints
    from rfbench.runs.processes import Processes
    from rfbench.schemas.cls import ClsConfig
    from rfbench.training import optimizer
    from rfbench.training.split import Split

    torch.set_num_threads(1)
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    if world > 1:
        dist.init_process_group("gloo")
    micro = SETTINGS["batch"] // world
    config = load(ClsConfig, None, keys(root, 1, micro))
    data = Images(config, Processes(torch.device("cpu")))
    split, count = Split(1, 1, micro), len(data.set.train) // micro
    reading = used(lambda: [None for _ in data.train(0, count, split)], 3) / (count * micro)
    model = network.build(config, len(data.set.classes)).module
    model = model.to(memory_format=torch.channels_last)
    algorithm = optimizer.optimizer(model, config.optim)
    batch = next(data.train(0, 1, split))

    def step(wrapped: nn.Module) -> None:
        run: Any = argparse.Namespace(wrapped=wrapped, config=config, group=data.group, step=0)
        run.data, run.mix = data, lambda images, labels, *_: (images, labels)
        run.synchronised = lambda last: contextlib.nullcontext()
        backward(run, [batch])

    def evaluate() -> None:
        with torch.inference_mode():
            model(data.on_device(batch)[0])

    def save() -> None:
        weights = {"state_dict": model.state_dict()}
        whole = {**weights, "optimizer": algorithm.state_dict()}
        for name, content in (("last.pth", whole), ("best.pth", weights)):
            checkpoints.save(root / f"{rank}-{name}", checkpoints.snapshot(dict(content)))

    training = used(lambda: step(model), 7)
    update = used(algorithm.step, 7)
    exchange = 0.0
    if world > 1:
        wrapped = DistributedDataParallel(model)
        step(wrapped)  # buckets are rebuilt
        exchange = used(lambda: step(wrapped), 7) - training
    saving = used(save, 3)
    model.eval()
    evaluating = used(evaluate, 7) / micro
    print(
        json.dumps(Costs(reading, training / micro, evaluating, update, saving, exchange).__dict__)
    )
    if world > 1:
        dist.destroy_process_group()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def of_run(root: Path, processes: int, epochs: int) -> float:
    """CPU seconds of a whole run of `rfbench train-cls`."""
    micro = SETTINGS["batch"] // processes
    settings = [part for key in keys(root, epochs, micro) for part in ("-o", key)]
    command = ["-m", "rfbench", "train-cls", "cls/resnet50", *settings, "--overwrite"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    together([*command, "--output", str(root / f"run-{processes}-{epochs}")], processes)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def check(rounds: int) -> dict[str, Any]:
    """Costs, and CPU seconds of two epochs by the formulas and by runs, for one and two processes.

    In turns, so that a change of the machine's speed meets both; medians.
    """
    from photos import write_tree

    task = Task(
        images=SETTINGS["images"],
        val=SETTINGS["val"],
        size=SETTINGS["size"],
        batch=SETTINGS["batch"],
        parameters=PARAMETERS,
    )
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_tree(root, task.images, task.val)
        seen: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(rounds):
            for processes in (1, 2):
                costs = parts(root, processes)
                predicted = 2 * of_epoch(task, processes, costs)
                measured = of_run(root, processes, 3) - of_run(root, processes, 1)
                seen[processes].append((predicted, measured))
                found[f"costs of {processes}"] = costs.__dict__
                print(json.dumps([processes, predicted, measured, costs.__dict__]), flush=True)
    for processes, pairs in seen.items():
        predicted, measured = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        values = {"predicted": predicted, "measured": measured, "ratio": ratio}
        found[f"{processes} processes"] = values
    return found


def main() -> None:
    """Print the tables, or measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="check the formulas on this CPU")
    parser.add_argument("--rounds", type=int, default=3, help="of the check")
    parser.add_argument("--reading", type=float, default=1.65, help="CPU ms an image")
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        return part(given.part)
    if not given.measure:
        return print(tables(given.reading / 1000))
    return print(json.dumps(check(given.rounds), indent=1))


if __name__ == "__main__":
    main()
