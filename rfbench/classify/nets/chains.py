"""Networks of one layer after another: [convolution with bias, BatchNorm, ReLU], without shortcuts.

Four layers, and ways to make their field large: strides, dilations, large kernels, and more layers.
All but `strided` keep the resolution of the image. Those that end in `_dense` put out the scores of
every pixel; the others those of the image, by global average pooling and a linear layer.

widths: channels of the four layers; a cascade has them where its field is that of the large
kernels. in_chans: channels of the image. Images may have any size.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from rfbench.errors import UsageError

WIDTHS = (16, 24, 32, 48)
DILATIONS = (1, 2, 4, 8)
KERNELS = (3, 5, 7, 9)


def strided(classes: int = 10, in_chans: int = 3, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """3x3, stride 2 in every layer: 25,474 parameters, 31 px. The control."""
    return _classifier(_layers(in_chans, widths, strides=(2, 2, 2, 2)), widths[-1], classes)


def dilated(classes: int = 10, in_chans: int = 3, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """3x3 of dilation 1, 2, 4 and 8: 25,474 parameters, 31 px."""
    return _classifier(_layers(in_chans, widths, dilations=DILATIONS), widths[-1], classes)


def large_kernels(
    classes: int = 10, in_chans: int = 3, widths: Sequence[int] = WIDTHS
) -> nn.Module:
    """3x3, 5x5, 7x7 and 9x9: 172,930 parameters, 21 px."""
    return _classifier(_layers(in_chans, widths, kernels=KERNELS), widths[-1], classes)


def cascade(classes: int = 10, in_chans: int = 3, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """Ten 3x3 layers, 1 + 2 + 3 + 4 in place of the large kernels: 66,274 parameters, 21 px.

    The last layer of a group widens, so that the channels at 3, 7, 13 and 21 px are the same.
    """
    return _classifier(_cascade(in_chans, widths), widths[-1], classes)


def cascade_depthwise(
    classes: int = 10, in_chans: int = 3, widths: Sequence[int] = WIDTHS
) -> nn.Module:
    """As `cascade`, depthwise but for the four layers that widen: 27,394 parameters, 21 px."""
    return _classifier(_cascade(in_chans, widths, depthwise=True), widths[-1], classes)


def max_pooled(classes: int = 10, in_chans: int = 3, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """`dilated` with a 3x3 max-pooling of stride 1 behind all but the last layer: 37 px.

    The pooling suppresses noise as a median filter does, and keeps the resolution.
    """
    first, *rest = _layers(in_chans, widths, dilations=DILATIONS)
    layers = [first]
    for layer in rest:
        layers += [nn.MaxPool2d(3, stride=1, padding=1), layer]
    return _classifier(layers, widths[-1], classes)


# --- a class for every pixel -------------------------------------------------------------------

SIX = (*WIDTHS, 48, 48)  # the article tells no widths of the last two


def dilated_dense(classes: int = 11, in_chans: int = 3, widths: Sequence[int] = SIX) -> nn.Module:
    """3x3 of dilation 1, 2, 4, 8, 16 and 32, then a 1x1 convolution: 127 px.

    Images (N, in_chans, H, W) to scores (N, classes, H, W).
    """
    return _per_pixel(_layers(in_chans, widths, dilations=(*DILATIONS, 16, 32)), widths, classes)


def large_kernels_dense(
    classes: int = 11, in_chans: int = 3, widths: Sequence[int] = WIDTHS
) -> nn.Module:
    """As `large_kernels`, with the scores (N, classes, H, W) of every pixel."""
    return _per_pixel(_layers(in_chans, widths, kernels=KERNELS), widths, classes)


def cascade_dense(
    classes: int = 11, in_chans: int = 3, widths: Sequence[int] = WIDTHS
) -> nn.Module:
    """As `cascade`, with the scores (N, classes, H, W) of every pixel."""
    return _per_pixel(_cascade(in_chans, widths), widths, classes)


# --- parts --------------------------------------------------------------------------------------


def layer(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Module:
    """[convolution, BatchNorm, ReLU] from `inputs` to `outputs` channels, centred on the pixel."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _layers(
    in_chans: int,
    widths: Sequence[int],
    kernels: Sequence[int] = (),
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
) -> list[nn.Module]:
    """A layer for each of the numbers given."""
    n = len(kernels or strides or dilations)
    check_widths(widths, n)
    each = zip(
        (in_chans, *widths[:-1]), widths, kernels or [3] * n, strides or [1] * n,
        dilations or [1] * n, strict=True,
    )  # fmt: skip
    return [layer(*numbers) for numbers in each]


def _cascade(in_chans: int, widths: Sequence[int], depthwise: bool = False) -> list[nn.Module]:
    """1, 2, 3 and 4 layers of 3x3; the last of each group has its width."""
    check_widths(widths, len(WIDTHS))
    layers, inputs = [], in_chans
    for more, width in enumerate(widths):
        layers += [layer(inputs, inputs, groups=inputs if depthwise else 1) for _ in range(more)]
        layers.append(layer(inputs, width))
        inputs = width
    return layers


def check_widths(widths: Sequence[int], count: int) -> None:
    """Raise UsageError unless these are `count` numbers of channels."""
    whole = all(isinstance(width, int) and width > 0 for width in widths)
    if len(widths) != count or not whole:
        raise UsageError(f"model_args: widths: expected {count} numbers above 0, got {[*widths]}")


def _classifier(layers: Sequence[nn.Module], width: int, classes: int) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict(features=nn.Sequential(*layers))
    parts |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(parts | {"head": nn.Linear(width, classes)})


def _per_pixel(layers: Sequence[nn.Module], widths: Sequence[int], classes: int) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict(features=nn.Sequential(*layers))
    return nn.Sequential(parts | {"head": nn.Conv2d(widths[-1], classes, 1)})
