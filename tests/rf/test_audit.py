"""Audits: the figures, their causes and fixes, and the sizes; counterfactuals against variants."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rfbench import rf
from rfbench.config import load
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones, variants
from rfbench.rf.core import metrics
from rfbench.rf.core.network import Network
from rfbench.rf.core.subjects import Subject, subjects
from rfbench.rf.core.target import Target
from rfbench.rf.questions.audit.audit import audit
from rfbench.rf.questions.audit.by_size import by_size
from rfbench.rf.questions.audit.checkerboard import Transposed, read
from rfbench.rf.questions.audit.counterfactual import fixed, steps
from rfbench.rf.questions.audit.figure import audit_figure
from rfbench.rf.questions.audit.limits import parse
from rfbench.rf.questions.audit.table import text
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.axis import Index
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import Net


def settings(name: str, **more: object) -> tuple[RfConfig, Subject]:
    given = {"model": name, "variants": ["baseline"], **more}
    config = load(RfConfig, None, [f"{key}={value!r}" for key, value in given.items()])
    return config, next(subjects(config))


def own(module: nn.Module, size: int = 64) -> tuple[RfConfig, Subject]:
    """A subject of a module that no name leads to."""
    config, subject = settings("resnet18")
    subject.network = Network(module.eval(), (size, size))
    subject.backbone = backbones.Backbone("own", module, (size, size), "own", [])
    subject.size = (size, size)
    return config, subject


# -- the whole of it -------------------------------------------------------------------------------


def test_resnet50_is_lopsided_by_its_stages_and_grids_by_its_stem() -> None:
    found = audit(*settings("resnet50"))
    assert found["shift"] == pytest.approx([-15.5, -15.5])
    assert found["at_own_size"]["shift"][0] == pytest.approx(-13.12, abs=0.005)
    assert found["gridding"] == pytest.approx(0.2247, abs=5e-5)
    assert found["gridding_by_period"]["2"] == pytest.approx(0.2031, abs=5e-5)
    assert found["misaligned"] == 0 and found["coverage"] == {"reached": 1, "seen": 1}
    rest = {row["layer"]: row for row in found["steps"]}
    assert len(rest) == 8
    assert rest["conv1"]["gridding"] == pytest.approx(0.0674, abs=5e-5)
    assert rest["conv1"]["shift"] == pytest.approx([-15, -15])
    assert rest["maxpool"]["shift"] == pytest.approx([-14.5, -14.5])
    assert rest["layer4.0.conv2"]["misaligned"] == 1
    assert [(row["stride"], row["shift"][0]) for row in found["together"]] == [
        (8, -13.5), (16, -11.5), (32, -7.5),
    ]  # fmt: skip
    assert found["all"]["shift"] == [0, 0] and found["all"]["gridding"] < 1e-9


def test_resnet50_s_fixes_and_what_they_cost() -> None:
    found = audit(*settings("resnet50"))
    rows = {row["variant"]: row for row in found["fixes"]}
    shifts = [rows[name]["shift"][0] for name in variants.PAPER[1:]]
    assert shifts == pytest.approx([-11.19, -1.88, -1.5], abs=0.005)
    assert [rows[name]["misaligned"] for name in variants.PAPER[1:]] == [3, 3, 0]
    assert {row["macs"] for row in rows.values()} == {4_089_184_256}
    # pooled maps: 256 + 512 + 1024 channels before the shortcuts, 128 + 256 + 512 before the 3x3
    pooled = 256 * 28**2 + 512 * 14**2 + 1024 * 7**2, 128 * 28**2 + 256 * 14**2 + 512 * 7**2
    more = [rows[n]["activations"] - found["cost"]["activations"] for n in variants.PAPER[1:]]
    assert more == [pooled[0], pooled[1], sum(pooled)]


@pytest.mark.parametrize(
    ("name", "best", "shift", "gridding"),
    [
        ("resnet18", "1x1+3x3+7x7+maxpool", 0.0, 0.0),
        ("efficientnet_b0", "3x3+5x5", 0.0, 0.0),
        ("densenet121", "7x7+maxpool", 0.0, 0.0),
    ],
)
def test_all_kernels_that_a_network_has_are_a_fix(
    name: str, best: str, shift: float, gridding: float
) -> None:
    found = audit(*settings(name))
    assert found["best"] == best == found["fixes"][-1]["variant"]
    assert found["fixes"][-1]["shift"] == pytest.approx([shift] * 2, abs=1e-6)
    assert found["fixes"][-1]["gridding"] == pytest.approx(gridding, abs=5e-5)


def test_a_clean_network_has_nothing_to_fix() -> None:
    found = audit(*settings("vgg16"))
    assert found["shift"] == [0, 0] and found["gridding"] < 1e-9
    assert found["steps"] == found["together"] == [] and found["best"] is None
    assert all("replaces no convolution" in row["refused"] for row in found["fixes"])
    assert found["coverage"]["seen"] == pytest.approx((212 / 224) ** 2)


def test_misaligned_branches_are_named_and_traced() -> None:
    found = audit(*settings("timm:test_resnet"))
    assert found["misaligned_layers"] == ["layer2.0", "layer3.0", "layer4.0"]
    rest = {row["layer"]: row["misaligned"] for row in found["steps"]}
    names = ["layer2.0.conv1", "layer3.0.conv2", "layer4.0.conv1"]
    assert [rest[name] for name in names] == [2, 2, 2]
    assert found["best"] == "3x3+maxpool"


def test_behind_the_stem() -> None:
    found = audit(*settings("resnet18", **{"from": "maxpool"}))
    assert found["shift"] == pytest.approx([-3.5, -3.5])
    assert not any(row["layer"] in ("conv1", "maxpool") for row in found["steps"])
    assert found["all"]["shift"] == [0, 0]


def test_coverage_is_traced_to_the_layers_that_skip() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1, 2), nn.Conv2d(4, 4, 1, 2), nn.Conv2d(4, 4, 1))
    found = audit(*own(module))
    assert found["coverage"]["reached"] == 1 / 16
    assert [row["reached"] for row in found["steps"]] == [1 / 4, 1 / 4]
    valid = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2))
    assert audit(*own(valid))["coverage"]["reached"] == (63 / 64) ** 2


def test_kernels_that_cannot_change_are_left_out_of_the_fix() -> None:
    # 3x3 without padding, 2x2 and 3x5 would not keep their output size, or are not square
    unfit = [nn.Conv2d(3, 3, 3, 2), nn.Conv2d(3, 3, 2, 2), nn.Conv2d(3, 3, (3, 5), 2, (1, 2))]
    fit = [nn.Conv2d(3, 3, 5, 2, 2), nn.Conv2d(3, 3, 1, 2), nn.Conv2d(3, 3, 7, 1, 3)]
    config, subject = own(nn.Sequential(*unfit, *fit), 256)
    subject.backbone.variant = "baseline"
    rows = audit(config, subject)["fixes"]
    assert [row["variant"] for row in rows] == [*variants.PAPER[1:], "1x1+5x5"]
    assert ["refused" in row for row in rows] == [False, True, True, False]


@pytest.mark.parametrize(("name", "kinds"), [("resnet18", 4), ("own", 2)])
def test_the_legend_explains_bars_that_are_there(name: str, kinds: int) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 7, 2, 3))
    record = audit(*(own(module) if name == "own" else settings(name)))
    (legend,) = audit_figure(record).legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["as it is", "one layer fixed", "several layers fixed", "variant"][:kinds]


# -- fixes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "timm:tf_mobilenetv3_small_minimal_100"])
def test_fixing_a_layer_is_what_the_variant_does_to_it(name: str) -> None:
    """At even sizes, where the paper's change is centred."""
    size = (320, 320)
    plain = backbones.build(name, meta=True).module
    target = Target(spatial_graph(plain, size))
    known = {step.layer: step for step in steps(target)}
    changed = backbones.build(name, "3x3", meta=True).replaced
    assert changed
    for layer in changed:
        one = backbones.build(name, meta=True).module
        variants.fix(one, "3x3", layers=layer)
        real = Target(spatial_graph(one, size), target.name).counts()
        ours = fixed(target, [known[layer]]).counts()
        np.testing.assert_allclose(ours.counts, real.counts, rtol=1e-12)


