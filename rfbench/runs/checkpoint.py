"""A run's folder and its checkpoints: plain tensors and types, written aside and renamed.

`last.pth` is the newest, `last-1.pth` the one before. Each holds weights and what it takes to go
on; a classifier's is what `weight_files` reads (format, model, variant, state_dict).
"""

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
import yaml
from pydantic import BaseModel

from rfbench import files
from rfbench.config import RESUMED, covers, flat, marked
from rfbench.errors import RfbenchError, UsageError, one_line
from rfbench.models import weight_files
from rfbench.runs import progress, records
from rfbench.runs.processes import Processes

SAME = "--resume goes on with the same configuration. Choose another --output."
LAST = "last.pth"
BEST = "best.pth"


def save(path: Path, content: Mapping[str, Any], keep: int = 1) -> None:
    """Write `content` as a checkpoint to `path`; what it held moves to `<stem>-1.pth`, and so on.

    keep: how many stay. A kill at any moment leaves a whole checkpoint; a disk that is full raises
    RfbenchError and leaves all as they were.
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
    except (OSError, RuntimeError) as error:  # torch's writer tells a full disk as a RuntimeError
        cause = next((e for e in _causes(error) if isinstance(e, OSError)), None)
        why = (cause.strerror or str(cause)) if cause else one_line(error)
        raise RfbenchError(
            f"cannot write {path}: {why}. The checkpoint before it is as it was; "
            f"make room, then go on with --resume."
        ) from error


def load_last(
    folder: Path,
    note: Callable[[str], object] = lambda _: None,
    format: str = weight_files.FORMAT,
) -> dict[str, Any] | None:
    """The newest whole checkpoint of `folder`, on the CPU; None where there is none.

    `note` hears of every damaged one that is passed over. Raises RfbenchError where all are.
    """
    path, damaged = folder / LAST, []
    ages = [age for age in range(100) if _aged(path, age).exists()]
    for age in ages:
        try:
            with zipfile.ZipFile(_aged(path, age)) as archive:
                whole = archive.testzip() is None  # compares the sums, which torch.load does not
            content = torch.load(_aged(path, age), map_location="cpu", weights_only=True)
            if whole and content.get("format") == format and "optimizer" in content:
                return content
        except Exception:  # of pickle, zipfile, torch: whatever the bytes cause
            pass
        damaged.append(str(_aged(path, age)))
        if age != ages[-1]:
            note(f"{damaged[-1]} is damaged; going on from the checkpoint before it.")
    if damaged:
        raise RfbenchError(
            f"no checkpoint can be read: {', '.join(damaged)}. Start anew with --overwrite."
        )
    return None


def refuse_changes(
    folder: Path, saved: Mapping[str, Any], now: BaseModel, remedy: str = SAME
) -> None:
    """Raise UsageError where `now` differs from the configuration that a run was begun with.

    Every such key is told; those that its schema marks as `RESUMED` may differ.
    """
    before, after = flat(saved), flat(now.model_dump(mode="json"))
    free = marked(type(now), RESUMED)
    keys = [key for key in {**before, **after} if not covers(free, key)]
    lines = [
        f"{folder} was begun with {key} = {before.get(key)}; now it is {after.get(key)}"
        for key in keys
        if before.get(key) != after.get(key)
    ]
    if lines:
        lines.append(remedy)
        raise UsageError("\n".join(lines))


@contextlib.contextmanager
def opened(
    folder: Path,
    config: BaseModel,
    group: Processes,
    resume: bool,
    overwrite: bool,
    note: Callable[[str], object],
    made: Sequence[str] = (),
    format: str = weight_files.FORMAT,
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """A run's folder, as `held` by the first process of `group`, and what `resume` finds there.

    Gives (the record of a run that is finished, the checkpoint to go on from), in every process;
    None for what is not there. Raises as `held`, `load_last` and `refuse_changes` do.
    """
    with contextlib.ExitStack() as stack:
        keep = held(folder, resume, overwrite, made)
        group.by_first(lambda: stack.enter_context(keep))
        yield group.by_first(lambda: look(folder, config, resume, note, format))


def look(
    folder: Path,
    config: BaseModel,
    resume: bool,
    note: Callable[[str], object],
    format: str = weight_files.FORMAT,
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What `resume` finds in a run's folder; see `opened`."""
    if not resume:
        return None, None
    record = finished(folder, config)
    if record:
        note(f"{folder} is finished already.")
        return record, None
    content = load_last(folder, note, format)
    if content is None:
        note(f"no checkpoint in {folder}: starting from the beginning")
    else:
        refuse_changes(folder, content["config"], config)
    return None, content


