"""What mirrored images move: arithmetic against hand counts, and the run against torch here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from torch import Tensor, nn

from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError
from rfbench.rf.questions.mirror.table import text
from tests.spatial_graph.cases import Net, conv


def stem() -> nn.Module:
    """As of pose networks: two convolutions of stride 2, and residual ones behind them."""
    return nn.Sequential(
        conv(3, 4, 3, 2), nn.ReLU(), conv(4, 4, 3, 2), nn.ReLU(), conv(4, 4), conv(4, 5, 1)
    )


def pyramid(n: Net, x: Tensor) -> Tensor:
    a = n.a(x)
    return n.c(a + F.interpolate(n.b(a), scale_factor=2))


MAKE: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], list[float], int]] = {
    # network, size, px off along y and x, stride: -2 of half a pixel at each even map's stride
    "stem": (stem, (64, 48), [3, 3], 4),
    "stem, odd": (stem, (65, 49), [0, 0], 4),
    "stem, one side": (stem, (64, 49), [3, 0], 4),
    "pooled": (lambda: nn.Sequential(conv(3, 4, 7, 2), nn.MaxPool2d(3, 2, 1)), (32, 32), [3, 3], 4),
    "even kernels": (lambda: nn.Sequential(conv(3, 4, 4, 4, 0), conv(4, 4)), (32, 32), [0, 0], 4),
    "no padding": (lambda: nn.Conv2d(3, 4, 3, 2), (32, 33), [1, 0], 2),
    "transposed": (
        lambda: nn.Sequential(conv(3, 4, 3, 2), nn.ConvTranspose2d(4, 4, 4, 2, 1)),
        (32, 32), [1, 1], 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKE)
def test_off_by_as_many_pixels_and_confirmed(name: str) -> None:
    make, size, off, stride = MAKE[name]
    found = rf.mirror(make(), size)
    rows = [*found["axes"].values()]
    assert [row["off"] for row in rows] == off
    assert [row["units"] for row in rows] == [o / stride for o in off]
    for row in rows:
        assert row["confirmed"] and row["moved_image"] < 1e-12
        if name != "transposed":  # whose units take turns
            assert abs(row["move"] - row["units"]) <= 0.5
        assert row["apart_moved"] <= row["apart"]
        assert (row["apart"] < 1e-12) == (row["off"] == 0)


@pytest.mark.parametrize("name", MAKE)
def test_here_by_hand(name: str) -> None:
    """Symmetric kernels, an image with its object in the middle, mirrored and moved."""
    make, size, off, _ = MAKE[name]
    net = make().double()
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0.2)
            for k in range(2, p.dim()):
                p.copy_((p + p.flip(k)) / 2)
    for axis in (2, 3):
        x = torch.zeros(1, 3, *size, dtype=torch.float64)
        x[..., 12 : size[0] - 12, 12 : size[1] - 12] = torch.randn(
            1, 3, size[0] - 24, size[1] - 24, dtype=torch.float64
        )
        back = net(x.flip(axis)).flip(axis)
        moved = net(torch.roll(x, -int(off[axis - 2]), axis))
        h, w = back.shape[2:]
        inner = (..., slice(2, h - 2), slice(2, w - 2))
        torch.testing.assert_close(back[inner], moved[inner], rtol=0, atol=1e-10)


def test_branches_that_disagree_have_no_one_move() -> None:
    net = Net(pyramid, a=conv(3, 4, 3, 2), b=conv(4, 4, 3, 2), c=conv(4, 4))
    row = rf.mirror(net, 64)["axes"]["x"]
    assert row["confirmed"] is None and row["off"] == pytest.approx(-2 * row["shift"])


def test_what_has_no_mirror_image_is_not_confirmed() -> None:
    net = nn.Sequential(conv(3, 12), nn.PixelShuffle(2), conv(3, 2))
    assert rf.mirror(net, 32)["axes"]["x"]["confirmed"] is False


def test_a_network_that_looks_at_all_is_refused() -> None:
    net = nn.Sequential(conv(3, 4), nn.Flatten(), nn.Linear(4 * 64, 64), nn.Unflatten(1, (1, 8, 8)))
    with pytest.raises(RfbenchError):
        rf.mirror(net, 8, layer="3")


OWN = """
from torch import nn
def stem():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["rf", "mirror", *args])


def test_the_command(place: Path) -> None:
    result = run("own.py:stem", "--size", "64x49")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    head = "own.py:stem / baseline to 2, 16x13 units at 64x49 px"
    assert lines[0] == f"{head}: a mirrored image's map, mirrored back"
    assert lines[2].startswith("  y     -1.50 px  +3.00 px   +0.750    +1")
    assert lines[2].endswith("equal")
    assert lines[-2:] == [
        "  along y: move the mirrored-back map by +1 before averaging; -0.250 units remain",
        "  along x: nothing to move",
    ]


