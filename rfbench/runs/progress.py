"""The progress of a run: metrics.jsonl, a bar on stderr, TensorBoard files."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rfbench import files, json_text, metric_ranges
from rfbench.errors import RfbenchError, UsageError, one_line

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"

# keys of metrics.jsonl that depend on time; all others are equal in a resumed run
TIME_FIELDS = ("seconds", "images_per_s", "wait")
NOT_NEGATIVE = (*TIME_FIELDS, "lr")  # numbers of every line that has them


class Log:
    """Appends lines to metrics.jsonl and, if configured, to TensorBoard's files."""

    def __init__(self, folder: Path, lines: int, step: int, tensorboard: bool) -> None:
        """Cut the file to its first `lines` lines, up to `step`, which a resumed run keeps."""
        self.path = folder / METRICS
        self.file = files.append(self.path)
        kept = files.read_bytes(self.path).splitlines(keepends=True)[:lines]
        told = parsed(kept, self.path)  # damage is told now, not after the training
        # where lines are lost, some of later steps have moved up, and will be written again
        kept = kept[: sum(line["step"] <= step for line in told)]
        os.truncate(self.file.fileno(), sum(map(len, kept)))
        if len(kept) < lines:
            logger.warning("%s has lost %d of its lines", self.path, lines - len(kept))
        self.lines = len(kept)
        self.board = _board(folder) if tensorboard else None

    def write(self, line: dict[str, Any]) -> None:
        """Write and flush one line, so that a kill loses none."""
        with files.naming(self.path):
            self.file.write(json_text.dumps(line) + "\n")
            self.file.flush()
        self.lines += 1
        if self.board:
            for key, value in line.items():
                if isinstance(value, float):
                    self.board.add_scalar(f"{line['split']}/{key}", value, line["step"])

    def close(self) -> None:
        """Close the files."""
        with files.naming(self.path):  # what a full disk has not taken is written again
            self.file.close()
        if self.board:
            self.board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "tensorboard: the package is not installed. pip install tensorboard, "
            "or -o tensorboard=false"
        ) from None
    with files.claiming(folder / "tensorboard"):
        return SummaryWriter(str(folder / "tensorboard"))


def read_metrics(folder: Path, most: int | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; OSError, also for more than `most` bytes, or RfbenchError that
    names a line which is none.
    """
    return parsed(files.read_bytes(folder / METRICS, most).splitlines(), folder / METRICS)


def parsed(lines: Sequence[bytes], path: Path) -> list[dict[str, Any]]:
    """Lines of metrics as mappings; RfbenchError that names the first which no run writes there."""
    out: list[dict[str, Any]] = []
    newest: dict[str, int] = {}  # the last step by split
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number},"
        value = json_text.parse(line, where)
        try:
            _check_line(value, newest)
        except ValueError as error:
            raise RfbenchError(f"{where} is damaged: {one_line(error)}") from None
        newest[value["split"]] = value["step"]
        out.append(value)
    return out


def _check_line(line: Any, newest: Mapping[str, int]) -> None:
    """Raise ValueError for what no run writes after lines up to the steps in `newest`."""
    step, split = (line.get("step"), line.get("split")) if isinstance(line, dict) else (None, None)
    if type(step) is not int or step < 0 or not isinstance(split, str):
        raise ValueError("it is not a line of a run")
    if step < max(newest.values(), default=0):
        raise ValueError(f"step {step} comes after step {max(newest.values())}")
    if step == newest.get(split) and split in ("train", "val"):  # "fix" has stages of one step
        raise ValueError(f"step {step} is there twice")
    for key in NOT_NEGATIVE:
        if key in line and not (isinstance(line[key], int | float) and line[key] >= 0):
            raise ValueError(f"{key} is {one_line(repr(line[key]), 60)}")
    metrics = {key: value for key, value in line.items() if key not in NOT_NEGATIVE}
    metric_ranges.check(_grouped(metrics), split)


def _grouped(line: Mapping[str, Any]) -> dict[str, Any]:
    """{"ema/iou/cat": 1.0} as {"ema": {"iou": {"cat": 1.0}}}; names of classes may hold slashes."""
    groups: dict[str, Any] = {}
    for key, value in line.items():
        group, name = groups, key
        while "/" in name:
            above, _, name = name.partition("/")
            group = group.setdefault(above, {})
            if not isinstance(group, dict):
                raise ValueError(f"{one_line(key, 60)} is below a number")
            if above in metric_ranges.MEANS:
                break
        group[name] = value
    return groups


class Clock:
    """Seconds of work and, of those, seconds spent waiting for data."""

    def __init__(self, before: float = 0.0) -> None:
        """before: seconds of the run before it was resumed."""
        self.before = before
        self.start = self.window = time.monotonic()
        self.waited = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of the whole run."""
        return self.before + time.monotonic() - self.start

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A context in which time counts as waiting for data."""
        begun = time.monotonic()
        yield
        self.waited += time.monotonic() - begun

    def speed(self, images: float) -> tuple[float, float]:
        """Images per second since the last lap, and the share of that time spent waiting."""
        seconds = max(time.monotonic() - self.window, 1e-9)
        return images / seconds, self.waited / seconds

    def lap(self) -> tuple[float, float]:
        """Seconds since the last lap, and the share of them spent waiting for data."""
        now = time.monotonic()
        seconds, waited = max(now - self.window, 1e-9), self.waited
        self.window, self.waited = now, 0.0
        return seconds, waited / seconds


def bar(total: int, done: int, text: str, shown: bool) -> Any:
    """A progress bar on stderr, hidden unless this is the printing process."""
    return tqdm(
        total=total,
        initial=done,
        desc=text,
        disable=not shown,
        file=sys.stderr,
        unit="step",
        leave=False,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
    )


def speed(record: dict[str, Any], digits: int = 0) -> str:
    """'123 images/s'; of a run whose metrics.jsonl has lost its lines it is not known."""
    found = record["images_per_s"]
    return "images/s not known" if found is None else f"{found:.{digits}f} images/s"
