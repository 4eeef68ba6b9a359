"""Small networks for small images, built from timm's parts; named like any user's function."""

from typing import Any

from torch import nn


def resnet14(classes: int = 10) -> nn.Module:
    """A bottleneck ResNet-14 of width 8 for (3, 48, 48) digit scenes: 0.13 M parameters.

    One block per stage, stride in the 3x3 as in torchvision's, total stride 16. No variant
    changes the stem, a 5x5.
    """
    from timm.models.resnet import Bottleneck, ResNet

    block: Any = Bottleneck  # timm's annotation asks for an instance
    net: Any = ResNet(
        block,
        layers=(1, 1, 1, 1),
        channels=(8, 16, 32, 64),
        stem_type="deep",  # only for its width: the stem itself is the next line
        stem_width=8,
        num_classes=classes,
        zero_init_last=False,
    )
    net.conv1 = nn.Conv2d(3, 16, 5, stride=2, padding=2, bias=False)
    net.maxpool = nn.Identity()
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    return net


def resnet18_32px(classes: int = 10) -> nn.Module:
    """ResNet-18 for (3, 32, 32) images: a 3x3 stem of stride 1, no pooling; total stride 8."""
    from timm.models.resnet import BasicBlock, ResNet

    block: Any = BasicBlock
    net: Any = ResNet(block, layers=(2, 2, 2, 2), num_classes=classes, zero_init_last=False)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    return net