def focus(net: Net, x: Tensor) -> Tensor:
    return net.a(x)[..., ::2, ::2]


SAMPLERS: dict[str, Callable[[], nn.Module]] = {
    "strided": lambda: nn.Conv2d(3, 4, 3, 2, 1),
    "one by one": lambda: nn.Conv2d(3, 4, 1, 2),
    "wide": lambda: nn.Conv2d(3, 4, 7, 2, 3),
    "stride 3": lambda: nn.Conv2d(3, 4, 5, 3, 2),
    "dilated": lambda: nn.Conv2d(3, 4, 3, 2, 2, 2),
    "even kernel": lambda: nn.Conv2d(3, 4, 2, 1),
    "padded by hand": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2)),
    "reflecting": lambda: nn.Sequential(nn.ReflectionPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2)),
    "same": lambda: timm.layers.create_conv2d(3, 4, 5, stride=2, padding="same"),
    "blurred": lambda: timm.layers.BlurPool2d(3),
    "maximum": lambda: nn.MaxPool2d(3, 2, 1),
    "mean": lambda: nn.AvgPool2d(3, 2, 1),
    "ceiled": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "sliced": lambda: Net(focus, a=nn.Conv2d(3, 4, 3, 1, 1)),
    "moved": lambda: nn.Sequential(nn.ZeroPad2d((1, -1, 1, -1)), nn.Conv2d(3, 4, 3, 1, 1)),
}


