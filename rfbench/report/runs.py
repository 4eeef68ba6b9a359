"""The runs below some folders, grouped into those that may be averaged.

Records are of one setting if their resolved configurations differ only in seed, variant, paths and
device.
"""

import dataclasses
import functools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfbench.config import AVERAGED, covers, flat, marked
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import variant as variants
from rfbench.runs import progress, records
from rfbench.runs.records import TrainingRecord
from rfbench.schemas.kinds import SCHEMAS

# fields of the record with the resolved values of keys that are marked as free
RESOLVED = ("precision", "input", "images", "objects", "classes", "scaled")
WEIGHTS = ("weights", "init.weights")
MOST = 100_000  # folders that are searched
CLOSED = 5  # of those that cannot be read, how many are named
STARTED = ("config.yaml", "last.pth", progress.METRICS)  # a run writes these before its record


@dataclass(frozen=True)
class Run:
    """A finished run. rows: the keys whose values are compared; (): the variant is.

    named: those that its row is called by, each with its parts: {"prune": ["prune.sparsity"]}.
    """

    folder: Path
    record: TrainingRecord
    rows: tuple[str, ...] = ()
    named: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False)

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Kind, detector, model and data set; only runs with the same are compared."""
        r = self.record
        model = "" if "model" in self.rows else self.model
        return r.kind, Path(r.detector or "").stem, model, r.dataset

    @property
    def row(self) -> str:
        """What names its row: the variant, or the values of `rows`, such as 'cascade, prune 0.75'.

        Of a key that has no value nothing is said.
        """
        if not self.rows:
            return self.record.variant
        values, parts = self.values(), []
        for key in self.rows:
            if key == "model":
                parts.append(self.model.rpartition(":")[2])
            elif _has(values, key):
                name = [] if key == "variant" else [key.rpartition(".")[2]]
                parts.append(" ".join([*name, *(text(values.get(k)) for k in self.named[key])]))
        return ", ".join(parts) or "not set"

    def values(self) -> dict[str, Any]:
        """Its settings, as {"optim.lr": 0.1}."""
        return flat({**self.record.config, "variant": self.record.variant})

    @property
    def model(self) -> str:
        """The model's name, without the folder of one's own file."""
        r = self.record
        source, _, name = r.model.rpartition(":")
        model = r.model if source != "torchvision" else name
        if source.endswith(".py"):  # an own file may have been moved
            model = f"{Path(source).name}:{name}"
        return model


def by_rows(runs: Sequence[Run], rows: tuple[str, ...]) -> list[Run]:
    """The runs, to be compared by some keys. Of a mapping, what differs between them is named."""
    each, named = [run.values() for run in runs], {}
    for key in rows:
        having = [values for values in each if _has(values, key)]
        below = dict.fromkeys(k for values in having for k in values if covers({key}, k))
        differs = [k for k in below if len({text(values.get(k)) for values in having}) > 1]
        named[key] = differs or [*below][:1]
    return [dataclasses.replace(run, rows=rows, named=named) for run in runs]


def _has(values: Mapping[str, Any], key: str) -> bool:
    """Whether a run has a value of a key, or of one below it."""
    return any(v not in (None, {}) for k, v in values.items() if covers({key}, k))


@dataclass
class Results:
    """Runs below some folders, problems of others, and the number of receptive-field records."""

    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    maps: int = 0


def find(folders: Sequence[Path]) -> Results:
    """Read every record below `folders`. Raises UsageError for one that is not a folder."""
    results = Results()
    for folder, names in _walk(folders, results.problems):
        if records.RECORD in names:
            try:
                record = records.read_record(folder / records.RECORD)
                if isinstance(record, TrainingRecord):
                    variants.get(record.variant)
            except RfbenchError as error:
                prefix = "" if str(folder) in str(error) else f"{folder}: "
                results.problems.append(f"{prefix}{error}")
                continue
            if isinstance(record, TrainingRecord):
                results.runs.append(Run(folder, record))
            else:
                results.maps += 1
        elif files := [name for name in STARTED if name in names]:
            results.problems.append(
                f"{folder} is unfinished: it has {files[0]} but no {records.RECORD}"
            )
    return results


def _walk(tops: Sequence[Path], problems: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder once, with the names of its files; links are followed, but not upwards.

    Adds folders that cannot be read to `problems`. Raises UsageError for a top that is no folder,
    and for more than `MOST` folders.
    """

    closed: list[str] = []

    def unread(error: OSError) -> None:
        closed.append(f"{error.filename} cannot be read: {error.strerror}")

    seen: set[tuple[int, int] | None] = {None}
    for top in tops:
        if not top.is_dir():
            what = "it is a file" if top.exists() else "no such folder"
            raise UsageError(f"{top}: {what}. Give a folder that contains runs.")
        above = {_identity(parent) for parent in Path(os.path.realpath(top)).parents}
        for root, below, names in os.walk(top, onerror=unread, followlinks=True):
            below.sort()
            if (one := _identity(root)) in seen or one in above:
                below.clear()
                continue
            seen.add(one)
            if len(seen) > MOST:
                raise UsageError(f"{top}: more than {MOST:,} folders. Give those of the runs.")
            yield Path(root), names
    problems += closed[:CLOSED]
    if (more := len(closed) - CLOSED) > 0:
        problems.append(f"and {more} more folders cannot be read")


