"""A training run, as one page of steps: read `train` from top to end.

The update itself is Detectron2's own trainer's; around it stands what lets a run be stopped and
killed at any moment.
"""

from collections.abc import Callable, Iterator
from typing import Any

from detectron2.utils.events import EventStorage

from rfbench.detect import evaluate
from rfbench.detect.loaders import train_loader
from rfbench.detect.run import Run
from rfbench.errors import RfbenchError
from rfbench.runs import processes


class Stopped(Exception):
    """A signal asked the run to stop, and all processes agreed on this iteration."""

    def __init__(self, asked: int) -> None:
        self.asked = asked


def train(run: Run, note: Callable[[str], object]) -> None:
    """Train from where `run` stands to the last iteration, save, and evaluate."""
    solver, test = run.cfg.SOLVER, run.cfg.TEST
    loader = run.group.alike(lambda: train_loader(run.cfg, run.group.world, run.iteration))
    batches = iter(loader) if run.iteration < solver.MAX_ITER else iter(())
    with EventStorage(run.iteration) as storage:
        while run.iteration < solver.MAX_ITER:
            # 1. the pictures; one process's trouble is everyone's
            fetch(run, batches)
            # 2. stop here if any process was asked to, or failed
            agree(run)
            # 3. forward, backward, optimizer: Detectron2's trainer; then its learning rate
            update(run, storage)
            # 4. a line of metrics, a checkpoint, an evaluation
            end = run.iteration == solver.MAX_ITER
            line_due = run.iteration % run.config.log_every == 0 or end
            save_due = run.iteration % solver.CHECKPOINT_PERIOD == 0 or end
            if save_due:
                run.group.fail_together(run.failure)
            if line_due:
                run.log_window(storage)
            run.scheduler.step()
            if save_due:
                run.save()
            if test.EVAL_PERIOD and run.iteration % test.EVAL_PERIOD == 0 and not end:
                measure(run, note)
            run.show(storage)
    run.bar.close()
    measure(run, note, last=True)


def fetch(run: Run, batches: Iterator[Any]) -> None:
    """The pictures of the next update; an error is kept until all processes hear of it."""
    try:
        with run.clock.waiting():
            run.batch = next(batches)
    except RfbenchError as error:
        # of a loading process comes its whole traceback; the last line is the error's own
        text = str(error).strip().splitlines()[-1].rpartition("RfbenchError: ")[2]
        run.failure = RfbenchError(text)


def update(run: Run, storage: Any) -> None:
    """One update. A loss that is not finite is noticed by the first process alone."""
    run.trainer.iter = storage.iter = run.iteration
    try:
        run.trainer.run_step()
    except FloatingPointError as error:
        what = " ".join(str(error).split())[:300]
        run.failure = RfbenchError(f"{what} Lower opts.SOLVER.BASE_LR, or look at the pictures.")
    run.iteration += 1


def agree(run: Run) -> None:
    """See, with all processes, whether to go on: raises Stopped, or the error of any of them."""
    failed = processes.INTERRUPT + 1
    asked = run.group.largest(failed if run.failure else run.signals.asked)
    if asked == failed:
        raise run.failure or RfbenchError("")
    if asked != processes.GO_ON:
        raise Stopped(asked)


def measure(run: Run, note: Callable[[str], object], last: bool = False) -> None:
    """Evaluate the detector as it is now."""
    found = evaluate.evaluate(
        run.model, run.cfg, run.config, run.group, run.folder, lambda: agree(run), extras=last
    )
    run.metrics = found
    run.model.train()
    run.log_metrics()
    if run.group.first:
        note(f"iteration {run.iteration}: {evaluate.shown(found)}")
    run.clock.lap()  # the next line's speed is that of training alone
