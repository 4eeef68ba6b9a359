"""Masks in files: from what is stored at a pixel, an index or a colour, to its class.

Only formats without loss are read. A mask's own values are never rescaled, and colours are never
taken for indices: a palette PNG (VOC) holds indices, whatever its palette looks like.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from rfbench import files
from rfbench.data import decode
from rfbench.data.decode import BadImage
from rfbench.errors import one_line

IGNORED = 255  # the class of pixels that count nowhere
UNKNOWN = -1  # a value that means nothing
LOSSLESS = ("PNG", "BMP", "TIFF", "GIF", "PPM")
INDICES = ("L", "P", "1")  # modes of PIL with one index per pixel
COLORS = ("RGB", "RGBA", "P", "L", "LA", "1")  # modes of which colours are read as they are
WIDE = ("I;16", "I;16B", "I;16L", "I")

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Values:
    """What the values of a mask mean. table: class of each index 0 .. 255, `UNKNOWN` for most.

    colors: class of each colour; where given, masks are colour images. known: the values in words.
    """

    table: tuple[int, ...]
    known: str
    colors: tuple[tuple[Color, int], ...] = ()


def indices(classes: int, ignored: Sequence[int] = (IGNORED,)) -> Values:
    """Index i is class i; those in `ignored` count nowhere."""
    table = [i if i < classes else UNKNOWN for i in range(256)]
    for value in ignored:
        table[value] = IGNORED
    more = f" and {', '.join(map(str, ignored))} (ignored)" if ignored else ""
    return Values(tuple(table), f"0 to {classes - 1}{more}")


def numbered(classes: dict[int, int]) -> Values:
    """Values by a table of their own: value -> class, or `IGNORED`."""
    table = tuple(classes.get(value, UNKNOWN) for value in range(256))
    return Values(table, f"{min(classes)} to {max(v for v in classes if v != IGNORED)}")


def colours(classes: Sequence[tuple[Color, int]]) -> Values:
    """Masks are colour images: (red, green, blue) -> class, or `IGNORED`."""
    return Values((), f"{len(classes)} colours", tuple(classes))


def read(path: str, values: Values) -> np.ndarray:
    """The classes of a mask's pixels, (H, W) uint8, 255 for ignored ones; raises `BadImage`."""
    stored = _stored(path, bool(values.colors))
    return _by_color(path, stored, values) if values.colors else _by_index(path, stored, values)


def size(path: str) -> tuple[int, int, int]:
    """(H, W) of an image as it is stored, and how EXIF turns it (1: not); raises `BadImage`."""
    try:
        files.check_regular(path)
        with Image.open(path) as image:
            return image.height, image.width, decode.orientation(image, header=True)
    except Exception as error:
        raise _bad(path, error) from None


def palette(path: str) -> list[Color] | None:
    """The colour of each index of a palette file; None for other files. Raises `BadImage`."""
    try:
        with Image.open(path) as image:
            given = image.getpalette("RGB") if image.mode == "P" else None
    except Exception as error:
        raise _bad(path, error) from None
    return None if given is None else [*zip(*(given[place::3] for place in range(3)), strict=True)]


def _bad(path: str, error: Exception) -> BadImage:
    """Why a file cannot be read, of whatever a decoder raised."""
    if isinstance(error, BadImage):
        return error
    if isinstance(error, FileNotFoundError):
        return BadImage(path, "no such file")
    if isinstance(error, UnidentifiedImageError):
        empty = os.path.getsize(path) == 0
        return BadImage(path, "the file is empty" if empty else "not an image of a known format")
    return BadImage(path, one_line(error) or type(error).__name__)


