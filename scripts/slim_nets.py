"""Networks of TF-slim that neither torchvision nor timm has, as anyone's own: FILE.py:function.

    rfbench rf theory scripts/slim_nets.py:resnet_v1_50 --size 224

Kernels, strides and TensorFlow's padding as there, four channels everywhere: the receptive fields
of Araujo et al. (Distill 2019), not the capacity. Left out are norms and activations, which move
nothing, and the classifiers. What SAME pads depends on the input's size; published is 224 px.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 4


class Same(nn.Module):
    """A convolution or pooling with TensorFlow's SAME padding: the odd pixel below and right."""

    def __init__(self, step: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = (
            v if isinstance(v, int) else v[0] for v in (self.step.kernel_size, self.step.stride)
        )
        need = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
        return self.step(F.pad(x, [a for n in reversed(need) for a in (n // 2, n - n // 2)]))


def conv(kernel: int, stride: int = 1, before: int = 3) -> nn.Module:
    """A SAME convolution."""
    return Same(nn.Conv2d(before, WIDTH, kernel, stride))


def pool(kernel: int, stride: int) -> nn.Module:
    """A SAME max-pooling."""
    return Same(nn.MaxPool2d(kernel, stride))


def chain(*kernels: int, stride: int = 1, before: int = WIDTH) -> nn.Sequential:
    """SAME convolutions, the last with the stride."""
    strides = [1] * (len(kernels) - 1) + [stride]
    befores = [before] + [WIDTH] * (len(kernels) - 1)
    return nn.Sequential(*map(conv, kernels, strides, befores))


def alexnet_v2() -> nn.Module:
    """alexnet_v2 up to pool5: VALID where it reduces, SAME elsewhere."""
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 11, 4),
        nn.MaxPool2d(3, 2),
        conv(5, 1, WIDTH),
        nn.MaxPool2d(3, 2),
        chain(3, 3, 3),
        nn.MaxPool2d(3, 2),
    )


def mobilenet_v1() -> nn.Module:
    """mobilenet_v1 up to Conv2d_13: a convolution, then depthwise and 1x1 in turn."""
    layers = [conv(3, 2)]
    for stride in (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1):
        depthwise = nn.Conv2d(WIDTH, WIDTH, 3, stride, groups=WIDTH)
        layers += [Same(depthwise), nn.Conv2d(WIDTH, WIDTH, 1)]
    return nn.Sequential(*layers)


class Bottleneck(nn.Module):
    """A unit of resnet_v1: 1x1, 3x3 with the stride, 1x1, and a shortcut that skips pixels."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.shortcut = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, stride, 1)  # pads alike at either end
        self.conv3 = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.conv3(self.conv2(self.conv1(x)))


def _resnet_v1(*blocks: int) -> nn.Module:
    """resnet_v1: the stride in the last unit of every block but the last."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 7, 2, 3), pool(3, 2)]
    for block, units in enumerate(blocks, 1):
        last = 2 if block < len(blocks) else 1
        layers += [Bottleneck(1 if unit < units else last) for unit in range(1, units + 1)]
    return nn.Sequential(*layers)


def resnet_v1_50() -> nn.Module:
    """resnet_v1_50."""
    return _resnet_v1(3, 4, 6, 3)


def resnet_v1_101() -> nn.Module:
    """resnet_v1_101."""
    return _resnet_v1(3, 4, 23, 3)


def resnet_v1_152() -> nn.Module:
    """resnet_v1_152."""
    return _resnet_v1(3, 8, 36, 3)


def resnet_v1_200() -> nn.Module:
    """resnet_v1_200."""
    return _resnet_v1(3, 24, 36, 3)


class Mixed(nn.Module):
    """Branches side by side, their channels joined; a 1x1 convolution makes them few again."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.few = nn.Conv2d(len(branches) * WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.few(torch.cat([branch(x) for branch in self.branches], 1))


def _mixed(stride: int = 1) -> Mixed:
    """A block of inception_v2; with a stride it has no 1x1 branch."""
    if stride > 1:
        return Mixed(chain(1, 3, stride=2), chain(1, 3, 3, stride=2), pool(3, 2))
    pooled = nn.Sequential(Same(nn.AvgPool2d(3, 1)), nn.Conv2d(WIDTH, WIDTH, 1))
    return Mixed(chain(1), chain(1, 3), chain(1, 3, 3), pooled)


def inception_v2() -> nn.Module:
    """inception_v2 up to Mixed_5c."""
    stem = [conv(7, 2), pool(3, 2), chain(1, 3), pool(3, 2)]
    blocks = [_mixed(2 if name in ("4a", "5a") else 1) for name in _BLOCKS]
    return nn.Sequential(*stem, *blocks)


_BLOCKS = ("3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b", "5c")
