"""Sizes, strides, paddings and centres against published tables and hand-made graphs."""

import random
import re
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.errors import RfbenchError
from rfbench.models import backbones
from rfbench.rf.core.field import Along, Field, Phased, origin, region, union, units_containing
from rfbench.rf.core.metrics import support
from rfbench.rf.core.network import Network
from rfbench.rf.core.target import Target
from rfbench.rf.core.theory import theory
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import Net


def fields(module: nn.Module, size: tuple[int, int] = (224, 224)) -> list[tuple[int, int, int]]:
    """r, S, P of the last map along y and x."""
    place = Target(spatial_graph(module, size)).geometry
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
    place = Target(network.graph((224, 224))).geometry
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
    assert [(f.size, f.stride, f.padding) for f in Target(graph).geometry.uniform] == [
        (r, 32, p)
    ] * 2


def test_caffe_stride_in_the_first_1x1() -> None:
    module = backbones.build("resnet50", meta=True).module
    for stage in (module.layer2, module.layer3, module.layer4):  # type: ignore[union-attr]
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)  # type: ignore[index]
    place = Target(spatial_graph(module, (224, 224)), "layer4").geometry
    assert [(f.size, f.stride, f.padding, f.center(3)) for f in place.uniform] == [
        (483, 32, 241, 96)
    ] * 2


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME padding."""
    spare = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    return F.pad(x, [a for n in reversed(spare) for a in (n // 2, n - n // 2)])


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
    place = Target(graph).geometry
    assert [(f.size, f.stride, f.padding) for f in place.uniform] == [(3, 4, 1)] * 2
    assert not place.disagreements


def test_branches_of_different_stride_are_misaligned() -> None:
    graph = spatial_graph(Net(g3, a=conv(5, 2), b=conv(3), c=conv(3)), (16, 16), 1)
    apart = Target(graph).geometry.disagreements
    assert {d.axis for d in apart} == {"x", "y"}
    assert sorted(f.stride for f in apart[0].fields) == [1, 2]


@pytest.mark.parametrize(("side", "apart"), [(9, 0), (8, 2)])
def test_same_padding_aligns_by_parity(side: int, apart: int) -> None:
    place = Target(spatial_graph(Net(g4, **G1), (side, side), 1)).geometry
    assert len(place.disagreements) == apart
    if not apart:
        assert [(f.size, f.stride, f.padding) for f in place.uniform] == [(3, 4, 1)] * 2


def test_axes_are_apart() -> None:
    module = nn.Sequential(conv((3, 5), 2), conv((3, 1), 2))
    y, x = Target(spatial_graph(module, (32, 32))).geometry.uniform
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
        y, x = Target(graph, "2", source).geometry.uniform
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
    place = Target(spatial_graph(net, (64, 64), 3)).geometry
    assert [(f.size, f.stride, f.padding) for f in place.uniform] == [(12, 4, 4)] * 2


# -- resized axes ----------------------------------------------------------------------------------


def both(module: nn.Module, size: tuple[int, int] = (32, 32)) -> tuple[Along | None, Along | None]:
    """The fields of the last map along y and x."""
    graph = spatial_graph(module, size)
    return theory(graph).of(graph, Target(graph).value)


RESIZED = {
    "nearest x2": lambda n, x: F.interpolate(n.a(x), scale_factor=2),
    "bilinear x2": lambda n, x: F.interpolate(n.a(x), scale_factor=2, mode="bilinear"),
    "bilinear x3": lambda n, x: F.interpolate(n.a(x), scale_factor=3, mode="bilinear"),
    "bilinear x1.5": lambda n, x: F.interpolate(n.a(x), scale_factor=1.5, mode="bilinear"),
    "bicubic x2": lambda n, x: F.interpolate(n.a(x), scale_factor=2, mode="bicubic"),
    "transposed": lambda n, x: n.t(n.a(x)),
    "shuffled": lambda n, x: F.pixel_shuffle(n.a(x), 2),
    "up and down": lambda n, x: n.b(F.interpolate(n.a(x), scale_factor=2)),
    "down and up": lambda n, x: F.interpolate(n.b(n.a(x)), scale_factor=2),
    "skip": lambda n, x: n.a(x) + F.interpolate(n.b(n.a(x)), scale_factor=2),
    "side by side": lambda n, x: torch.cat(
        [n.a(x), F.interpolate(n.b(n.a(x)), scale_factor=2, mode="bilinear")], 1
    ),
    "thrice": lambda n, x: n.c(F.interpolate(n.t(n.b(n.a(x))), scale_factor=3)),
}


@pytest.mark.parametrize("run", RESIZED.values(), ids=RESIZED)
def test_regions_behind_resizing_are_those_of_the_paths(run: Callable) -> None:
    layers = {
        "a": nn.Conv2d(3, 4, 3, 1, 1), "b": nn.Conv2d(4, 4, 3, 2, 1), "c": nn.Conv2d(4, 4, 5, 3, 2),
        "t": nn.ConvTranspose2d(4, 4, 4, 2, 1),
    }  # fmt: skip
    graph = spatial_graph(Net(run, **layers), (36, 36))
    target = Target(graph)
    compared = 0
    for u in range(target.units[0]):
        ends = [region(f, u) for f in target.fields if f is not None]
        assert len(ends) == 2
        if all(first > 2 and last < 33 for first, last in ends):
            box = support(target.counts((u, u)))
            assert [(box["top"], box["bottom"]), (box["left"], box["right"])] == ends
            compared += 1
    assert compared >= 6


@pytest.mark.parametrize(
    ("name", "stride", "sizes"),
    [
        ("nearest x2", Fraction(1, 2), (3, 3)),
        ("bilinear x2", Fraction(1, 2), (4, 4)),
        ("bilinear x1.5", Fraction(2, 3), (4, 4)),
        ("down and up", 1, (5, 5)),
    ],
)
def test_units_take_turns(name: str, stride: Fraction, sizes: tuple[int, int]) -> None:
    layers = {"a": nn.Conv2d(3, 4, 3, 1, 1), "b": nn.Conv2d(4, 4, 3, 2, 1)}
    for field in both(Net(RESIZED[name], **layers)):
        assert isinstance(field, Phased)
        assert (field.stride, field.sizes) == (stride, sizes)


def test_a_whole_stride_behind_resizing_is_a_plain_field() -> None:
    layers = {"a": nn.Conv2d(3, 4, 3, 1, 1), "b": nn.Conv2d(4, 4, 3, 2, 1)}
    assert both(Net(RESIZED["up and down"], **layers)) == (Field(-2, 1, 1),) * 2


def test_resized_branches_are_compared_by_their_mean_centre() -> None:
    def skip(net: Net, x: Tensor) -> Tensor:
        return x + F.interpolate(net.down(x), scale_factor=2)

    for down, apart in ((nn.AvgPool2d(2), 0), (nn.Conv2d(3, 3, 3, 2, 1), 2)):
        graph = spatial_graph(Net(skip, down=down), (32, 32), 3)
        found = theory(graph).disagreements
        assert len(found) == apart  # a stride-2 convolution looks half a pixel up-left
        assert all(sorted(map(origin, d.fields)) == [Fraction(-1, 2), 0] for d in found)


RESIZES = {
    "down": lambda n, x: F.interpolate(n.a(x), size=(10, 10)),
    "up": lambda n, x: F.interpolate(F.avg_pool2d(n.a(x), 1, 1), size=(23, 23), mode="bilinear"),
}


@pytest.mark.parametrize("run", RESIZES.values(), ids=RESIZES)
def test_irregular_resizing_has_the_field_of_every_unit(run: Callable) -> None:
    net = Net(run, a=nn.Conv2d(3, 4, 3, 1, 1)).double()
    nn.init.constant_(net.a.weight, 1.0)  # type: ignore[arg-type, union-attr]
    found = Target(spatial_graph(net, (17, 17))).geometry.field[0]
    assert isinstance(found, Phased)
    for i, (first, last) in enumerate(found.phases):
        image = torch.zeros(1, 3, 17, 17, dtype=torch.float64, requires_grad=True)
        out = net(image)
        assert out.shape[-2] == len(found.phases)
        out[0, 0, i].sum().backward()
        rows = image.grad[0].abs().sum((0, 2)).nonzero().flatten()  # type: ignore[index]
        assert [max(first, 0), min(last, 16)] == [rows[0], rows[-1]]


@pytest.mark.parametrize(
    "run",
    [
        lambda n, x: torch.roll(n.a(x), 5, -1).roll(5, -2),
        lambda n, x: n.a(x).flip(-1, -2),
    ],
    ids=["rolled", "flipped"],
)
def test_units_with_nothing_in_common_have_no_field(run: Callable) -> None:
    graph = spatial_graph(Net(run, a=nn.Conv2d(3, 4, 3, 1, 1)), (17, 17))
    place = Target(graph).geometry
    assert place.field == (None, None)
    with pytest.raises(RfbenchError, match="no effective stride"):
        _ = place.uniform


def test_branches_of_different_stride_have_no_common_field() -> None:
    assert union([Field(0, 4, 1), Field(0, 4, 2)], 8, 8) is None
    assert union([Field(0, 4, 2), Field(-3, 1, 2)], 8, 8) == Field(-3, 4, 2)
    mixed = union([Field(0, 1, 1), Phased(((0, 2), (0, 2)), 2)], 8, 8)
    assert mixed == Phased(((0, 2), (0, 2)), 2)


def test_inverse_of_a_region() -> None:
    field = Field(-3, 5, 4)
    for pixel in range(40):
        expected = [u for u in range(10) if -3 + 4 * u <= pixel <= 5 + 4 * u]
        found = units_containing(field, pixel, 10)
        assert found == (expected[0], expected[-1])
    assert units_containing(Field(0, 0, 4), 2, 10) is None


# -- concatenations --------------------------------------------------------------------------------


def joined(net: Net, x: Tensor) -> Tensor:
    return net.c(torch.cat([net.a(x), net.b(x)], 1))


@pytest.mark.parametrize(("pool_before", "apart"), [(0, 2), (1, 0)])
def test_a_concatenation_is_named_with_both_sides(pool_before: int, apart: int) -> None:
    layers = {"a": nn.Conv2d(3, 4, 3, 2, 1), "c": nn.Conv2d(7, 4, 3)}
    b = nn.MaxPool2d(2 + pool_before, 2, pool_before)
    graph = spatial_graph(Net(joined, b=b, **layers), (32, 32), 3)
    found = theory(graph).disagreements
    assert len(found) == apart
    for d in found:
        assert (d.op, d.layer, d.branches) == ("aten.cat.default", "", ("a", "b"))
        assert [(f.phases[0], f.stride) for f in d.fields] == [((-1, 1), 2), ((0, 1), 2)]


def test_a_disagreement_counts_once_however_many_layers_read_it() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        x = torch.cat([net.a(x), net.b(x)], 1)
        return net.c(x) + net.d(x)

    layers = {"a": nn.Conv2d(3, 4, 3, 2, 1), "b": nn.MaxPool2d(2, 2)}
    more = {"c": nn.Conv2d(7, 4, 3, 1, 1), "d": nn.Conv2d(7, 4, 1)}
    graph = spatial_graph(Net(run, **layers, **more), (32, 32), 3)
    assert [(d.op, d.axis) for d in theory(graph).disagreements] == [
        ("aten.cat.default", "y"), ("aten.cat.default", "x"),
    ]  # fmt: skip


# -- agreement with the path counts ----------------------------------------------------------------

CNN = "resne|mobilenet|efficientnet|regnet|densenet|dla|hrnet|ghostnet_|convnext|repvgg|dpn|vgg"


def agreement(name: str, most: float) -> bool | None:
    """Whether regions are the boxes of all pixels with a path; None for what is not compared.

    Of the central unit and the next, on an input that cuts nothing off.
    """
    backbone = backbones.build(f"timm:{name}", meta=True)
    if sum(p.numel() for p in backbone.module.parameters()) > most:
        return None
    network = Network(backbone.module, backbone.input_size)
    graph = network.graph(backbone.input_size)
    if graph.witness(graph.layers.get(graph.target)).reach > Reach.CONTEXT:
        return None
    target = network.target(backbone.input_size)
    if None in target.geometry.field:  # an uneven resize
        return None
    target = network.uncut(target)
    y, x = target.center
    for unit in ((y, x), (y + 1, x)):
        box = support(target.counts(unit))
        ends = [region(f, u) for f, u in zip(target.geometry.uniform, unit, strict=True)]
        size = target.graph.size
        clipped = [(max(a, 0), min(b, n - 1)) for (a, b), n in zip(ends, size, strict=True)]
        if clipped != [(box["top"], box["bottom"]), (box["left"], box["right"])]:
            return False
    return True


def compared(names: list[str], number: int, seed: int, most: float) -> dict[str, bool]:
    """The verdicts on `number` seeded-random networks with up to `most` parameters."""
    found: dict[str, bool] = {}
    for name in random.Random(seed).sample(names, len(names)):
        verdict = agreement(name, most) if len(found) < number else None
        if verdict is not None:
            found[name] = verdict
    return found


def test_regions_are_the_supports_of_a_few_networks() -> None:
    found = compared([n for n in backbones.names("timm") if re.match(CNN, n)], 8, 0, 6e6)
    assert len(found) == 8 and all(found.values()), found


@pytest.mark.slow
def test_regions_are_the_supports_of_200_networks() -> None:
    found = compared(backbones.names("timm"), 200, 1, 60e6)
    assert len(found) == 200 and all(found.values()), found
