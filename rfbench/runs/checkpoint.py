"""A run's checkpoints: tensors and plain types, written to a temporary file and renamed.

`last.pth` is the newest, `last-1.pth` the one before. Each holds the weights and whatever is needed
to continue; a classifier's can be read by `weight_files` (format, model, variant, state_dict).
"""

import contextlib
import logging
import os
import random
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from rfbench import files
from rfbench.config import RESUMED, covers, flat, marked
from rfbench.errors import RfbenchError, UsageError, one_line
from rfbench.models import weight_files

logger = logging.getLogger(__name__)

SAME = "--resume needs the same configuration. Choose another --output."
LAST = "last.pth"
BEST = "best.pth"


def save(path: Path, content: Mapping[str, Any], keep: int = 1) -> None:
    """Write `content` as a checkpoint to `path`; the one there moves to `<stem>-1.pth`, and so on.

    keep: how many are kept. A kill at any moment leaves a complete checkpoint; a full disk raises
    RfbenchError and leaves the earlier ones unchanged.
    """
    try:
        with files.aside(path) as temporary:
            with open(temporary, "wb") as file:
                torch.save({"format": weight_files.FORMAT, **content}, file)
                file.flush()
                os.fsync(file.fileno())
            for age in range(keep - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(_aged(path, age - 1), _aged(path, age))
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        cause = next((e for e in _causes(error) if isinstance(e, OSError)), None)
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
        try:
            with zipfile.ZipFile(_aged(path, age)) as archive:
                whole = archive.testzip() is None  # checksums, which torch.load ignores
            content = torch.load(_aged(path, age), map_location="cpu", weights_only=True)
            if whole and content.get("format") == format and "optimizer" in content:
                return content
        except Exception:  # pickle, zipfile and torch raise anything on damaged bytes
            pass
        damaged.append(str(_aged(path, age)))
        if age != ages[-1]:
            logger.warning("%s is damaged; using the checkpoint before it.", damaged[-1])
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
    ]
    if lines:
        lines.append(remedy)
        raise UsageError(*lines)


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
    """Writes checkpoints in the first process. This one has written when `write` returns.

    An asynchronous writer must copy `content` before `write` returns: the tensors are the network's
    own and change with the next step.
    """

    def write(self, path: Path, content: Mapping[str, Any], keep: int = 1) -> None:
        """Write the state of a run between two steps; see `save`."""
        save(path, content, keep)

    def wait(self) -> None:
        """Return when everything is written; raise the error if writing failed."""


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