@pytest.mark.parametrize("side", [48, 49, 50, 51])
@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_nothing_remains_after_fixing_everything(make: Callable[[], nn.Module], side: int) -> None:
    class After(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = make()
            self.then = nn.LazyConv2d(4, 3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.then(self.first(x))

    module = After()
    module(torch.zeros(1, 3, side, side))
    target = Target(spatial_graph(module, (side, side)))
    clean = fixed(target, steps(target))
    assert metrics.shift(clean.counts(), clean.geometry) == pytest.approx((0, 0), abs=1e-9)
    grid = metrics.gridding_by_period(clean.counts(), clean.geometry)
    assert all(cv < 1e-9 for cv in grid.values())
    assert clean.units == target.units


@pytest.mark.parametrize(
    "module", [nn.MaxPool2d(2), nn.Conv2d(3, 4, 4, 4), nn.Conv2d(3, 4, 5, 1, 2)]
)
def test_even_and_centred_windows_are_left_alone(module: nn.Module) -> None:
    assert steps(Target(spatial_graph(nn.Sequential(module), (32, 32), 3))) == []


def test_a_map_that_others_read_too_keeps_its_padding() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1))
        return net.a(x) + net.b(x)

    net = Net(run, a=nn.Conv2d(3, 4, 3, 2), b=nn.Conv2d(3, 4, 3, 2))
    target = Target(spatial_graph(net, (32, 32)))
    clean = fixed(target, steps(target))
    assert clean.units == (16, 16)
    clean.counts()


# -- costs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_macs_are_torch_s_own(name: str) -> None:
    module = torchvision.models.get_model(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, 64, 64))
    assert Network(module).cost((64, 64)).macs == counter.get_total_flops() / 2


def test_costs_of_single_layers() -> None:
    found = Network(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.MaxPool2d(2))).cost((16, 16))
    assert (found.macs, found.activations) == (8 * 64 * 27, 8 * 64 + 8 * 16)
    up = Network(nn.ConvTranspose2d(4, 6, 2, 2), channels=4).cost((8, 8))
    assert (up.macs, up.activations) == (4 * 64 * 6 * 4, 6 * 256)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_mambaout", "test_byobnet"])
