"""A long computation in a process of its own, so that a signal can end the run meanwhile.

pycocotools computes for minutes in C, where Python notices no signal.
"""

import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from rfbench.data.workers import end_with_parent, signals_blocked
from rfbench.errors import RfbenchError, one_line
from rfbench.runs.processes import Processes

Result = TypeVar("Result")
POLL = 0.2  # s


def apart(
    group: Processes, call: Callable[[], Result], pause: Callable[[], object], what: str
) -> Result:
    """`call()`, computed beside the first process, in all processes; all of them `pause()` often.

    call: must not use a GPU. what: the computation, for the error if the system kills it. Raises
    what `call` or `pause` raises, with the computation ended.
    """
    if sys.platform != "linux":  # as everywhere else here: no fork
        return group.by_first(call)
    child = Child(call) if group.first else None
    try:
        while group.largest(bool(child and child.busy())):
            pause()
        return group.by_first(lambda: child.result(what))  # type: ignore[union-attr]
    finally:
        if child:
            child.end()


class Child:
    """A forked process that sends the result of `call()`, or its error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("fork")
        self._end, end = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(call, end))
        with signals_blocked():
            self._process.start()
        end.close()

    def busy(self) -> bool:
        """Wait a moment; whether there is no result yet."""
        return not self._end.poll(POLL)

    def result(self, what: str) -> Any:
        """The result; raises the error of the call, RfbenchError if the process was killed."""
        try:
            value, error = pickle.loads(self._end.recv_bytes())
        except EOFError:
            self._process.join()
            raise RfbenchError(
                f"the {what} was killed (exit code {self._process.exitcode}), most often for lack "
                "of memory. The weights are saved; --resume evaluates them again."
            ) from None
        if error is not None:
            raise error
        return value

    def end(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.join()
        self._end.close()


def _work(call: Callable[[], Any], end: Any) -> None:
    """In the new process: compute and send (result, error)."""
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the run's processes decide
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    try:
        answer: tuple[Any, BaseException | None] = (call(), None)
    except Exception as error:
        answer = (None, error)
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)
    except Exception:  # an error of a kind that cannot be sent
        data = pickle.dumps((None, RuntimeError(one_line(answer[1] or "no result"))))
    end.send_bytes(data)
