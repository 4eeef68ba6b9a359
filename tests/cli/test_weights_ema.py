"""A file of weights that holds EMA weights beside raw ones: which are taken is said and chosen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from rfbench.cli import main

NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 1, 3, 1, 1, bias=False), nn.Conv2d(1, 1, 3, 1, 1, bias=False))
def build():
    return Net()
"""


def weights(full: bool) -> dict[str, torch.Tensor]:
    """The network's: all taps are 1, or the centres alone."""
    state = {"0.weight": torch.zeros(1, 3, 3, 3), "1.weight": torch.zeros(1, 1, 3, 3)}
    for value in state.values():
        value[..., 1, 1] = 1
        if full:
            value[:] = 1
    return state


@pytest.fixture
def effective(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`rf effective` with a file of weights: its result, and how many pixels the unit reads."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)

    def call(content: dict[str, Any], *args: str) -> tuple[Result, int]:
        torch.save(content, "w.pth")
        command = ["rf", "effective", "net.py:build", "--weights", "w.pth", "--size", "16"]
        command += ["--count", "1", "--output", "out", "--overwrite", *args]
        result = CliRunner().invoke(main, command)
        if result.exit_code:
            return result, 0
        with np.load("out/effective.npz") as arrays:
            fields = [arrays[name] for name in arrays if arrays[name].ndim == 2]
        return result, max(int((field > 0).sum()) for field in fields)

    return call


BOTH = {"state_dict": weights(False), "state_dict_ema": weights(True)}


def test_the_raw_ones_are_taken_unless_the_others_are_asked_for(effective: Any) -> None:
    result, pixels = effective(BOTH)
    assert (result.exit_code, pixels) == (0, 1), result.stderr
    assert result.stderr.count("the raw ones are taken") == 1  # though the file is read thrice
    assert "--ema" in result.stderr
    result, pixels = effective(BOTH, "--ema")
    assert (result.exit_code, pixels) == (0, 25), result.stderr
    assert result.stderr.count("the EMA weights (state_dict_ema) are taken") == 1
    result, pixels = effective(BOTH, "--weights", "random", "-o", "weights=w.pth", "-o", "ema=true")
    assert (result.exit_code, pixels) == (0, 25), result.stderr


def test_a_file_of_one_kind(effective: Any) -> None:
    result, _ = effective({"state_dict": weights(True)}, "--ema")
    assert result.exit_code == 1 and "holds no EMA weights" in result.stderr
    result, _ = effective({"model_ema": weights(True)})
    assert result.exit_code == 1 and "holds only EMA weights (model_ema)" in result.stderr
    command = ["rf", "effective", "net.py:build", "--ema", "--output", "out", "--overwrite"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "--ema needs --weights" in result.stderr


def test_the_map_checks_the_weights_that_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    bad = {"state_dict": weights(True), "state_dict_ema": {"0.weight": torch.zeros(1)}}
    torch.save(bad, tmp_path / "w.pth")
    command = ["visualize-rf", f"{tmp_path}/net.py:build", "--weights", f"{tmp_path}/w.pth"]
    command += ["--variant", "baseline", "--dry-run"]
    assert CliRunner().invoke(main, command).exit_code == 0
    result = CliRunner().invoke(main, [*command, "--ema"])
    assert result.exit_code == 1 and "does not fit" in result.stderr
