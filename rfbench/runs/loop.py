"""What every training does around its steps: agree, settle, log, save, keep the best, end.

A training adds its network, step and evaluation. Its own loop reads from top to bottom:

    with loop.opened(config, folder, resume, overwrite) as start:
        if start.record:                            # the run is already finished
            return start.record, 0
        run = setup(config, start)                  # network, optimizer, data; `begin` at its end
        return loop.to_the_end(run, train, state, finish)

    def train(run):
        while run.step < steps and not best.out_of_patience(run):
            batch = loop.fetch(run, batches, more)  # an error is kept until all know of it
            loop.agree(run)                         # stop here, all processes at one step
            loss = train_step(run, batch)
            loop.settle(run)                        # read the metrics of the previous step
            run.pending = functools.partial(read, run, loss)
            run.step += 1
            ...                                     # log_steps, save, evaluated

The state that all trainings share is `state.Loop`; `save` writes it to the checkpoint.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rfbench.errors import RfbenchError, counted
from rfbench.models import weight_files
from rfbench.runs import best, checkpoint, processes, progress, records
from rfbench.runs import folder as folders
from rfbench.runs.progress import Clock, Log
from rfbench.runs.signals import Asked, Signals
from rfbench.runs.state import Ahead, Loop, Start

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


class Stopped(Exception):
    """A signal asked the run to stop, and all processes agreed on this step."""

    def __init__(self, asked: int) -> None:
        self.exit_code = 130 if asked == Asked.INTERRUPT else 0


# --- the beginning -------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(
    config: Any,
    folder: Path,
    resume: bool,
    overwrite: bool,
    made: Sequence[str] = (),
    format: str = weight_files.FORMAT,
) -> Iterator[Start]:
    """Join the processes of the run, watch for signals, and lock its folder.

    made: patterns of the files that this training writes beside those of every training.
    format: of its checkpoints. Raises as `processes.started` and `folder.opened` do.
    """
    with processes.started(config.device) as group, Signals() as signals:
        files = folders.opened(folder, config, group, resume, overwrite, made, format)
        with files as (record, content):
            yield Start(folder, group, signals, record, content)


def begin(run: Loop, steps: int, label: str) -> None:
    """Open config.yaml, metrics.jsonl, clock and progress bar; called at the end of set-up."""
    content, run.steps = run.start.content or {}, steps
    if not run.evaluated <= run.step <= steps:
        raise RfbenchError(
            f"{run.folder / checkpoint.LAST} is of {run.unit} {run.step}, evaluated at "
            f"{run.evaluated}; this run has {steps}."
        )
    run.group.by_first(lambda: folders.begin(run.folder, run.config))
    lines, board = content.get("lines", 0), run.config.tensorboard
    run.log = run.group.alike(
        lambda: Log(run.folder, lines, run.step, board) if run.group.first else None
    )
    run.clock = Clock(content.get("seconds", 0.0))
    run.bar = progress.bar(steps, run.step, label, run.group.first)


def restore(run: Loop, content: Mapping[str, Any]) -> None:
    """Restore the shared part of a checkpoint; keys that older versions lack have defaults."""
    count = checkpoint.whole_number
    run.step = count(content, "step" if "step" in content else "iteration")
    run.evaluated = count(content, "evaluated", run.step)
    run.metrics, run.best = content.get("metrics", {}), content.get("best", {})
    run.waited, run.parent = count(content, "waited"), content.get("parent")
    for name, held in (("metrics", run.metrics), ("best", run.best)):
        checkpoint.figures(held, name, content.get("classes"))
    if run.parent is not None:
        records.Parent.model_validate(run.parent)
    if run.best:
        best.merit(run, run.best)
        if "waited" in content:
            best.check_waited(run)
    count(content, "lines")
    if not 0 <= content.get("seconds", 0.0) < math.inf:
        raise ValueError(f"seconds is {content['seconds']}")


# --- between two steps ---------------------------------------------------------------------------


def fetch(run: Loop, batches: Iterator[Item], more: bool, count: int = 1) -> list[Item]:
    """The `count` batches of this step; an error is kept until `agree` raises it in all processes.

    more: whether another step follows before anything else. Its batches are fetched too, so that
    the others can learn a step ahead that there are none, see `agree`.
    """
    if run.ahead is None:
        if run.vote:  # it was asked before these batches were there
            run.vote()
            run.vote = None
        run.ahead = _fetched(run, batches, count)
    now, run.ahead = run.ahead, None
    run.failure = run.failure or now.failure
    if more and not run.failure:
        run.ahead = _fetched(run, batches, count)
    return now.batches


def _fetched(run: Loop, batches: Iterator[Item], count: int) -> Ahead:
    try:
        with run.clock.waiting():
            return Ahead([next(batches) for _ in range(count)])
    except RfbenchError as error:
        return Ahead([], error)


def agree(run: Loop) -> None:
    """Decide with all processes whether to continue: raises Stopped, or the error of any.

    A checkpoint that could not be written is such an error, of the first process. Several processes
    decide by what they wanted one call ago, which has reached all of them while they computed, and
    ask for the next. The first time, and after batches that were not fetched ahead, they wait.
    """
    failure = run.failure or (run.ahead and run.ahead.failure) or run.writer.failed()
    vote = run.group.vote(Asked.FAILED if failure else run.start.signals.asked)
    before, run.vote = run.vote, vote
    asked = (before if before and run.group.world > 1 else vote)()
    if asked != Asked.NOTHING:
        settle(run)
        if asked == Asked.FAILED:
            run.failure = run.failure or failure
        run.group.fail_together(run.failure)
        raise Stopped(asked)


def settle(run: Loop) -> None:
    """Read the metrics of the last step, once; a step later, so that nothing waits for the GPU."""
    pending, run.pending = run.pending, None
    if pending:
        pending()


def settle_together(run: Loop) -> None:
    """`settle` before something is written: an error in one process ends the run in all."""
    settle(run)
    run.group.fail_together(run.failure)


# --- progress ------------------------------------------------------------------------------------


def log_steps(run: Loop, images: float, figures: Mapping[str, Any]) -> None:
    """Write a line of metrics.jsonl for the steps since the last one. images: of all processes."""
    seconds, wait = run.clock.lap()
    if run.log:
        times = {
            "seconds": round(run.clock.seconds, 3),
            "images_per_s": round(images / seconds, 2),
            "wait": round(wait, 4),
        }
        run.log.write({"split": "train", "step": run.step, **figures, **times})


def show(run: Loop, images: float, text: str) -> None:
    """Advance the bar. images: of all processes since the last line of metrics.jsonl."""
    run.bar.update(run.step - run.bar.n)
    if not run.bar.disable:
        if images:  # none since a line: an epoch may be shorter than `log_every`
            speed, wait = run.clock.speed(images)
            text = f"{text}, {speed:.0f} images/s, {100 * wait:.0f} % waiting for data"
        run.bar.set_postfix_str(text, refresh=False)


# --- evaluation ----------------------------------------------------------------------------------


def evaluated(
    run: Loop,
    metrics: dict[str, Any],
    better: bool,
    weights: Callable[[], Mapping[str, Any]],
    figures: Mapping[str, Any] | None = None,
) -> None:
    """Record the metrics of this step in metrics.jsonl, and write best.pth if they are better.

    weights: the content of best.pth. figures: the content of the line, if not `metrics`. To be
    followed by `save`, which stores that this step has been evaluated.
    """
    run.metrics, run.evaluated = metrics, run.step
    if run.log:
        line = {"split": "val", "step": run.step, **(metrics if figures is None else figures)}
        run.log.write({**line, "seconds": round(run.clock.seconds, 3)})
    if better:
        run.best = metrics
        _write(run, checkpoint.BEST, weights(), 1)
    run.clock.lap()  # the next line measures the speed of training alone


# --- checkpoints ---------------------------------------------------------------------------------


def save(run: Loop, state: Mapping[str, Any], keep: int) -> None:
    """Write last.pth, called by all processes. state: what this training adds to the shared part.

    keep: how many of these checkpoints are kept.
    """
    shared = {
        "step": run.step,
        "evaluated": run.evaluated,
        "metrics": run.metrics,
        "best": run.best,
        "waited": run.waited,
        "parent": run.parent,
        "lines": run.log.lines if run.log else 0,
        "seconds": run.clock.seconds,
        "world_size": run.group.world,
        "config": run.config.model_dump(mode="json"),
    }
    _write(run, checkpoint.LAST, {**shared, **state}, keep)


def written(run: Loop) -> None:
    """Wait for the checkpoints; an error in writing them is raised in all processes.

    To be called before processes are forked: the writing thread would not be in them, but the locks
    that it holds.
    """
    run.group.by_first(run.writer.wait)


def _write(run: Loop, name: str, content: Mapping[str, Any], keep: int) -> None:
    run.group.by_first(lambda: run.writer.write(run.folder / name, content, keep))


# --- the end -------------------------------------------------------------------------------------

Run = TypeVar("Run", bound=Loop)


def to_the_end(
    run: Run,
    train: Callable[[Run], None],
    save: Callable[[Run], None],
    finish: Callable[[Run], dict[str, Any]],
    memory: str = "",
) -> tuple[dict[str, Any] | None, int]:
    """Train; save on a signal. Returns (the record, or None; exit code: 0 or 130).

    finish: writes the final files and returns the record; called by all processes. memory: advice
    for when the GPU runs out of memory.
    """
    try:
        train(run)
        written(run)
    except Stopped as stop:
        save(run)
        written(run)
        logger.info(
            f"stopped at {run.unit} {run.step} and saved in {run.folder}; continue with --resume"
        )
        return None, stop.exit_code
    except RuntimeError as error:
        if not processes.out_of_memory(error):
            raise
        raise RfbenchError(f"the GPU is out of memory. {memory}") from error
    finally:
        run.bar.close()
        if run.log:
            run.log.close()
        with contextlib.suppress(RfbenchError, OSError):  # the error above goes first
            run.writer.wait()
    if run.step < run.steps:
        logger.info(
            f"stopped early at {run.unit} {run.step}: no better {run.config.best_metric} in "
            f"{counted(run.waited, 'evaluation')}"
        )
    return finish(run), 0


def write_record(run: Loop, kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a finished run. content: what this training adds to the shared part."""
    lines = progress.read_metrics(run.folder)
    trained = [line for line in lines if line["split"] == "train"]
    speeds = sorted(line["images_per_s"] for line in trained if "images_per_s" in line)
    shared = {
        "metrics": run.metrics,
        "best": run.best,
        "stopped_early": run.step < run.steps,
        "seed": run.config.seed,
        "steps": run.step,
        "seconds": round(run.clock.seconds, 1),
        "images_per_s": speeds[len(speeds) // 2] if speeds else None,
        "device": processes.device_name(run.group.device),
        "config": run.config.model_dump(mode="json"),
        "parent": run.parent,
    }
    return records.write_record(run.folder, kind, {**shared, **content})
