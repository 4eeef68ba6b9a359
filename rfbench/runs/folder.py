"""A run's folder: its lock, its contents from the start, and what --resume continues from."""

import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic import BaseModel, ValidationError

from rfbench import files, manifest
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import weight_files
from rfbench.runs import checkpoint, progress, records
from rfbench.runs.checkpoint import BEST, LAST, SAME
from rfbench.runs.processes import Processes

logger = logging.getLogger(__name__)

# of flock: Lustre without `-o flock`, NFS without a lock daemon
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)

BUSY = "another run is writing to"  # what the second of two says; a grid then waits for the first

Content = dict[str, Any]


@contextlib.contextmanager
def opened(
    folder: Path,
    config: BaseModel,
    group: Processes,
    resume: bool,
    overwrite: bool,
    made: Sequence[str] = (),
    format: str = weight_files.FORMAT,
) -> Iterator[tuple[Content | None, Content | None]]:
    """A run's folder, `held` by the first process of `group`; yields the result of `look`.

    Raises as `held` and `look` do.
    """
    with contextlib.ExitStack() as stack:
        keep = held(folder, resume, overwrite, made)
        group.by_first(lambda: stack.enter_context(keep))
        yield group.by_first(lambda: look(folder, config, resume, format))


def look(
    folder: Path, config: BaseModel, resume: bool, format: str = weight_files.FORMAT
) -> tuple[Content | None, Content | None]:
    """(the record of a finished run, the checkpoint to continue from), None each if there is none.

    Raises UsageError if --resume is given another configuration, and as `load_last` does.
    """
    if not resume:
        return None, None
    record = finished(folder, config)
    if record:
        logger.info("%s is already finished.", folder)
        return record, None
    content = checkpoint.load_last(folder, format)
    if content is None:
        logger.info("no checkpoint in %s: starting from the beginning", folder)
    else:
        if not isinstance(content.get("config"), dict):
            raise RfbenchError(f"{folder / LAST} is not a checkpoint of a run: it has no config.")
        refuse_changes(folder, content["config"], config)
    return None, content


@contextlib.contextmanager
def held(folder: Path, resume: bool, overwrite: bool, made: Sequence[str] = ()) -> Iterator[None]:
    """Lock the folder of a run; remove the files of an earlier run, unless it is continued.

    made: patterns of the files that this training writes beside checkpoints, metrics.jsonl and
    record, for folders of older versions, which have no manifest. Raises as `check`, and
    RfbenchError if another process holds the folder.
    """
    check(folder, resume, overwrite)
    with files.naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        check(folder, resume, overwrite)  # again: another run may have ended meanwhile
        continued = resume and begun(folder)
        older = continued and manifest.read(folder) is None
        files.open_folder(folder, keep=continued)
        if older:  # the run of an older version, which wrote no manifest
            for pattern in ("last*.pth", BEST, progress.METRICS, records.RECORD, *made):
                for path in folder.glob(pattern):
                    files.claim(path, made=True)
        yield


def check(folder: Path, resume: bool, overwrite: bool) -> None:
    """Check that a run may use its folder, without changing anything.

    Raises UsageError if it holds a run that is to be kept, or cannot be written.
    """
    if (folder / LAST).exists() and not (resume or overwrite):
        raise UsageError(
            f"{folder} holds a run. Continue it with --resume, replace it with --overwrite, "
            f"or choose another --output."
        )
    if not folder.is_dir() or not manifest.others(folder):
        return files.check_folder(folder, overwrite)
    if resume and begun(folder):
        _refuse_links(folder)
        return files.check_writable(folder)
    held = manifest.read(folder)
    # the files of a run that failed before its first checkpoint do not count as a run
    started = held is not None and not begun(folder) and held.covers(manifest.others(folder))
    return files.check_folder(folder, overwrite or started)


def _refuse_links(folder: Path) -> None:
    """Raise UsageError for a link among the files that a run would write."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise UsageError(
                f"{path} is a link: a run writes only into its own folder. Remove it, or move the "
                f"file here."
            )


def begun(folder: Path) -> bool:
    """Whether a run's folder holds something that --resume can continue."""
    return any(folder.glob("last*.pth")) or (folder / records.RECORD).exists()


def begin(folder: Path, config: BaseModel) -> None:
    """Write config.yaml, from which the run can be repeated, and remove an earlier record.

    A config.yaml that was edited since, or that no run wrote, is left as it is.
    """
    (folder / records.RECORD).unlink(missing_ok=True)
    records.git_state()  # cached now: the code may change before the record is written
    path = folder / manifest.EDITED
    if os.path.lexists(path) and not files.listed(path):
        logger.info("%s is left as it is: this run did not write it so", path)
        return
    values = config.model_dump(mode="json")
    files.write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def finished(folder: Path, config: BaseModel, remedy: str = SAME) -> Content | None:
    """The record of a finished run; None: unfinished.

    Raises UsageError for another configuration, RfbenchError for a record of another kind.
    """
    if not (folder / records.RECORD).exists():
        return None
    record = records.read_training(folder / records.RECORD)
    if record.kind != (kind := getattr(config, "KIND", record.kind)):
        raise RfbenchError(f"{folder / records.RECORD} is of kind {record.kind}, not {kind}")
    refuse_changes(folder, record.config, config, remedy)
    return record.model_dump(exclude_unset=True)


def refuse_changes(
    folder: Path, saved: Mapping[str, Any], config: BaseModel, remedy: str = SAME
) -> None:
    """As `checkpoint.refuse_changes`; keys added since `saved` was written have their defaults."""
    with contextlib.suppress(ValidationError):  # then the keys are compared as they are
        saved = type(config).model_validate_json(json.dumps(saved)).model_dump(mode="json")
    checkpoint.refuse_changes(folder, saved, config, remedy)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder`; RfbenchError if another process has. Removes temporary files of a killed run.

    A folder in which nothing else was written is removed with the lock.
    """
    path = folder / manifest.LOCK
    file = files.append(path, "ab")
    try:
        _flock(file, folder)
        for name in (LAST, BEST):
            for leftover in folder.glob(f".{name}.*.tmp.pth"):
                leftover.unlink(missing_ok=True)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps open files
                if not manifest.others(folder):
                    (folder / manifest.NAME).unlink(missing_ok=True)
                    path.unlink()
                    folder.rmdir()
    finally:
        file.close()


def lock_error(file: IO[bytes]) -> str:
    """Lock a file; '' if it is locked, else why the file system has no locks.

    Raises BlockingIOError if another process has locked it.
    """
    try:
        import fcntl
    except ImportError:
        return "Windows has none"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return str(error.strerror)
    return ""


def _flock(file: IO[bytes], folder: Path) -> None:
    try:
        error = lock_error(file)
    except BlockingIOError:
        raise RfbenchError(
            f"{BUSY} {folder}. Wait until it ends, or choose another --output."
        ) from None
    if error:
        text = "the file system of %s has no locks (%s): nothing refuses a second run in it"
        logger.warning(text, folder, error)
        return
    # a forked loader that outlives a killed run must not keep the folder locked
    os.register_at_fork(after_in_child=file.close)
