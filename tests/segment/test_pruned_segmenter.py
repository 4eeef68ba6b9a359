"""`prune` in train-seg: zeros in the checkpoint, under an own head and under a feature pyramid."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from rfbench.cli import main

FEW = [
    *("-o", "data.options={train_images: 64, val_images: 8}", "-o", "device=cpu"),
    *("-o", "schedule.epochs=2", "-o", "batch_size=16", "-o", "data.workers=0"),
]
PRUNE = "prune={sparsity: 0.5, begin: 2, end: 6, every: 2}"


@pytest.mark.parametrize("config", ["seg/no_downsampling", "seg/m2nist"])
def test_half_of_the_weights_are_zero(config: str, tmp_path: Path) -> None:
    args = [*FEW, "-o", "data.name=m2nist_like", "-o", PRUNE, "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(main, ["train-seg", config, *args])
    assert result.exit_code == 0, result.output
    for name in ("last.pth", "best.pth"):
        state = torch.load(tmp_path / "run" / name, weights_only=True)["state_dict"]
        kernels = {key: v for key, v in state.items() if v.ndim == 4}
        assert len(kernels) > 6
        for key, value in kernels.items():
            assert int((value == 0).sum()) == value.numel() // 2, key
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["nonzero"] < 0.55 * record["parameters"]
    assert record["network"]["figures"]["size"]
    audit = CliRunner().invoke(main, ["rf", "audit", str(tmp_path / "run"), "--json"])
    assert audit.exit_code == 0, audit.output
    (found,) = json.loads(audit.stdout)
    assert found["model"] == record["model"] and found["pruned"]


def test_an_end_behind_the_run_is_named(tmp_path: Path) -> None:
    args = [*FEW, "-o", "prune={sparsity: 0.5, begin: 2, end: 9}", "--output", str(tmp_path)]
    result = CliRunner().invoke(main, ["train-seg", "seg/no_downsampling", *args, "--dry-run"])
    assert result.exit_code == 2
    assert "prune.end is step 9; the run has 8 steps" in result.stderr
