"""Runs the runs of a grid: processes, a progress bar, and an end by success or signal."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from rfbench import files
from rfbench.errors import RfbenchError, one_line
from rfbench.grid.plan import Run, State, in_use
from rfbench.runs import folder as folders
from rfbench.runs import records

log = logging.getLogger(__name__)
PAUSE = 0.2  # seconds between two checks of the processes
TAIL = 64 << 10  # bytes of a log in which its last error is looked for


def work(runs: list[Run], jobs: int, fail_fast: bool = False) -> None:
    """Start all runs, `jobs` at a time, parents first, and update their `state`.

    A failure is logged and does not stop the others, unless `fail_fast`. If a signal stops a run,
    or KeyboardInterrupt is raised here (ctrl-C, SIGTERM, SIGUSR1), all save and stop, and
    KeyboardInterrupt is raised; a second one kills them.
    """
    for run in runs:
        if run.state is State.ELSEWHERE:  # each step checks again
            run.state = State.INTERRUPTED
    done = sum(run.state is State.FINISHED for run in runs)
    running: list[Run] = []
    bar = tqdm(total=len(runs), initial=done, unit="run", disable=None)
    with _interrupted_by_signals(), bar:
        try:
            while _step(runs, running, jobs, bar):
                if any(run.state is State.INTERRUPTED and run.process for run in runs):
                    raise KeyboardInterrupt
                if fail_fast and any(run.state is State.FAILED for run in runs):
                    break
                time.sleep(PAUSE)
        finally:
            stop(running)


def _step(runs: list[Run], running: list[Run], jobs: int, bar: tqdm) -> bool:
    """Start runs that may start and settle those that have ended; False if nothing is left."""
    waiting = [run for run in runs if _may_start(run)]
    # a killed grid may have left a run that continues: wait for it, then check again
    elsewhere = [run for run in waiting if in_use(run.folder)]
    for run in elsewhere:
        if run.state is not State.ELSEWHERE:
            run.state = State.ELSEWHERE
            log.info("waiting for %s, which another process runs", run.name)
    for run in waiting:
        if run not in elsewhere and len(running) + len(elsewhere) < jobs:
            start(run)
            running.append(run)
    bar.set_postfix_str(", ".join(run.name for run in running), refresh=False)
    for run in [run for run in running if settle(run)]:
        running.remove(run)
        bar.update(run.process is not None)
        if run.state is State.FAILED:
            log.error("%s failed; see %s%s", run.name, run.log, _last_words(run))
    return bool(running or elsewhere or any(_may_start(run) for run in runs))


def _may_start(run: Run) -> bool:
    """Whether a run is ready to start; one whose parent failed is skipped."""
    if run.parent and run.parent.state in (State.FAILED, State.SKIPPED):
        run.state = State.SKIPPED
    open_states = (State.NEW, State.INTERRUPTED, State.ELSEWHERE)
    ready = not run.parent or run.parent.state is State.FINISHED
    return run.state in open_states and run.process is None and ready


def start(run: Run) -> None:
    """Start a run; its output is appended to its log."""
    with files.naming(run.folder.parent):
        run.folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable if part == "python" else part for part in run.command]
    with files.append(run.log, "ab") as file:
        run.logged = os.fstat(file.fileno()).st_size
        try:
            # a session of its own, so that ctrl-C reaches it only through this process
            run.process = subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            what = f"launch: cannot start {command[0]}: {error.strerror or error}"
            raise RfbenchError(what) from error
    run.state = State.RUNNING


def settle(run: Run) -> bool:
    """Whether the process of a run has ended; sets its state."""
    code = run.process.poll() if run.process else None
    if code is None:
        return False
    if code not in (0, 130) and (in_use(run.folder) or folders.BUSY in _last_words(run)):
        # one that a killed grid has left, which had not locked its folder when this one started
        run.process, run.state = None, State.INTERRUPTED
    elif code not in (0, 130):
        run.state = State.FAILED
    elif code == 0 and (run.folder / records.RECORD).exists():
        run.state = State.FINISHED
    else:
        run.state = State.INTERRUPTED  # stopped by a signal; it has saved
    return True


def stop(running: list[Run]) -> None:
    """Let the running ones save and stop; a ctrl-C during this kills them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for run in running:
            if run.process and run.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(run.process.pid, number)
        try:
            for run in running:
                if run.process:
                    run.process.wait()
                    settle(run)
                    if run.state is State.FAILED:  # stopped before it could handle signals
                        run.state = State.INTERRUPTED
            break
        except KeyboardInterrupt:
            log.warning("killing the runs")


def _last_words(run: Run) -> str:
    """The last error that a run's process has logged, as ': ...'."""
    try:
        with open(run.log, "rb") as file:
            file.seek(max(run.logged, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read(TAIL).decode("utf-8", errors="replace").splitlines()
    except OSError as error:  # the folder was deleted
        return f": {error.strerror}"
    errors = [line for line in lines if line.startswith("Error: ")]
    return f": {one_line(errors[-1].removeprefix('Error: '), 1000)}" if errors else ""


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Treat SIGTERM and SIGUSR1 (Slurm's warning) as ctrl-C, which a background job ignores."""
    numbers = [
        signal.SIGINT,
        signal.SIGTERM,
        *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []),
    ]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
