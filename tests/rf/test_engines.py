"""The graph engine against the paper's own procedure, on real networks of many families."""

import numpy as np
import pytest

from rfbench.models import backbones
from rfbench.rf.autograd import path_counts as autograd
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.target import Target

MODELS = [
    "alexnet", "vgg11", "resnet18", "resnet50", "densenet121", "googlenet", "inception_v3",
    "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5", "squeezenet1_1",
    "mnasnet0_5", "regnet_y_400mf", "convnext_tiny", "timm:resnetv2_50", "timm:resnetblur18",
    "timm:seresnet33ts", "timm:skresnet18", "timm:tf_efficientnet_b0", "timm:ghostnet_100",
    "timm:dla34", "timm:res2net50_26w_4s", "timm:repvgg_a0", "timm:nf_resnet26", "timm:hgnetv2_b0",
    "timm:convnextv2_atto", "timm:poolformer_s12", "timm:dpn68", "timm:cspresnet50",
]  # fmt: skip
CONVENTIONS = [
    Convention(),
    Convention(pool="mean"),
    Convention(channels="real", pool="mean"),
    Convention(gates="count"),
]
SIZE = (128, 96)


@pytest.mark.parametrize("name", MODELS)
def test_engines_agree(name: str) -> None:
    module = backbones.build(name, meta=True).module
    graph = Network(module).graph(SIZE)
    for convention in CONVENTIONS:
        if name == "timm:skresnet18" and convention.gates == "count":
            continue  # softmax: one path an entry in N', the paths of all entries in the graph
        found = Target(graph).counts(convention=convention)
        counts = autograd.path_counts(
            module,
            SIZE,
            to=graph.target,
            unit=found.unit,
            channels=convention.channels,
            pool=convention.pool,
            gates=convention.gates,
        )
        assert ((counts > 0) == (found.counts > 0)).all(), convention
        # the graph scales counts beyond float64 by a power of two
        ours = found.counts * 2.0 ** min(found.exponent, 0)
        theirs = counts * 2.0 ** -max(found.exponent, 0)
        assert np.abs(ours - theirs).max() <= 1e-12 * theirs.max(), convention


@pytest.mark.parametrize("variant", ["1x1", "3x3", "1x1+3x3", "blur:1x1+3x3", "alt:1x1+3x3"])
@pytest.mark.parametrize("source", [None, "maxpool"])
def test_engines_agree_on_variants(variant: str, source: str | None) -> None:
    module = backbones.build("resnet18", variant).module
    graph = Network(module).graph(SIZE)
    found = Target(graph, source=source).counts((1, 1))
    counts = autograd.path_counts(module, SIZE, to=graph.target, source=source, unit=(1, 1))
    assert ((counts > 0) == (found.counts > 0)).all()
    np.testing.assert_allclose(found.counts, counts, rtol=1e-12)
