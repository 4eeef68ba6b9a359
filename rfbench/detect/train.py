"""A training, as one page of steps: read `train` and `train_to` from top to end.

The update itself is Detectron2's own trainer's; around it stands what lets a run be stopped and
killed at any moment.
"""

import logging
from typing import Any

from detectron2.utils.events import EventStorage

from rfbench.detect import evaluate
from rfbench.detect.loaders import told, train_loader
from rfbench.detect.run import Run, save, weights
from rfbench.errors import RfbenchError, one_line
from rfbench.runs import best, loop

logger = logging.getLogger(__name__)


def train(run: Run) -> None:
    """Train from where `run` stands to the last iteration; evaluate at every TEST.EVAL_PERIOD."""
    end, period = run.cfg.SOLVER.MAX_ITER, run.cfg.TEST.EVAL_PERIOD
    batches = told(run.group.alike(lambda: train_loader(run.cfg, run.group.world, run.step)))
    with EventStorage(run.step) as storage:
        while run.evaluated < end and not best.out_of_patience(run):
            stop = min((run.evaluated // period + 1) * period, end) if period else end
            train_to(run, stop, batches, storage)
            measure(run)
            save(run)


def train_to(run: Run, last: int, batches: Any, storage: Any) -> None:
    """The iterations that are left until `last`."""
    while run.step < last:
        # 1. the images; one process's trouble is everyone's
        found = loop.fetch(run, batches)
        # 2. stop here if any process was asked to, or failed
        loop.agree(run)
        # 3. forward, backward, optimizer: Detectron2's trainer
        (run.batch,) = found
        update(run, storage)
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


def update(run: Run, storage: Any) -> None:
    """One update. A loss that is not finite is noticed by the first process alone."""
    run.trainer.iter = storage.iter = run.step
    try:
        run.trainer.run_step()
    except FloatingPointError as error:
        run.failure = RfbenchError(
            f"{one_line(error, 300)} Lower opts.SOLVER.BASE_LR, or look at the images."
        )
    run.step += 1


def log_window(run: Run, storage: Any) -> None:
    """A line with the means, since the line before, of what Detectron2 has noted."""
    count, run.logged = run.step - run.logged, run.step
    means = {
        name.removeprefix("total_"): float(history.avg(count))
        for name, history in storage.histories().items()
        if not name.endswith("data_time")
    }
    lr = run.trainer.optimizer.param_groups[0]["lr"]
    loop.log_steps(run, count * run.cfg.SOLVER.IMS_PER_BATCH, {**means, "lr": lr})


def show(run: Run, storage: Any) -> None:
    """Move the bar on."""
    losses = storage.histories().get("total_loss")
    loss = losses.median(20) if losses else float("nan")
    lr = run.trainer.optimizer.param_groups[0]["lr"]
    images = (run.step - run.logged) * run.cfg.SOLVER.IMS_PER_BATCH
    loop.show(run, images, f"loss {loss:.3f}, lr {lr:.2g}")


def measure(run: Run) -> None:
    """Evaluate the detector as it is now; the last time also where its boxes lie."""
    what = (run.model, run.cfg, run.config, run.group, run.folder)
    metrics = evaluate.evaluate(*what, lambda: loop.agree(run), extras=False)
    better = best.judge(run, metrics)
    if run.step == run.steps or best.out_of_patience(run):
        metrics |= evaluate.located(run.model, run.cfg, run.group, run.folder)
    run.model.train()
    flat = {
        f"{task}/{name}": value
        for task, values in metrics.items()
        for name, value in values.items()
        if isinstance(value, float)
    }
    loop.evaluated(run, metrics, better, lambda: weights(run), flat)
    logger.info("iteration %d: %s", run.step, evaluate.shown(metrics))
