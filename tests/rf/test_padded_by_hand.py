"""Maps padded by the network's own code, and around the edges: against gradients."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench import rf
from rfbench.errors import RfbenchError
from rfbench.rf.given import with_inputs
from rfbench.rf.questions.theory.report import report
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.axis import Index, from_matrix
from tests.spatial_graph.oracle import gradients

SIZE = (40, 44)
Pad = Callable[[Tensor], Tensor]


class Padded(nn.Module):
    """Two kernels of five, padded by two."""

    def __init__(self, pad: Pad) -> None:
        super().__init__()
        self.pad, self.a, self.b = pad, nn.Conv2d(3, 4, 5, 2), nn.Conv2d(4, 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.pad(self.a(self.pad(x))))


def wrapped(x: Tensor) -> Tensor:
    x = torch.cat([x[..., -2:], x, x[..., :2]], -1)
    return torch.cat([x[:, :, -2:], x, x[:, :, :2]], 2)


def reflected(x: Tensor) -> Tensor:
    x = torch.cat([x[..., 1:3].flip(-1), x, x[..., -3:-1].flip(-1)], -1)
    return torch.cat([x[:, :, 1:3].flip(2), x, x[:, :, -3:-1].flip(2)], 2)


def repeated(x: Tensor) -> Tensor:
    x = torch.cat([x[..., :1].repeat(1, 1, 1, 2), x, x[..., -1:].expand(-1, -1, -1, 2)], -1)
    return torch.cat(
        [x[:, :, :1].repeat_interleave(2, 2), x, x[:, :, -1:].expand(-1, -1, 2, -1)], 2
    )


PADS: dict[str, Pad] = {
    "circular": lambda x: F.pad(x, (2, 2, 2, 2), mode="circular"),
    "a sphere": lambda x: F.pad(F.pad(x, (2, 2, 0, 0), mode="circular"), (0, 0, 2, 2)),
    "wrapped": wrapped,
    "reflected": reflected,
    "repeated": repeated,
}


@pytest.mark.parametrize("name", PADS)
def test_a_padding_leaves_the_field_of_zeros_in_its_place(name: str) -> None:
    """Also of circular padding wider than one pixel."""
    net = Padded(PADS[name])
    graph = rf.record(net, size=SIZE)
    theory = rf.theory(graph)
    zeros = rf.theory(rf.record(Padded(lambda x: F.pad(x, (2, 2, 2, 2))), size=SIZE))
    for axis in "yx":
        assert theory[axis] == zeros[axis]
        assert (theory[axis]["size"], theory[axis]["stride"], theory[axis]["padding"]) == (13, 2, 6)
    units = [(9, 10), (0, 0), (19, 3), (1, 21)]
    seen = gradients(net, SIZE, 3, [(0, 0, *u) for u in units])
    for unit, support in zip(units, seen, strict=True):
        counts, figures = rf.path_counts(graph, unit=unit)
        assert np.array_equal(counts > 0, support)
    counts, figures = rf.path_counts(graph, unit=units[0])
    rows = np.flatnonzero(seen[0].any(1))
    assert (rows[0], rows[-1]) == (12, 24) and figures["shift"] == (-0.5, -0.5)


def test_paths_through_a_layer_between_the_parts_are_its_own() -> None:
    class Shared(Padded):
        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(torch.cat([self.pad(y[..., -2:]), y], -1))

    graph = rf.record(Shared(nn.Identity()), size=SIZE)
    _, figures = rf.path_counts(graph, unit=(7, 0), source="pad")
    assert figures["support"]["right"] > 0
    with pytest.raises(RfbenchError, match="reads nothing"):
        rf.path_counts(graph, unit=(7, 9), source="pad")


BAD = {
    "one axis of an image": ((2, 0), "none of a 4-D"),
    "more than once around": ((1, 1, 21, 0), "too much for 20"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_torch_does_not_pad_around_the_edges_is_refused(name: str) -> None:
    amounts, message = BAD[name]

    class Bad(Padded):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(self.a(x)[:, :, :, :20], amounts, mode="circular")

    with pytest.raises((RuntimeError, NotImplementedError)):
        Bad(nn.Identity())(torch.zeros(1, 3, 43, 43))
    with pytest.raises(RfbenchError, match=message):
        rf.theory(rf.record(Bad(nn.Identity()), size=43))


def test_parts_in_another_order_are_rolled() -> None:
    class Rolled(Padded):
        def forward(self, x: Tensor) -> Tensor:
            return self.pad(self.a(x))

    theories = []
    for pad in (
        lambda x: torch.cat([x[..., -5:], x[..., :-5]], -1),
        lambda x: x.roll(5, -1),
    ):
        theory = rf.theory(rf.record(Rolled(pad), size=SIZE))
        theories.append((theory["y"], theory["x"]))
        assert theory["x"]["size"] is None and not theory["misaligned"]
    assert theories[0] == theories[1]


def test_copies_side_by_side_are_no_padding() -> None:
    copies = from_matrix(np.tile(np.arange(6), 3)[:, None], 6)
    assert isinstance(copies, Index) and copies.inner is None
    around = from_matrix(np.arange(-5, 11)[:, None] % 6, 6)
    assert isinstance(around, Index) and around.inner is not None
    assert (around.inner.before, around.inner.after) == (5, 5)


def test_units_at_the_far_edge_read_a_pixel_too() -> None:
    """A question by pixel is refused near the edges of a map that is padded around them."""

    def units(pad: Pad, pixel: tuple[int, int]) -> dict:
        subject = with_inputs(Padded(pad), SIZE, "baseline", None, None, None)
        config = RfConfig.model_validate({"model": "torchvision:resnet18"})
        return report(config, subject, pixel=pixel)["pixel"]["units"]

    assert units(PADS["reflected"], (39, 20)) == {"y": (17, 19), "x": (7, 13)}
    assert units(wrapped, (20, 20)) == {"y": (7, 13), "x": (7, 13)}
    for pixel in ((39, 20), (20, 1)):
        with pytest.raises(RfbenchError, match="padded around its edges"):
            units(wrapped, pixel)
    assert units(PADS["a sphere"], (39, 20)) == {"y": (17, 19), "x": (7, 13)}
    with pytest.raises(RfbenchError, match="along x the map is padded around"):
        units(lambda x: F.pad(F.pad(x, (0, 4, 0, 0), mode="circular"), (0, 0, 2, 2)), (20, 1))
    (seen,) = gradients(Padded(wrapped), SIZE, 3, [(0, 0, 0, 10)])
    assert seen[39, 20]  # by unit 0,10