def test_timm_s_classifiers_count_too(name: str) -> None:
    """The trace ends at the features; the head's operations stand beside it."""
    module = timm.create_model(name).eval()
    size = module.default_cfg["input_size"][1:]
    # as matrix products: not every torch counts the fused attention of a CPU
    math = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), math:
        module(torch.zeros(1, 3, *size))
    network = Network(module, size)
    assert network.cost(size).macs == counter.get_total_flops() / 2
    trace = network.traces[size]
    assert len(trace.forward) > len(trace.ops)
    assert not any("head" in name for name in network.graph(size).layers)


def test_a_forward_pass_without_its_features_counts_once() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, 2, 1)

        def forward_features(self, x: Tensor) -> Tensor:
            return self.conv(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3))

    network = Network(Apart(), (16, 16))
    assert list(network.graph((16, 16)).layers) == ["conv"]
    assert network.cost((16, 16)).macs == 8 * 64 * 27


def test_features_may_be_a_submodule() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.forward_features = nn.Conv2d(3, 8, 3, 2, 1)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.forward_features(x).mean((2, 3)))

    network = Network(Inside(), (16, 16))
    assert list(network.graph((16, 16)).layers) == ["forward_features"]
    assert network.cost((16, 16)).macs == 8 * 64 * 27 + 8 * 5


def test_a_classifier_of_one_size_has_no_cost_at_another() -> None:
    network = Network(timm.create_model("vgg11", num_classes=0, global_pool=""), (224, 224))
    network.module.forward_head = lambda x: x.flatten(1) @ torch.zeros(7 * 7 * 512, 10)
    assert network.target((32, 32)).units == (1, 1)
    with pytest.raises(RfbenchError, match="classifier does not take an input of 32x32"):
        network.cost((32, 32))


# -- checkerboards ---------------------------------------------------------------------------------

DOWN = [nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, 2, 1)]
LARGE, SMALL = nn.ConvTranspose2d(1, 1, 5, 2, 2, 1), nn.ConvTranspose2d(1, 1, 3, 2, 1, 1)
EVEN = nn.ConvTranspose2d(1, 1, 6, 2, 2), nn.ConvTranspose2d(1, 1, 4, 2, 1)


def constant(*layers: nn.Module) -> float:
    """How uneven a constant image comes out of weights of ones, away from the border."""
    net = copy.deepcopy(nn.Sequential(*layers)).double()
    for name, p in net.named_parameters():
        nn.init.constant_(p, float(name.endswith("weight")))
    out = net(torch.ones(1, 1, 96, 96, dtype=torch.float64))[0, 0, 32:64, 32:64].detach().numpy()
    return float(out.std() / out.mean())


def test_what_would_mend_a_checkerboard() -> None:
    """Each transposed convolution with the next larger kernel that its stride divides."""
    found = audit(*own(nn.Sequential(*DOWN, LARGE, SMALL), 96))
    assert found["checkerboard"] == pytest.approx(constant(*DOWN, LARGE, SMALL), abs=1e-9)
    resized = {r["layer"]: r for r in found["steps"] if "nearest" in r["what"]}
    rows = {row["layer"]: row for row in found["steps"] if row not in resized.values()}
    assert rows["2"]["what"] == "transposed convolution 5x5 stride 2: kernel 6x6"
    assert rows["3"]["what"] == "transposed convolution 3x3 stride 2: kernel 4x4"
    for layer, mended in (("2", (EVEN[0], SMALL)), ("3", (LARGE, EVEN[1]))):
        assert rows[layer]["checkerboard"] == pytest.approx(constant(*DOWN, *mended), abs=1e-9)
    assert rows["0"]["checkerboard"] == found["checkerboard"]
    assert found["all"]["checkerboard"] == pytest.approx(constant(*DOWN, *EVEN), abs=1e-9) == 0
    assert resized["2"]["what"].endswith("stride 2: nearest and convolution 5x5")
    five, three = nn.Conv2d(1, 1, 5, 1, 2), nn.Conv2d(1, 1, 3, 1, 1)
    for layer, new in (
        ("2", [nn.Upsample(scale_factor=2), five, SMALL]),
        ("3", [LARGE, nn.Upsample(scale_factor=2), three]),
    ):
        assert resized[layer]["checkerboard"] == pytest.approx(constant(*DOWN, *new), abs=1e-9)
        alike = audit(*own(nn.Sequential(*DOWN, *new), 96))
        for key in ("shift", "gridding", "read"):
            assert resized[layer][key] == pytest.approx(alike[key], abs=1e-9)
    # its other figures are those of the network that has it
    mended = audit(*own(nn.Sequential(*DOWN, LARGE, EVEN[1]), 96))
    for key in ("shift", "gridding", "read"):
        assert rows["3"][key] == pytest.approx(mended[key], abs=1e-9)
    assert "checkerboard" in text(found).splitlines()[7]


