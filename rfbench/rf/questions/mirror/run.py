"""Run a network with mirror-symmetric kernels on an image and on its mirror image, in float64."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfbench.rf.core import doubles
from rfbench.rf.core.field import Along, region
from rfbench.rf.core.progress import progress
from rfbench.rf.core.target import Target

Record = dict[str, Any]
LIMIT = 1e-9  # of the deviation: what is equal in float64
SPREAD = 8  # units that are to be compared at least


def farthest(off: float, stride: float) -> int:
    """The farthest move that is tried, in units."""
    return max(2, abs(round(off / stride)) + 1)


def symmetric(module: nn.Module) -> nn.Module:
    """Make every kernel its own mirror image along each axis, in place."""
    with torch.no_grad():
        for p in module.parameters():
            for axis in range(2, p.dim()):
                p.copy_((p + p.flip(axis)) / 2)
    return module


def image(channels: int, size: tuple[int, ...], seed: int = 0) -> Tensor:
    """A random image (1, C, ...) that is as rough as photographs are: amplitudes fall as 1/f.

    In volumes as f^(-3/2): so each octave has the same share.
    """
    noise = doubles.image(channels, size, seed)
    axes = tuple(range(2, noise.dim()))
    waves = [torch.fft.fftfreq(n, dtype=torch.float64) * n for n in size]
    grids = torch.meshgrid(*waves, indexing="ij")
    rate = sum(g.square() for g in grids).sqrt().clamp(min=1)  # type: ignore[union-attr]
    rate = rate ** max(1, len(size) / 2)
    out = torch.fft.ifftn(torch.fft.fftn(noise, dim=axes) / rate, dim=axes).real
    return out / out.std()


class Mirrored:
    """The output on an image, and on its mirror images mirrored back, by axis.

    off: px by which what the mirrored network looks at is away, along each axis.
    """

    def __init__(self, module: nn.Module, target: Target, off: list[float]) -> None:
        self.target, self.off = target, off
        self.module = symmetric(doubles.randomised(module))
        values = list(target.graph.inputs.values())
        sizes = [target.graph.map_size(v) for v in values] or [target.graph.size]
        each = enumerate(zip(target.graph.channels, sizes, strict=True))
        self.images = [image(channels, size, seed) for seed, (channels, size) in each]
        self.plain = self._out(self.images)
        self.back = [
            self._out([x.flip(k + 2).contiguous() for x in self.images]).flip(k + 2)
            for k in progress(range(len(off)), "axis")
        ]
        self.units = [self._inner(k) for k in range(len(off))]

    def _out(self, x: list[Tensor]) -> Tensor:
        return doubles.output(self.module, self.target, x)

    def _inner(self, axis: int) -> np.ndarray:
        """The units along an axis to which no border comes: mirrored or not, moved or not."""
        field, n = self.target.geometry.fields[axis], self.target.units[axis]
        side, spare = self.target.source_size[axis], abs(round(self.off[axis])) + 1
        fit = {u for u in range(n) if _within(field, u, side, spare)}
        return np.array([u for u in range(n) if u in fit and n - 1 - u in fit], int)

    def shown(self, axis: int) -> Record:
        """How far both are apart: the root of the mean square, against the channels' deviation.

        move: the whole number of units by which the mirrored map, moved, comes nearest.
        moved_image: on the image moved by `off` px in place of the mirrored one; None where that is
        no whole number of px: then branches look at different places, and off is their mean.
        confirmed: whether the mirrored map is equal to it.
        """
        most = farthest(self.off[axis], float(self.target.geometry.fields[axis].stride))
        moves = {m: self._apart(axis, self.plain, m, most) for m in range(-most, most + 1)}
        best = min(moves, key=lambda m: (round(moves[m], 9), abs(m)))
        exact = None
        most_px = self.target.source_size[axis]
        each = [self.off[axis] * x.shape[axis + 2] / most_px for x in self.images]
        if all(abs(off - round(off)) < 1e-6 for off in each):
            pairs = zip(self.images, each, strict=True)
            moved = [torch.roll(x, -round(off), axis + 2) for x, off in pairs]
            exact = self._apart(axis, self._out(moved), 0, most)
        confirmed = None if exact is None else exact < LIMIT
        found = {"apart": moves[0], "move": best, "apart_moved": moves[best]}
        return found | {"moved_image": exact, "confirmed": confirmed}

    def _apart(self, axis: int, plain: Tensor, move: int, most: int) -> float:
        """Between a map and the mirrored one, moved by some units along the axis."""
        a, b = plain, self.back[axis]
        for k, units in enumerate(self.units):
            # the same units are compared at every move
            own = units[most : len(units) - most] if k == axis else units
            a = a.index_select(k + 2, torch.from_numpy(own))
            b = b.index_select(k + 2, torch.from_numpy(own - move * (k == axis)))
        spread = a.flatten(2).var(-1, correction=0).mean()  # of each channel
        return float(((a - b).square().mean() / spread.clamp(min=1e-300)).sqrt())

    def lines(self, axis: int) -> dict[str, Any]:
        """A line of units along an axis through the middle, of the channel that varies most."""
        units = self.units[axis]
        at: list[Any] = [0, 0, *(own[len(own) // 2] for own in self.units)]
        at[1], at[axis + 2] = slice(None), torch.from_numpy(units)
        plain, back = self.plain[tuple(at)], self.back[axis][tuple(at)]
        most = int(plain.std(-1, correction=0).argmax())
        return {"units": units, "plain": plain[most].numpy(), "back": back[most].numpy()}


def _within(field: Along, unit: int, side: int, spare: int) -> bool:
    first, last = region(field, unit)
    return first >= spare and last <= side - 1 - spare
