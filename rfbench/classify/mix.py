"""Mixup and CutMix of a pass's images, by torchvision: a function of (seed, step, part)."""

import random
from collections.abc import Callable

from torch import Tensor
from torchvision.transforms import v2

from rfbench.data.policies import seeded
from rfbench.schemas.cls import ClsConfig

Mix = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]


def mix(config: ClsConfig, classes: int) -> Mix:
    """A function (images (N, 3, H, W), labels (N,), step, part) -> (images, targets).

    Each image is mixed with the one before it, all in one proportion; a pass gets one of the two
    where both are configured, with equal chances (as torchvision's references). part: which of the
    passes of all processes in this step, so that two processes mix as one with two passes does.
    targets: shares of the classes (N, C); without either, images and labels unchanged.
    """
    data, kinds = config.data, []
    if data.mixup:
        kinds.append(v2.MixUp(alpha=data.mixup, num_classes=classes))
    if data.cutmix:
        kinds.append(v2.CutMix(alpha=data.cutmix, num_classes=classes))
    if not kinds:
        return lambda images, labels, step, part: (images, labels)
    choice = v2.RandomChoice(kinds)

    def mixed(images: Tensor, labels: Tensor, step: int, part: int) -> tuple[Tensor, Tensor]:
        with seeded(random.Random(f"mix/{config.seed}/{step}/{part}")):
            return choice(images, labels)

    return mixed


def classes_of(targets: Tensor) -> Tensor:
    """The class (N,) with the largest share: of labels (N,) themselves, of targets (N, C)."""
    return targets if targets.ndim == 1 else targets.argmax(1)