def test_a_checkerboard_that_is_evened_out_later_needs_nothing() -> None:
    found = audit(*own(nn.Sequential(DOWN[0], SMALL, nn.Conv2d(1, 1, 2)), 64))
    assert found["checkerboard"] == pytest.approx(0, abs=1e-9)
    assert not [row for row in found["steps"] if "transposed" in row["what"]]
    assert not [line for line in text(found).splitlines() if "checkerboard" in line]


@pytest.mark.parametrize("seed", range(6))
def test_a_transposed_convolution_is_read_off_its_map(seed: int) -> None:
    draw = np.random.default_rng(seed)
    k, s, p, d = (int(draw.integers(*ends)) for ends in ((1, 6), (1, 4), (0, 3), (1, 3)))
    module = nn.ConvTranspose2d(1, 1, (k, 3), (s, 2), (p, 1), 0, dilation=(d, 1))
    graph = spatial_graph(nn.Sequential(module), (16, 16), 1)
    (node,) = [n for n in graph.nodes if n.kind == "conv"]
    axis = node.axes[0]
    if k == s == 1:  # no map of its own
        return
    assert isinstance(axis, Index)
    assert read(axis.at, 16) == Transposed(k, s, p, d if k > 1 else 1)


# -- sizes -----------------------------------------------------------------------------------------


def test_shift_by_size_is_what_each_size_measures() -> None:
    _, subject = settings("resnet18")
    sizes = [(n, n) for n in range(208, 242)] + [(224, 225), (193, 224)]
    found = by_size(subject.network, subject.target(None, None), None, sizes)
    assert found["symmetric"] == (225, 225)
    rows = {row["size"]: row["shift"] for row in found["rows"]}
    assert rows[224, 224] == pytest.approx((-15.5, -15.5)) and rows[225, 225] == [0, 0]
    assert rows[224, 225] == pytest.approx((-15.5, 0))
    for size in [(209, 209), (230, 230), (241, 241), (193, 224)]:
        target = subject.target(None, None, (size[0] + 640, size[1] + 640))
        assert not target.is_cut
        measured = metrics.shift(target.counts(), target.geometry)
        assert rows[size] == pytest.approx(measured, abs=1e-9)


