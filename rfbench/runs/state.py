"""What a run starts from, and the part of its state that every training shares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfbench.runs import checkpoint
from rfbench.runs.processes import Processes
from rfbench.runs.progress import Clock, Log
from rfbench.runs.signals import Signals


@dataclass(frozen=True)
class Start:
    """What a run begins with. record: of one that has finished; content: of its checkpoint."""

    folder: Path
    group: Processes
    signals: Signals
    record: dict[str, Any] | None
    content: dict[str, Any] | None


@dataclass(kw_only=True)
class Loop:
    """The part of a run, in one process, that is the same for every training.

    config: has seed, best_metric, patience and tensorboard. step: finished updates.
    """

    config: Any
    start: Start
    unit: str = "update"  # what messages call a step
    step: int = 0
    steps: int = 0  # of a run that is not stopped early
    evaluated: int = 0  # the step of the last evaluation
    metrics: dict[str, Any] = field(default_factory=dict)  # of the last evaluation
    best: dict[str, Any] = field(default_factory=dict)  # the metrics of the best one
    waited: int = 0  # evaluations since then
    parent: dict[str, Any] | None = None  # the run whose weights it began with, if it is known
    failure: Exception | None = None  # of this process, until all know of it
    pending: Callable[[], None] | None = None  # reads what the last step measured
    writer: checkpoint.Writer = field(default_factory=checkpoint.Writer)
    clock: Clock = field(default_factory=Clock)
    log: Log | None = None  # of the first process
    bar: Any = None

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return self.start.folder

    @property
    def group(self) -> Processes:
        """This process among those of the run."""
        return self.start.group