def _identity(folder: str | Path) -> tuple[int, int] | None:
    """What is equal for one folder under all of its names; None: it may not be looked at."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@dataclass
class Setting:
    """Runs that differ only in seed and variant. keys: where other settings differ."""

    runs: list[Run]
    keys: dict[str, str]


def settings(runs: Sequence[Run]) -> list[Setting]:
    """The runs of one group by setting, the largest first."""
    by_run = [_settings(run.record, run.rows) for run in runs]
    names = sorted({key for values in by_run for key in values})
    apart = [key for key in names if len({v.get(key, _absent(key)) for v in by_run} - {None}) > 1]
    by_values: dict[tuple[str, ...], list[Run]] = {}
    for run, values in zip(runs, by_run, strict=True):
        by_values.setdefault(tuple(values.get(key, "") for key in apart), []).append(run)
    ordered = sorted(by_values.items(), key=lambda item: (-len(item[1]), item[0]))
    groups = []
    for values_of_key, members in ordered:
        keys = {key: v or _absent(key) for key, v in zip(apart, values_of_key, strict=True)}
        groups.append(Setting(members, {key: value for key, value in keys.items() if value}))
    return groups


def _absent(key: str) -> str | None:
    """How a missing key is shown; not at all for what differs with weights, or is not known."""
    return None if key.startswith("parent") or key == "code" else "not set"


def _settings(record: TrainingRecord, rows: Sequence[str] = ()) -> dict[str, str]:
    """What runs must have in common to be averaged, as text by dotted key; `rows` name their row.

    Where the model does, so does its code.
    """
    values = _decisive(record.model_dump())
    named = {*rows, *(["code"] if "model" in rows else [])}
    values = {key: value for key, value in values.items() if not covers(named, key)}
    if "variant" not in rows and rows:
        values["variant"] = record.variant
    source = _source(record.config)
    if source not in (None, "pretrained"):
        parent = record.parent.model_dump() if record.parent else records.parent(source)
        below = _decisive(parent) if parent else {}
        values |= {"parent": "known" if parent else "unknown"}
        values |= {f"parent.{key}": value for key, value in flat(below).items()}
    return {key: text(value) for key, value in flat(values).items()}


def _decisive(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a record, or of a parent in a record, that are not free."""
    kept = decisive(content["kind"], content["config"])
    for key in WEIGHTS:
        # only the name of the checkpoint; the rest of the path differs between seeds
        if kept.get(key) not in (None, "pretrained"):
            name = Path(str(kept[key])).name
            kept[key] = name if name in ("best.pth", "last.pth") else "a file"
    kept |= {key: content[key] for key in RESOLVED if content.get(key) is not None}
    if code := (content.get("network") or {}).get("code"):  # of one's own network
        kept["code"] = code
    if "per_batchnorm" in content.get("batch", {}):
        kept["batch.per_batchnorm"] = content["batch"]["per_batchnorm"]
    return kept


def _source(config: Mapping[str, Any]) -> str | None:
    """The checkpoint that a run started from."""
    values = flat(config)
    return next((str(values[key]) for key in WEIGHTS if values.get(key)), None)


def decisive(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a configuration by dotted key, without those marked `AVERAGED`.

    Keys added since the run have their defaults.
    """
    free, known = _schema(kind)
    values = known | flat(config)
    return {key: value for key, value in values.items() if not covers(free, key)}


def defaults(kind: str) -> dict[str, Any]:
    """The default of every key, dotted, of a kind's configuration."""
    return _schema(kind)[1]


@functools.cache  # the same for thousands of records
def _schema(kind: str) -> tuple[set[str], dict[str, Any]]:
    """(keys marked `AVERAGED`, the default of every key) of a kind's configuration."""
    schema = SCHEMAS[kind]
    required = any(field.is_required() for field in schema.model_fields.values())
    # a key that must be given has no default; it is in every record
    held = schema.model_construct() if required else schema()
    return marked(schema, AVERAGED), flat(held.model_dump(mode="json"))


def text(value: Any) -> str:
    """A value as typed after -o key=."""
    return value if value and isinstance(value, str) else json.dumps(value)


def disputed(runs: Sequence[Run]) -> set[Path]:
    """Folders of runs in a setting that have the same row and seed as another."""
    claims = Counter((run.row, run.record.seed) for run in runs)
    return {run.folder for run in runs if claims[run.row, run.record.seed] > 1}
