"""Signals that ask a run to stop: noted when they arrive, acted on between two steps."""

import contextlib
import enum
import os
import signal
from dataclasses import dataclass, field
from types import FrameType
from typing import Any


class Asked(enum.IntEnum):
    """What the processes of a run agree on before a step; the largest value wins."""

    NOTHING = 0
    REQUEUE = 1  # save, exit code 0: a scheduler starts the run again
    INTERRUPT = 2  # save, exit code 130
    FAILED = 3  # a process has an error: all of them stop


ASKED = {signal.SIGTERM: Asked.REQUEUE, signal.SIGINT: Asked.INTERRUPT}
if hasattr(signal, "SIGUSR1"):
    ASKED[signal.SIGUSR1] = Asked.REQUEUE
HANGUP = getattr(signal, "SIGHUP", None)  # the terminal is gone: closed, or its connection lost
if HANGUP:
    ASKED[HANGUP] = Asked.REQUEUE


@dataclass
class Signals:
    """Notes SIGTERM, SIGUSR1, SIGHUP and ctrl-C; a second ctrl-C ends the run at once."""

    asked: Asked = Asked.NOTHING
    before: dict[int, Any] = field(default_factory=dict)
    terminals: list[int] = field(default_factory=list)

    def __enter__(self) -> "Signals":
        self.terminals = [number for number in range(3) if os.isatty(number)]
        # nohup ignores hang-ups, and so does the run
        ignored = HANGUP and signal.getsignal(HANGUP) is signal.SIG_IGN
        numbers = [number for number in ASKED if not (ignored and number == HANGUP)]
        with contextlib.suppress(ValueError):  # outside the main thread no signals arrive
            self.before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        asked = ASKED[signal.Signals(number)]
        if self.asked == asked == Asked.INTERRUPT:
            raise KeyboardInterrupt
        self.asked = max(self.asked, asked)
        if number == HANGUP:
            self._leave_terminals()

    def _leave_terminals(self) -> None:
        """Write no more to a terminal that is gone: that would be an error, before all is saved."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in self.terminals:
            os.dup2(nowhere, number)
        os.close(nowhere)
