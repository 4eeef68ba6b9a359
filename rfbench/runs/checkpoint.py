"""A run's checkpoints: tensors and plain types, written to a temporary file and renamed.

`last.pth` is the newest, `last-1.pth` the one before. Each holds the weights and whatever is needed
to continue; a classifier's can be read by `weight_files` (format, model, variant, state_dict).
"""

import contextlib
import copy
import logging
import math
import os
import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from rfbench import files, metric_ranges
from rfbench.config import RESUMED, covers, flat, marked
from rfbench.errors import RfbenchError, UsageError, of_content, one_line
from rfbench.models import identity, integrity, weight_files

logger = logging.getLogger(__name__)

SAME = "--resume needs the same configuration. Choose another --output."
LAST = "last.pth"
BEST = "best.pth"


def save(path: Path, content: Mapping[str, Any], keep: int = 1) -> None:
    """Write `content` as a checkpoint to `path`; the one there moves to `<stem>-1.pth`, and so on.

    keep: how many are kept. A kill at any moment leaves a complete checkpoint; a full disk raises
    RfbenchError and leaves the earlier ones unchanged.
    """
    whole = {"format": weight_files.FORMAT, **content}
    try:
        with files.aside(path) as temporary:
            with open(temporary, "wb") as file:
                torch.save({**whole, integrity.DIGEST: integrity.digest(whole)}, file)
                file.flush()
                os.fsync(file.fileno())
            for age in range(keep - 1, 0, -1):
                if _aged(path, age - 1).exists():
                    files.claim(_aged(path, age))
                with contextlib.suppress(FileNotFoundError):
                    os.replace(_aged(path, age - 1), _aged(path, age))
        _sync_folder(path.parent)
    # torch reports a full disk as a RuntimeError, `aside` any OSError as an RfbenchError
    except (OSError, RuntimeError, RfbenchError) as error:
        cause = next((e for e in _causes(error) if isinstance(e, OSError)), None)
        if cause is None and isinstance(error, RfbenchError):
            raise
        if not path.parent.is_dir():
            raise RfbenchError(
                f"cannot write {path}: the folder is gone. Start again with another --output."
            ) from error
        why = (cause.strerror or str(cause)) if cause else one_line(error)
        raise RfbenchError(
            f"cannot write {path}: {why}. The previous checkpoint is unchanged; "
            f"make room, then continue with --resume."
        ) from error


def load_last(folder: Path, format: str = weight_files.FORMAT) -> dict[str, Any] | None:
    """The newest undamaged checkpoint of `folder`, on the CPU; None if there is none.

    Warns of every damaged one that is skipped. Raises RfbenchError if all are damaged.
    """
    path, damaged = folder / LAST, []
    ages = [age for age in range(100) if _aged(path, age).exists()]
    for age in ages:
        with contextlib.suppress(RfbenchError):
            content = integrity.read(str(_aged(path, age)))
            whole = isinstance(content, dict) and content.get("format") == format
            if whole and "optimizer" in content:
                return content
        damaged.append(str(_aged(path, age)))
        if age != ages[-1]:
            logger.warning(
                "%s is damaged or was changed; using the checkpoint before it.", damaged[-1]
            )
    if damaged:
        raise RfbenchError(
            f"no checkpoint can be read: {', '.join(damaged)}. Start again with --overwrite."
        )
    return None


def refuse_changes(
    folder: Path, saved: Mapping[str, Any], now: BaseModel, remedy: str = SAME
) -> None:
    """Raise UsageError if `now` differs from the configuration that a run was started with.

    Names every such key; those that the schema marks as `RESUMED` may differ.
    """
    before, after = flat(saved), flat(now.model_dump(mode="json"))
    free = marked(type(now), RESUMED)
    keys = [key for key in {**before, **after} if not covers(free, key)]
    lines = [
        f"{folder} was started with {key} = {before.get(key)}; now it is {after.get(key)}"
        for key in keys
        if before.get(key) != after.get(key)
        and not (key == "model" and identity.same(str(before.get(key)), str(after[key])))
    ]
    if lines:
        lines.append(remedy)
        raise UsageError(*lines)


