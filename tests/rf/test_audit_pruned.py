"""What an audit says of a pruned network, against counts by hand and NumPy's covariance."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rfbench.cli import main
from rfbench.rf.questions.audit import pruned

KERNELS = {
    "empty": ["...", "...", "..."],
    "one tap": ["...", ".x.", "..."],
    "one direction": ["x..", "...", "..x"],  # two taps always lie on a line
    "one direction, three": ["..x", ".x.", "x.."],
    "two directions": ["x..", ".x.", "x.."],
    "square": ["xx.", "xx.", "..."],
    "whole": ["xxx", "xxx", "xxx"],
}


def taps(rows: list[str]) -> np.ndarray:
    return np.array([[mark == "x" for mark in row] for row in rows])


@pytest.mark.parametrize("name", KERNELS)
def test_directions_are_those_of_the_covariance(name: str) -> None:
    kernel = taps(KERNELS[name])
    n, line, ratio = (values[0] for values in pruned.directions(kernel[None]))
    assert n == kernel.sum()
    if n < 2:
        assert ratio == 0
        return
    small, large = np.linalg.eigvalsh(np.cov(np.argwhere(kernel).T, bias=True))
    assert ratio == pytest.approx(small / large, abs=1e-12)
    assert bool(line) == name.startswith("one direction")


def test_shares_of_channel_pairs_weigh_the_taps_of_a_layer() -> None:
    shares = np.array([[0.5, 0.0, 0.25], [0.0, 1.0, 0.0], [0.0, 0.75, 0.0]])
    where = np.argwhere(shares > 0)
    weights = shares[tuple(where.T)]
    small, large = np.linalg.eigvalsh(np.cov(where.T, aweights=weights, bias=True))
    assert pruned.directions(shares[None])[2][0] == pytest.approx(small / large)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """`dilated` with four channels a layer; every kernel is one of the seven, but for the first
    layer, whose kernels are one row.
    """
    from rfbench.models import backbones

    state = backbones.build("rfbench.classify.nets:dilated(widths=[4,4,4,4])").module.state_dict()
    masks = [torch.from_numpy(taps(rows)) for rows in KERNELS.values()]
    for layer in range(4):
        weight = state[f"features.{layer}.0.weight"]
        for number, kernel in enumerate(weight.view(-1, 3, 3)):
            kernel *= masks[number % 7] if layer else torch.tensor([[0], [1], [0]])
    torch.save(state, tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_the_audit_of_a_pruned_network(checkpoint: Path, tmp_path: Path) -> None:
    model = "rfbench.classify.nets:dilated(widths=[4,4,4,4])"
    args = ["rf", "audit", model, "--size", "64", "--weights", str(checkpoint)]
    result = CliRunner().invoke(main, [*args, "--json", "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)
    found = record["pruned"]
    # 12 kernels of three taps; then 16 = 2 x 7 + 2 of 0, 1, 2, 3, 3, 4 and 9 taps in each layer
    assert found["weights"] == 9 * (12 + 3 * 16)
    assert found["left"] == 12 * 3 + 3 * (2 * 22 + 0 + 1)
    assert found["kernels"] == {
        "empty": 9,
        "one tap": 9,
        "one direction": 12 + 3 * 4,
        "two directions": 3 * 6,
    }
    assert sum(found["ratios"]) == 12 + 3 * 10
    assert found["field"]["whole"]["size"] == [31, 31]
    assert found["field"]["left"]["size"] == [29, 31]  # the first layer reads one row
    assert found["field"]["whole"]["pixels"] == 961
    assert record["steps"] == []
    assert (tmp_path / "out" / "result.json").exists()
    text = CliRunner().invoke(main, args).stdout
    assert "pruned: 171 of 540 weights of kernels larger than 1x1 are left (31.7%)" in text
    assert "size" in text and "29x31" in text


def test_a_map_is_that_of_the_taps_left(checkpoint: Path, tmp_path: Path) -> None:
    model = "rfbench.classify.nets:dilated(widths=[4,4,4,4])"
    args = ["visualize-rf", model, "--weights", str(checkpoint), "--variant", "baseline"]
    result = CliRunner().invoke(main, [*args, "--output", str(tmp_path / "maps")])
    assert result.exit_code == 0, result.output
    assert "29x31" in result.stdout


def test_weights_without_zeros_are_not_called_pruned(tmp_path: Path) -> None:
    from rfbench.models import backbones

    model = "rfbench.classify.nets:dilated(widths=[4,4,4,4])"
    torch.save(backbones.build(model).module.state_dict(), tmp_path / "net.pth")
    args = ["rf", "audit", model, "--size", "64", "--weights", str(tmp_path / "net.pth"), "--json"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    assert "pruned" not in json.loads(result.stdout)[0]
