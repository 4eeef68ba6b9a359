"""TrivialAugment and random erasing behind a training crop, by torchvision, seeded by the image."""

import contextlib
import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from rfbench.data.augment import Transform


class Augmented:
    """A transform with torchvision's behind it, in its order: crop and flip, policy, erasing.

    policy: "trivial_augment" (Mueller and Hutter, 2021, the wide ranges) or None. erase: the
    probability that a rectangle of 2 to 33 % of the image becomes its mean colour (Zhong et al.,
    2020). mean: of the data set, as fractions of 255.
    """

    def __init__(
        self, base: Transform, policy: str | None, erase: float, mean: Sequence[float]
    ) -> None:
        self.size = base.size
        self._base = base
        steps = [v2.TrivialAugmentWide()] if policy == "trivial_augment" else []
        fill = [float(round(255 * m)) for m in mean]
        steps += [v2.RandomErasing(erase, value=fill)] if erase else []
        self._steps = steps

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        """(H, W, 3) uint8 to (size, size, 3) uint8."""
        pixels = self._base(image, rng).permute(2, 0, 1)
        with seeded(rng):
            for step in self._steps:
                pixels = step(pixels)
        return pixels.permute(1, 2, 0)


@contextlib.contextmanager
def seeded(rng: random.Random) -> Iterator[None]:
    """Let torchvision, which draws from torch's global numbers, draw those of `rng`.

    torch's own state is as before afterwards. Only the CPU's are meant: torchvision draws there.
    """
    with torch.random.fork_rng(devices=[]):
        # not torch.manual_seed, which also seeds the GPUs and takes a hundred times as long
        torch.default_generator.manual_seed(int(rng.random() * 2**53))
        yield
