"""The training loop on one page: `train`, `train_to` and `train_step`.

The step itself is done by Detectron2's own trainer; the code around it lets a run be stopped or
killed at any moment.
"""

import functools
import logging
from typing import Any

from detectron2.utils.events import EventStorage

from rfbench.detect import evaluate
from rfbench.detect.loaders import train_loader, with_plain_errors
from rfbench.detect.run import Run, save, weights
from rfbench.errors import RfbenchError, one_line
from rfbench.runs import best, loop

logger = logging.getLogger(__name__)


def train(run: Run) -> None:
    """Train from the current step of `run` to the last; evaluate every TEST.EVAL_PERIOD steps."""
    end, period = run.cfg.SOLVER.MAX_ITER, run.cfg.TEST.EVAL_PERIOD
    loader = run.group.alike(lambda: train_loader(run.cfg, run.group.world, run.step))
    batches = with_plain_errors(loader)
    with EventStorage(run.step) as storage:
        while run.evaluated < end and not best.out_of_patience(run):
            stop = min((run.evaluated // period + 1) * period, end) if period else end
            train_to(run, stop, batches, storage)
            loop.written(run)
            measure(run)
            save(run)


def train_to(run: Run, last: int, batches: Any, storage: Any) -> None:
    """The remaining iterations up to `last`."""
    while run.step < last:
        # 1. the images; an error is kept until all processes know of it
        batch = loop.fetch(run, batches, run.step + 1 < last)
        # 2. stop here if any process was asked to, or has failed
        loop.agree(run)
        # 3. forward, backward, optimizer: Detectron2's trainer
        (run.batch,) = batch
        train_step(run, storage)
        # 4. a line of metrics, the learning rate, a checkpoint
        line_due = run.step % run.config.log_every == 0 or run.step == run.steps
        save_due = run.step % run.cfg.SOLVER.CHECKPOINT_PERIOD == 0 or run.step == last
        if save_due:
            loop.settle_together(run)
        if line_due:
            log_window(run, storage)
        run.scheduler.step()
        if save_due:
            save(run)
        show(run, storage)


def train_step(run: Run, storage: Any) -> None:
    """One optimizer update. Only the first process notices a loss that is not finite."""
    run.trainer.iter = storage.iter = run.step
    try:
        run.trainer.run_step()
    except FloatingPointError as error:
        run.failure = RfbenchError(
            f"{one_line(error, 300)} Lower opts.SOLVER.BASE_LR, or check the images."
        )
    run.step += 1


def log_window(run: Run, storage: Any) -> None:
    """Write a line of metrics: the means since the previous line of what Detectron2 recorded."""
    count, run.logged = run.step - run.logged, run.step
    means = {
        name.removeprefix("total_"): float(history.avg(count))
        for name, history in storage.histories().items()
        if not name.endswith("data_time")
    }
    lr = run.trainer.optimizer.param_groups[0]["lr"]
    loop.log_steps(run, count * run.cfg.SOLVER.IMS_PER_BATCH, {**means, "lr": lr})


def show(run: Run, storage: Any) -> None:
    """Advance the bar."""
    losses = storage.histories().get("total_loss")
    loss = losses.median(20) if losses else float("nan")
    lr = run.trainer.optimizer.param_groups[0]["lr"]
    images = (run.step - run.logged) * run.cfg.SOLVER.IMS_PER_BATCH
    loop.show(run, images, f"loss {loss:.3f}, lr {lr:.2g}")


def measure(run: Run) -> None:
    """Evaluate the detector; at the last evaluation also its localization errors."""
    what = (run.model, run.cfg, run.config, run.group, run.folder)
    pause = functools.partial(loop.agree, run)
    metrics = evaluate.evaluate(*what, pause, extras=False)
    waited = run.waited
    better = best.judge(run, metrics)
    if run.step == run.steps or best.out_of_patience(run):
        try:
            metrics |= evaluate.located(run.model, run.cfg, run.group, run.folder, pause)
        except loop.Stopped:
            run.waited = waited  # this evaluation will be made again
            raise
    run.model.train()
    figures = {
        f"{task}/{name}": value
        for task, values in metrics.items()
        for name, value in values.items()
        if isinstance(value, float)
    }
    loop.evaluated(run, metrics, better, lambda: weights(run), figures)
    logger.info("iteration %d: %s", run.step, evaluate.shown(metrics))
