"""The modules of the paper's Figure 5: `model: rfbench.models.paper_modules:conv1x1`."""

from torch import nn


def conv1x1() -> nn.Module:
    """A 1x1 convolution with stride 2, as in a shortcut."""
    return nn.Conv2d(1, 1, 1, stride=2)


def conv3x3() -> nn.Module:
    """A 3x3 convolution with stride 2, as in a residual block."""
    return nn.Conv2d(1, 1, 3, stride=2, padding=1)
