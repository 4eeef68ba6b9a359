"""The map of path counts in the record of a training: two small PNGs, and where they are.

Written by `encode` when a run ends, read by `decode` for the page of `rfbench compare`. A record is
data from outside: `decode` refuses what is no such map.
"""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from rfbench.rf.core import contrast
from rfbench.rf.core.path_map import PathMap

MOST = 256  # pixels a side; of larger maps 2 x 2, 4 x 4, ... source pixels are one
LONGEST = 64 << 10  # characters of a PNG in base64; MOST^2 random pixels do not fit, maps do
MIDDLE = 48  # px: the square around the unit's position that shows the grid
FARTHEST = 1e6  # px from the unit's position
HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
GREY = b"\x08\x00\x00\x00\x00"  # in a PNG's header: 8 bits, grey, not interlaced


@dataclass(frozen=True, eq=False)
class Part:
    """A map, or its middle.

    values: (h, w) uint8. at: (y, x) of the first one's top left corner, source px from the unit's
    position. pixel: source px a side of each.
    """

    values: np.ndarray
    at: tuple[float, float]
    pixel: int = 1

    @property
    def reach(self) -> float:
        """Half the side of the square around the unit's position that holds it, px."""
        ends = [(a, a + n * self.pixel) for a, n in zip(self.at, self.values.shape, strict=True)]
        return max(abs(end) for pair in ends for end in pair)


@dataclass(frozen=True, eq=False)
class RecordedMap:
    """A map of path counts, to be drawn.

    whole: 255 sqrt(paths / most paths), rounded, but 1 where fewer lead to the unit and 0 where
    none does. offset: (y, x) of the centroid, source px from the unit's position. middle: the
    paths over their local mean (`contrast.over_mean`): 0 where there are none, 128 where they are
    equal, 1 and 255 where they are 1 - span and 1 + span; None where there is no stride. contrast:
    by how much of it the grid is shown.
    """

    whole: Part
    offset: tuple[float, float]
    middle: Part | None = None
    span: float = 1.0
    contrast: float = 0.1


def encode(counts: PathMap, figures: Mapping[str, Any]) -> dict[str, Any] | None:
    """A map as a record keeps it. figures: `metrics.measure` of it; None: it has not two axes.

    Cropped to the pixels with more than a thousandth of the most paths, as figures are. Raises
    ValueError for a map that `decode` would refuse.
    """
    values = counts.counts.astype(float)
    if values.ndim != 2:
        return None
    values /= values.max()
    offset = contrast.offset(figures)
    origin = [c - o for c, o in zip(figures["centroid"], offset, strict=True)]
    strides = [s or 1 for s in figures["stride"] or (1, 1)]
    content = {**_whole(values, origin), "offset": list(offset), "middle": None}
    if max(strides) > 1:
        ratio = contrast.over_mean(values, strides, origin, MIDDLE)
        corner = [s.start for s in contrast.window(origin, MIDDLE)]
        content["middle"] = _middle(
            ratio, [c - 0.5 - o for c, o in zip(corner, origin, strict=True)]
        )
        content["middle"]["contrast"] = contrast.contrast([figures])
    decode(content)
    return content


