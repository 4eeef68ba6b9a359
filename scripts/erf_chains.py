"""Chains of 3x3 convolutions, their effective fields by hand, and shapes fitted to fields.

What scripts/figures_erf.py draws of Luo et al. (2016). By hand: a chain without non-linearity sends
a gradient back through one kernel after another. Of uniform weights the field is the convolution of
the kernels; of independent random weights its variance is the convolution of their variances, and
its mean size the root of that (their section 2.2).
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.signal import convolve2d
from torch import Tensor, nn

from rfbench.models.light_center import light_center, scales
from rfbench.rf.questions.effective.extent import THRESHOLD, centroid, extent
from rfbench.rf.questions.effective.gradients import Gradients, gradients

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Skip(nn.Module):
    """x + layer(x)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """A map of the same shape."""
        return x + self.layer(x)


class Dropout(nn.Module):
    """Dropout as in training, whatever the mode."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """A map of the same shape."""
        return F.dropout(x, self.share, training=True)


@dataclass(frozen=True)
class Chain:
    """3x3 convolutions without bias, zero-padded. stride, dilation: of some layers, by number.

    init: "ones", "normal", or "light" (normal, light in the middle). skips: every layer with as
    many outputs as inputs is added to what it reads. dropout: behind every layer.
    """

    depth: int
    channels: int = 1
    init: str = "normal"
    activation: str = ""
    stride: Mapping[int, int] = field(default_factory=dict)
    dilation: Mapping[int, int] = field(default_factory=dict)
    skips: bool = False
    dropout: float = 0.0

    def network(self) -> nn.Module:
        """The chain with weights from torch's global random numbers, in double precision.

        The squared weights of an output sum to 1: the scale does not change a field's shape, and
        this one keeps the numbers finite over 80 layers.
        """
        layers: list[nn.Module] = []
        for i in range(self.depth):
            gap, into = self.dilation.get(i, 1), (1 if i == 0 else self.channels)
            conv = nn.Conv2d(into, self.channels, 3, self.stride.get(i, 1), gap, gap, bias=False)
            (nn.init.ones_ if self.init == "ones" else nn.init.normal_)(conv.weight)
            if self.init == "light":
                light_center(nn.Sequential(conv), "chain")
            conv.weight.data /= conv.weight.data.norm() / self.channels**0.5
            parts = [conv, ACTIVATIONS[self.activation]()] if self.activation else [conv]
            parts += [Dropout(self.dropout)] if self.dropout else []
            layers += [Skip(nn.Sequential(*parts))] if self._skips(i) else parts
        return nn.Sequential(*layers).double()

    def _skips(self, layer: int) -> bool:
        return self.skips and (layer > 0 or self.channels == 1)

    def kernel(self, layer: int) -> np.ndarray:
        """What a layer adds: its weights where they are uniform, else their variances, (3, 3).

        With ReLU a gradient passes half of the time, which matters beside a skip.
        """
        if self.init == "ones":
            weights = np.full((3, 3), 1 / 3)
        elif self.init == "light":
            weights = scales((3, 3)).square().numpy() / 9
        else:
            weights = np.full((3, 3), 1 / 9)
        weights /= 2 if self.activation == "ReLU" else 1
        weights[1, 1] += self._skips(layer)
        return weights

    def by_hand(self) -> np.ndarray:
        """The field of a unit far from the border; tanh and sigmoid count as linear."""
        found, jump = np.ones((1, 1)), 1
        for i in range(self.depth):
            gap = jump * self.dilation.get(i, 1)
            spread = np.zeros((2 * gap + 1, 2 * gap + 1))
            spread[::gap, ::gap] = self.kernel(i)
            found = convolve2d(found, spread)
            jump *= self.stride.get(i, 1)
        return found if self.init == "ones" else np.sqrt(found)

    @property
    def theoretical(self) -> int:
        """The side of the theoretical field in px."""
        side, jump = 1, 1
        for i in range(self.depth):
            side += 2 * jump * self.dilation.get(i, 1)
            jump *= self.stride.get(i, 1)
        return side

    @property
    def by_variance(self) -> float:
        """The size in px that the kernels' variance predicts, were the field a Gaussian.

        Their equation 21: variances add up over the layers. The mean size of random gradients has
        the root of the variance's Gaussian, which is wider by the root of 2. A Gaussian exceeds the
        threshold t in a circle of the area 2 pi sigma^2 ln(1 / t).
        """
        at = np.arange(-1, 2)
        total, jump = 0.0, 1
        for i in range(self.depth):
            weights = self.kernel(i).sum(0)
            gap = jump * self.dilation.get(i, 1)
            total += gap**2 * float(weights @ at**2 / weights.sum())
            jump *= self.stride.get(i, 1)
        total *= 1 if self.init == "ones" else 2
        return math.sqrt(2 * math.pi * total * math.log(1 / THRESHOLD))


def draws(make: Callable[[], nn.Module], count: int) -> Iterator[nn.Module]:
    """`count` networks of other weights."""
    for seed in range(count):
        torch.manual_seed(seed)
        yield make()


@functools.cache
def noise(side: int) -> Tensor:
    """One random image."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 1, side, side, dtype=torch.double, generator=generator)


