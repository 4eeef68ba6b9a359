"""The progress of a run: metrics.jsonl, a bar on stderr, TensorBoard files."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rfbench.errors import UsageError

METRICS = "metrics.jsonl"

# keys of metrics.jsonl that depend on time; all others are equal in a resumed run
TIME_FIELDS = ("seconds", "images_per_s", "wait")


class Log:
    """Appends lines to metrics.jsonl and, if configured, to TensorBoard's files."""

    def __init__(self, folder: Path, lines: int, tensorboard: bool) -> None:
        """Cut the file to its first `lines` lines, which a resumed run keeps."""
        self.path = folder / METRICS
        existing = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        if len(existing) > lines:
            os.truncate(self.path, sum(map(len, existing[:lines])))
        self.lines = lines
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self.board = _board(folder) if tensorboard else None

    def write(self, line: dict[str, Any]) -> None:
        """Write and flush one line, so that a kill loses none."""
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.lines += 1
        if self.board:
            for key, value in line.items():
                if isinstance(value, float):
                    self.board.add_scalar(f"{line['split']}/{key}", value, line["step"])

    def close(self) -> None:
        """Close the files."""
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
    return SummaryWriter(str(folder / "tensorboard"))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (folder / METRICS).read_text("utf-8").splitlines()]


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