@contextlib.contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """A context in which what a checkpoint of other content causes becomes an RfbenchError."""
    kinds = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
    try:
        yield
    except RfbenchError:
        raise
    except kinds as error:
        raise RfbenchError(
            f"{folder / LAST} is not a checkpoint of this run: {of_content(error)}. "
            "Start again with --overwrite."
        ) from error


def whole_number(content: Mapping[str, Any], key: str, default: int = 0) -> int:
    """A count in a checkpoint; ValueError for anything else."""
    value = content.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError(f"{key} is {one_line(repr(value), 60)}")
    return value


def figures(held: Any, name: str, classes: Sequence[str] | None = None) -> None:
    """Raise ValueError for what are no metrics: numbers or None by name, maybe in groups.

    Only a loss may be infinite; see `metric_ranges` for the rest.
    """
    if not isinstance(held, dict):
        raise ValueError(f"{name} is {one_line(repr(held), 60)}")
    for key, value in flat(held).items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        finite = number and (math.isfinite(value) or (value == math.inf and key.endswith("loss")))
        if not finite and value is not None:
            raise ValueError(f"{one_line(f'{name}.{key}', 60)} is {one_line(repr(value), 60)}")
    metric_ranges.check(held, name, classes)


def sums(content: Mapping[str, Any], key: str, count: int) -> list[float]:
    """`count` finite sums in a checkpoint; ValueError for anything else."""
    value = content[key]
    right = isinstance(value, list) and all(
        isinstance(one, int | float) and math.isfinite(one) for one in value
    )
    if not right or len(value) != count:
        raise ValueError(f"{key} is {one_line(repr(value), 60)}")
    return value


def same_numbers(folder: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError if the data are not as many as when the run was started; None: not told."""
    problems = [
        f"{folder} was started with {name} {saved[name]}; now there are {number}"
        for name, number in now.items()
        if saved.get(name) is not None and saved[name] != number
    ]
    if problems:
        raise UsageError(*problems, "--resume needs the same data. Choose another --output.")


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the random generators that a network may use: torch's and Python's."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


class Writer:
    """Writes the checkpoints of the first process, in a thread, in the order that they were given.

    The state is copied before `write` returns, so that the next step cannot change it. At most two
    copies are held, as of best.pth and last.pth at the end of an epoch.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._pending: deque[Future[None]] = deque()

    def write(self, path: Path, content: Mapping[str, Any], keep: int = 1) -> None:
        """Write the state of a run between two steps; see `save`. Raises an earlier error."""
        while len(self._pending) > 1 or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(save, path, snapshot(dict(content)), keep))

    def failed(self) -> BaseException | None:
        """Why writing failed, without waiting; None: it has not, so far."""
        done = [future for future in self._pending if future.done()]
        return next((error for future in done if (error := future.exception())), None)

    def wait(self) -> None:
        """Return when everything is written; raise the error if writing failed."""
        while self._pending:
            self._pending.popleft().result()


def snapshot(content: Any, held: dict[Any, Tensor] | None = None) -> Any:
    """A copy on the CPU of a state of tensors in nested dicts, lists and tuples.

    held: copies so far; tensors that are one stay one.
    """
    held = {} if held is None else held
    if isinstance(content, Tensor):
        place = (content.data_ptr(), content.shape, content.stride(), content.dtype)
        if place not in held or not content.numel():
            held[place] = content.detach().to("cpu", copy=True)
        return held[place]
    if isinstance(content, dict):
        whole = copy.copy(content)  # a state dict has attributes beside its items
        whole.update({key: snapshot(value, held) for key, value in content.items()})
        return whole
    if isinstance(content, list | tuple):
        return type(content)(snapshot(value, held) for value in content)
    return content


def _aged(path: Path, age: int) -> Path:
    return path.with_name(f"{path.stem}-{age}{path.suffix}") if age else path


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself to the disk, on systems that support it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
