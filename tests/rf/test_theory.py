"""Sizes, strides, paddings and centres against published tables and hand-made graphs."""

from collections.abc import Callable, Iterator

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench import backbones
from rfbench.rf.interpret import spatial_graph
from rfbench.rf.metrics import geometry
from rfbench.rf.network import Network
from rfbench.rf.theory import Field, theory
from tests.rf.cases import Net


def fields(module: nn.Module, size: tuple[int, int] = (224, 224)) -> list[tuple[int, int, int]]:
    """r, S, P of the last map along y and x."""
    place = geometry(spatial_graph(module, size), None, None)
    return [(f.size, f.stride, f.padding) for f in place.uniform]


# -- networks --------------------------------------------------------------------------------------

TRUTHS = [
    # network, variant, r, S, P, centre of unit 3 at 224, misaligned additions (both axes)
    ("vgg16", "baseline", 212, 32, 90, 111.5, 0),
    ("resnet18", "baseline", 435, 32, 217, 96, 0),
    ("resnet50", "baseline", 427, 32, 213, 96, 0),
    ("resnet50", "3x3", 511, 32, 241, 110, 6),
    ("resnet50", "1x1", 427, 32, 213, 96, 6),
    ("resnet50", "1x1+3x3", 511, 32, 241, 110, 0),
    ("resnet18", "1x1+3x3", 519, 32, 245, 110, 0),
]


@pytest.mark.parametrize(("name", "variant", "r", "s", "p", "centre", "apart"), TRUTHS)
def test_facts_table(
    name: str, variant: str, r: int, s: int, p: int, centre: float, apart: int
) -> None:
    network = Network(backbones.build(name, variant, meta=True).module)
    place = geometry(network.graph((224, 224)), None, None)
    for field in place.uniform:
        assert (field.size, field.stride, field.padding) == (r, s, p)
        assert field.center(3) == centre
    assert len(place.disagreements) == apart


@pytest.mark.parametrize(
    ("name", "size", "r", "p"),
    [
        ("inception_v3", 299, 1311, 618),
        ("timm:inception_v4", 299, 2071, 998),
        ("timm:inception_resnet_v2", 299, 3039, 1482),
        ("densenet121", 224, 2071, 1021),
        ("googlenet", 224, 379, 167),
        ("mobilenet_v2", 224, 491, 245),
        ("efficientnet_b0", 224, 851, 425),
    ],
)
def test_concatenated_branches_take_the_union(name: str, size: int, r: int, p: int) -> None:
    graph = Network(backbones.build(name, meta=True).module).graph((size, size))
    assert [(f.size, f.stride, f.padding) for f in geometry(graph, None, None).uniform] == [
        (r, 32, p)
    ] * 2


