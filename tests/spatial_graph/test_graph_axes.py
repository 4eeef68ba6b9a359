"""What happens along one axis: irregular resizing, and learned mixing of rows or columns."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.rf.autograd.path_counts import path_counts
from rfbench.rf.core.field import Field, Whole, region
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import A, Net, conv, examine
from tests.spatial_graph.oracle import graph_counts

RESIZES = {
    "nearest": {"size": (77, 45)},
    "bilinear": {"size": (77, 45), "mode": "bilinear"},
    "corners": {"size": (77, 45), "mode": "bilinear", "align_corners": True},
    "factor": {"scale_factor": 2.4},
    "exact": {"scale_factor": (1.5, 7 / 3), "mode": "nearest-exact"},
    "down": {"size": (19, 11)},
    "regular": {"scale_factor": 2, "mode": "bilinear"},
}


@pytest.mark.parametrize("name", RESIZES)
def test_where_the_units_of_a_resized_map_look(name: str) -> None:
    """Every unit's region is the box of its path counts, where no border cuts it."""
    net = nn.Sequential(conv(3, 4, 3, 2), conv(4, 4, 3, 2), nn.Upsample(**RESIZES[name]))
    graph = spatial_graph(net, (128, 128))
    target = Target(graph)
    for axis, field in enumerate(target.fields):
        assert (field is None) == (name == "corners")  # another step at every size
        n = target.units[axis]
        for u in (0, 1, n // 3, n // 2, n - 2, n - 1):
            unit = (u, target.center[1]) if axis == 0 else (target.center[0], u)
            at = np.nonzero(target.counts(unit).counts)[axis]
            own = target.geometry.regions(unit)[axis]
            first, last = own if field is None else region(field, u)
            if name in ("bilinear", "regular", "down") and u in (0, 1, n - 2, n - 1):
                assert max(first, 0) <= at.min() and at.max() <= min(last, 127)  # clamped
            else:
                assert (at.min(), at.max()) == (max(first, 0), min(last, 127)), (axis, u)


def test_an_irregular_stride_is_that_of_the_sizes() -> None:
    net = nn.Sequential(conv(3, 4, 3, 2), conv(4, 4, 3, 2), nn.Upsample(size=(77, 77)))
    field = Target(spatial_graph(net, (128, 128))).fields[0]
    assert field is not None and float(field.stride) == 128 / 77
    assert region(field, 0) == (-3, 3) and region(field, 76) == (121, 127)


MIXES: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "linear": lambda n, x: n.b(n.columns(n.a(x))),
    "to_fewer": lambda n, x: n.b(n.fewer(n.a(x))),
    "rows": lambda n, x: n.b(n.rows(n.a(x).transpose(2, 3)).transpose(2, 3)),
    "einsum": lambda n, x: torch.einsum("nchw,wv->nchv", n.a(x), n.columns.weight),
    "from_the_left": lambda n, x: n.rows.weight @ n.a(x),
}
LAYERS = {
    "a": conv(),
    "b": conv(4, 4),
    "columns": nn.Linear(21, 21),
    "fewer": nn.Linear(21, 9),
    "rows": nn.Linear(18, 18),
}


@pytest.mark.parametrize("name", MIXES)
def test_learned_mixing_is_global_along_its_axis_alone(name: str) -> None:
    verdict = examine(Net(MIXES[name], **LAYERS))
    along = "y" if name in ("rows", "from_the_left") else "x"
    assert verdict.reach == Reach.LOCAL and not verdict.wrong, verdict.wrong
    target = Target(verdict.graph)
    assert target.graph.mixed_axes(target.value) == along
    y, x = target.fields
    everything, other = (y, x) if along == "y" else (x, y)
    assert isinstance(everything, Whole) and isinstance(other, Field)
    n = target.graph.size["yx".index(along)]
    assert region(everything, 3) == (0, n - 1) and other.size in (3, 5)


def test_a_matrix_over_features_is_not() -> None:
    """A column of features to each of the columns (text recognition); a head on pixels."""

    def columns(n: Net, x: Tensor) -> Tensor:
        return n.head(n.a(x).flatten(1, 2).transpose(1, 2))

    for module in (
        Net(columns, a=conv(), head=nn.Linear(4 * 18, 5)),
        nn.Sequential(conv(), nn.Flatten(), nn.Linear(4 * 18 * 21, 5)),
    ):
        verdict = examine(module)
        assert verdict.reach <= Reach.CONTEXT and not verdict.wrong, verdict.wrong


# -- branches chosen by soft-max -------------------------------------------------------------------


class Select(nn.Module):
    """Two kernels, weighed by a soft-max over branches of the global average."""

    def __init__(self) -> None:
        super().__init__()
        self.three, self.five = conv(4, 4, 3), conv(4, 4, 5)
        self.reduce, self.select = conv(4, 2, 1), conv(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.three(x), self.five(x)], 1)
        gate = self.select(self.reduce(both.sum(1).mean((2, 3), keepdim=True)))
        return (both * F.softmax(gate.view(1, 2, 4, 1, 1), 1)).sum(1)


@pytest.mark.parametrize("channels", ["single", "real"])
def test_a_soft_max_over_branches_is_an_activation(channels: str) -> None:
    module = nn.Sequential(conv(3, 4, 3, 2), Select(), conv(4, 4), Select())
    mine = graph_counts(spatial_graph(module, (20, 24)), (4, 5), channels, gates="count")
    theirs = path_counts(module, (20, 24), to="3", unit=(4, 5), channels=channels, gates="count")  # type: ignore[arg-type]
    assert np.allclose(mine, theirs, rtol=1e-9)


def test_a_soft_max_over_classes_keeps_the_counts() -> None:
    net = Net(lambda n, x: n.a(x).softmax(1), **A)
    assert np.array_equal(
        graph_counts(spatial_graph(net, (9, 9)), (4, 4)),
        graph_counts(spatial_graph(net.a, (9, 9)), (4, 4)),
    )
