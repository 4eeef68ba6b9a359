"""Fields with holes: the share of the box that is read, by gradients; and who makes them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from rfbench.cli import main
from rfbench.rf.core.metrics import measure
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.reader import spatial_graph


def dilated(*rates: int, kernel: int = 3) -> nn.Sequential:
    pad = kernel // 2
    return nn.Sequential(*(nn.Conv2d(1, 1, kernel, 1, pad * d, d) for d in rates))


def skipping() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 1, 1, 2), nn.Conv2d(1, 1, 3, 1, 1))


def figures(module: nn.Module, side: int, unit: tuple[int, int] | None = None) -> dict:
    target = Target(spatial_graph(module, (side, side), 1))
    return measure(target.counts(unit), target.geometry)


NETS = [
    (dilated(2, 2, 2, 2), 81 / 289),
    (dilated(1, 12), 81 / 27**2),
    (dilated(1, 2, 4, 8), 1),
    (dilated(1, 2, 5), 1),
    (dilated(2, 4), 49 / 169),
    (dilated(4, 3, kernel=2), 16 / 64),
    (skipping(), 9 / 25),
    (nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, 1, 2, 2)), 81 / 121),
]


@pytest.mark.parametrize(("module", "share"), NETS)
def test_the_share_of_the_box_is_that_of_the_gradient(module: nn.Module, share: float) -> None:
    found = figures(module, 64)
    assert found["read"] == pytest.approx(share) and not found["cut"]
    module = module.double()
    for p in module.parameters():
        p.data = p.data.abs() + 0.1
    x = torch.zeros(1, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    y, x0 = found["unit"]
    module(x)[0, 0, y, x0].backward()
    assert x.grad is not None
    rows, columns = np.nonzero(x.grad[0, 0].numpy())
    area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert found["read"] == len(rows) / area


def test_the_box_of_a_cut_unit_ends_at_the_border() -> None:
    # unit 0 of four dilations of 2: pixels 0, 2, ..., 8 of 0 to 8
    assert figures(dilated(2, 2, 2, 2), 64, (0, 0))["read"] == pytest.approx((5 / 9) ** 2)


def test_every_dilation_is_a_period() -> None:
    assert list(figures(dilated(1, 2, 4, 8), 64)["gridding_by_period"]) == ["2", "4", "8"]
    assert figures(dilated(1, 2, 4, 8), 64)["gridding"] == pytest.approx(0.5725, abs=5e-5)
    assert figures(dilated(2, 2, 2, 2), 64)["gridding"] == pytest.approx(np.sqrt(3))
    strided = nn.Sequential(nn.Conv2d(1, 1, 2, 2), nn.Conv2d(1, 1, 3, 1, 3, 3))
    # pixels in pairs, 6 apart: two phases of 6 along either axis have all
    assert figures(strided, 64)["gridding_by_period"] == {
        "2": 0.0,
        "6": pytest.approx(np.sqrt(36 / 4 - 1)),
    }
    uneven = nn.Conv2d(1, 1, 3, 1, (3, 1), (3, 1))
    assert list(figures(uneven, 64)["gridding_by_period"]) == ["3x1"]


OWN = """from torch import nn
def dilated(*rates):
    return nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=d, dilation=d) for d in rates))
def same(): return dilated(2, 2, 2, 2)
def far(): return dilated(1, 12)
def rising(): return dilated(1, 2, 5)
def skips(): return nn.Sequential(nn.Conv2d(3, 3, 1, 2), nn.Conv2d(3, 3, 3, 1, 1))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)


def audit(name: str, *args: str) -> str:
    return CliRunner().invoke(main, ["rf", "audit", f"own.py:{name}", "--size", "64", *args]).stdout


@pytest.mark.parametrize(
    ("name", "share", "layers"),
    [
        ("same", "28.0%", "0, 1, 2, 3"),
        ("far", "11.1%", "1"),
        ("skips", "36.0%", "0"),
        ("rising", "100.0%", ""),
    ],
)
def test_an_audit_names_the_layers_that_leave_holes(
    own: None, name: str, share: str, layers: str
) -> None:
    text = audit(name)
    assert "nothing to fix" not in text
    line = next(line for line in text.splitlines() if line.startswith("  read"))
    assert share in line and (f"(holes, by {layers})" in line) == bool(layers)
    (record,) = json.loads(audit(name, "--json"))
    assert ", ".join(record["hole_layers"]) == layers
    # any of them alone, smoothed before, fills the box
    assert all(row["read"] == 1 for row in record["steps"] if row["layer"] in layers)
    assert record["all"]["read"] == 1 and ("HDC" in text) == (name in ("same", "far"))


def test_holes_fail_an_audit(own: None) -> None:
    args = ["rf", "audit", "own.py:far", "--size", "64", "--fail-on"]
    failed = CliRunner().invoke(main, [*args, "read<0.9"])
    assert failed.exit_code == 1 and "read 0.1111 < 0.9" in failed.stderr
    assert CliRunner().invoke(main, [*args, "read<0.1"]).exit_code == 0


def test_maps_say_it(own: None) -> None:
    args = ["visualize-rf", "own.py:same", "--variant", "baseline", "--output", "out"]
    shown = CliRunner().invoke(main, args).stdout.splitlines()
    assert "read" in shown[0].split() and "28.0%" in shown[1]
    (panel,) = json.loads(Path("out/result.json").read_text())["panels"]
    assert panel["metrics"]["read"] == pytest.approx(81 / 289)
