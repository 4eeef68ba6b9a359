"""The runs below some folders, sorted into those that may be averaged.

Of one setting are records whose resolved configurations differ in nothing but seed, variant, paths
and device.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rfbench.config import AVERAGED, covers, flat, marked
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import variants
from rfbench.runs import progress, records
from rfbench.runs.records import TrainingRecord
from rfbench.schemas import SCHEMAS

# what the record says of a configuration's keys that are free because they only ask for it
RESOLVED = ("precision", "input", "pictures", "objects", "classes", "scaled")
WEIGHTS = ("weights", "init.weights")
STARTED = ("config.yaml", "last.pth", progress.METRICS)  # a run writes these before its record


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    record: TrainingRecord

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Kind, detector, model and data set: what can be compared at all."""
        r = self.record
        source, _, name = r.model.rpartition(":")
        model = r.model if source != "torchvision" else name
        if source.endswith(".py"):  # an own file may have been moved
            model = f"{Path(source).name}:{name}"
        return r.kind, Path(r.detector or "").stem, model, r.dataset


@dataclass
class Found:
    """What lies below the folders: runs, problems of others, number of receptive-field records."""

    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    maps: int = 0


def find(folders: Sequence[Path]) -> Found:
    """Read every record below `folders`. Raises UsageError for one that is no folder."""
    found = Found()
    for folder, names in _walk(folders):
        if records.RECORD in names:
            try:
                record = records.read_record(folder / records.RECORD)
                if isinstance(record, TrainingRecord):
                    variants.get(record.variant)
            except RfbenchError as error:
                here = "" if str(folder) in str(error) else f"{folder}: "
                found.problems.append(f"{here}{error}")
                continue
            if isinstance(record, TrainingRecord):
                found.runs.append(Run(folder, record))
            else:
                found.maps += 1
        elif has := [name for name in STARTED if name in names]:
            found.problems.append(
                f"{folder} is unfinished: it has {has[0]} but no {records.RECORD}"
            )
    return found


def _walk(tops: Sequence[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder once, with the names of its files; links are followed."""
    seen: set[str] = set()
    for top in tops:
        if not top.is_dir():
            what = "it is a file" if top.exists() else "no such folder"
            raise UsageError(f"{top}: {what}. Give a folder that contains runs.")
        for root, below, names in os.walk(top, followlinks=True):
            below.sort()
            real = os.path.realpath(root)
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            yield Path(root), names


@dataclass
class Setting:
    """Runs that differ in seed and variant only. keys: what other settings have otherwise."""

    runs: list[Run]
    keys: dict[str, str]


def settings(runs: Sequence[Run]) -> list[Setting]:
    """The runs of one group by setting, the largest first."""
    flat = [_settings(run.record) for run in runs]
    names = sorted({key for values in flat for key in values})
    apart = [key for key in names if len({v.get(key, _absent(key)) for v in flat} - {None}) > 1]
    by_values: dict[tuple[str, ...], list[Run]] = {}
    for run, values in zip(runs, flat, strict=True):
        by_values.setdefault(tuple(values.get(key, "") for key in apart), []).append(run)
    ordered = sorted(by_values.items(), key=lambda item: (-len(item[1]), item[0]))
    found = []
    for held, members in ordered:
        keys = {key: value or _absent(key) for key, value in zip(apart, held, strict=True)}
        found.append(Setting(members, {key: value for key, value in keys.items() if value}))
    return found


def _absent(key: str) -> str | None:
    """How a key that others have is shown; a run without a parent differs by its weights alone."""
    return None if key.startswith("parent") else "not set"


def _settings(record: TrainingRecord) -> dict[str, str]:
    """What runs must have in common to be averaged, as text by dotted key."""
    held = _decisive(record.model_dump())
    source = _source(record.config)
    if source not in (None, "pretrained"):
        parent = record.parent.model_dump() if record.parent else records.parent(source)
        below = _decisive(parent) if parent else {}
        held |= {"parent": "known" if parent else "unknown"}
        held |= {f"parent.{key}": value for key, value in flat(below).items()}
    return {key: text(value) for key, value in flat(held).items()}


def _decisive(content: Mapping[str, Any]) -> dict[str, Any]:
    """Of a record, or what another keeps of it as its parent: all but what is free."""
    kept = decisive(content["kind"], content["config"])
    for key in WEIGHTS:
        # which of a run's checkpoints; the rest of the path differs from seed to seed
        if kept.get(key) not in (None, "pretrained"):
            name = Path(str(kept[key])).name
            kept[key] = name if name in ("best.pth", "last.pth") else "a file"
    kept |= {key: content[key] for key in RESOLVED if content.get(key) is not None}
    if "per_batchnorm" in content.get("batch", {}):
        kept["batch.per_batchnorm"] = content["batch"]["per_batchnorm"]
    return kept


def _source(config: Mapping[str, Any]) -> str | None:
    """The checkpoint that a run started from."""
    values = flat(config)
    return next((str(values[key]) for key in WEIGHTS if values.get(key)), None)


def decisive(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a configuration, by dotted key: all but what the schema of its kind marks `AVERAGED`.

    A key that is younger than the run is taken at its default.
    """
    free = marked(SCHEMAS[kind], AVERAGED)
    values = flat(SCHEMAS[kind]().model_dump(mode="json")) | flat(config)
    return {key: value for key, value in values.items() if not covers(free, key)}


def text(value: Any) -> str:
    """A value as one types it behind -o key=."""
    return value if value and isinstance(value, str) else json.dumps(value)


def disputed(runs: Sequence[Run]) -> set[Path]:
    """Folders of the runs of a setting that claim to be the same run as another."""
    claims = Counter((run.record.variant, run.record.seed) for run in runs)
    return {run.folder for run in runs if claims[run.record.variant, run.record.seed] > 1}