def measured(chain: Chain, side: int, count: int, unit: tuple[int, int] | None = None) -> Gradients:
    """The mean field of a unit, the central one where none is given, over draws of weights."""
    count = 1 if chain.init == "ones" and not chain.activation else count
    return gradients(draws(chain.network, count), [noise(side)], unit=unit)


def size(values: np.ndarray) -> float:
    """Luo et al.'s size of a field of many draws: above 1 - 0.9545 of its middle, in px.

    The middle is the mean of 3 x 3 pixels around the centroid where the field fills them, so that
    it does not hang on the noise of one pixel.
    """
    y, x = (round(c) for c in centroid(values))
    around = values[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
    return extent(values, float(around[around > 0].mean()))


# --- shapes ---------------------------------------------------------------------------------------

# value at (dy, dx) from the middle, in widths: each has a height and one width to be fitted
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Gaussian": lambda y, x: np.exp(-(y**2 + x**2) / 2),
    "exponential": lambda y, x: np.exp(-np.hypot(y, x)),
    "Lorentzian": lambda y, x: 1 / (1 + y**2 + x**2),
    "pyramid": lambda y, x: np.clip(1 - np.abs(y), 0, None) * np.clip(1 - np.abs(x), 0, None),
    "square": lambda y, x: 1.0 * (np.maximum(np.abs(y), np.abs(x)) <= 1),
    "disc": lambda y, x: 1.0 * (np.hypot(y, x) <= 1),
}


@dataclass(frozen=True)
class Fit:
    """A shape with its height and width in px; r2: the share of the field's variance explained."""

    height: float
    width: float
    r2: float


def fits(values: np.ndarray) -> dict[str, Fit]:
    """Every shape fitted by least squares around the centroid, the best first."""
    middle = centroid(values)
    y, x = (np.arange(n) - m for n, m in zip(values.shape, middle, strict=True))
    spread = float(((values - values.mean()) ** 2).sum())

    def fit(shape: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Fit:
        def best(width: float) -> tuple[float, float]:
            form = shape(y[:, None] / width, x[None] / width)
            height = float((form * values).sum() / (form**2).sum())
            return float(((values - height * form) ** 2).sum()), height

        widths = np.geomspace(0.75, max(values.shape), 120)
        at = int(np.argmin([best(w)[0] for w in widths]))
        bounds = widths[max(0, at - 1)], widths[min(len(widths) - 1, at + 1)]
        width = float(minimize_scalar(lambda w: best(w)[0], bounds=bounds, method="bounded").x)
        left, height = best(width)
        return Fit(height, width, 1 - left / spread)

    found = {name: fit(shape) for name, shape in SHAPES.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1].r2))
