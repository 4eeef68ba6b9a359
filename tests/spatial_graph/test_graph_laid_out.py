"""Windows over what is no whole map: vectors laid out as maps, channels as rows, heads as a batch.

Every network is compared with gradients of the module.
"""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.errors import RfbenchError
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import Cases, Net, conv

CASES = Cases()
LAYS: dict[str, Any] = {
    "nearest": partial(F.interpolate, scale_factor=2),
    "bilinear": partial(F.interpolate, scale_factor=2, mode="bilinear"),
    "reflected": partial(F.pad, pad=(1, 1, 2, 1), mode="reflect"),
    "padded": partial(F.pad, pad=(0, 1, 1, 0)),
    "shuffled": partial(F.pixel_shuffle, upscale_factor=2),
}


@CASES.each(LAYS, size=(8, 8), a=conv(3, 4, 3, 2), b=nn.Linear(64, 64), c=conv(1, 2, 3))
def made_of_a_vector(n: Any, x: Tensor, lay: Any) -> Tensor:  # BEGAN, EBGAN
    z = lay(n.b(n.a(x).flatten(1)).view(1, 4, 4, 4))
    return n.c(z[:, :1]).flatten(1)  # as a map it would be refused


@CASES.each(
    {k: LAYS[k] for k in ("nearest", "reflected")}, size=(8, 9), a=conv(3, 2), b=conv(3, 2, 1)
)
def channels_as_rows(n: Any, x: Tensor, lay: Any) -> Tensor:
    y = torch.cat([n.a(x), n.b(x)], 1)
    return lay(y.transpose(1, 2)).transpose(1, 2)  # N x H x C x W


@CASES.each({"attention": False, "folded": True}, size=(8, 9), a=conv(3, 8), b=conv(8, 4, 1))
def windows_of_each_head(n: Any, x: Tensor, folded: bool) -> Tensor:  # ACmix
    y = n.a(x)
    h, w = y.shape[2:]
    u = F.unfold(y.view(2, 4, h, w), 3, padding=1)
    if folded:
        return n.b(F.fold(u, (h, w), 3, padding=1).view(1, 8, h, w))
    u = u.view(2, 4, 9, -1)
    return n.b((u * (u * u[:, :, :1]).sum(1, keepdim=True).softmax(2)).sum(2).view(1, 8, h, w))


@CASES.add(size=(8, 9), a=conv(3, 4), b=conv(3, 4, 1))
def windows_of_different_heads(n: Any, x: Tensor) -> Tensor:
    u = F.unfold(torch.cat([n.a(x), n.b(x)]), 3, padding=1)
    return u.view(2, 4, 9, *x.shape[2:]).sum(2).flatten(0, 1)[None]


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    CASES[name].check()


def test_channels_of_different_history_are_not_interpolated() -> None:
    def blended(n: Any, x: Tensor) -> Tensor:
        y = torch.cat([n.a(x), n.b(x)], 1).transpose(1, 2)
        return F.interpolate(y, scale_factor=2, mode="bilinear")

    graph = spatial_graph(Net(blended, a=conv(3, 2), b=conv(3, 2, 1)), (8, 9))
    with pytest.raises(RfbenchError, match="channels of different history are interpolated"):
        Target(graph).counts()