class Padding(nn.Module):
    """Pads to a multiple of 8, at the right and at the bottom, if the height is no multiple."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 8:
            x = F.pad(x, (0, -x.shape[3] % 8, 0, -x.shape[2] % 8))
        return self.b(self.a(x))


def two_ways(n: Net, x: Tensor) -> Tensor:
    """Halves in two ways that agree at even sizes only."""
    return n.b(n.a(x) + F.max_pool2d(x, 2))


@dataclass
class Sized:
    """A network for sizes around 48 px: the strides of its map, and how many units take turns.

    head: modules behind the map. more: px that make the field whole, of a network that knows none.
    """

    make: Callable[[], nn.Module]
    strides: tuple[int, int]
    turns: int = 1
    head: int = 0
    more: int = 0


SIZED = {
    "same": Sized(
        lambda: nn.Sequential(
            timm.layers.create_conv2d(3, 4, 3, stride=2, padding="same"),
            timm.layers.create_conv2d(4, 4, 5, stride=3, padding="same"),
        ),
        (6, 6),
    ),
    "padding": Sized(Padding, (4, 4)),
    "meeting": Sized(
        lambda: Net(two_ways, a=nn.Conv2d(3, 3, 3, 2, 1), b=nn.Conv2d(3, 4, 3, 2, 1)), (4, 4)
    ),
    "head": Sized(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.AvgPool2d(4, 4), nn.Flatten(), nn.Linear(144, 5)
        ),
        (8, 8),
        head=2,
    ),
    "strides": Sized(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, (2, 1), 1), nn.Conv2d(4, 4, (3, 5), (2, 3), (1, 0))
        ),
        (4, 3),
    ),
    "resizing": Sized(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, 1, 1)
        ),
        (1, 1),
        turns=2,
    ),
    "deep": Sized(
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 3, 5, padding=2, padding_mode="reflect") for _ in range(15)),
            nn.Conv2d(3, 3, 3, 2),
        ),
        (2, 2),
        more=64,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZED)
def test_every_size_is_judged_as_the_network_is_at_it(name: str) -> None:
    """Against the module itself, run at each size: what it refuses, and where its units look."""
    case = SIZED[name]
    module = case.make()
    _, subject = own(module, 48)
    sizes = [*itertools.product(range(46, 52), (48, 51))]
    found = by_size(subject.network, subject.target(None, None), None, sizes)
    for size, row in zip(sizes, found["rows"], strict=True):
        assert row["size"] == size
        try:
            module(torch.zeros(1, 3, *size))
        except RuntimeError:
            assert row["shift"] is None and "the network refuses it" in row["refused"], row
        else:
            assert row["shift"] == pytest.approx(shift_by_gradients(case, size), abs=1e-9), row
    clean = [row["size"] for row in found["rows"] if row["shift"] and not any(row["shift"])]
    assert found["symmetric"] in (clean or [None])


def shift_by_gradients(case: Sized, size: tuple[int, int]) -> list[float]:
    """The shift of the central unit, or the mean over those that take turns: equal weights."""
    net: nn.Module = case.make().double()
    for p in net.parameters():
        nn.init.constant_(p, 1 / (p.shape[1] if p.dim() > 1 else 1))
    if case.head:
        net = net[: -case.head]  # type: ignore[index]
    x = torch.zeros(1, 3, *(n + case.more for n in size), dtype=torch.float64, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "max_pool2d", lambda x, k: F.avg_pool2d(x, k, divisor_override=1))
        y = net(x)
    out = []
    for axis, stride in enumerate(case.strides):
        units, side, offsets = y.shape[2 + axis], x.shape[2 + axis], []
        for turn in range(case.turns):
            at = [(n - 1) // 2 for n in y.shape[2:]]
            at[axis] += turn
            g = torch.autograd.grad(y[0, :, at[0], at[1]].sum(), x, retain_graph=True)[0]
            seen = g.sum((0, 1, 3 - axis))
            middle = float(seen @ torch.arange(side, dtype=seen.dtype) / seen.sum())
            offsets.append(middle - (at[axis] - (units - 1) / 2) * stride - (side - 1) / 2)
        out.append(sum(offsets) / len(offsets))
    return out


def test_a_size_is_not_judged_where_another_network_would_be() -> None:
    """One that halves the more often the larger its input is: a cut field is not continued."""

    class Halving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Conv2d(3, 3, 9, padding=4) for _ in range(8))
            self.down = nn.Conv2d(3, 3, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            for _ in range(max(x.shape) // 40):
                x = self.down(x)
            return x

    _, subject = own(Halving(), 48)
    target = subject.target("blocks.0", None)
    found = by_size(subject.network, target, "blocks.0", [(48, 48)])
    assert found["symmetric"] == (48, 48)
    found = by_size(subject.network, subject.target(None, None), None, [(48, 48), (88, 88)])
    rows = found["rows"]
    assert rows[0]["shift"] == [-0.5, -0.5]  # once down, in windows that have no end
    assert rows[1]["shift"] == [-1.5, -1.5]  # twice


# -- conditions ------------------------------------------------------------------------------------


def test_conditions() -> None:
    record = {
        "shift": [-3.5, 1.0], "gridding": 0.2, "misaligned": 2,
        "coverage": {"reached": 0.25, "seen": 1.0},
    }  # fmt: skip
    broken = [limit.broken(record) for limit in parse("shift>1, gridding >= 0.2,misaligned>2")]
    assert broken == ["shift 3.5 > 1", "gridding 0.2 >= 0.2", ""]
    assert [limit.broken(record) for limit in parse("reached<1,seen<=0.5")] == [
        "reached 0.25 < 1", "",
    ]  # fmt: skip
    assert parse(None) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shift", "expected e.g. shift>1"),
        ("shift=1", "expected e.g. shift>1"),
        ("shift>", "expected e.g. shift>1"),
        ("shift>one", "expected e.g. shift>1"),
        ("shift>nan", "expected e.g. shift>1"),
        ("", "expected e.g. shift>1"),
        ("shift>1,", "expected e.g. shift>1"),
        ("shitf>1", "nothing called 'shitf'. Did you mean: shift?"),
        ("zzz>1", "There are: shift, gridding, read, misaligned, checkerboard, reached, seen."),
    ],
)
def test_bad_conditions(text: str, message: str) -> None:
    with pytest.raises(UsageError, match="--fail-on") as raised:
        parse(text)
    assert message in str(raised.value)


# --- sequences and volumes ----------------------------------------------------------------------


def two(conv: Any, strides: list[Any]) -> nn.Module:
    return nn.Sequential(conv(1, 2, 3, strides[0], 1), nn.ReLU(), conv(2, 2, 3, strides[1], 1))


def test_a_sequence() -> None:
    """A kernel of 3 at stride 2 looks half a step of its input ahead: 0.5 * 1 + 0.5 * 2."""
    found = rf.audit(two(nn.Conv1d, [2, 2]), size=(256,))
    assert found["shift"] == [-1.5] and not found["causal"]
    assert [row["shift"] for row in found["steps"]] == [[-1.0], [-0.5]]
    assert found["best"] == "3x3" and found["all"]["shift"] == [0]
    lines = text(found).splitlines()
    assert "at 256 samples, 1 channel" in lines[0] and "-1.50 samples" in lines[1]


def test_a_volume() -> None:
    found = rf.audit(two(nn.Conv3d, [2, (1, 2, 2)]), size=(16, 32, 32))
    assert found["shift"] == [-0.5, -1.5, -1.5] and found["best"] == "3x3"
    assert found["coverage"]["seen"] == pytest.approx(7**3 / (16 * 32 * 32))
    assert "shift depth, y, x" in text(found)


class Causal(nn.Module):
    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 2, 3), nn.Conv1d(2, 2, 3, stride, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.pad(self.a(F.pad(x, (2, 0))), (4, 0)))


class Sampled(nn.Module):
    """Padded on both sides and cut off behind, as temporal networks do it; then sampled."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 2, 5, padding=4), nn.Conv1d(2, 2, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)[..., :-4])


