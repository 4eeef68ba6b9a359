"""Results on disk: one folder a run, every file written aside and renamed, `result.json` last.

Its presence means that the run finished.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rfbench.errors import RfbenchError, UsageError

FORMAT = "rfbench-record/1"
RECORD = "result.json"


class Parent(BaseModel):
    """What a record holds of the run whose checkpoint its own started from: nearly all."""

    model_config = ConfigDict(extra="allow", frozen=True)

    checkpoint: str
    seed: int
    batch: dict[str, Any]
    config: dict[str, Any]


class Record(BaseModel):
    """The record of a training run; a kind of run may add fields of its own.

    metrics: figures by name, in groups such as "bbox", None where one does not exist. input: size
    and augmentation. pictures: how many, by split. images_per_s: the median. batch: pictures an
    update ("global"), of one BatchNorm ("per_batchnorm"), and processes. config: resolved, reruns
    the job. git: of the code.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=True)

    format: str
    kind: Literal["cls", "det"]
    name: str | None = None
    model: str
    variant: str
    replaced: list[str]
    parameters: int
    dataset: str
    input: dict[str, Any] = {}
    pictures: dict[str, Any] = {}
    detector: str | None = None
    metrics: dict[str, Any]
    seed: int
    steps: int
    seconds: float
    images_per_s: float | None = None
    batch: dict[str, Any]
    device: str
    precision: str
    versions: dict[str, str]
    git: dict[str, Any] | None = None
    command: list[str]
    config: dict[str, Any]
    parent: Parent | None = None


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
    git_state()  # of now: the code may change before the record is written


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
        "name": folder.name,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        "git": git_state(),
        **content,
    }
    write_text(folder / RECORD, json.dumps(record, indent=2, default=list) + "\n")
    return record


def read_record(path: Path) -> Record | None:
    """The record of a training run; None for one of receptive fields.

    Raises RfbenchError, one line, for a file that is damaged, foreign or of a newer version.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RfbenchError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise RfbenchError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    kind = str(content.get("format")) if isinstance(content, dict) else ""
    if not kind.startswith(FORMAT.rpartition("/")[0] + "/"):
        raise RfbenchError(f"{path} is not a record of rfbench")
    if kind != FORMAT:
        raise RfbenchError(f"{path} is of format {kind}; this version of rfbench reads {FORMAT}")
    if str(content.get("kind")).startswith("rf"):
        return None
    try:
        return Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RfbenchError(f"{path} is damaged: {where}: {first['msg']}") from None


def parent(checkpoint: str | None) -> dict[str, Any] | None:
    """What a record says of the run whose checkpoint it started from; None: it is not known."""
    if not checkpoint or not Path(checkpoint).is_file():  # such as "pretrained"
        return None
    try:
        found = read_record(Path(checkpoint).parent / RECORD)
    except RfbenchError:
        return None
    kept = found.model_dump(exclude={"format", "command", "replaced", "parent"}) if found else None
    return {"checkpoint": checkpoint, **kept} if kept else None


@functools.cache
def git_state() -> dict[str, Any] | None:
    """{"commit", "changed"} of the checkout that this package is in; None outside of one."""
    here = Path(__file__)

    def git(*args: str) -> str:
        call = ["git", "-C", str(here.parent), "--no-optional-locks", *args]
        return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout

    try:
        if not git("ls-files", here.name):  # installed below a folder that git knows otherwise
            return None
        changed = git("status", "--porcelain", "--", ".")
        return {"commit": git("rev-parse", "HEAD").strip(), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


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
