"""Records of real runs, and what tests make of them."""

import base64
import copy
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rfbench.report.build import Wanted, build
from rfbench.report.model import Block, Network, Report, Row
from rfbench.report.runs import find

RUNS = Path(__file__).parent / "runs"
DETECTORS = Path(__file__).parent / "detectors"
SHIFTS = {"baseline": -7.5, "1x1": -5.35, "3x3": -0.69, "1x1+3x3": -0.5, "blur:1x1+3x3": -7.5}


def look(model: str, names: Sequence[str], size: Any) -> dict[str, Network]:
    """What `build` asks of networks, without any."""
    return {
        n: Network(
            {"shift": (SHIFTS.get(n, 1), SHIFTS.get(n, 1)), "gridding": 0.3},
            4_750_000,
            size or (224, 224),
        )
        for n in names
    }


def report_of(*folders: Path, **wanted: Any) -> Report:
    """The comparison of the runs below some folders."""
    return build(find(folders), Wanted(**wanted), look, folders)


def record(name: str = "two-baseline-s0") -> dict[str, Any]:
    """The record of a real run, to be changed."""
    return json.loads((RUNS / name / "result.json").read_text())


def rf_record(**content: Any) -> dict[str, Any]:
    """A record of receptive fields: of maps, or what else `content` says."""
    content = {"kind": "rf", "panels": [], **content}
    return {"format": "rfbench-record/1", "command": ["rfbench"], "versions": {}, **content}


def write(folder: Path, content: dict[str, Any], **changes: Any) -> Path:
    """Write a record with dotted keys changed, such as `config__seed`; returns its folder.

    Its configuration has what the record tells once more, unless it is changed itself.
    """
    content = copy.deepcopy(content)
    keys = {key: f"config__{key}" for key in ("variant", "seed", "model")}
    keys["dataset"] = "config__data__name"
    told = {key: changes[name] for name, key in keys.items() if name in changes}
    changes = told | changes if "config" in content else changes
    for key, value in changes.items():
        *parts, last = key.split("__")
        node = content
        for part in parts:
            node = node[part]
        node[last] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(content))
    return folder


def seeds(root: Path, variant: str, top1: Sequence[float | None], first: int = 0) -> None:
    """Records of a variant with these accuracies, of seeds that begin with `first`."""
    for seed, value in enumerate(top1, first):
        change = {"variant": variant, "config__variant": variant, "seed": seed}
        metrics = {"top1": value, "top5": 90.0 + seed}
        write(root / f"{variant}-{seed}", record(), **change, config__seed=seed, metrics=metrics)


def copied(root: Path) -> Path:
    """A copy of the real runs."""
    return Path(shutil.copytree(RUNS, root / "runs"))


def only(report: Report) -> Block:
    """The block of a report that has one."""
    ((block,),) = [group.blocks for group in report.groups]
    return block


def row(block: Block, label: str) -> Row:
    """The row of that label."""
    return next(r for r in block.rows if r.label == label)


def recorded_map(values: np.ndarray, at: Sequence[float], middle: bool = False) -> dict[str, Any]:
    """A map as a record keeps it. values: greys, the largest 255; at: (y, x) of its corner, px."""
    weights = (values / 255.0) ** 2
    places = np.mgrid[: values.shape[0], : values.shape[1]] + 0.5
    means = [float((weights * p).sum() / weights.sum()) for p in places]
    offset = [m + a for m, a in zip(means, at, strict=True)]
    content = {"png": png(values), "size": list(values.shape), "at": list(at), "pixel": 1}
    grid = np.where(np.indices((48, 48)).sum(0) % 2, 255, 1).astype(np.uint8)
    inner = {"png": png(grid), "size": [48, 48], "at": [-24.0, -24.0], "span": 0.5, "contrast": 0.4}
    return {**content, "offset": offset, "middle": inner if middle else None}


def png(values: np.ndarray) -> str:
    """A PNG in base64."""
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def known(shift: float, content: Any) -> dict[str, Any]:
    """What a record tells of its network."""
    figures = {"shift": [shift, shift], "gridding": 0.1, "read": 1.0, "size": [40, 40]}
    return {"size": [32, 32], "macs": 5, "figures": figures, "map": content}
