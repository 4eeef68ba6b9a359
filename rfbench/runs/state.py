"""What a run starts from, and the part of its state that all trainings share."""

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
    """What a run starts from. record: of a finished run; content: of its checkpoint."""

    folder: Path
    group: Processes
    signals: Signals
    record: dict[str, Any] | None
    content: dict[str, Any] | None


@dataclass(frozen=True)
class Ahead:
    """The batches of a step, or why there are none."""

    batches: list[Any]
    failure: BaseException | None = None


@dataclass(kw_only=True)
class Loop:
    """The part of a run's state, in one process, that is the same for all trainings.

    config: has seed, best_metric, patience and tensorboard. step: number of finished steps.
    """

    config: Any
    start: Start
    unit: str = "step"  # what messages call a step
    step: int = 0
    steps: int = 0  # in all, unless the run stops early
    evaluated: int = 0  # the step of the last evaluation
    metrics: dict[str, Any] = field(default_factory=dict)  # of the last evaluation
    best: dict[str, Any] = field(default_factory=dict)  # the metrics of the best one
    waited: int = 0  # evaluations since then
    parent: dict[str, Any] | None = None  # the run whose weights it started from, if known
    failure: BaseException | None = None  # of this process, until all processes know of it
    ahead: Ahead | None = None  # what `fetch` has for the next step
    vote: Callable[[], int] | None = None  # what the processes want, asked a step ago
    pending: Callable[[], None] | None = None  # reads the metrics of the last step
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
