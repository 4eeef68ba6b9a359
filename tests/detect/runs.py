"""Small detections, in this process or in one of their own, which tests may kill."""

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from rfbench.errors import RfbenchError
from rfbench.runs import logs
from rfbench.schemas.det import DetConfig
from tests.classify.runs import start_all

SMALL: dict[str, Any] = {
    "model": "rfbench.classify.nets:resnet14",
    "weights": None,
    "data": {
        "name": "digits",
        "scenes": {"train": 30, "val": 6, "size": 64, "objects": [1, 2], "scale": [1.0, 2.0]},
    },
    "pixel_mean": [71.4, 71.4, 71.4],
    "pixel_std": [35.7, 35.7, 35.7],
    "log_every": 1,
    "threads": 1,
    "device": "cpu",
    "opts": {
        "MODEL": {
            "BACKBONE": {"FREEZE_AT": 0},
            "RESNETS": {"NORM": "BN"},
            "FPN": {"IN_FEATURES": ["res3", "res4"], "OUT_CHANNELS": 16},
            "RETINANET": {"IN_FEATURES": ["p3", "p4"], "NUM_CONVS": 1, "SCORE_THRESH_TEST": 0.0},
            "ANCHOR_GENERATOR": {"SIZES": [[28], [44]]},
        },
        "INPUT": {"MIN_SIZE_TRAIN": [64], "MIN_SIZE_TEST": 64, "MASK_FORMAT": "bitmask"},
        "SOLVER": {
            **{"IMS_PER_BATCH": 4, "BASE_LR": 0.005, "WARMUP_ITERS": 2, "STEPS": [10]},
            **{"MAX_ITER": 14, "CHECKPOINT_PERIOD": 4},
        },
        "DATALOADER": {"NUM_WORKERS": 0},
    },
}


def config(**changes: Any) -> dict[str, Any]:
    """SMALL with changes; SOLVER__MAX_ITER=3 changes Detectron2's key."""
    found = copy.deepcopy(SMALL)
    for key, value in changes.items():
        if "__" in key:
            section, name = key.split("__")
            found["opts"][section][name] = value
        else:
            found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return found


def parsed(values: dict[str, Any]) -> DetConfig:
    return DetConfig.model_validate_json(json.dumps(values))


def fit(values: dict[str, Any], folder: Path, resume: bool = False) -> dict[str, Any]:
    """A run in this process."""
    from rfbench.detect import fit

    record, code = fit.fit(parsed(values), folder, resume, not resume)
    assert record and code == 0
    return record


def job(values: dict[str, Any], folder: str, resume: bool, env: Any) -> None:
    """A run in a process of its own; notes the images that it trains on in order."""
    os.environ.update(env)
    os.setpgid(0, 0)  # so that a kill takes the loader's processes along
    torch.set_num_threads(1)
    sys.stderr = open(f"{folder}.stderr{env.get('RANK', '')}", "a", buffering=1)  # noqa: SIM115
    from rfbench.detect import fit, train

    step = train.train_step
    seen = open(f"{folder}.seen{env.get('RANK', '')}", "a", buffering=1)  # noqa: SIM115

    # not where they are read: workers read ahead, and each in its own time
    def noting(run: Any, storage: Any) -> None:
        for entry in run.batch:
            print(entry["image_id"], file=seen)
        step(run, storage)

    train.train_step = noting
    logs.to_stderr()
    try:
        _, code = fit.fit(parsed(values), Path(folder), resume, not resume)
    except RfbenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:  # as the command line says it
        print(f"Error: {error.strerror}: {error.filename}", file=sys.stderr)
        code = 1
    sys.exit(code)


def start(values: dict[str, Any], folder: Path, resume: bool = False, world: int = 1) -> list[Any]:
    """Start a run of `world` processes."""
    return start_all(job, (values, str(folder), resume), world)


def seen(folder: Path, rank: int = 0) -> list[int]:
    """The images trained on so far, in order, over all parts of a run."""
    return [int(line) for line in Path(f"{folder}.seen{rank}").read_text().split()]
