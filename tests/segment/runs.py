"""Small runs in processes of their own, which tests may kill."""

import faulthandler
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rfbench.errors import RfbenchError
from rfbench.runs import checkpoint, logs, progress
from rfbench.schemas.seg import SegConfig
from rfbench.segment import fit
from rfbench.segment.network import FORMAT
from tests.classify import runs as cls

SMALL: dict[str, Any] = {
    "model": "tests.segment.runs:small",
    "head": "own",
    "model_args": {"classes": 11},
    "data": {"name": "digits", "options": {"train_scenes": 96, "val_scenes": 13}, "workers": 0},
    "optim": {"name": "adamw", "lr": 0.01, "ema": 0.9},
    "schedule": {"name": "one_cycle", "epochs": 2},
    "batch_size": 8,
    "checkpoint": {"every": 3},
    "log_every": 1,
    "device": "cpu",
    "threads": 1,
}


class Small(nn.Module):
    """What can go wrong in a resumed run: BatchNorm, dropout, a dict with an auxiliary output."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.2)
        )
        self.more = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.scores, self.early = nn.Conv2d(8, classes, 1), nn.Conv2d(8, classes, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        early = self.stem(x)
        found = {"out": self.scores(self.more(early))}
        return {**found, "aux": self.early(early)} if self.training else found


def small(classes: int) -> nn.Module:
    return Small(classes)


def config(**changes: Any) -> dict[str, Any]:
    """SMALL with changes; a mapping changes the keys it has."""
    found = json.loads(json.dumps(SMALL))
    for key, value in changes.items():
        found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return found


def job(values: dict[str, Any], folder: str, resume: bool, env: Any) -> None:
    """A run; exits as the command would."""
    os.environ.update(env)
    os.setpgid(0, 0)  # so that a kill takes the loader's processes along
    torch.set_num_threads(1)
    sys.stderr = open(f"{folder}.stderr{env.get('RANK', '')}", "a", buffering=1)  # noqa: SIM115
    faulthandler.dump_traceback_later(200, file=sys.stderr)  # where a hanging one hangs
    logs.to_stderr()
    try:
        parsed = SegConfig.model_validate_json(json.dumps(values))
        _, code = fit.fit(parsed, Path(folder), resume, not resume)
    except RfbenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:  # as the command line says it
        print(f"Error: {error.strerror}: {error.filename}", file=sys.stderr)
        code = 1
    sys.exit(code)


def start(values: dict[str, Any], folder: Path, resume: bool = False, world: int = 1) -> list[Any]:
    """Start a run of `world` processes."""
    return cls.start_all(job, (values, str(folder), resume), world)


def result(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last checkpoint, and metrics.jsonl without its time fields."""
    found = checkpoint.load_last(folder, FORMAT)
    assert found is not None
    untimed = [
        {key: value for key, value in line.items() if key not in progress.TIME_FIELDS}
        for line in cls.lines(folder)
    ]
    return found, untimed


def assert_equal(one: Path, other: Path) -> None:
    """Two runs ended with the same bits and the same figures."""
    (a, a_lines), (b, b_lines) = result(one), result(other)
    assert a_lines == b_lines
    for part in ("state_dict", "state_dict_ema"):
        assert a[part].keys() == b[part].keys()
        for key, value in a[part].items():
            assert torch.equal(value, b[part][key]), key
    for state, again in zip(
        a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True
    ):
        for key, value in state.items():
            same = torch.equal(value, again[key]) if torch.is_tensor(value) else value == again[key]
            assert same, key