def test_caffe_stride_in_the_first_1x1() -> None:
    module = backbones.build("resnet50", meta=True).module
    for stage in (module.layer2, module.layer3, module.layer4):  # type: ignore[union-attr]
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)  # type: ignore[index]
    place = geometry(spatial_graph(module, (224, 224)), "layer4", None)
    assert [(f.size, f.stride, f.padding, f.center(3)) for f in place.uniform] == [
        (483, 32, 241, 96)
    ] * 2


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME padding."""
    spare = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    return F.pad(x, [a for n in reversed(spare) for a in (n // 2, n - n // 2)])


class Slim(nn.Module):
    """A network of TF-slim by its layers: ('conv' | 'pool', kernel, stride, padding)."""

    def __init__(self, layers: list[tuple[str, int, int, str | int]]) -> None:
        super().__init__()
        self.layers = layers
        self.convs = nn.ModuleList(
            nn.Conv2d(1, 1, k, s, bias=False) for kind, k, s, _ in layers if kind == "conv"
        )

    def forward(self, x: Tensor) -> Tensor:
        convs: Iterator[nn.Module] = iter(self.convs)
        for kind, k, s, padding in self.layers:
            if isinstance(padding, int):
                x = F.pad(x, [padding] * 4)
            elif padding == "SAME":
                x = same(x, k, s)
            x = next(convs)(x) if kind == "conv" else F.max_pool2d(x, k, s)
        return x


class SlimResNet(nn.Module):
    """resnet_v1 of TF-slim: the stride in the last unit of a block."""

    def __init__(self, units: list[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 1, 7, 2, 3)
        strides = [
            2 if last and block < 3 else 1
            for block, n in enumerate(units)
            for last in [False] * (n - 1) + [True]
        ]
        self.units = nn.ModuleList(nn.Conv2d(1, 1, 3, s, 1) for s in strides)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(same(self.stem(x), 3, 2), 3, 2)
        for conv in self.units:
            shortcut = F.max_pool2d(x, 1, 2) if conv.stride == (2, 2) else x
            x = shortcut + conv(x)
        return x


ALEXNET = [
    ("conv", 11, 4, "VALID"), ("pool", 3, 2, "VALID"), ("conv", 5, 1, "SAME"),
    ("pool", 3, 2, "VALID"), ("conv", 3, 1, "SAME"), ("conv", 3, 1, "SAME"),
    ("conv", 3, 1, "SAME"), ("pool", 3, 2, "VALID"),
]  # fmt: skip
MOBILENET = [("conv", 3, 2, "SAME")] + [
    ("conv", 3, s, "SAME") for s in (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Slim(ALEXNET), (195, 32, 64)),
        (lambda: Slim(MOBILENET), (315, 32, 126)),
        (lambda: SlimResNet([3, 4, 6, 3]), (483, 32, 239)),
        (lambda: SlimResNet([3, 4, 23, 3]), (1027, 32, 511)),
        (lambda: SlimResNet([3, 8, 36, 3]), (1507, 32, 751)),
        (lambda: SlimResNet([3, 24, 36, 3]), (1763, 32, 879)),
    ],
    ids=["alexnet_v2", "mobilenet_v1", "resnet_v1_50", "_101", "_152", "_200"],
)
def test_published_rows_of_tf_slim(
    make: Callable[[], nn.Module], expected: tuple[int, int, int]
) -> None:
    assert fields(make()) == [expected] * 2


# -- the test graphs of google-research/receptive_field --------------------------------------------


def conv(kernel: int | tuple[int, int], stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(1, 1, kernel, stride)


def pool(kernel: int, stride: int) -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel, stride)


def g1(net: Net, x: Tensor) -> Tensor:
    return net.a(x) + net.c(net.b(F.pad(x, (1, 0, 1, 0))))


def g3(net: Net, x: Tensor) -> Tensor:
    left, right = net.a(F.pad(x, (2, 1, 2, 1))), net.c(net.b(x))
    return (
        left[..., : right.shape[2], : right.shape[3]] + right[..., : left.shape[2], : left.shape[3]]
    )


def g4(net: Net, x: Tensor) -> Tensor:
    return net.a(x) + net.c(net.b(same(x, 3, 2)))


G1 = {"a": conv(1, 4), "b": conv(3, 2), "c": conv(1, 2)}


@pytest.mark.parametrize("size", [(16, 16), (18, 34)])
@pytest.mark.parametrize("layers", [G1, {**G1, "b": pool(3, 2), "c": pool(1, 2)}], ids=["G1", "G2"])
def test_aligned_branches(layers: dict[str, nn.Module], size: tuple[int, int]) -> None:
    graph = spatial_graph(Net(g1, **layers), size, 1)
    place = geometry(graph, None, None)
    assert [(f.size, f.stride, f.padding) for f in place.uniform] == [(3, 4, 1)] * 2
    assert not place.disagreements


def test_branches_of_different_stride_are_misaligned() -> None:
    graph = spatial_graph(Net(g3, a=conv(5, 2), b=conv(3), c=conv(3)), (16, 16), 1)
    apart = geometry(graph, None, None).disagreements
    assert {d.axis for d in apart} == {"x", "y"}
    assert sorted(f.stride for f in apart[0].fields) == [1, 2]


@pytest.mark.parametrize(("side", "apart"), [(9, 0), (8, 2)])
def test_same_padding_aligns_by_parity(side: int, apart: int) -> None:
    place = geometry(spatial_graph(Net(g4, **G1), (side, side), 1), None, None)
    assert len(place.disagreements) == apart
    if not apart:
        assert [(f.size, f.stride, f.padding) for f in place.uniform] == [(3, 4, 1)] * 2


def test_axes_are_apart() -> None:
    module = nn.Sequential(conv((3, 5), 2), conv((3, 1), 2))
    y, x = geometry(spatial_graph(module, (32, 32)), None, None).uniform
    assert (x.size, y.size) == (5, 7)
    assert [(f.stride, f.padding) for f in (y, x)] == [(4, 0)] * 2


# -- other steps -----------------------------------------------------------------------------------


def test_field_arithmetic() -> None:
    field = Field(-3, 5, 4)
    assert (field.size, field.padding, field.center(0), field.center(2)) == (9, 3, 1.0, 9.0)


def test_from_a_layer() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 7, 2, 3), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2)
    )
    graph = spatial_graph(module, (64, 64))
    for source, expected in ((None, (19, 8, 5)), ("0", (7, 4, 1)), ("1", (3, 2, 0))):
        y, x = geometry(graph, "2", source).uniform
        assert (y.size, y.stride, y.padding) == (x.size, x.stride, x.padding) == expected


def test_a_source_that_is_not_heard_has_no_field() -> None:
    net = Net(lambda n, x: (n.a(x), n.b(x))[1], a=nn.Conv2d(3, 4, 3), b=nn.Conv2d(3, 4, 5))
    graph = spatial_graph(net, (16, 16))
    assert theory(graph, graph.layer("a")).of(graph, graph.layer("b")) == (None, None)


def test_a_gate_is_left_out() -> None:
    def gated(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        return x * net.b(x.mean((2, 3), keepdim=True)).sigmoid()

    assert fields(Net(gated, a=nn.Conv2d(3, 4, 5, 2), b=nn.Conv2d(4, 4, 1))) == [(5, 2, 0)] * 2


def test_reflecting_counts_as_padding() -> None:
    def reflected(net: Net, x: Tensor) -> Tensor:
        return net.a(F.pad(x, (2, 2, 2, 2), mode="reflect"))

    assert fields(Net(reflected, a=nn.Conv2d(3, 4, 5, 2))) == [(5, 2, 2)] * 2


def test_patches_by_space_to_depth_are_one_window() -> None:
    def patches(net: Net, x: Tensor) -> Tensor:
        return net.a(F.pixel_unshuffle(x, 4))

    net = Net(patches, a=nn.Conv2d(48, 4, 3, 1, 1))
    place = geometry(spatial_graph(net, (64, 64), 3), None, None)
    assert [(f.size, f.stride, f.padding) for f in place.uniform] == [(12, 4, 4)] * 2


def test_resizing_has_no_uniform_field() -> None:
    def resized(net: Net, x: Tensor) -> Tensor:
        return F.interpolate(net.a(x), scale_factor=1.5, mode="bilinear")

    graph = spatial_graph(Net(resized, a=nn.Conv2d(3, 4, 3)), (32, 32))
    assert geometry(graph, None, None).field == (None, None)
