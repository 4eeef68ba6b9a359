"""Results on disk: one folder a run, every file written aside and renamed, `result.json` last.

Its presence means that the run finished.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rfbench.errors import UsageError

FORMAT = "rfbench-record/1"
RECORD = "result.json"


def check_folder(folder: Path, overwrite: bool) -> None:
    """See that a run can write to its folder, before it starts; nothing is changed yet.

    Raises UsageError where it holds something and `overwrite` is not set, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Choose another folder with --output.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UsageError(
            f"{folder} exists already. Choose another --output, or replace it with --overwrite."
        )
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another --output."
        ) from None


def open_folder(folder: Path) -> None:
    """Make the folder of a run; an earlier run's record goes, since its files will change."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes it when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it."""
    with aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_record(folder: Path, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """Write `result.json`: what ran, on which versions, and its results. Returns the record."""
    record = {
        "format": FORMAT,
        "kind": kind,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        **content,
    }
    write_text(folder / RECORD, json.dumps(record, indent=2, default=list) + "\n")
    return record


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    packages = ("rfbench", "torch", "torchvision", "timm", "numpy")
    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def default_folder(*parts: str) -> Path:
    """results/<parts>, with what a path cannot hold replaced."""
    name = "-".join("".join(c if c.isalnum() or c in "._+" else "-" for c in p) for p in parts)
    return Path("results") / name.strip("-.")
