"""Networks whose own `train` or `eval` returns nothing, as of many that freeze their norms."""

import pytest
import torch
from torch import Tensor, nn

import rfbench
from rfbench import rf
from rfbench.copies import evaluating
from rfbench.errors import UsageError
from rfbench.models.meta import meta_copy
from rfbench.rf.autograd.path_counts import path_counts
from rfbench.rf.core.doubles import randomised
from rfbench.spatial_graph.skeleton import skeleton, without_weights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Frozen(Net):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.norm.eval()


class Silent(Net):
    def eval(self) -> None:  # type: ignore[override]
        super().eval()


@pytest.mark.parametrize("kind", [Frozen, Silent])
def test_its_mode_is_set_all_the_same(kind: type[Net]) -> None:
    net = kind()
    for made in (evaluating(net), meta_copy(net), randomised(net), without_weights(net)):
        assert isinstance(made, kind) and not made.training
    assert isinstance(skeleton(net)[0], kind)
    assert path_counts(net, (16, 16), to="conv", unit=(3, 3)).sum() == 9
    assert rf.audit(net, size=32)["shift"] == [-0.5, -0.5]
    assert rf.effective(net, torch.randn(1, 3, 32, 32))[1]
    fixed = rfbench.fix(kind(), "3x3")
    assert rf.audit(fixed, size=32)["shift"] == [0, 0]


def test_nothing_is_told_from_a_network() -> None:
    with pytest.raises(UsageError, match=r"this is None. Its own train\(\) or eval\(\) may return"):
        rf.theory(Frozen().eval())  # type: ignore[func-returns-value]
