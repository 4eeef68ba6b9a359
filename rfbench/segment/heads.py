"""What stands above a classifier: maps of its features to a score per class at each unit."""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.models import features, pyramid
from rfbench.models.pyramid import Part

FINEST = 4  # stride of the finest map that a pyramid reads, where there are coarser ones


class Headed(nn.Module):
    """A classifier below a head. Parameters: backbone.*, named as the classifier's, and head.*."""

    def __init__(
        self,
        network: nn.Module,
        label: str,
        classes: int,
        head: str,
        channels: int,
        names: Sequence[str] = (),
        sizes: Sequence[tuple[int, int]] = (),
    ) -> None:
        """head: "fcn" or "fpn", the latter of `channels`. names, sizes: see `pyramid.find`.

        label: the network's name, for errors.
        """
        super().__init__()
        found = pyramid.find(network, label, names, sizes)
        levels = [found.levels[stride] for stride in sorted(found.levels)]
        read = levels[-1:] if head == "fcn" else _for_pyramid(levels, bool(names))
        self.backbone = network
        self._maps = features.keep(network, {part.path: part for part in read})
        self._read = [part.path for part in read]
        features.cut(network, found.chain, levels[-1])
        if head == "fcn":
            self.head: nn.Module = Fcn(read[-1].channels, classes)
        else:
            self.head = Fpn([part.channels for part in read], channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) to scores (N, classes, H, W)."""
        self._maps.clear()
        self.backbone(x)
        maps = [self._maps[name] for name in self._read]
        self._maps.clear()  # or they would stay in memory until the next images
        return upsampled(self.head(maps), x.shape[-2:])


class Fcn(nn.Module):
    """A 1x1 convolution of the coarsest map (Long et al. 2015, without its skips)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, fine to coarse, to scores at the coarsest's units."""
        return self.classifier(maps[-1])


class Fpn(nn.Module):
    """A feature pyramid (Lin et al. 2017), its levels summed at the finest (Kirillov et al. 2019).

    Panoptic Feature Pyramid Networks up-sample each level in steps; here in one.
    """

    def __init__(self, inputs: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        self.pyramid = FeaturePyramidNetwork([*inputs], channels, norm_layer=nn.BatchNorm2d)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps, fine to coarse, to scores at the finest's units."""
        levels = self.pyramid(OrderedDict((str(i), one) for i, one in enumerate(maps)))
        size = maps[0].shape[-2:]
        total = sum(upsampled(level, size) for level in levels.values())
        assert isinstance(total, Tensor)
        return self.classifier(F.relu(total))


def upsampled(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Scores (N, C, h, w) at (N, C, *size): bilinear, between the centres of units."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return F.interpolate(scores, list(size), mode="bilinear", align_corners=False)


def _for_pyramid(levels: list[Part], named: bool) -> list[Part]:
    coarse = [part for part in levels if part.stride >= FINEST]
    return levels if named or not coarse else coarse
