"""One trace serves every unit, layer and, where nothing depends on it, every input size."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rfbench.errors import UsageError
from rfbench.models import backbones
from rfbench.rf.core import network
from rfbench.rf.core.network import Network
from rfbench.rf.core.target import Target
from rfbench.spatial_graph import inputs
from rfbench.spatial_graph.operations import Trace
from rfbench.spatial_graph.reader import spatial_graph
from rfbench.spatial_graph.trace import trace_module


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The sizes that were traced; not the tries of channels that do not fit."""
    sizes: list[tuple[int, int]] = []

    def counted(module: nn.Module, size: tuple[int, int], *more: Any) -> Trace:
        made = trace_module(module, size, *more)
        sizes.append(size)
        return made

    for place in (network, inputs):
        monkeypatch.setattr(place, "trace_module", counted)
    return sizes


def test_units_layers_and_sizes_share_a_trace(traces: list) -> None:
    net = Network(backbones.build("efficientnet_b0", meta=True).module)
    Target(net.graph((224, 224))).counts((1, 2))
    Target(net.graph((224, 224)), "features.3").counts((1, 2))
    for size in ((224, 200), (351, 97), (960, 960)):
        ours = net.graph(size)
        fresh = spatial_graph(net.module, size)
        assert ours.maps()[ours.target] == fresh.maps()[fresh.target]
        np.testing.assert_array_equal(Target(ours).counts().counts, Target(fresh).counts().counts)
    assert traces == [(224, 224)]


def test_sizes_that_matter_are_traced_again(traces: list) -> None:
    net = Network(backbones.build("timm:tf_efficientnet_b0", meta=True).module)
    even, odd = (Target(net.graph((n, n))).counts((2, 2)) for n in (224, 225))
    assert traces == [(224, 224), (225, 225)]
    assert even.counts.shape != odd.counts.shape


def test_the_last_map_is_the_same_at_every_size(traces: list) -> None:
    net = Network(backbones.build("resnet18", meta=True).module)
    small = net.graph((32, 32))
    assert (small.target, small.map_size(small.layer("layer4"))) == ("layer4", (1, 1))


def test_a_size_too_small_is_refused_whether_traced_or_resized() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 7), nn.Conv2d(1, 1, 3, 2, 1))
    for net in (Network(module, (64, 64)), Network(module, (5, 5))):
        with pytest.raises(UsageError, match="5x5"):
            net.graph((5, 5))


def test_the_module_stays_as_it_was() -> None:
    module = backbones.build("resnet18").module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    Network(module).graph((64, 64))
    assert module.training and not any(m._forward_hooks for m in module.modules())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
