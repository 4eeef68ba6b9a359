"""Zeros between the rows of a map: units take turns, and some of them may read nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn

from rfbench.cli import main
from rfbench.rf.core.field import region
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.reader import spatial_graph

SIDE = 40


class Net(nn.Module):
    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def apart(x: Tensor, rows: int, columns: int) -> Tensor:
    """Zeros written between rows and columns by hand."""
    n, c, h, w = x.shape
    out = x.new_zeros(n, c, rows * h, columns * w)
    out[:, :, ::rows, ::columns] = x
    return out


def stacked(x: Tensor) -> Tensor:
    """The same between rows, by stacking."""
    n, c, h, w = x.shape
    return torch.stack([x, torch.zeros_like(x)], 3).view(n, c, 2 * h, w)


def interleaved(net: Any, x: Tensor) -> Tensor:
    """Every other column by another kernel (up-projection)."""
    x = net.a(x)
    out = x.new_zeros(*x.shape[:3], 2 * x.shape[3])
    out[..., ::2] = net.b(x)
    out[..., 1::2] = net.c(x)
    return out


def folded(net: Any, x: Tensor) -> Tensor:
    """Overlapping patches, summed where they overlap."""
    patches = net.a(F.unfold(x, 4, stride=2, padding=1).transpose(1, 2)).transpose(1, 2)
    return F.fold(patches, x.shape[2:], 4, stride=2, padding=1)


def a() -> nn.Module:
    return nn.Conv2d(1, 1, 3, 2, 1)


def conv(kernel: Any, padding: Any = 0, dilation: Any = 1) -> nn.Module:
    return nn.Conv2d(1, 1, kernel, padding=padding, dilation=dilation)


WHOLE = {
    "by hand": lambda: Net(lambda n, x: n.b(apart(n.a(x), 2, 2)), a=a(), b=conv(3, 1)),
    "rows": lambda: Net(lambda n, x: n.b(apart(n.a(x), 3, 1)), a=a(), b=conv((5, 1), (2, 0))),
    "stacked": lambda: Net(lambda n, x: n.b(stacked(n.a(x))), a=a(), b=conv(2)),
    "interleaved": lambda: Net(interleaved, a=a(), b=conv((1, 5), (0, 2)), c=conv((1, 3), (0, 1))),
    "folded": lambda: Net(folded, a=nn.Linear(16, 16)),
    "transposed": lambda: nn.Sequential(a(), nn.ConvTranspose2d(1, 1, 1, 2), conv(3, 1)),
    "dilated": lambda: nn.Sequential(
        a(), nn.ConvTranspose2d(1, 1, 3, 2, 2, 1, dilation=2), conv((2, 3), (0, 1))
    ),
    # taps 0, 3 and 6 of it read every other row in turn
    "dilated after": lambda: nn.Sequential(a(), nn.ConvTranspose2d(1, 1, 1, 2), conv(3, 3, 3)),
    "twice": lambda: nn.Sequential(
        a(), nn.ConvTranspose2d(1, 1, 1, 2), nn.ConvTranspose2d(1, 1, 3, 2, 1, 1), conv(3)
    ),
    "pooled": lambda: nn.Sequential(a(), nn.ConvTranspose2d(1, 1, 1, 3), nn.AvgPool2d(3, 2)),
}


def reads(net: nn.Module, unit: tuple[int, ...]) -> np.ndarray:
    """Where the gradient of a unit is not zero, with weights of ones."""
    net = net.double()
    for p in net.parameters():
        p.data = torch.ones_like(p) if p.dim() > 1 else torch.zeros_like(p)
    x = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    net(x)[0, 0, unit[0], unit[1]].backward()
    assert x.grad is not None
    return x.grad[0, 0].numpy() != 0


@pytest.mark.parametrize("name", WHOLE)
def test_units_that_all_read_something_have_fields(name: str) -> None:
    net = WHOLE[name]()
    target = Target(spatial_graph(net, (SIDE, SIDE), 1))
    middle = [n // 2 - 3 for n in target.units]
    for more in range(6):
        unit = (middle[0] + more, middle[1] + more % 4)
        truth = reads(net, unit)
        assert np.array_equal(target.counts(unit).counts > 0, truth), (name, unit)
        for k, field in enumerate(target.fields):
            assert field is not None, (name, "yx"[k])
            rows = np.flatnonzero(truth.any(1 - k))
            assert region(field, unit[k]) == (rows[0], rows[-1]), (name, unit)


BARE = {
    "transposed": lambda: nn.Sequential(a(), nn.ConvTranspose2d(1, 1, 1, 2)),
    "by hand": lambda: Net(lambda n, x: apart(n.a(x), 2, 1), a=a()),
    # both taps of every unit fall on rows, or both on zeros
    "dilated": lambda: nn.Sequential(a(), nn.ConvTranspose2d(1, 1, 1, 2), conv((2, 2), 0, (2, 1))),
}


@pytest.mark.parametrize("name", BARE)
def test_units_that_read_nothing_are_told(name: str) -> None:
    net = BARE[name]()
    target = Target(spatial_graph(net, (SIDE, SIDE), 1))
    for unit in [(u, v) for u in (7, 8, 9) for v in (7, 8)]:
        truth = reads(net, unit)
        if truth.any():
            assert np.array_equal(target.counts(unit).counts > 0, truth)
        else:
            with pytest.raises(Exception, match="reads nothing of the input: it is always zero"):
                target.counts(unit)
    assert target.fields[0] is None


def test_theory_says_where_the_zeros_come_from(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), "
        "nn.ConvTranspose2d(4, 4, 1, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["rf", "theory", "own.py:build", "--size", "64"])
    assert done.exit_code == 0, done.output
    assert "Zeros stand between the rows of this map: aten.convolution" in done.output
    assert "Unit 31,31 reads nothing." in done.output
    args = ["rf", "theory", "own.py:build", "--size", "64", "--unit", "30,30"]
    assert "sees y 29 to 31, x 29 to 31" in CliRunner().invoke(main, args).output


def test_a_mask_over_the_central_unit_is_no_pattern() -> None:
    """Theory would give a field to a unit that reads nothing."""
    mask = (torch.arange(SIDE) < 8).float()
    net = Net(lambda n, x: n.a(x) * mask[: SIDE // 2].to(x), a=a())
    target = Target(spatial_graph(net, (SIDE, SIDE), 1))
    assert target.fields[1] is None and target.fields[0] is not None
    assert reads(net, (10, 5)).any() and not reads(net, (10, 12)).any()