def _stored(path: str, colored: bool) -> np.ndarray:
    """What the file holds: indices (H, W), or colours (H, W, 3) uint8."""
    try:
        files.check_regular(path)
        with Image.open(path) as image:
            if image.format not in LOSSLESS:
                raise BadImage(
                    path, f"{image.format} changes the values of a mask; save it as PNG instead"
                )
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise BadImage(path, f"holds {frames} images: save the mask alone")
            if (turn := decode.orientation(image, header=True)) != 1:
                raise BadImage(
                    path, f"EXIF turns this mask (orientation {turn}): save it as it is to be read"
                )
            if colored:
                return _colors(image)
            if image.mode not in (*INDICES, *WIDE):
                raise BadImage(path, _not_indices(image.mode))
            step = _step(image)
            return np.array(image).astype(np.int64) // step
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise _bad(path, error) from None


def _colors(image: Image.Image) -> np.ndarray:
    """The colours of an opened file, (H, W, 3) uint8; ValueError for what has no plain ones."""
    if image.mode not in COLORS:
        raise ValueError(f"its pixels ({image.mode}) are not colours of 8 bits: save it as PNG")
    if "16" in _raw_mode(image):
        raise ValueError("its colours are of 16 bits, of which eight would be dropped: save 8 bits")
    if image.has_transparency_data and np.array(image.convert("RGBA"))[..., 3].min() < 255:
        raise ValueError(
            "some of its pixels are transparent, which hides the colours that they have: save it "
            "without transparency, in the colours of the classes"
        )
    return np.array(image.convert("RGB"))


def _step(image: Any) -> int:
    """By what PIL multiplies the values of an opened file, before it is read.

    Grey of 2 and 4 bits is spread over 0 to 255, of which 255 would count nowhere; what PIL scales
    or turns round in another way raises ValueError.
    """
    codec, _, _, given = image.tile[0]
    raw, *more = given if isinstance(given, tuple) else (given,)
    bits = {"L;2": 2, "L;4": 4}.get(_raw_mode(image))
    if bits is not None and image.mode == "L":
        return 255 // (2**bits - 1)
    if codec.startswith("ppm") and more and more[0] not in (255, 65535):
        raise ValueError(f"its largest value is {more[0]}, not 255: save it as PNG")
    if str(raw).endswith(("I", "IR")) and image.mode in ("L", "1"):
        raise ValueError("its values are stored inverted (0 is white): save it as PNG")
    return 1


def _raw_mode(image: Any) -> str:
    """How the pixels of an opened file are stored, as PIL calls it, before it is read."""
    given = image.tile[0][3]
    return str(given[0] if isinstance(given, tuple) else given)


def _not_indices(mode: str) -> str:
    if mode == "F":
        return "floating-point pixels are no indices of classes: save them as whole numbers"
    return (
        f"a colour image ({mode}) where the index of a class is expected at each pixel. Give the "
        "colours in the order of the classes (data.name=folder, data.options.colors=[[0,0,0],"
        "[128,0,0],...]), or, if red, green and blue are equal, save it with PIL's convert('L')"
    )


def _by_index(path: str, stored: np.ndarray, values: Values) -> np.ndarray:
    table = np.array(values.table, np.int64)
    inside = (stored >= 0) & (stored < len(table))
    found = np.where(inside, table[np.clip(stored, 0, len(table) - 1)], UNKNOWN)
    if (unknown := found == UNKNOWN).any():
        others = np.unique(stored[unknown])
        raise BadImage(path, _beyond([str(v) for v in others.tolist()], unknown, values))
    return found.astype(np.uint8)


def _by_color(path: str, stored: np.ndarray, values: Values) -> np.ndarray:
    packed = stored.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    found = np.full(packed.shape, UNKNOWN, np.int64)
    for (red, green, blue), number in values.colors:
        found[packed == (red << 16) + (green << 8) + blue] = number
    if (unknown := found == UNKNOWN).any():
        others = np.unique(packed[unknown]).tolist()
        names = [f"[{v >> 16}, {v >> 8 & 255}, {v & 255}]" for v in others]
        raise BadImage(path, _beyond(names, unknown, values))
    return found.astype(np.uint8)


def _beyond(names: list[str], unknown: np.ndarray, values: Values) -> str:
    what = "colours" if values.colors else "values"
    some = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"holds {what} beyond the classes, {some} at {int(unknown.sum())} pixels; known: "
        f"{values.known}"
    )
