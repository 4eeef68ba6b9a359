"""Audits of networks that cut inputs in parts, as multi-patch ones do, and of short clips."""

import pytest
import torch
from torch import Tensor, nn

from rfbench import rf
from rfbench.rf.questions.audit.table import text


class Skip(nn.Module):
    """A U-Net of one level that pads nothing: it takes even sizes only."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.down = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.top(x)
        return x + self.up(self.down(x))


class Halves(nn.Module):
    """Its upper and lower half each for itself."""

    def __init__(self, each: nn.Module, *, sliced: bool = False) -> None:
        super().__init__()
        self.each, self.sliced = each, sliced

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[2] // 2
        halves = (x[:, :, :n], x[:, :, n:]) if self.sliced else x.chunk(2, 2)
        return torch.cat([self.each(half) for half in halves], 2)


@pytest.mark.parametrize("sliced", [False, True])
def test_a_convolution_of_a_half_is_not_off_the_centre(sliced: bool) -> None:
    each = nn.Sequential(nn.Conv2d(3, 4, 5, 1, 2), nn.Conv2d(4, 1, 5, 1, 2))
    found = rf.audit(Halves(each, sliced=sliced), size=32)
    assert found["steps"] == []
    # row 15 is the last one of its half: 1, 2, 3, 3 and 3 paths lead there from rows 11 to 15
    assert found["shift"] == pytest.approx([(-4 - 2 * 3 - 3 * 2 - 3) / 12, 0])


@pytest.mark.parametrize("side", [12, 16])
def test_an_input_is_enlarged_to_one_that_the_network_takes(side: int) -> None:
    """Where 26 rows are enough it takes no 26: their halves are odd."""
    net = Halves(nn.Sequential(Skip(), nn.Conv2d(4, 1, 7, 1, 3)))
    small, large = rf.audit(net, size=side), rf.audit(net, size=64)
    assert small["at_own_size"]["cut"] == (side == 12) and not large["at_own_size"]["cut"]
    assert small["shift"] == large["shift"] and small["all"] == large["all"]


def test_a_checkerboard_of_no_layer_is_told_as_such() -> None:
    found = rf.audit(Halves(Skip()), size=32)
    assert found["checkerboard"] > 0.01 and found["checkerboard_layers"] == []
    assert "(by" not in text(dict(found))
    assert "Odena" not in text(dict(found))


@pytest.mark.parametrize("frames", [2, 4, 8])
def test_a_volume_of_one_frame_in_the_end_is_fixed(frames: int) -> None:
    layers = [nn.Conv3d(c, 4, 3, 2, 1) for c in (3, 4, 4)]
    found = rf.audit(nn.Sequential(*layers), inputs=[torch.zeros(1, 3, frames, 32, 32)])
    assert [row["layers"] for row in found["fixes"] if "layers" in row] == [["0", "1", "2"]]
