"""A third training in a few lines, a linear regression: its network, step and evaluation."""

import functools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rfbench.config import Section
from rfbench.errors import RfbenchError
from rfbench.runs import best, logs, loop
from rfbench.runs.state import Loop, Start

BATCH, PERIOD = 8, 10


class Config(Section):
    """What the loop wants of a configuration, and what this training wants."""

    device: str = "cpu"
    seed: int = 0
    best_metric: str = "loss"
    patience: int | None = None
    tensorboard: bool = False
    steps: int = 40
    lr: float = 0.05
    pause: float = 0.0  # seconds a step, so that a test can stop it
    bad: tuple[int, int] = (-1, -1)  # the step without a batch, in which process


@dataclass(kw_only=True)
class Run(Loop):
    """The network and its optimizer."""

    network: nn.Linear
    optimizer: torch.optim.Optimizer
    window: float = 0.0


def fit(config: Config, folder: Path, resume: bool = False, overwrite: bool = False) -> Any:
    """As those of rfbench.classify and rfbench.detect."""
    with loop.opened(config, folder, resume, overwrite) as start:
        if start.record:
            return start.record, 0
        return loop.to_the_end(setup(config, start), train, save, finish)


def setup(config: Config, start: Start) -> Run:
    torch.manual_seed(config.seed)
    network = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(network.parameters(), config.lr, momentum=0.9)
    run = Run(config=config, start=start, network=network, optimizer=optimizer)
    if start.content:
        loop.restore(run, start.content)
        network.load_state_dict(start.content["state_dict"])
        optimizer.load_state_dict(start.content["optimizer"])
        run.window = start.content["window"]
    loop.begin(run, config.steps, "linear")
    return run


def train(run: Run) -> None:
    """The loop, from top to end."""
    batches = (mine(run, step) for step in range(run.step, run.config.steps))
    while run.evaluated < run.config.steps and not best.out_of_patience(run):
        while run.step < run.evaluated + PERIOD:
            more = run.step + 1 < run.evaluated + PERIOD
            batch = loop.fetch(run, batches, more)
            loop.agree(run)
            loss = train_step(run, *batch[0])
            loop.settle(run)
            run.pending = functools.partial(read, run, loss)
            run.step += 1
            time.sleep(run.config.pause)
            loop.show(run, BATCH, "")
        loop.settle_together(run)
        loop.log_steps(run, BATCH * PERIOD, {"loss": run.window / PERIOD})
        run.window = 0.0
        metrics = evaluate(run)
        loop.evaluated(run, metrics, best.judge(run, metrics), lambda: weights(run))
        save(run)


def mine(run: Run, step: int) -> tuple[Tensor, Tensor]:
    if run.config.bad == (step, run.group.rank):
        raise RfbenchError(f"no batch {step}")
    return data(step)


def data(step: int) -> tuple[Tensor, Tensor]:
    if step == 1_000:
        raise RfbenchError("no batch 1000")
    x = torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(step))
    return x, x.sum(1, keepdim=True) + 1


def train_step(run: Run, x: Tensor, y: Tensor) -> Tensor:
    loss = (run.network(x) - y).square().mean()
    run.optimizer.zero_grad()
    loss.backward()
    if run.group.world > 1:  # who does not take part keeps the others waiting
        for parameter in run.network.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
            parameter.grad /= run.group.world
    run.optimizer.step()
    return loss.detach()


def read(run: Run, loss: Tensor) -> None:
    run.window += float(loss)


def evaluate(run: Run) -> dict[str, Any]:
    x, y = data(-1 % 2**31)
    with torch.no_grad():
        return {"loss": float((run.network(x) - y).square().mean())}


def weights(run: Run) -> dict[str, Any]:
    return {"model": "linear", "variant": "baseline", "state_dict": run.network.state_dict()}


def save(run: Run) -> None:
    state = {"optimizer": run.optimizer.state_dict(), "window": run.window}
    loop.save(run, {**weights(run), **state}, keep=2)


def finish(run: Run) -> dict[str, Any]:
    own = {"model": "linear", "variant": "baseline", "replaced": [], "parameters": 4}
    more = {"dataset": "drawn", "batch": {"global": BATCH}, "precision": "fp32"}
    return run.group.by_first(lambda: loop.write_record(run, "cls", {**own, **more}))


def job(values: dict[str, Any], folder: str, resume: bool, env: Any) -> None:
    """A run in a process of its own."""
    os.environ.update(env)
    torch.set_num_threads(1)
    sys.stderr = open(f"{folder}.stderr{env.get('RANK', '')}", "a", buffering=1)  # noqa: SIM115
    logs.to_stderr()
    try:
        sys.exit(fit(Config(**values), Path(folder), resume)[1])
    except RfbenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
