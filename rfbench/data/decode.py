"""An image file as a uint8 RGB tensor, or `BadImage`: the file and why it cannot be read.

Every training, evaluation and drawing reads images here. Pixels are those of PIL's
`convert("RGB")`, as in torchvision's ImageFolder, so that accuracies are comparable: transparency
is dropped, the first frame of an animation is used, and EXIF rotation is applied only if asked for
(Detectron2 does, torchvision does not). PIL would return white for grey of more than 8 bits: here
its highest 8 are taken, by the depth that the file declares. Pixels without a range that their
format sets (floating-point, signed, 32-bit) are refused.
"""

import contextlib
import errno
import io
import os
import stat
import warnings
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rfbench.errors import RfbenchError, one_line

# tags of TIFF and EXIF
BITS, PHOTOMETRIC, SAMPLE_FORMAT, ORIENTATION = 258, 262, 339, 274
UNSIGNED = 1  # of SAMPLE_FORMAT


class BadImage(RfbenchError):
    """The image at `path` cannot be read; `reason` says why. Printed as "path: reason"."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")  # one problem, so one line
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # from a loader's process
        return BadImage, (self.path, self.reason)


LARGEST = 1 << 30  # bytes of an image file
JPEG = b"\xff\xd8"
POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")  # how files of PIL's EPS format begin


def read(path: str, upright: bool = False) -> Tensor:
    """The image in the file `path`, (H, W, 3) uint8; raises `BadImage`.

    A file that the system cannot read (missing, forbidden, a broken disk) is a bad image too, and
    so is what is no file: a pipe would be waited for forever. upright: rotate as EXIF says.
    """
    try:
        return decode(_bytes(path), path, upright)
    except OSError as error:
        raise BadImage(path, error.strerror or type(error).__name__) from None
    except ValueError:  # from the system, for a NUL in the name
        raise BadImage(path, "not the name of a file") from None


def _bytes(path: str) -> bytes:
    """The content of a regular file."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if status.st_size > LARGEST:
            raise OSError(errno.EFBIG, "larger than 1 GiB")
        return file.read()


def decode(data: bytes, path: str, upright: bool = False) -> Tensor:
    """The image in the bytes `data`, (H, W, 3) uint8; raises `BadImage` naming `path`."""
    if not data:
        raise BadImage(path, "the file is empty")
    try:
        pixels = _jpeg(data)
        if pixels is None:
            if data.startswith(POSTSCRIPT):
                raise BadImage(path, "PostScript, which is a program; give pixels")
            pixels = _other(data)
        return torch.from_numpy(_upright(pixels, data) if upright else pixels)
    except UnidentifiedImageError:  # its message holds a memory address
        raise BadImage(path, "not an image of a known format") from None
    except BadImage:
        raise
    except Exception as error:
        # decoders raise nearly anything on damaged bytes: OSError, SyntaxError, struct.error, ...
        reason = one_line(error) or type(error).__name__
        raise BadImage(path, reason) from None


def frames(path: str) -> int:
    """How many images a file holds, by its header; 1 for what cannot be read. `read` takes one."""
    with contextlib.suppress(Exception):  # told by `read`
        head = _bytes(path)
        if not head.startswith(JPEG):
            with Image.open(io.BytesIO(head)) as image:
                return getattr(image, "n_frames", 1)
    return 1


def _jpeg(data: bytes) -> np.ndarray | None:
    """The pixels of an intact JPEG, a fifth faster than PIL and bit-equal; None: use PIL."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        # CMYK is converted differently from PIL; and PIL refuses images that are too large
        if space in ("CMYK", "YCCK") or height * width > (Image.MAX_IMAGE_PIXELS or 1 << 62):
            return None
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # not a JPEG, truncated, or damaged: PIL decides what is usable
        return None


def _other(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd EXIF data and palettes, once per image
        with Image.open(io.BytesIO(data)) as image:
            if image.mode == "F":
                raise ValueError("floating-point pixels have no agreed range")
            if image.mode.startswith("I"):
                high = np.array(image, dtype=np.int64) >> _depth(image) - 8
                grey = np.clip(high, 0, 255).astype(np.uint8)
                inverted = image.format == "TIFF" and _tag(image, PHOTOMETRIC, 1) == 0
                return np.repeat((255 - grey if inverted else grey)[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))


def _depth(image: Image.Image) -> int:
    """The bits of a grey pixel of more than 8, as PIL returns it; ValueError if not known.

    PIL's modes do not say: 16 bits may come as mode I, and 12 in I;16.
    """
    if image.format in ("PNG", "PPM", "JPEG2000"):
        return 16  # PIL scales the latter two to 16
    if image.format != "TIFF":
        raise ValueError(f"grey pixels of more than 8 bits are not read from {image.format} files")
    bits = _tag(image, BITS, 32)
    if _tag(image, SAMPLE_FORMAT, UNSIGNED) != UNSIGNED or not 8 < bits <= 16:
        sign = "" if _tag(image, SAMPLE_FORMAT, UNSIGNED) == UNSIGNED else "signed "
        raise ValueError(f"pixels of {sign}{bits}-bit integers have no agreed range")
    return bits


def _tag(image: Any, tag: int, default: int) -> int:
    """The first value of a tag of a TIFF."""
    value = image.tag_v2.get(tag, default)
    return value[0] if isinstance(value, tuple) else value


def orientation(image: Image.Image, header: bool = False) -> int:
    """How EXIF says that an opened image is to be turned, 2 to 8; 1: not at all.

    Of TIFFs always 1: PIL turns them itself while it reads them. header: look only before the
    pixels, where nearly every program writes it; PNGs are decoded otherwise.
    """
    if image.format == "TIFF":
        return 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif = Image.Image.getexif(image) if header else image.getexif()
            found = exif.get(ORIENTATION, 1)
    except Exception:  # as Detectron2: odd EXIF data do not spoil an image
        return 1
    return found if found in range(2, 9) else 1


def _upright(pixels: np.ndarray, data: bytes) -> np.ndarray:
    """The image (H, W, 3) rotated and mirrored as its EXIF data say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as image:
            turn = orientation(image)
    if turn == 1:
        return pixels
    if turn in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
