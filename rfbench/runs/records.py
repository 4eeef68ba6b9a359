"""Records: `result.json`, written last, so that its presence means that the run has finished."""

import contextlib
import functools
import importlib.metadata
import json
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from rfbench import files, json_text
from rfbench.errors import RfbenchError, of_content, one_line
from rfbench.runs import possible
from rfbench.runs.measured import Network

FORMAT = "rfbench-record/1"
RECORD = "result.json"
MOST = 8 << 20  # bytes; a record has kilobytes
LONGEST = 10_000  # characters of a text


def _inside(name: str) -> str:
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ValueError("a record's files are in its folder")
    return name


class Record(BaseModel):
    """The fields of every record; each kind adds its own.

    format: `FORMAT`. name: of the folder. command: as typed. versions: of the packages that affect
    a result. git: state of the code. date: when it was written, UTC; None before version 1.
    Undeclared fields are kept when a record is read.
    """

    model_config = ConfigDict(
        extra="allow", frozen=True, allow_inf_nan=False, strict=True, str_max_length=LONGEST
    )

    format: str
    kind: str
    name: str | None = None
    command: list[str]
    versions: dict[str, str]
    git: dict[str, Any] | None = None
    date: str | None = None
    files: list[Annotated[str, AfterValidator(_inside)]] = []


class Parent(BaseModel):
    """What a record keeps of the run whose checkpoint its run started from: nearly everything."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    checkpoint: str
    kind: Literal["cls", "seg", "det"] = "cls"
    seed: int
    batch: dict[str, Any]
    config: dict[str, Any]
    network: Network | None = None

    @model_validator(mode="after")
    def _agrees(self) -> "Parent":
        possible.check_same(self)
        return self


class TrainingRecord(Record):
    """The record of any training.

    nonzero: parameters that are not zero, fewer where the network was pruned. metrics: by name, in
    groups such as "bbox"; None: undefined. best: those of best.pth. input:
    size and augmentation. images: their number by split. images_per_s: the median. lr: peak
    learning rate. batch: images per step ("global") and per BatchNorm batch ("per_batchnorm"), and
    processes. config: resolved; repeats the run. network: cost, receptive field and its map, see
    rf/core/recorded; None: they could not be measured, or the record is of an older version.
    """

    kind: Literal["cls", "seg", "det"]
    model: str
    variant: str
    replaced: list[str]
    parameters: int
    nonzero: int | None = None
    dataset: str
    input: dict[str, Any] = {}
    images: dict[str, Any] = {}
    detector: str | None = None
    metrics: dict[str, Any]
    best: dict[str, Any] | None = None
    stopped_early: bool | None = None
    seed: int
    steps: int
    seconds: float
    images_per_s: float | None = None
    lr: float | None = None
    batch: dict[str, Any]
    device: str
    precision: str
    config: dict[str, Any]
    parent: Parent | None = None
    network: Network | None = None

    @model_validator(mode="after")
    def _agrees(self) -> "TrainingRecord":
        possible.check(self)
        return self


class ClsRecord(TrainingRecord):
    """A classification. bad_images: the reason for each unreadable image, by path.

    bad_images_more: how many others there are, of thousands.
    """

    kind: Literal["cls"]
    epochs: int | None = None
    fix: dict[str, Any] | None = None
    bad_images: dict[str, str] = {}
    bad_images_more: int = 0


class SegRecord(TrainingRecord):
    """A segmentation. head: above the model; bad_images: as in a classification."""

    kind: Literal["seg"]
    head: str
    classes: int
    epochs: int | None = None
    bad_images: dict[str, str] = {}
    bad_images_more: int = 0


class DetRecord(TrainingRecord):
    """A detection. differs: keys that are not stock. memory: peak of a GPU, in bytes."""

    kind: Literal["det"]
    trainable: int | None = None
    classes: int | None = None
    objects: dict[str, Any] = {}
    eval: str | None = None
    scaled: dict[str, Any] | None = None
    memory: int | None = None
    differs: dict[str, Any] = {}


class RfRecord(Record):
    """Maps (panels), the shift by layer, effective fields, or a detector's registration."""

    kind: Literal["rf"]
    config: dict[str, Any] | str | None = None
    panels: list[dict[str, Any]] | None = None
    shift_by_layer: dict[str, list[Any]] | None = None
    fields: list[dict[str, Any]] | None = None
    offset: float | None = None
    variants: dict[str, list[dict[str, Any]]] | None = None
    objects: dict[str, Any] | None = None  # of `rf registration --objects`

    @model_validator(mode="after")
    def _holds_one(self) -> "RfRecord":
        if [self.panels, self.shift_by_layer, self.fields, self.variants].count(None) != 3:
            raise ValueError("holds not one of panels, shift_by_layer, fields, variants")
        return self