@pytest.mark.parametrize("net", [Causal(1), Causal(2), Sampled()])
def test_the_shift_of_a_causal_network_is_meant(net: nn.Module) -> None:
    found = rf.audit(net, size=(64,))
    assert found["causal"] and found["shift"][0] < -2
    assert found["steps"] == found["together"] == [] and found["best"] is None
    refused = [row["refused"] for row in found["fixes"]]
    ahead = any("'1x1' would make this causal network read ahead" in why for why in refused)
    assert ahead == isinstance(net, Sampled)
    assert "(meant: it is causal" in text(found)


class Joined(nn.Module):
    """Causal branches of two lengths; of `late` one reads `late` samples fewer of the latest."""

    def __init__(self, late: int = 0) -> None:
        super().__init__()
        self.a, self.b, self.late = nn.Conv1d(1, 2, 3), nn.Conv1d(1, 2, 1), late

    def forward(self, x: Tensor) -> Tensor:
        short = F.pad(x, (self.late, 0))[..., : x.shape[2]]
        return self.a(F.pad(x, (2, 0))) + self.b(short)


def test_branches_of_a_causal_network_that_end_at_one_sample_are_meant() -> None:
    found = rf.audit(Joined(), size=(64,))
    assert found["causal"] and found["misaligned"] == 1 and found["misaligned_meant"]
    assert "nothing to fix" in str(found) and "; meant: they end at one sample)" in str(found)
    drawn = str(rf.visualize(Joined(), ["baseline"], size=(64,)))
    assert "is causal (nothing ahead is read): its shift is meant, and so are its branc" in drawn
    told = rf.audit(Joined(1), size=(64,))
    assert told["causal"] and told["misaligned"] == 0  # both have their centre at u - 1
    other = rf.audit(Joined(2), size=(64,))
    assert other["misaligned"] == 1 and not other["misaligned_meant"]
    assert "nothing to fix" not in str(other)
    assert str(rf.visualize(Joined(2), ["baseline"], size=(64,))).endswith("its shift is meant")


