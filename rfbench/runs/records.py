"""Records: `result.json`, written last, so that its presence means that the run finished."""

import contextlib
import functools
import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rfbench.errors import RfbenchError
from rfbench.files import write_text

FORMAT = "rfbench-record/1"
RECORD = "result.json"


class Parent(BaseModel):
    """What a record holds of the run whose checkpoint its own started from: nearly all."""

    model_config = ConfigDict(extra="allow", frozen=True)

    checkpoint: str
    kind: Literal["cls", "det"] = "cls"
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


def open_folder(folder: Path) -> None:
    """Make the folder of a run; an earlier run's record goes, since its files will change."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    git_state()  # of now: the code may change before the record is written


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
    package = Path(__file__).parents[1]

    def git(*args: str) -> str:
        call = ["git", "-C", str(package), "--no-optional-locks", *args]
        return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout

    try:
        if not git("ls-files", "__init__.py"):  # installed below a folder that git knows otherwise
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