@contextlib.contextmanager
def held(folder: Path, resume: bool, overwrite: bool, made: Sequence[str] = ()) -> Iterator[None]:
    """The folder of a run, for it alone, and emptied of an earlier run where that is wanted.

    made: patterns of what it leaves there beside last.pth, metrics.jsonl and its record.
    Raises what `check` raises, and RfbenchError where another process holds the folder.
    """
    check(folder, resume, overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if overwrite and not resume:
            for pattern in ("last*.pth", progress.METRICS, records.RECORD, *made):
                for path in folder.glob(pattern):
                    path.unlink()
        yield


def check(folder: Path, resume: bool, overwrite: bool) -> None:
    """See that a run may have its folder; nothing is changed.

    Raises UsageError where it holds a run that was not to be touched, or cannot be written.
    """
    if (folder / LAST).exists() and not (resume or overwrite):
        raise UsageError(
            f"{folder} holds a run. Go on with it by --resume, replace it with --overwrite, "
            f"or choose another --output."
        )
    # what a run leaves that failed before its first checkpoint is no run
    started = {".lock", "config.yaml", progress.METRICS}
    empty = not folder.is_dir() or all(path.name in started for path in folder.iterdir())
    files.check_folder(folder, overwrite or resume or empty)


def begun(folder: Path) -> bool:
    """Whether a run's folder holds something that --resume goes on with."""
    return any(folder.glob("last*.pth")) or (folder / records.RECORD).exists()


def begin(folder: Path, config: dict[str, Any]) -> None:
    """What lies in a run's folder from its beginning: the configuration that reruns the job."""
    records.open_folder(folder)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    files.write_text(folder / "config.yaml", text)


def finished(folder: Path, config: BaseModel, remedy: str = SAME) -> dict[str, Any] | None:
    """The record of a run that came to its end; UsageError if it is of another configuration."""
    if not (folder / records.RECORD).exists():
        return None
    record = records.read_training(folder / records.RECORD)
    refuse_changes(folder, record.config, config, remedy)
    return record.model_dump(exclude_unset=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` alone; RfbenchError where another process does. Removes what a kill left.

    A folder in which nothing else was written goes with the lock.
    """
    path = folder / ".lock"
    file = open(path, "ab")  # noqa: SIM115 (held as long as the block)
    try:
        _flock(file, folder)
        for name in (LAST, BEST):
            for left in folder.glob(f".{name}.*.tmp.pth"):
                left.unlink(missing_ok=True)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps open files
                if [*folder.iterdir()] == [path]:
                    path.unlink()
                    folder.rmdir()
    finally:
        file.close()


def _flock(file: BinaryIO, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has none
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RfbenchError(
            f"another run is writing to {folder}. Wait for its end, or choose another --output."
        ) from None
    # a forked loader that outlives a killed run must not keep the folder locked
    os.register_at_fork(after_in_child=file.close)


def _aged(path: Path, age: int) -> Path:
    return path.with_name(f"{path.stem}-{age}{path.suffix}") if age else path


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _sync_folder(folder: Path) -> None:
    """See that the rename itself is on the disk, where the system can be asked to."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
