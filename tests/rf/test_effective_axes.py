"""Effective fields of sequences and volumes, against gradients taken by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn

from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.questions.effective import extent

OWN = """
from torch import nn
def sequence():
    return nn.Sequential(nn.ZeroPad1d((8, 0)), nn.Conv1d(2, 4, 5, dilation=2), nn.ReLU(),
                         nn.Conv1d(4, 4, 3, 2, 1))
def volume():
    return nn.Sequential(nn.Conv3d(1, 4, (3, 5, 1), 2, (1, 2, 0)), nn.ReLU(), nn.Conv3d(4, 4, 1))
"""


VOLUME = (2, 1, 9, 12, 14)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 3, dilation=2), nn.Conv1d(4, 4, 3, dilation=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.pad(self.a(F.pad(x, (4, 0))).relu(), (8, 0)))


def by_hand(net: nn.Module, batch: Tensor, unit: tuple[int, ...]) -> np.ndarray:
    """The mean |gradient| of the sum of |output| of a unit, one input at a time."""
    total = torch.zeros(batch.shape[2:], dtype=torch.float64)
    for image in batch:
        one = image[None].clone().requires_grad_()
        net(one)[(0, slice(None), *unit)].abs().sum().backward()
        assert one.grad is not None
        total += one.grad[0].abs().double().sum(0)
    return (total / len(batch)).numpy()


@pytest.mark.parametrize(
    ("net", "shape", "unit"),
    [
        (Causal(), (3, 2, 40), (19,)),
        (Causal(), (3, 2, 40), (5,)),
        (
            nn.Sequential(nn.Conv3d(1, 3, 3, 2, 1), nn.Conv3d(3, 2, 3, 1, 1)),
            (2, 1, 9, 12, 14),
            None,
        ),
        (nn.Sequential(nn.Conv3d(1, 3, (3, 1, 5), (1, 2, 1))), VOLUME, (2, 5, 9)),
    ],
)
def test_the_gradient_is_that_by_hand(
    net: nn.Module, shape: tuple[int, ...], unit: tuple[int, ...] | None
) -> None:
    torch.manual_seed(0)
    net, batch = net.double(), torch.randn(shape, dtype=torch.double)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    seen, figures = rf.effective(net, batch, unit=unit)
    truth = by_hand(net, batch, seen.unit)
    assert np.allclose(seen.magnitude, truth, rtol=1e-9, atol=1e-12)
    assert seen.samples == len(batch) and figures["input_size"] == list(shape[2:])
    axes, total = len(shape) - 2, truth.sum()
    for k in range(axes):
        other = tuple(a for a in range(axes) if a != k)
        along = truth.sum(other) @ np.arange(truth.shape[k]) / total
        n, side, u = seen.units[k], truth.shape[k], seen.unit[k]
        place = (u - (n - 1) / 2) * side / n + (side - 1) / 2
        assert figures["centroid"][k] == pytest.approx(along)
        assert figures["shift"][k] == pytest.approx(along - place)
    # theory's field holds it
    graph = rf.record(net, inputs=[batch[:1]])
    counts, _ = rf.path_counts(graph, unit=seen.unit)
    assert not truth[counts == 0].any()


def test_a_causal_network_sees_nothing_ahead() -> None:
    seen, figures = rf.effective(Causal(), torch.randn(4, 2, 64), unit=(40,))
    assert not seen.magnitude[41:].any() and seen.magnitude[40] > 0
    assert figures["shift"][0] < 0 and figures["theoretical"] == [13]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_figures_of_a_gaussian(axes: int) -> None:
    """Its own centre and width are found again; an interval, square or cube holds a share."""
    at = np.indices((41,) * axes) - 20
    field = np.exp(-((at / 4) ** 2).sum(0) / 2)
    bell = extent.gaussian(field)
    assert bell is not None and bell["r2"] > 0.99
    assert bell["center"] == pytest.approx([20] * axes, abs=0.05)
    assert bell["sigma"] == pytest.approx([4] * axes, rel=0.05)
    held = extent.areas(field, (20.0,) * axes)["50%"]
    half = int(held["side"]) // 2
    inside = tuple(slice(20 - half, 21 + half) for _ in range(axes))
    less = tuple(slice(21 - half, 20 + half) for _ in range(axes))
    assert field[inside].sum() >= 0.5 * field.sum() > field[less].sum()
    assert held["share"] == pytest.approx(held["side"] ** axes / 41**axes)
    assert extent.extent(field, 1.0) ** axes == pytest.approx((field > 0.0455).sum())


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "size", "unit"), [("sequence", "64", "samples"), ("volume", "12x16x14", "voxels")]
)
def test_on_the_command_line(name: str, size: str, unit: str) -> None:
    command = ["rf", "effective", f"own.py:{name}", "--size", size, "--output", "out"]
    result = CliRunner().invoke(main, [*command, "--count", "4"])
    assert result.exit_code == 0, result.output
    assert f"size ({unit})" in result.output.splitlines()[0]
    assert Path("out/effective.png").stat().st_size > 10_000
    (found,) = json.loads(Path("out/result.json").read_text())["fields"]
    axes = {"sequence": 1, "volume": 3}[name]
    assert len(found["shift"]) == len(found["theoretical"]) == axes and found["ratio"] > 0


@pytest.mark.usefixtures("own")
def test_what_is_for_images_is_refused() -> None:
    for more in (["--images", "digits"], ["--convention", "replknet"]):
        command = ["rf", "effective", "own.py:sequence", "--size", "64", *more]
        result = CliRunner().invoke(main, command)
        assert result.exit_code in (1, 2) and "images" in result.output
        assert "Traceback" not in result.output
    with pytest.raises(UsageError, match="--axes is for images"):
        rf.effective(Causal(), torch.randn(1, 2, 64), "a", axes="NCHW")
    with pytest.raises(RfbenchError, match="for images"):
        rf.effective(Causal(), torch.randn(1, 2, 64), convention="openerf")
    with pytest.raises(UsageError, match="unit 3,3"):
        rf.effective(Causal(), torch.randn(1, 2, 64), unit=(3, 3))
