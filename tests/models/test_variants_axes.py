"""Variants along 1, 2 and 3 axes and at every stride, against gradients and by hand."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import rfbench
from rfbench import rf
from rfbench.errors import UsageError
from rfbench.models import variants

CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
STRIDES: list[tuple[int, ...]] = [
    (2,),
    (3,),
    (4,),
    (2, 2),
    (2, 1),
    (1, 2),
    (3, 3),
    (4, 4),
    (2, 2, 2),
    (1, 2, 2),
    (3, 1, 2),
]


def strided(stride: tuple[int, ...], kernel: int, channels: int = 1) -> nn.Module:
    make = CONV[len(stride)]
    return make(channels, channels, kernel, stride, kernel // 2, bias=False).double()


def field(net: nn.Module, size: list[int]) -> tuple[Tensor, list[int], list[int]]:
    """The gradient of the middle unit with weights of one; that unit, and the units."""
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    x = torch.zeros(1, 1, *size, dtype=torch.double, requires_grad=True)
    out = net(x)
    units = list(out.shape[2:])
    unit = [n // 2 for n in units]
    out[(0, 0, *unit)].backward()
    assert x.grad is not None
    return x.grad[0, 0], unit, units


def shifts(net: nn.Module, stride: tuple[int, ...]) -> list[float]:
    """The centroid's distance from the unit's position on a grid centred on the input, by axis."""
    size = [12 * s for s in stride]
    grad, unit, units = field(net, size)
    found = []
    for axis, (s, n) in enumerate(zip(stride, size, strict=True)):
        profile = grad.movedim(axis, 0).flatten(1).sum(1) if grad.ndim > 1 else grad
        centroid = float((profile * torch.arange(n)).sum() / profile.sum())
        found.append(centroid - ((unit[axis] - (units[axis] - 1) / 2) * s + (n - 1) / 2))
    return found


def phases(net: nn.Module, stride: tuple[int, ...]) -> list[list[float]]:
    """The weight of every pixel phase, by axis, each axis by itself."""
    grad, *_ = field(net, [12 * s for s in stride])
    out = []
    for axis, s in enumerate(stride):
        profile = grad.movedim(axis, 0).flatten(1).sum(1) if grad.ndim > 1 else grad
        out.append([float(profile[i::s].sum()) for i in range(s)])
    return out


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_the_average_of_the_stride_centres_the_field(stride: tuple, kernel: int) -> None:
    net = strided(stride, kernel)
    by_hand = [-(s - 1) / 2 for s in stride]
    assert shifts(net, stride) == pytest.approx(by_hand, abs=1e-9)
    rfbench.fix(net, {"kernels": [kernel]})
    assert shifts(net, stride) == pytest.approx([0.0] * len(stride), abs=1e-9)
    assert all(min(row) == pytest.approx(max(row)) for row in phases(net, stride))


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("pool", ["blur", "blur_after"])
def test_a_blur_keeps_the_shift_and_evens_the_phases(stride: tuple, pool: str) -> None:
    net = strided(stride, 3)
    before = shifts(net, stride)
    rfbench.fix(net, f"{pool}:3x3")
    assert shifts(net, stride) == pytest.approx(before, abs=1e-9)
    assert all(min(row) == pytest.approx(max(row)) for row in phases(net, stride))


@pytest.mark.parametrize("stride", STRIDES)
def test_alternating_moves_by_the_last_pixel_of_the_stride(stride: tuple) -> None:
    net = rfbench.fix(strided(stride, 3), "alt:3x3")
    assert shifts(net, stride) == pytest.approx([(s - 1) / 2 for s in stride], abs=1e-9)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("kernel", [1, 3])
def test_average_then_convolve(stride: tuple, kernel: int) -> None:
    axes = len(stride)
    net = CONV[axes](3, 4, kernel, stride, kernel // 2).double()
    x = torch.randn(2, 3, *(5 * s for s in stride), dtype=torch.double)
    pooled = AVERAGE[axes](x, stride, stride)
    expected = CONVOLVE[axes](pooled, net.weight, net.bias, padding=kernel // 2)
    torch.testing.assert_close(rfbench.fix(net, {"kernels": [kernel]})(x), expected)


@pytest.mark.parametrize("pool", variants.POOLS)
@pytest.mark.parametrize("stride", STRIDES)
def test_every_size_keeps_its_map(pool: str, stride: tuple) -> None:
    net = strided(stride, 3)
    changed = rfbench.fix(copy.deepcopy(net), f"{pool}:3x3")
    assert list(changed.state_dict()) == ["weight"]
    for n in [*range(1, 14), 31, 32]:
        x = torch.ones(1, 1, *(n + i for i in range(len(stride))), dtype=torch.double)
        assert changed(x).shape == net(x).shape


def test_largest_of_the_stride() -> None:
    net = nn.Conv1d(1, 1, 1, 3, bias=False)
    nn.init.ones_(net.weight)
    x = torch.tensor([[[5.0, 1.0, 2.0, 3.0, 4.0, 9.0, 7.0]]])
    assert rfbench.fix(net, "max:1x1")(x).tolist() == [[[5.0, 9.0, 7.0]]]


def test_the_triangle_of_three_by_hand() -> None:
    net = nn.Conv1d(1, 1, 1, 3, bias=False).double()
    nn.init.ones_(net.weight)
    x = torch.zeros(1, 1, 7, dtype=torch.double)
    x[0, 0, 3] = 9
    assert rfbench.fix(net, "blur:1x1")(x).tolist() == [[[0.0, 3.0, 0.0]]]
    x[0, 0, 3], x[0, 0, 4] = 0, 9
    assert net(x).tolist() == [[[0.0, 2.0, 1.0]]]


@pytest.mark.parametrize("stride", [(2, 1), (1, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("pool", ["avg", "blur", "blur_after"])
def test_path_counts_say_the_same_as_gradients(stride: tuple[int, int], pool: str) -> None:
    net = rfbench.fix(strided(stride, 3), f"{pool}:3x3")
    grad, unit, _ = field(net, [12 * s for s in stride])
    graph = rf.record(net.float(), (12 * stride[0], 12 * stride[1]), in_channels=1)
    counts, figures = rf.path_counts(graph, unit=(unit[0], unit[1]))
    assert torch.allclose(torch.from_numpy(counts) / counts.sum(), grad / grad.sum())
    assert figures["shift"] == pytest.approx(shifts(net.double(), stride), abs=1e-9)


def test_a_stride_that_is_a_list_of_one() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1)
    conv.stride = (2,)  # type: ignore[assignment]  # torch takes it for both axes
    x = torch.randn(1, 2, 8, 8)
    expected = F.conv2d(F.avg_pool2d(x, 2), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(rfbench.fix(conv, "3x3")(x), expected)


def test_a_pool_of_stride_two_only_says_the_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(channels: int, axes: int) -> nn.Module:
        return nn.AvgPool2d(2)

    monkeypatch.setitem(variants.POOLS, "halves", halves)
    net = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, (2, 1), 1))
    with pytest.raises(UsageError, match=r"cannot change 1 in .*'halves' .* not at 2x1\.$"):
        rfbench.fix(net, "halves:3x3")
    assert type(net[0]) is nn.Conv2d


class Speech(nn.Module):
    """A classifier of sounds: residual blocks whose first convolution and shortcut stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, 8, 80, 4, 38)
        self.conv1, self.conv2 = nn.Conv1d(8, 16, 3, 2, 1), nn.Conv1d(16, 16, 3, 1, 1)
        self.short = nn.Conv1d(8, 16, 1, 2)
        self.pool = nn.MaxPool1d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x).relu())
        return (self.conv2(self.conv1(x).relu()) + self.short(x)).mean(2)


