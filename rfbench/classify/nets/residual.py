"""ResNets for small images, built from timm's parts."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.errors import UsageError


def resnet14(classes: int = 10, output_stride: int = 16) -> nn.Module:
    """A bottleneck ResNet-14 of width 8 for (3, 48, 48) digit scenes: 0.13 M parameters.

    One block per stage, stride in the 3x3 as in torchvision's, total stride 16. No variant
    changes the stem, a 5x5. output_stride: 8 or 4 dilates the last stage, or the last two, in place
    of stride. Raises UsageError for another.
    """
    if output_stride not in (4, 8, 16):
        raise UsageError(f"resnet14 has an output_stride of 4, 8 or 16, not {output_stride}")
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
        output_stride=2 * output_stride,  # timm reckons with the pooling, which is left out
    )
    net.conv1 = nn.Conv2d(3, 16, 5, stride=2, padding=2, bias=False)
    net.maxpool = nn.Identity()
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    return net


def resnet14_depthwise(classes: int = 10) -> nn.Module:
    """`resnet14` with depthwise 3x3 convolutions (Ge & Wu, section 4.3): 0.08 M parameters.

    Everything else is the same, so that four convolutions stride in each of both: its 3x3s are
    depthwise, its 1x1s dense.
    """
    net: Any = resnet14(classes)
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        dense = stage[0].conv2
        width, stride = dense.out_channels, dense.stride
        conv = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        # by what a unit reads: timm's fan_out would count the other channels
        nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
        stage[0].conv2 = conv
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


def resnet18_dilated(classes: int = 10) -> nn.Module:
    """`resnet18_32px` with dilation in place of stride: no downsampling at all.

    A strided layer keeps the dilation of those before it, all behind it have twice that, so that
    the field stays what it was (as torchvision's replace_stride_with_dilation, which ResNet-18
    refuses, and timm's output_stride, which ends at 8). Parameters are those of `resnet18_32px`.
    """
    net = resnet18_32px(classes)
    without_strides(net)
    return net


def resnet17_blocks(classes: int = 10) -> nn.Module:
    """A ResNet of 17 bottlenecks for (3, 32, 32) images, total stride 4, and 73 px of theory.

    Luo et al. (2016, section 3.4) tell of 17 blocks on CIFAR-10 and 74 px, and no more; these are
    stages of 6, 6 and 5 blocks, 16, 32 and 64 channels wide inside, behind a 3x3 stem.
    """
    from timm.models.resnet import Bottleneck

    net = _blocks(Bottleneck, {16: (6, 1), 32: (6, 2), 64: (5, 2)})
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("fc", nn.Linear(64 * Bottleneck.expansion, classes))
    return net


class Enlarged(nn.Module):
    """A network whose scores (N, C, h, w) are enlarged bilinearly to its images' (H, W)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) to scores (N, C, H, W)."""
        return F.interpolate(self.net(x), x.shape[2:], mode="bilinear", align_corners=False)


def resnet16_blocks_dense(classes: int = 11) -> nn.Module:
    """A class for every pixel, from 16 blocks of two 3x3s with four strides of 2: 453 px of theory.

    Luo et al. (2016, section 3.4) tell of 16 blocks, four subsamplings and 505 px on CamVid, and
    no more; these are stages of 4 blocks, 16 to 128 channels wide, behind a 3x3 stem, and a 1x1
    convolution at stride 16.
    """
    from timm.models.resnet import BasicBlock

    net = _blocks(BasicBlock, {16: (4, 2), 32: (4, 2), 64: (4, 2), 128: (4, 2)})
    net.add_module("classifier", nn.Conv2d(128, classes, 1))
    return Enlarged(net)


def _blocks(block: Any, stages: dict[int, tuple[int, int]]) -> nn.Sequential:
    """timm's blocks behind a 3x3 stem of 16 channels. stages: {width: (blocks, stride)}."""
    from timm.models.resnet import downsample_conv

    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(3, 16, 3, padding=1, bias=False))
    net.add_module("bn1", nn.BatchNorm2d(16))
    net.add_module("act1", nn.ReLU())
    before = 16
    for number, (width, (count, stride)) in enumerate(stages.items(), 1):
        after, stage = width * block.expansion, nn.Sequential()
        for index in range(count):
            first = index == 0
            step = stride if first else 1
            shortcut = downsample_conv(before, after, 1, step) if first else None
            stage.append(block(before, width, step, shortcut))
            before = after
        net.add_module(f"layer{number}", stage)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def without_strides(net: nn.Module, dilation: int = 1) -> None:
    """Give the 3x3 and 1x1 convolutions of a ResNet dilations in place of strides.

    dilation: of the layers before.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.dilation = (dilation, dilation)
            module.padding = tuple(dilation * (k // 2) for k in module.kernel_size)
            if module.kernel_size == (3, 3):  # a shortcut's 1x1 comes behind it
                dilation *= module.stride[0]
            module.stride = (1, 1)