def _whole(values: np.ndarray, origin: Sequence[float]) -> dict[str, Any]:
    """The whole map. values: (H, W), the largest 1."""
    ends = [(at.min(), at.max() + 1) for at in np.nonzero(values > contrast.SHARE)]
    part = values[tuple(slice(*pair) for pair in ends)]
    at = [float(low - 0.5 - o) for (low, _), o in zip(ends, origin, strict=True)]
    pixel = 1
    while max(part.shape) > MOST * pixel or len(png := _png(_grey_of(part, pixel))) > LONGEST:
        pixel *= 2
    size = [-(-n // pixel) for n in part.shape]
    return {"png": png, "size": size, "at": at, "pixel": pixel}


def _grey_of(values: np.ndarray, pixel: int) -> np.ndarray:
    mean = _means(values, pixel)
    grey = np.rint(255 * np.sqrt(mean / mean.max()))
    return np.where((mean > 0) & (grey == 0), 1, grey).astype(np.uint8)


def _means(values: np.ndarray, size: int) -> np.ndarray:
    """Means over blocks of size x size; what lies beyond the map is 0.

    Sizes are powers of two, as effective strides nearly always are: others would make a grid of
    their own.
    """
    if size == 1:
        return values
    y, x = (-(-n // size) for n in values.shape)
    whole = np.zeros((y * size, x * size))
    whole[: values.shape[0], : values.shape[1]] = values
    return whole.reshape(y, size, x, size).mean((1, 3))


def _middle(ratio: np.ndarray, at: Sequence[float]) -> dict[str, Any]:
    """The middle of a map, over its local mean."""
    apart = np.clip(np.nan_to_num(ratio, nan=1.0) - 1, -1, 1)
    span = max(float(np.abs(apart).max()), 1e-6)
    grey = np.where(np.isnan(ratio), 0, 128 + np.rint(127 * apart / span)).astype(np.uint8)
    where = {"size": list(grey.shape), "at": list(map(float, at))}
    return {"png": _png(grey), **where, "span": span}


def _png(grey: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def decode(content: Any) -> RecordedMap:
    """The map in a record. Raises ValueError, one line, for what `encode` does not write."""
    held = _mapping(content, "the map")
    whole = _part(held, held.get("pixel"))
    offset = _pair(held, "offset")
    if whole.values.max() != 255:
        raise ValueError("the map's brightest pixel is not 255")
    _check_centroid(whole, offset)
    if held.get("middle") is None:
        return RecordedMap(whole, offset)
    inner = _mapping(held["middle"], "the middle")
    middle = _part(inner, 1)
    if max(middle.values.shape) > MIDDLE + 2:
        raise ValueError(f"the middle is larger than {MIDDLE} px")
    span, grey = (_number(inner.get(key), key, 1.0) for key in ("span", "contrast"))
    if span <= 0 or grey <= 0:
        raise ValueError("span and contrast must be above 0")
    return RecordedMap(whole, offset, middle, span, grey)


def _check_centroid(whole: Part, offset: tuple[float, float]) -> None:
    """Raise ValueError where a map's centroid is not where its record says."""
    weights = (whole.values / 255.0) ** 2
    for k, (at, told) in enumerate(zip(whole.at, offset, strict=True)):
        along = weights.sum(1 - k)
        own = at + whole.pixel * (along @ (np.arange(len(along)) + 0.5) / along.sum())
        if abs(own - told) > 0.5 * whole.pixel + 0.02 * whole.pixel * len(along):
            raise ValueError(f"the map's centroid is at {own:.2f} px, not at {told:.2f}")


def _part(held: Mapping[str, Any], pixel: Any) -> Part:
    """A PNG of a record: 8 bits, grey, as large as it says, and not larger than `MOST`."""
    size, at = held.get("size"), _pair(held, "at")
    if not isinstance(size, list) or not all(type(n) is int and 0 < n <= MOST for n in size):
        raise ValueError(f"size: two whole numbers from 1 to {MOST} are needed")
    powers = [2**i for i in range(13)]
    if type(pixel) is not int or pixel not in powers:
        raise ValueError(f"pixel: a power of two up to {powers[-1]} is needed")
    return Part(_grey(held.get("png"), size), at, pixel)


def _grey(text: Any, size: list[int]) -> np.ndarray:
    if not isinstance(text, str) or len(text) > LONGEST:
        raise ValueError(f"png: a text of at most {LONGEST} characters is needed")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("png: not base64") from None
    wanted = HEAD + b"".join(n.to_bytes(4, "big") for n in reversed(size)) + GREY
    if len(size) != 2 or data[: len(wanted)] != wanted:
        raise ValueError(f"png: not a grey PNG of 8 bits and {'x'.join(map(str, size))} pixels")
    try:  # the size is known to be small: what is compressed beyond it is not read
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return np.array(image)
    except Exception as error:  # a damaged file may raise anything in a decoder
        raise ValueError(f"png: damaged ({type(error).__name__})") from None


def _mapping(content: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{what} is not a mapping")
    return content


def _pair(held: Mapping[str, Any], key: str) -> tuple[float, float]:
    values = held.get(key)
    if not isinstance(values, list) or len(values) != 2:
        raise ValueError(f"{key}: two numbers are needed")
    y, x = (_number(value, key, FARTHEST) for value in values)
    return y, x


def _number(value: Any, key: str, most: float) -> float:
    if type(value) not in (int, float) or not abs(value) <= most:
        raise ValueError(f"{key}: a number of at most {most:g} is needed")
    return float(value)