def test_a_mere_stride_is_not_causal() -> None:
    """Three strides of 2 without a kernel read nothing ahead of their place either."""
    net = nn.Sequential(*(nn.Conv1d(1, 1, 1, 2) for _ in range(3)))
    found = rf.audit(net, size=(64,))
    assert found["shift"] == [-3.5] and not found["causal"]
    assert found["best"] == "1x1"


def test_sizes_of_sequences_and_volumes() -> None:
    """A unit of one 3-wide convolution of stride 2 looks at 2 u; its grid's place is by hand."""
    line, body = nn.Conv1d(1, 2, 3, 2, 1), nn.Conv3d(1, 2, 3, (1, 2, 2), 1)
    found = rf.audit(nn.Sequential(line), size=(64,), sizes=range(61, 65))
    assert [row["size"] for row in found["sizes"]["rows"]] == [(n,) for n in range(61, 65)]
    assert [row["shift"] for row in found["sizes"]["rows"]] == [[0], [-0.5], [0], [-0.5]]
    assert found["sizes"]["symmetric"] == (63,)
    assert "free of shift as it is: 63 samples, the closest size from 61 to 64 samples" in str(
        found
    )
    figure = found.plot()
    assert "side of the input, samples (dotted: the size given)" in [
        axes.get_xlabel() for axes in figure.axes
    ]
    found = rf.audit(nn.Sequential(body), size=(8, 16, 16), sizes=[(8, 16, 17), (8, 17, 17)])
    assert [r["shift"] for r in found["sizes"]["rows"]] == [[0, -0.5, 0], [0, 0, 0]]
    assert "8x17x17 voxels" in str(found)
    names = [text.get_text() for axes in found.plot().axes if (legend := axes.get_legend())
             for text in legend.get_texts()]  # fmt: skip
    assert names == ["along z", "along y", "along x", "8x17x17 voxels: symmetric"]
    with pytest.raises(UsageError, match="sizes such as 9x9 have 2 axes, the input has 1"):
        rf.audit(nn.Sequential(line), size=(64,), sizes=[(9, 9)])


@pytest.mark.parametrize("variant", ["baseline", "3x3"])
def test_the_figure_of_a_network_without_faults_says_what_was_checked(variant: str) -> None:
    """No bars of nothing: a line in their place, and in the table too, whatever the variant."""
    strided = variant == "3x3"
    found = rf.audit(nn.Conv2d(3, 8, 3, 1 + strided, 1), size=64, variant=variant)
    assert str(found).endswith(
        "nothing to fix: centred, without grid or holes, all branches aligned"
    )
    figure = audit_figure(found)
    assert not figure.axes and not figure.legends
    told = " ".join(text.get_text() for text in figure.texts)
    assert "Nothing to fix: centred, without grid or holes, all branches aligned (shift" in told
    assert "px; gridding 0.0000; read 100.0%; misaligned 0)." in told and "Fixed" not in told
