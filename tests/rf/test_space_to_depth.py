"""Slices that together take every position once: a stem as even as PixelUnshuffle's."""

import pytest
import torch
from torch import nn

from rfbench import rf


class Taken(nn.Module):
    """A convolution over slices of the input, by their offsets (y, x)."""

    def __init__(self, offsets, stride=2, last=False):
        super().__init__()
        self.offsets, self.stride, self.last = offsets, stride, last
        self.conv = nn.Conv2d(3 * len(offsets), 4, 3, padding=1)

    def forward(self, x):
        s = self.stride
        if self.last:  # Swin's patch merging
            x = x.permute(0, 2, 3, 1)
            parts = [x[:, y::s, z::s, :] for y, z in self.offsets]
            return self.conv(torch.cat(parts, -1).permute(0, 3, 1, 2))
        return self.conv(torch.cat([x[..., y::s, z::s] for y, z in self.offsets], 1))


FOCUS = [(0, 0), (1, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize("last", [False, True])
def test_the_focus_stem_is_as_aligned_as_pixel_unshuffle(last):
    found = rf.audit(Taken(FOCUS, last=last), size=32)
    assert found["misaligned"] == 0
    assert found["shift"] == [0, 0] and found["gridding"] == 0
    assert found["steps"] == []


def test_of_a_larger_stride():
    every = [(y, x) for y in range(3) for x in range(3)]
    assert rf.audit(Taken(every, stride=3), size=33)["misaligned"] == 0


@pytest.mark.parametrize("offsets", [FOCUS[:3], [(0, 0), (1, 1)], FOCUS[:2]])
def test_slices_that_leave_out_positions_are_still_told(offsets):
    found = rf.audit(Taken(offsets), size=32)
    assert found["misaligned"] == 1
    assert found["steps"]


class Sequence(nn.Module):
    def __init__(self, second):
        super().__init__()
        self.second = second
        self.conv = nn.Conv1d(2, 1, 3, padding=1)

    def forward(self, x):
        return self.conv(torch.cat([x[..., ::2], self.second(x)[..., 1::2]], 1))


def test_along_one_axis():
    assert rf.audit(Sequence(nn.Identity()), size=32, in_channels=1)["misaligned"] == 0


def test_slices_of_different_maps_are_no_split():
    """One half of the input, and one of a map behind it: the fields differ by half a pixel."""
    found = rf.audit(Sequence(nn.Conv1d(1, 1, 3, padding=1)), size=32, in_channels=1)
    assert found["misaligned"] == 1


def test_what_reads_one_slice_alone_is_off_the_centre():
    """Another branch takes the first slice by itself: its place is (0, 0) of every 2 x 2."""

    class Two(Taken):
        def forward(self, x):
            return super().forward(x) + x[:, :1, ::2, ::2]

    found = rf.audit(Two(FOCUS), size=32)
    assert found["misaligned"] == 1
    assert found["shift"] != [0, 0]