@pytest.mark.parametrize("variant", ["1x1+3x3", "blur:1x1+3x3+maxpool", "blur_after:1x1+3x3"])
def test_a_network_of_one_axis(variant: str) -> None:
    net, x = Speech().eval(), torch.randn(2, 1, 1000)
    changed = rfbench.fix(copy.deepcopy(net), variant)
    changed.load_state_dict(net.state_dict(), strict=True)
    assert changed(x).shape == net(x).shape and not torch.equal(changed(x), net(x))
    assert changed.short.stride == (1,)


@pytest.mark.parametrize("variant", ["1x1+3x3", "blur:1x1", "alt:1x1+3x3", "blur_after:3x3"])
def test_a_network_of_three_axes(variant: str) -> None:
    with torch.device("meta"):
        net = torchvision.models.video.r3d_18()
    keys = list(net.state_dict())
    names = variants.apply(net.eval(), variant)
    blocks = {n.rpartition(".")[0].removesuffix(".downsample") for n in names}
    assert {n.split(".")[0] for n in blocks} == {"layer2", "layer3", "layer4"}
    assert list(net.state_dict()) == keys
    assert net(torch.empty(1, 3, 8, 65, 64, device="meta")).shape == (1, 400)


class Block(nn.Module):
    """A max pool, and a block whose main path and shortcut stride, along any axes."""

    def __init__(self, stride: tuple[int, ...]) -> None:
        super().__init__()
        conv, axes = CONV[len(stride)], len(stride)
        self.pool = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[axes](3, 2, 1)
        self.main, self.act = conv(3, 4, 3, stride, 1), nn.ReLU()
        self.short, self.last = conv(3, 4, 1, stride), conv(4, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        return self.last(self.act(self.main(x))) + self.short(x)


def compiled(model: nn.Module) -> Any:
    torch._dynamo.reset()  # or the next network of the class counts as the same one again
    return torch.compile(model, backend="eager", fullgraph=True)


COPIES: dict[str, Any] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "script": torch.jit.script,
    "compile": compiled,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("pool", variants.POOLS)
@pytest.mark.parametrize("stride", [(2,), (3, 2), (2, 2, 1)])
def test_what_a_changed_network_survives(stride: tuple, pool: str, kind: str) -> None:
    torch.manual_seed(0)
    plain = Block(stride).eval()
    variant = {"kernels": [1, 3], "maxpool": True, "pool": pool}
    model = rfbench.fix(copy.deepcopy(plain), variant)
    x = torch.randn(2, 3, *(9 + i for i in range(len(stride))))
    expected = model(x)
    assert expected.shape == plain(x).shape
    assert torch.equal(COPIES[kind](model)(x), expected)
    emptied = rfbench.fix(copy.deepcopy(plain), variant).to("meta").to_empty(device="cpu")
    emptied.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(emptied(x), expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_convolutions_that_pad_with_pixels_are_fixed(mode: str, kernel: int, axes: int) -> None:
    """They need maps larger than their padding; at all others the size is kept."""
    conv = CONV[axes](1, 1, kernel, 2, kernel // 2, padding_mode=mode, bias=False)
    net = nn.Sequential(conv).double()
    sizes = [*range(2 * (kernel // 2) + 2, 19), 32, 33]
    wanted = [net(torch.zeros(1, 1, *[n] * axes).double()).shape for n in sizes]
    assert shifts(net, (2,) * axes) == pytest.approx([-0.5] * axes)
    rfbench.fix(net, f"{kernel}x{kernel}")
    assert [net(torch.zeros(1, 1, *[n] * axes).double()).shape for n in sizes] == wanted
    assert shifts(net, (2,) * axes) == pytest.approx([0.0] * axes)


@pytest.mark.parametrize("padding", ["valid", 0])
def test_convolutions_without_padding_stay_refused(padding: str | int) -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, 2, padding, padding_mode="reflect"))
    with pytest.raises(UsageError, match="lack of padding"):
        rfbench.fix(net, "3x3")
