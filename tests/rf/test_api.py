"""The functions for notebooks: the examples of docs/python.md, and what they leave as it was."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rfbench
from rfbench import rf
from rfbench.errors import RfbenchError, UsageError

ROOT = Path(__file__).parents[2]
CALLS = {  # the functions that take a network, with what else each needs
    "fix": rfbench.fix,
    "effective": lambda model: rf.effective(model, torch.zeros(1, 3, 64, 64)),
    **{name: getattr(rf, name) for name in ("audit", "mirror", "path_counts", "record", "theory")},
    **{name: getattr(rf, name) for name in ("tiles", "visualize")},
}


def test_a_module_stays_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU()).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    rf.effective(net, torch.randn(2, 3, 16, 16))
    rf.record(net, 16, "3x3")
    rf.audit(net, 16)
    assert net.training and all(p.requires_grad for p in net.parameters())
    assert type(net[0]) is nn.Conv2d
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_an_effective_field_stands_beside_the_theoretical_one() -> None:
    import timm
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.resnet18()
    found, figures = rf.effective(net, torch.randn(1, 3, 96, 96), "layer2")
    theory = rf.theory(rf.record(net, 96), "layer2")
    assert figures["theoretical"] == [theory["y"]["size"], theory["x"]["size"]] == [99, 99]
    assert found.layer == "layer2" and 0 < figures["ratio"] < 1
    vit = timm.create_model("vit_tiny_patch16_224", depth=1)
    _, figures = rf.effective(vit, torch.randn(1, 3, 224, 224), "patch_embed.proj")
    assert figures["theoretical"] == [16, 16]


def test_names_and_modules_say_the_same() -> None:
    import torchvision

    by_name, _ = rf.path_counts(rf.record("resnet18", 224, "1x1+3x3"), "layer3")
    fixed = rfbench.fix(torchvision.models.resnet18(), "1x1+3x3")
    by_module, _ = rf.path_counts(rf.record(fixed, 224), "layer3")
    np.testing.assert_array_equal(by_name, by_module)


def test_a_graph_is_shown_in_one_line() -> None:
    assert repr(rf.record("resnet18")) == "SpatialGraph of 224x224 px: 70 nodes, to layer4"


class UNet(nn.Module):
    """Half the resolution and back: its units take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.a(x)
        return skip + F.interpolate(self.b(skip), scale_factor=2.0, mode="bilinear")


class Rolled(nn.Module):
    """Its units have no stride in common: those at the border read the other side."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).roll(3, -1)


def test_a_decoder_has_all_figures() -> None:
    counts, figures = rf.path_counts(rf.record(UNet(), 32), unit=(16, 16))
    y, x = (round(v) for v in figures["centroid"])
    assert counts.shape == (32, 32) and counts[y, x] > 0 and (counts > 0).sum() > 9
    assert None not in figures.values() and figures["phases"] == (2, 2)


def test_a_map_without_a_stride_has_counts_all_the_same() -> None:
    counts, figures = rf.path_counts(rf.record(Rolled(), 32), unit=(16, 16))
    assert (counts > 0).sum() == 9 and counts[16, 13] > 0
    assert figures["shift"] == (0, None) and figures["stride"] == [1, None]
    assert figures["registration"] == (0, None) and figures["padding"] == [1, None]
    assert figures["size"] == [3, 3] and figures["center"] == [16, 13] and not figures["cut"]
    assert "no effective stride" in figures["why_none"]
    assert figures["support"]["left"] == 12 and figures["support"]["right"] == 14
    _, whole = rf.path_counts(rf.record("resnet18", 64))
    ranges = {"shift_range", "registration_range"}  # of units that take turns
    assert "why_none" not in whole
    assert {name for name, value in whole.items() if value is None} == ranges


def test_the_functions_are_listed() -> None:
    names = {*CALLS, "register_op", "styled"} - {"fix"}
    # also before any of them is imported
    code = "import sys, rfbench.rf as r; assert 'rfbench.rf.api' not in sys.modules; print(*dir(r))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert names == set(shown.stdout.split())


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UsageError, match="unknown model 'resnet81'"):
        rf.record("resnet81")
    for size in (0, "224", (), (1, 2, 3, 4), 224.0, (224, "224")):
        with pytest.raises(UsageError, match="at least one pixel"):
            rf.record("resnet18", size)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="without a batch.+ Give N x C x H x W: 2 numbers"):
        rf.record("resnet18", (224,))
    with pytest.raises(RfbenchError, match="path counts need a convolutional network"):
        rf.audit("timm:vit_tiny_patch16_224")
    with pytest.raises(AttributeError, match="no attribute 'audits'"):
        rf.audits  # noqa: B018


def test_a_network_is_recorded_where_a_graph_is_wanted() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    net.pretrained_cfg = {"input_size": (3, 40, 40)}
    graph = rf.record(net)
    assert rf.theory(net) == rf.theory(graph)
    ours, wanted = rf.path_counts(net, unit=(3, 4)), rf.path_counts(graph, unit=(3, 4))
    assert ours.figures == wanted.figures and (ours.map == wanted.map).all()
    assert rf.theory("resnet18")["y"]["size"] == 435


@pytest.mark.parametrize("function", [*CALLS], ids=str)
def test_what_is_no_network_is_refused(function: str) -> None:
    """A network's class or function, given without a call, is the mistake that people make."""
    import torchvision

    for model, told in (
        (torchvision.models.resnet18, "this is resnet18, which is to be called first"),
        (nn.Linear, "this is Linear, which is to be called first: Linear(...)"),
        (None, "this is None"),
    ):
        with pytest.raises(UsageError, match=re.escape(told)):
            CALLS[function](model)
