"""An image file as a uint8 RGB tensor, or `BadImage`: the file and why it cannot be read.

Pixels are those of PIL's `convert("RGB")`, as in torchvision's ImageFolder, so that accuracies are
comparable: EXIF rotation is *not* applied, transparency is dropped, the first frame of an animation
is used, and so is the part of a damaged JPEG that decodes. In two cases PIL would return white:
16-bit grey is scaled here, not clipped, and floating-point pixels are refused.
"""

import io
import warnings

import numpy as np
import simplejpeg
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rfbench.errors import RfbenchError, one_line


class BadImage(RfbenchError):
    """The image at `path` cannot be read; `reason` says why. Printed as "path: reason"."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read(path: str) -> Tensor:
    """The image in the file `path`, (H, W, 3) uint8; raises `BadImage`.

    A file that the system cannot read (missing, forbidden, a broken disk) is a bad image too.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        raise BadImage(path, error.strerror or type(error).__name__) from None
    return decode(data, path)


def decode(data: bytes, path: str) -> Tensor:
    """The image in the bytes `data`, (H, W, 3) uint8; raises `BadImage` naming `path`."""
    if not data:
        raise BadImage(path, "the file is empty")
    try:
        pixels = _jpeg(data)
        return torch.from_numpy(_other(data) if pixels is None else pixels)
    except UnidentifiedImageError:  # its message holds a memory address
        raise BadImage(path, "not an image of a known format") from None
    except Exception as error:
        # decoders raise nearly anything on damaged bytes: OSError, SyntaxError, struct.error, ...
        reason = one_line(error) or type(error).__name__
        raise BadImage(path, reason) from None


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
            if image.mode.startswith("I"):  # 16 bits, whatever PIL stores them in
                high = np.clip(np.array(image, dtype=np.int64), 0, 65535) >> 8
                return np.repeat(high.astype(np.uint8)[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