class AuditRecord(Record):
    """Audits, one a network and variant."""

    kind: Literal["rf-audit"]
    audits: list[dict[str, Any]]


class TilesRecord(Record):
    """What tiles need, one a network, variant and output."""

    kind: Literal["rf-tiles"]
    tiles: list[dict[str, Any]]


class MirrorRecord(Record):
    """What a mirrored image moves, one a network, variant and output."""

    kind: Literal["rf-mirror"]
    mirrors: list[dict[str, Any]]


# kind -> the model by which a record is written and read
KINDS: dict[str, type[Record]] = {
    "cls": ClsRecord,
    "seg": SegRecord,
    "det": DetRecord,
    "rf": RfRecord,
    "rf-audit": AuditRecord,
    "rf-tiles": TilesRecord,
    "rf-mirror": MirrorRecord,
}


def open_folder(folder: Path) -> None:
    """Create the folder of a run, without the files of an earlier one."""
    files.open_folder(folder)
    git_state()  # cached now: the code may change before the record is written


def write_record(folder: Path, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """Write `result.json`: what ran, on which versions, and its results. Returns the record.

    Raises ValueError for a field that the kind's model does not allow or declare: a mistake in the
    code shows here, not when the record is read. It is written before, as what ran is over: no
    mistake of ours may lose its results.
    """
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    record = {
        "format": FORMAT,
        "kind": kind,
        "name": folder.name,
        "command": [word if len(word) <= LONGEST else f"{word[:99]}..." for word in command],
        "versions": versions(),
        "git": git_state(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S}",
        **content,
    }
    record = json_text.texts(record)  # names of files may hold bytes that are none
    text = json_text.dumps(record, 2) + "\n"
    model = KINDS[kind]
    files.write_text(folder / RECORD, text)
    model.model_validate(json.loads(text))
    if undeclared := [key for key in record if key not in model.model_fields]:
        raise ValueError(f"{model.__name__} does not declare {', '.join(undeclared)}")
    return record


def read_record(path: Path) -> Record:
    """The record in a file, as the model of its kind.

    Raises RfbenchError, one line, for a file that is damaged, foreign or of a newer version.
    """
    try:
        content = json_text.parse(files.read_bytes(path, MOST), str(path))
    except OSError as error:
        raise RfbenchError(f"{path} cannot be read: {error.strerror or error}") from None
    form = str(content.get("format")) if isinstance(content, dict) else ""
    if not form.startswith(FORMAT.rpartition("/")[0] + "/"):
        raise RfbenchError(f"{path} is not a record of rfbench")
    if form != FORMAT:
        raise RfbenchError(
            f"{path} is of format {one_line(form)}; this version of rfbench reads {FORMAT}"
        )
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        raise RfbenchError(
            f"{path} is of kind {one_line(kind)}; this version of rfbench reads {known}"
        )
    try:
        return KINDS[kind].model_validate(content)
    except ValidationError as error:
        raise RfbenchError(f"{path} is damaged: {of_content(error, kind)}") from None


def read_training(path: Path) -> TrainingRecord:
    """The record of a training; RfbenchError as `read_record`, and for any other kind."""
    record = read_record(path)
    if not isinstance(record, TrainingRecord):
        raise RfbenchError(f"{path} is of kind {record.kind}, not of a training")
    return record


def parent(checkpoint: str | None) -> dict[str, Any] | None:
    """What a record keeps of the run whose checkpoint it started from; None: unknown."""
    if not checkpoint or not Path(checkpoint).is_file():  # such as "pretrained"
        return None
    try:
        record = read_training(Path(checkpoint).parent / RECORD)
    except RfbenchError:
        return None
    left_out = dict.fromkeys(("format", "command", "replaced", "parent"), True)
    kept = record.model_dump(exclude={**left_out, "network": {"map"}}, exclude_unset=True)
    return {"checkpoint": checkpoint, **kept}


@functools.cache
def git_state() -> dict[str, Any] | None:
    """{"commit", "changed"} of the checkout that holds this package; None outside of one."""
    package = Path(__file__).parents[1]

    def git(*args: str) -> str:
        call = ["git", "-C", str(package), "--no-optional-locks", *args]
        return subprocess.run(call, capture_output=True, text=True, timeout=10, check=True).stdout

    try:
        if not git("ls-files", "__init__.py"):  # installed inside another project's checkout
            return None
        changed = git("status", "--porcelain", "--", ".")
        return {"commit": git("rev-parse", "HEAD").strip(), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect a result."""
    packages = ("rfbench", "torch", "torchvision", "timm", "numpy")
    installed = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
