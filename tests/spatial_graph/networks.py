"""Random networks of the kinds that users bring: decoders, masks, several outputs, odd sizes."""

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Draw = random.Random
Step = Callable[[Tensor], Tensor]


class Masked(nn.Conv2d):
    """A convolution some of whose taps are fixed at zero, all channels alike or not."""

    def __init__(self, channels: int, out: int, k: int, draw: Draw, each: bool) -> None:
        super().__init__(channels, out, k, padding=k // 2)
        form = (out, channels, k, k) if each else (1, 1, k, k)
        torch_draw = torch.Generator().manual_seed(draw.randrange(10**6))
        mask = (torch.rand(form, generator=torch_draw) < 0.6).double()
        mask[..., k // 2, k // 2] = 1  # no channel is left out whole
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask.to(self.weight), self.bias)


class Resize(nn.Module):
    """To a multiple of the size, or to a size."""

    def __init__(self, mode: str, corners: bool | None, **to: Any) -> None:
        super().__init__()
        self.options = {"mode": mode, "align_corners": corners, **to}

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, **self.options)


class Padded(nn.Module):
    """Pads to a multiple of n, as networks do that halve a map several times."""

    def __init__(self, n: int, mode: str) -> None:
        super().__init__()
        self.n, self.mode = n, mode

    def forward(self, x: Tensor) -> Tensor:
        amounts = (0, -x.shape[-1] % self.n, 0, -x.shape[-2] % self.n)
        return F.pad(x, amounts, mode=self.mode)


class Swapped(nn.Module):
    """A step on the transposed map."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x.transpose(2, 3)).transpose(2, 3)


class Gated(nn.Module):
    """A map times its own global average: a context."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True)


def _conv(draw: Draw, c: int, out: int) -> nn.Module:
    k, s = draw.choice([1, 2, 3, 3, 5]), draw.choice([1, 1, 1, 2, 3])
    d = draw.choice([1, 1, 2, 3]) if s == 1 else 1
    p = draw.choice([0, k // 2, d * (k // 2)])
    mode = draw.choice(["zeros", "zeros", "reflect", "replicate", "circular"])
    groups = draw.choice([1, 1, 2]) if c % 2 == 0 and out % 2 == 0 else 1
    return nn.Conv2d(c, out, k, s, p, d, groups, padding_mode=mode if p else "zeros")


def _uneven(draw: Draw, c: int, out: int) -> nn.Module:
    k, s = draw.choice([(1, 3), (3, 1), (5, 2)]), draw.choice([(1, 2), (2, 1), (1, 1)])
    return nn.Conv2d(c, out, k, s, (k[0] // 2, k[1] // 2))


def _transposed(draw: Draw, c: int, out: int) -> nn.Module:
    k, s = draw.choice([(2, 2), (3, 2), (4, 2), (3, 3), (4, 3), (3, 1)])
    return nn.ConvTranspose2d(c, out, k, s, draw.choice([0, 1]), draw.choice([0, s - 1]))


def _resize(draw: Draw, c: int, out: int) -> nn.Module:
    mode = draw.choice(["nearest", "bilinear"])
    corners = draw.choice([True, False]) if mode == "bilinear" else None
    to = draw.choice([{"scale_factor": 2}, {"scale_factor": 2}, {"size": (13, 17)}])
    return nn.Sequential(Resize(mode, corners, **to), nn.Conv2d(c, out, 1))


def _shuffle(draw: Draw, c: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(c, 4 * out, 1), nn.PixelShuffle(2))


def _pool(draw: Draw, c: int, out: int) -> nn.Module:
    kind = draw.choice([nn.AvgPool2d, nn.MaxPool2d])
    pool = kind(*draw.choice([(2, 2), (3, 2, 1), (3, 1, 1)]), ceil_mode=draw.random() < 0.3)
    return nn.Sequential(pool, nn.Conv2d(c, out, 1))


def _pad(draw: Draw, c: int, out: int) -> nn.Module:
    padded = Padded(draw.choice([2, 4]), draw.choice(["constant", "replicate"]))
    return nn.Sequential(padded, nn.Conv2d(c, out, 3, draw.choice([1, 2]), 1))


BLOCKS: dict[str, Callable[[Draw, int, int], nn.Module]] = {
    "conv": _conv,
    "uneven": _uneven,
    "masked": lambda draw, c, out: Masked(c, out, draw.choice([3, 5]), draw, draw.random() < 0.3),
    "transposed": _transposed,
    "resize": _resize,
    "shuffle": _shuffle,
    "pool": _pool,
    "pad": _pad,
    "swapped": lambda draw, c, out: Swapped(BLOCKS[draw.choice(["conv", "uneven"])](draw, c, out)),
    "gate": lambda draw, c, out: nn.Sequential(Gated(), nn.Conv2d(c, out, 1)),
}


class RandomNet(nn.Module):
    """Blocks in a row, some of them joined to an earlier map of equal size or resized to it.

    Its outputs: the last map as `out`, one from the middle as `aux`, a global one as `pooled`.
    """

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        super().__init__()
        draw = Draw(seed)
        self.blocks, self.joins, self.text = nn.ModuleList(), [], []
        maps, c = [torch.rand(1, 3, *size)], 3
        for attempt in range(60):
            if len(self.blocks) == draw.randrange(3, 7):
                break
            name, out = draw.choice(list(BLOCKS)), draw.choice([2, 4])
            torch.manual_seed(1000 * seed + attempt)
            block = BLOCKS[name](draw, c, out)
            try:
                made = block(maps[-1])
            except (RuntimeError, ValueError):
                continue  # padded by more than there is, or a kernel larger than the map
            if not min(made.shape[2:]) >= 3 or max(made.shape[2:]) > 40:
                continue
            join = draw.choice([None, None, "add", "cat"])
            other = draw.randrange(1, len(maps)) if join and len(maps) > 1 else 0
            if not other or (join == "add" and maps[other].shape[1] != made.shape[1]):
                join, other = None, 0
            self.blocks.append(block)
            self.joins.append((join, other))
            self.text.append(f"{name}{tuple(made.shape[2:])}{join or ''}{other or ''}")
            made = self._join(made, maps, join, other)
            maps.append(made)
            c = made.shape[1]

    @staticmethod
    def _join(x: Tensor, maps: list[Tensor], join: str | None, other: int) -> Tensor:
        if join is None:
            return x
        skip = maps[other]
        if skip.shape[2:] != x.shape[2:]:
            skip = F.interpolate(skip, x.shape[2:], mode="nearest")
        return x + skip if join == "add" else torch.cat([x, skip], 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = [x]
        for block, (join, other) in zip(self.blocks, self.joins, strict=True):
            maps.append(self._join(block(maps[-1]), maps, join, other))
        middle = maps[len(maps) // 2]
        return {"aux": middle, "out": maps[-1], "pooled": maps[-1].mean((2, 3))}
