"""A trace with changed layers is the one that running the changed network gives."""

import copy
from collections.abc import Callable

import pytest
import timm
import torchvision
from torch import Tensor, nn

from rfbench.models import variants
from rfbench.rf.core.network import Network
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.splice import spliced

SIZE = (64, 64)


def form(graph: SpatialGraph) -> list[str]:
    """All that a graph holds; of a size that it learnt, only that it did."""
    steps = sorted({node.step for node in graph.nodes})  # torch's own memory has steps as well
    nodes = [
        repr((n.kind, n.sources, n.size, n.axes, n.counts, n.channels, n.reach, n.rigid, n.op))
        + f"{n.layer} {steps.index(n.step)}"
        for n in graph.nodes
    ]
    held = graph.layers.items()
    layers = [f"{k}: {getattr(v, 'dims', v)} {getattr(v, 'labels', v)}" for k, v in held]
    return [*nodes, *layers, graph.target, graph.channels_by, str(graph.sized is None)]


def both(module: nn.Module, variant: str, size: tuple[int, int] = SIZE) -> tuple[Network, Network]:
    """The changed network with what is known of the unchanged one, and without."""
    before = Network(module.eval(), size)
    before.target(size)
    changed = copy.deepcopy(module)
    names = variants.apply(changed, variant, size=size)
    return before.with_layers(changed, names), Network(changed, size)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet50": torchvision.models.resnet50,
    "padded as TensorFlow does": lambda: timm.create_model("tf_efficientnet_b0"),
    "weights standardised": lambda: timm.create_model("eca_nfnet_l0"),
    "branches": lambda: timm.create_model("skresnet18"),
    "attention": lambda: timm.create_model("mobilevit_xxs"),
    "part of another": lambda: nn.Sequential(timm.create_model("resnet18"), nn.ReLU()),
}
CASES = [(name, "1x1+3x3") for name in NETWORKS] + [
    ("resnet50", "blur:3x3"),
    ("resnet50", "alt:1x1+3x3"),
    ("resnet50", "3x3+maxpool"),
    ("padded as TensorFlow does", "blur:3x3"),
    ("branches", "3x3+maxpool"),
]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_a_variant_from_a_trace_is_the_variant_traced(name: str, variant: str) -> None:
    known, anew = both(NETWORKS[name](), variant)
    assert known._spliced(SIZE) is not None
    assert form(known.whole(SIZE)) == form(anew.whole(SIZE))
    assert known.cost(SIZE) == anew.cost(SIZE)


class Twice(nn.Module):
    """A convolution called twice."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.conv, self.between = nn.Conv2d(3, 3, 3, 2, 1), between

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.between(self.conv(x)))


def of_torch(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network of this file taken for one of a library."""
    monkeypatch.setattr(type(module), "__module__", "torch.made")
    return module


def test_a_layer_called_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    known, anew = both(of_torch(Twice(nn.ReLU()), monkeypatch), "3x3")
    assert known._spliced(SIZE) is not None
    assert form(known.whole(SIZE)) == form(anew.whole(SIZE))
    assert [*known.whole(SIZE).layers] == [*anew.whole(SIZE).layers]


class Looks(nn.Module):
    """Moves its map by as much as its convolution strides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        h, w = y.shape[2:]
        return nn.functional.pad(y, [self.conv.stride[0]] * 4)[..., : h + 2, : w + 2]


def hooked() -> nn.Module:
    module = torchvision.models.resnet18()
    module.layer1.register_forward_hook(lambda _m, _a, out: out.flip(-1))
    return module


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "own code": Looks,
    "hooks": hooked,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_might_look_at_the_change_is_traced_anew(name: str) -> None:
    known, anew = both(REFUSED[name](), "3x3")
    assert known._spliced(SIZE) is None
    assert form(known.whole(SIZE)) == form(anew.whole(SIZE))


def test_calls_in_a_row_are_traced_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    known, _ = both(of_torch(Twice(nn.Identity()), monkeypatch), "3x3")
    assert known._spliced(SIZE) is None


def test_another_size_of_the_map_is_traced_anew() -> None:
    known, anew = both(torchvision.models.resnet18(), "blur_after:3x3")
    assert known._spliced(SIZE) is None
    assert form(known.whole(SIZE)) == form(anew.whole(SIZE))


def test_a_trace_that_failed_is_not_taken() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Flatten(), nn.Linear(7, 2))
    network = Network(module, SIZE)
    trace = network._trace(SIZE)
    assert trace.failure is not None
    assert spliced(trace, module, {"0": (module[0], module[0])}) is None


def test_a_layer_that_does_something_else_alone_is_traced_anew() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
    trace = Network(module, SIZE)._trace(SIZE)
    other = nn.Conv2d(3, 4, 3, 2, 1, padding_mode="reflect")
    now = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 4, 3, 1, 1))
    assert spliced(trace, module, {"0": (module[0], now)}) is not None
    assert spliced(trace, module, {"0": (other, now)}) is None
