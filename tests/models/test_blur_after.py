"""`blur_after`: where the pool goes, by the trace, and what is computed there."""

import copy
import logging
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

import rfbench
from rfbench.errors import RfbenchError
from rfbench.models import variants
from rfbench.models.pools import Blur

BLUR = "blur_after:1x1+3x3"


def blurred(x: Tensor) -> Tensor:
    return Blur(x.shape[1], 2)(x)


def pooled(model: nn.Module) -> dict[str, bool]:
    """The layers that have a pool, and whether it is behind them."""
    kinds = (variants.Pooled, variants.PooledAfter)
    return {
        name: isinstance(m, variants.PooledAfter)
        for name, m in model.named_modules()
        if isinstance(m, kinds)
    }


def randomised(model: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics of norms that are not those of the start."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def test_behind_the_activation_of_a_bottleneck_that_shares_its_relu() -> None:
    short = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
    block = randomised(Bottleneck(8, 4, 2, short))
    model = rfbench.fix(nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), copy.deepcopy(block)), BLUR)
    assert pooled(model) == {"1.conv3": False, "1.downsample.0": True}
    x = torch.randn(2, 8, 9, 12)
    # Zhang's ResNet: conv2 at stride 1, its norm and activation, then BlurPool and conv3
    middle = F.relu(block.bn1(block.conv1(x)))
    dense = F.conv2d(middle, block.conv2.weight, padding=1)
    main = block.bn3(block.conv3(blurred(F.relu(block.bn2(dense)))))
    side = block.downsample[1](blurred(F.conv2d(x, block.downsample[0].weight)))
    torch.testing.assert_close(model[1](x), F.relu(main + side))


def test_behind_a_layer_of_its_own() -> None:
    net = randomised(
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 1))
    )
    model = rfbench.fix(copy.deepcopy(net), BLUR)
    assert pooled(model) == {"2": True}
    x = torch.randn(2, 3, 11, 8)
    dense = F.conv2d(x, net[0].weight, net[0].bias, padding=1)
    torch.testing.assert_close(model(x), net[3](blurred(F.silu(net[1](dense)))))


class Readers(nn.Module):
    """An activation as a function that two read, behind which no pool can be placed."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, s, 1) for s in (2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.b(x) + self.c(x)


class Kept(nn.Module):
    """The convolution's own output is read too: no activation follows it directly."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act = nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return x + self.act(x)


class Twice(nn.Module):
    """A convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.act = nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.a(self.act(self.a(x)))


@pytest.mark.parametrize("net", [Readers(), Kept(), Twice(), nn.Conv2d(3, 3, 3, 2, 1)])
def test_else_behind_the_convolution(net: nn.Module) -> None:
    name = "" if isinstance(net, nn.Conv2d) else "a"
    x = torch.randn(1, 3, 16, 16)
    size = net(x).shape
    assert pooled(rfbench.fix(net, BLUR)) == {name: True}
    assert net(x).shape == size


def test_one_that_evaluation_skips() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.auxiliary = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU())
            self.main = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.main(x)

    assert pooled(rfbench.fix(Skips(), BLUR)) == {"auxiliary.0": True, "main.1": True}


@pytest.mark.parametrize(
    ("name", "behind"),
    [
        ("torchvision:mobilenet_v2", [f"features.{i}" for i in ("0.2", "2.conv.1.2")]),
        ("timm:resnet50d", ["conv1.2", "layer2.0.act2", "layer3.0.act2", "layer4.0.act2"]),
        ("timm:tf_efficientnet_b0", ["bn1.act", "blocks.1.0.bn2.act", "blocks.3.0.bn2.act"]),
        ("timm:tf_efficientnet_cc_b0_4e", ["bn1.act"]),
        ("timm:nf_resnet50", ["stages.1.0.act3", "stages.2.0.act3"]),
    ],
)
def test_networks(name: str, behind: list[str]) -> None:
    library, _, model = name.partition(":")
    make = {"timm": timm.create_model, "torchvision": torchvision.models.get_model}[library]
    net = make(model).to("meta").eval()
    keys, x = list(net.state_dict()), torch.empty(1, 3, 97, 128, device="meta")
    sizes = net(x).shape
    rfbench.fix(net, BLUR)
    assert set(behind) <= set(pooled(net))
    assert list(net.state_dict()) == keys and net(x).shape == sizes


def test_what_is_done_and_what_it_costs_is_said(caplog: pytest.LogCaptureFixture) -> None:
    class Mine(torchvision.models.ResNet):
        pass

    with caplog.at_level(logging.INFO), torch.device("meta"):
        model = rfbench.fix(Mine(BasicBlock, [1, 1, 1, 1]).eval(), BLUR)
    assert len(pooled(model)) == 6
    # conv1 has 9 x 64 weights for each of 128 x 28 x 28 numbers, its shortcut 64; and so on
    before = sum(
        c * 9 * n * n * 2 * c + c * n * n * 2 * c for c, n in ((64, 28), (128, 14), (256, 7))
    )
    (line,) = [r.message for r in caplog.records if "blurred" in r.message]
    assert line == (
        "Mine / blur_after:1x1+3x3: blurred behind the activation: 3 (layer2.0.conv1, "
        "layer3.0.conv1, layer4.0.conv1), behind the convolution: 3 (layer2.0.downsample.0, "
        f"layer3.0.downsample.0, layer4.0.downsample.0); 6 convolutions from {before / 1e9:.3g} to "
        f"{4 * before / 1e9:.3g} GMACs (x4.00)"
    )


def test_a_network_that_does_not_run_is_refused() -> None:
    model = nn.ModuleList([nn.Conv2d(3, 3, 3, 2, 1)])
    with pytest.raises(RfbenchError, match="to see where activations follow, and that failed"):
        rfbench.fix(model, BLUR)
    assert type(model[0]) is nn.Conv2d


def test_a_pickle_of_a_changed_activation() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(inplace=True))
    model, x = rfbench.fix(net, BLUR), torch.randn(1, 3, 8, 8)
    again = pickle.loads(pickle.dumps(model))
    assert repr(again) == repr(model) and torch.equal(again(x), model(x))
    assert "ReLU" in repr(model[1]) and isinstance(model[1], nn.ReLU)
