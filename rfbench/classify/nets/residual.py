"""ResNets for small images, built from timm's parts."""

from typing import Any

from torch import nn

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
