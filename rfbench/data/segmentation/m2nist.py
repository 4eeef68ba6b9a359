"""M2NIST as it is distributed: combined.npy, the images, and segmented.npy, a mask per class."""

import os

import numpy as np

from rfbench import files
from rfbench.data.folder import missing
from rfbench.data.segmentation.digits import NAMES, m2nist_set
from rfbench.data.segmentation.pairs import IGNORED, ArrayPairs, SegSet
from rfbench.errors import RfbenchError, UsageError, one_line

EXPECTED = "combined.npy (N, 64, 84) and segmented.npy (N, 64, 84, 11)"
CLASSES = len(NAMES) + 1
MOST_UNCLEAR = 0.01  # share of pixels in no mask or in several, which are ignored
CHUNK = 250  # images that are converted at once: segmented.npy has 296 MB


def m2nist(root: str, val_share: float = 0.2, eval_only: bool = False) -> SegSet:
    """ROOT/combined.npy and ROOT/segmented.npy; the last `val_share` of the images validates.

    M2NIST has no split of its own. Channel k < 10 of segmented.npy is 1 where digit k is, channel
    10 where none is.
    """
    if not 0 < val_share < 1:
        raise UsageError(f"data.options.val_share must lie between 0 and 1 (it is {val_share})")
    images, masks = (_array(root, name) for name in ("combined.npy", "segmented.npy"))
    if images.ndim != 3 or masks.shape != (*images.shape, CLASSES):
        raise RfbenchError(
            f"{root}: combined.npy is {_shape(images)} and segmented.npy {_shape(masks)}; expected "
            f"{EXPECTED}."
        )
    if len(images) < 2:
        raise RfbenchError(f"{root}: combined.npy has {len(images)} images; there must be two.")
    grey = _grey(images, os.path.join(root, "combined.npy"))
    classes, unclear = _classes(masks, os.path.join(root, "segmented.npy"))
    pixels = np.concatenate([np.repeat(grey[..., None], 3, 3), classes[..., None]], 3)
    notes = (f"{unclear} pixels are in no mask or in several: they are ignored",) if unclear else ()
    first = min(max(1, round(len(pixels) * (1 - val_share))), len(pixels) - 1)
    train = pixels[:0] if eval_only else pixels[:first]
    return m2nist_set(
        "m2nist", ArrayPairs(train, "m2nist"), ArrayPairs(pixels[first:], "m2nist/val"), notes
    )


def _array(root: str, name: str) -> np.ndarray:
    path = os.path.join(root, name)
    try:
        files.check_regular(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise missing("M2NIST", root, EXPECTED) from None
    except (OSError, ValueError, EOFError) as error:
        raise RfbenchError(f"{path} cannot be read: {one_line(error)}") from None


def _shape(array: np.ndarray) -> str:
    return f"({', '.join(map(str, array.shape))})"


def _grey(images: np.ndarray, path: str) -> np.ndarray:
    """The images as uint8; RfbenchError unless their values are whole numbers up to 255."""
    if images.dtype.kind not in "uifb":
        raise RfbenchError(f"{path} holds {images.dtype}, not numbers.")
    values = np.asarray(images)
    inside = np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255
    if not inside or values.max() <= 1 or (values != np.floor(values)).any():
        raise RfbenchError(
            f"{path}: expected grey values of 0 to 255; they are from {values.min():g} to "
            f"{values.max():g}."
        )
    return values.astype(np.uint8)


def _classes(masks: np.ndarray, path: str) -> tuple[np.ndarray, int]:
    """The class of each pixel (N, H, W) uint8, and the number of pixels that are ignored."""
    if masks.dtype.kind not in "uifb":
        raise RfbenchError(f"{path} holds {masks.dtype}, not numbers.")
    found = np.empty(masks.shape[:3], np.uint8)
    unclear = 0
    for start in range(0, len(masks), CHUNK):
        part = np.asarray(masks[start : start + CHUNK])
        if ((part != 0) & (part != 1)).any():
            raise RfbenchError(f"{path}: expected masks of 0 and 1; there is {_other(part):g}.")
        one = part.sum(3) == 1
        found[start : start + CHUNK] = np.where(one, part.argmax(3), IGNORED)
        unclear += int((~one).sum())
    if unclear > MOST_UNCLEAR * found.size:
        raise RfbenchError(
            f"{path}: {unclear} of {found.size} pixels are in no mask or in several; expected one "
            "of eleven for each, the last one for the background."
        )
    return found, unclear


def _other(part: np.ndarray) -> float:
    return float(part[(part != 0) & (part != 1)].flat[0])
