"""Results that are known without running an operation are those of running it."""

from collections import Counter
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError
from rfbench.spatial_graph import results, tracer
from rfbench.spatial_graph.inputs import trace_as_fits
from rfbench.spatial_graph.reader import read
from rfbench.spatial_graph.trace import _traced, trace_module
from tests.spatial_graph.networks import RandomNet

ops = torch.ops.aten


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def form(out: Any) -> Any:
    """Shape, type and order in memory; the stride of a single position says nothing."""
    if isinstance(out, Tensor):
        strides = [s for s, n in zip(out.stride(), out.shape, strict=True) if n > 1]
        return tuple(out.shape), out.dtype, out.device.type, strides
    return [form(t) for t in out]


X, V, TALL = meta(1, 6, 9, 7), meta(6), meta(1, 6, 1, 1)
CALLS = {
    "relu": (ops.relu.default, X),
    "half": (ops.relu.default, meta(2, 3, dtype=torch.float16)),
    "hardtanh": (ops.hardtanh.default, X, 0.0, 6.0),
    "gelu": (ops.gelu.default, X),
    "softplus": (ops.softplus.default, X),
    "elu": (ops.elu.default, X, 1.0, 1.0, 2.0),
    "pow": (ops.pow.Tensor_Scalar, X, 2),
    "clamp": (ops.clamp.default, X, 0, None),
    "add": (ops.add.Tensor, X, X),
    "add a number": (ops.add.Tensor, X, 3),
    "add.Scalar": (ops.add.Scalar, X, 1e-5),
    "mul by a gate": (ops.mul.Tensor, X, TALL),
    "mul of a gate": (ops.mul.Tensor, TALL, X),
    "mul by a row": (ops.mul.Tensor, X, meta(7)),
    "div": (ops.div.Tensor, X, meta()),
    "conv": (ops.convolution.default, X, meta(8, 3, 3, 2), meta(8), [2, 1], [1, 0], [1, 2], False,
             [0, 0], 2),
    "conv, 1-D": (ops.convolution.default, meta(1, 4, 9), meta(2, 4, 3), None, [2], [1], [1], False,
                  [0], 1),
    "conv, 3-D": (ops.convolution.default, meta(1, 2, 5, 6, 7), meta(4, 2, 3, 3, 3), None, [1] * 3,
                  [1] * 3, [1] * 3, False, [0] * 3, 1),
    "embedding": (ops.embedding.default, meta(20, 6), meta(2, 5, dtype=torch.int64)),
    "batch norm": (ops.native_batch_norm.default, X, V, V, V, V, False, 0.1, 1e-5),
    "batch norm without weights": (ops.native_batch_norm.default, X, None, None, V, V, False, 0.1,
                                   1e-5),
    "batch norm of weights": (ops.native_batch_norm.default, X, V, None, None, None, True, 0.0,
                              1e-5),
    "layer norm": (ops.native_layer_norm.default, X, [9, 7], meta(9, 7), meta(9, 7), 1e-5),
    "layer norm of channels": (ops.native_layer_norm.default, X.permute(0, 2, 3, 1), [6], V, V,
                               1e-5),
    "layer norm of copies": (ops.native_layer_norm.default, TALL.expand(1, 6, 9, 7), [7], None,
                             None, 1e-5),
    "group norm": (ops.native_group_norm.default, X, V, V, 1, 6, 63, 3, 1e-5),
    "mean": (ops.mean.dim, X, [2, 3], True),
    "mean, dropped": (ops.mean.dim, X, [-1]),
    "cat": (ops.cat.default, [X, meta(1, 2, 9, 7), X], 1),
    "cat of rows": (ops.cat.default, [X, X], -2),
    "addmm": (ops.addmm.default, meta(3), meta(5, 7), meta(3, 7).t()),
    "softmax": (ops._softmax.default, X, -1, False),
    "safe softmax": (ops._safe_softmax.default, X, -1),
    "pad": (ops.constant_pad_nd.default, X, [1, 2, 0, 3], 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_known(name: str) -> None:
    func, *args = CALLS[name]
    known = results.known(func, tuple(args), {})
    assert known is not None
    assert form(known) == form(func(*args))


def test_every_rule_is_tried() -> None:
    tried = {results.RULES[func] for func, *_ in CALLS.values()}
    assert tried == set(results.RULES.values())


LAST = meta(1, 6, 9, 7).to(memory_format=torch.channels_last)
UNKNOWN = {
    "channels last": (ops.relu.default, LAST),
    "a slice": (ops.relu.default, X[:, :, 1:]),
    "integers": (ops.sigmoid.default, meta(3, dtype=torch.int64)),
    "two types": (ops.add.Tensor, X, meta(1, 6, 9, 7, dtype=torch.float64)),
    "a complex number": (ops.add.Tensor, X, 1j),
    "on the CPU": (ops.add.Tensor, X, torch.ones(7)),
    "both broadcast": (ops.mul.Tensor, TALL, meta(1, 1, 9, 7)),
    "no such shapes": (ops.add.Tensor, X, meta(5)),
    "other channels": (ops.convolution.default, X, meta(8, 4, 3, 3), None, [1, 1], [0, 0], [1, 1],
                       False, [0, 0], 1),
    "too small": (ops.convolution.default, X, meta(8, 6, 11, 3), None, [1, 1], [0, 0], [1, 1],
                  False, [0, 0], 1),
    "transposed": (ops.convolution.default, X, meta(6, 4, 3, 3), None, [1, 1], [0, 0], [1, 1], True,
                   [0, 0], 1),
    "weights channels last": (ops.convolution.default, X,
                              meta(8, 6, 3, 3).to(memory_format=torch.channels_last), None, [1, 1],
                              [0, 0], [1, 1], False, [0, 0], 1),
    "in training": (ops.native_batch_norm.default, X, V, V, V, V, True, 0.1, 1e-5),
    "statistics of half": (ops.native_batch_norm.default, *(t.half() for t in (X, V, V, V, V)),
                           False, 0.1, 1e-5),
    "cropped": (ops.constant_pad_nd.default, X, [-1, 0], 0.0),
    "nothing": (ops.relu.default, meta(0, 3)),
    "other shapes": (ops.cat.default, [X, meta(1, 2, 9, 8)], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_left_to_torch(name: str) -> None:
    func, *args = UNKNOWN[name]
    assert results.known(func, tuple(args), {}) is None


def compared(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Run whatever is known as well; returns how often each operation was."""
    seen: Counter[str] = Counter()
    known = results.known

    def both(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        out = known(func, args, kwargs)
        if out is not None:
            seen[tracer.name_of(func)] += 1
            assert form(out) == form(func(*args, **kwargs)), func
        return out

    monkeypatch.setattr(results, "known", both)
    return seen


NETWORKS = (
    "mobilenetv3_small_050",
    "tf_efficientnet_b0",
    "convnext_atto",
    "test_vit",
    "test_byobnet",
)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = compared(monkeypatch)
    module = timm.create_model(name).eval()
    trace_module(module, module.default_cfg["input_size"][1:])
    assert seen.total() > 20


def nodes(module: nn.Module, pure: bool) -> tuple[list[Any], str]:
    trace, mutated = _traced(module, [(3, 20, 23)], pure=pure, draw=0)
    graph = read(trace)
    return [(n.kind, n.sources, n.size, repr(n.axes), n.counts) for n in graph.nodes], mutated


@pytest.mark.parametrize("seed", range(12))
def test_without_functionalisation(seed: int) -> None:
    pure, mutated = nodes(RandomNet(seed, (20, 23)), pure=True)
    assert not mutated
    assert pure == nodes(RandomNet(seed, (20, 23)), pure=False)[0]


class Writes(nn.Module):
    """A convolution, and a write of some kind to what it makes."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 4, 3, 2, 1), how
        self.register_buffer("table", torch.zeros(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        match self.how:
            case "alone":
                return y.relu_().add_(1).mul_(self.table)
            case "kept":  # one tensor by two names
                kept = y
                y += nn.functional.avg_pool2d(y, 3, 1, 1)
                return kept + y
            case "input":
                return self.conv(x.mul_(2))
            case "view":
                y[:, :2] += nn.functional.avg_pool2d(y, 3, 1, 1)[:, :2]
            case "behind a view":
                z = y.flatten(2)
                y += nn.functional.avg_pool2d(y, 3, 1, 1)
                return z.view_as(y)
            case "data":
                z = y.data
                y += nn.functional.avg_pool2d(y, 3, 1, 1)
                return z.relu()
            case "turned":
                return y.transpose_(2, 3)
            case "buffer":
                self.table.add_(1)
                return y * self.table
        return y


@pytest.mark.parametrize("how", ["alone", "kept", "turned"])
def test_writes_that_nobody_else_sees(how: str) -> None:
    pure, mutated = nodes(Writes(how), pure=True)
    assert not mutated
    assert pure == nodes(Writes(how), pure=False)[0]


@pytest.mark.parametrize("how", ["view", "behind a view", "data", "input"])
def test_writes_that_others_see_are_functionalised(how: str) -> None:
    assert nodes(Writes(how), pure=True)[1]
    graph = read(trace_module(Writes(how), (20, 23)))
    assert [(n.kind, n.sources) for n in graph.nodes] == [
        made[:2] for made in nodes(Writes(how), pure=False)[0]
    ]


def test_a_write_to_a_buffer() -> None:
    assert nodes(Writes("buffer"), pure=True)[1]
    trace_module(Writes("buffer"), (20, 23))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_transposed_convolutions_that_torch_refuses_with_data(axes: int, padding: int) -> None:
    # on meta torch takes any channels, and any output padding
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    net = kind(10, 8, 3, output_padding=padding)
    image = torch.zeros(1, 10 if padding else 12, *[5] * axes)
    with pytest.raises(RuntimeError):
        net(image)
    with pytest.raises(RfbenchError, match="output padding" if padding else "expected 10 channels"):
        trace_module(net, tuple(image.shape[2:]), 12 - 2 * padding)


def test_a_network_that_begins_with_a_transposed_convolution_is_given_its_channels() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(10, 8, 4, 2, 1), nn.Conv2d(8, 3, 1))
    with pytest.raises(RfbenchError, match="expected 10 channels"):
        trace_as_fits(net, (5, 5))
    assert trace_as_fits(net[:1], (5, 5)).failure is None