def test_record_and_figure(place: Path) -> None:
    result = run("own.py:stem", "--size", "64", "--json", "--output", "out")
    (record,) = json.loads(result.stdout)
    held: Any = json.loads((place / "out/result.json").read_text())
    assert held["kind"] == "rf-mirror" and held["mirrors"] == [record]
    assert (place / "out/own.py-stem-baseline.png").exists()
    assert run("own.py:stem", "--output", "out").exit_code == 2
    assert "unknown layer '9'" in run("own.py:stem", "--to", "9").stderr
    assert run("swin_t").exit_code == 1


def test_phases_that_change_places() -> None:
    """Behind a stride of 2, a kernel of 3 reaches even and odd outputs by 1 and 2 taps."""
    up = nn.ConvTranspose2d(2, 1, 3, 2, 1, 1)
    found = rf.mirror(nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), up), size=(64, 64))
    row = found["axes"]["y"]
    assert (row["off"], row["swapped"], row["confirmed"]) == (0, True, False)
    assert "take turns, and in the mirror each has another's turn" in text(found)


def test_channels_that_become_positions_are_no_turns() -> None:
    """Sub-pixels of one unit all read the same: what has no mirror image is said as such."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.PixelShuffle(2))
    found = rf.mirror(net, size=(32, 32))
    row = found["axes"]["y"]
    assert (row["swapped"], row["confirmed"]) == (False, False)
    assert "channels that become positions" in text(found).replace("\n", " ")


class Pair(nn.Module):
    """Two inputs: an image and, looked at in the same places or not, a depth map."""

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.a, self.b = conv(3, 4, 3, 2), conv(1, 4, k, 2, k // 2 if k % 2 else 0)
        self.c = conv(8, 4, 3, 2)

    def forward(self, x: Tensor, depth: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x), self.b(depth)], 1))


def pair(side: int = 64) -> list[Tensor]:
    return [torch.zeros(1, 3, 64, 48), torch.zeros(1, 1, side, side * 48 // 64)]


def test_several_inputs_are_mirrored_together() -> None:
    axes = rf.mirror(Pair(), inputs=pair())["axes"]
    assert [row["off"] for row in axes.values()] == [3, 3]
    assert all(row["confirmed"] for row in axes.values())


class Halves(nn.Module):
    """An image, and a depth map of half its size, of which unit u looks at px 4u + 0.5 of both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 4, 3, 2, 1)
        self.c = nn.Conv2d(1, 4, 3, 2, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.relu(self.b(self.a(x)) + self.c(y))


def test_inputs_of_different_sizes_are_mirrored_together() -> None:
    found = rf.mirror(Halves(), inputs=[torch.zeros(1, 3, 64, 48), torch.zeros(1, 1, 32, 24)])
    for axis in found["axes"].values():
        assert axis["off"] == 2.0 and axis["units"] == 0.5  # of the image; 1 px of the depth map
        assert axis["confirmed"] and axis["moved_image"] < 1e-9


def test_inputs_that_are_looked_at_in_different_places_are_refused() -> None:
    with pytest.raises(RfbenchError, match="looked at in different places.+along y input.0 by"):
        rf.mirror(Pair(2), inputs=pair())
    net = Net(lambda n, x: x, a=conv())
    net.forward = lambda x, y: net.a(x)[..., ::2, ::2] + net.a(y.repeat(1, 3, 1, 1))
    with pytest.raises(RfbenchError, match="looked at in different places.+input.1 by"):
        rf.mirror(net, inputs=pair(32))


def test_one_channel_given_by_its_shape() -> None:
    net = nn.Sequential(conv(1, 4, 3, 2), conv(4, 4, 3, 2))
    (record,) = [rf.mirror(net, inputs=[torch.zeros(1, 1, 64, 64)])]
    assert record["axes"]["x"]["confirmed"]


@pytest.mark.parametrize("axes", [1, 3])
def test_sequences_and_volumes(axes: int) -> None:
    make = {1: nn.Conv1d, 3: nn.Conv3d}[axes]
    net = nn.Sequential(make(1, 4, 3, 2, 1), nn.ReLU(), make(4, 4, 3, 2, 1))
    size = {1: (64,), 3: (12, 16, 17)}[axes]
    report = rf.mirror(net, size)
    rows, unit = report["axes"], {1: "samples", 3: "voxels"}[axes]
    figure = report.plot()
    told = [*(axis.get_title() for axis in figure.axes), *(t.get_text() for t in figure.texts)]
    assert any(f"off by +3 {unit}" in " ".join(line.split()) for line in told)
    assert not any(" px" in line for line in [*told, repr(report)])
    assert list(rows) == {1: ["x"], 3: ["z", "y", "x"]}[axes]
    # 1.5 px of shift at an even size, none at 1 + 4 k
    assert [row["off"] for row in rows.values()] == {1: [3], 3: [3, 3, 0]}[axes]
    assert all(row["confirmed"] for row in rows.values())
