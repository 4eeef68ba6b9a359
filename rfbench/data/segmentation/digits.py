"""Embedded sets: digit scenes with masks, and images like those of M2NIST.

Both are pure functions of a seed, drawn once and kept in the user's cache folder; see `data.digits`
for digits, parts and scenes.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from rfbench.data import digits as scenes
from rfbench.data.digits import MNIST, Digit
from rfbench.data.segmentation.pairs import CHANNELS, ArrayPairs, SegSet
from rfbench.errors import UsageError

Number = TypeVar("Number", int, float)
# increase with every change of what is drawn: cached files of other versions are not used
VERSION = 1
NAMES = [str(label) for label in range(10)]
M2NIST = (64, 84)  # px
SMALLEST, LARGEST = 32, 1024  # px: a digit of 24 px must fit, and a set must fit into memory
GAP = 2  # px between the digits of an image like M2NIST's


def digits(
    root: str | None = None,
    seed: int = 0,
    train_scenes: int = 12_000,
    val_scenes: int = 1_500,
    objects: list[int] | None = None,
    size: int = scenes.SIZE,
    scale: list[float] | None = None,
    eval_only: bool = False,
) -> SegSet:
    """Scenes of `size` px with one or two digits on noise, or `objects` [least, most].

    scale: [least, most], of MNIST's digits, which are 20 px high or wide; 0.7 to 1.2 by default. A
    pixel is of a digit where it has at least half of its strongest ink. `root` is not used.
    """
    few, many = _pair("objects", [1, 2] if objects is None else objects)
    if not 0 <= few <= many or not many:
        raise UsageError(f"data.options.objects must be [least, most] (it is [{few}, {many}])")
    if not SMALLEST <= size <= LARGEST:
        raise UsageError(f"data.options.size must be {SMALLEST} to {LARGEST} px (it is {size})")
    small, large = _pair("scale", [0.7, 1.2] if scale is None else scale)
    if not 0 < small <= large:
        raise UsageError(f"data.options.scale must be [least, most] (it is [{small}, {large}])")
    if large * MNIST > size:
        raise UsageError(
            f"data.options.scale: digits of {large * MNIST:g} px do not fit into {size} px"
        )
    sides = (size, size)

    def drawn(part: str, count: int) -> Iterator[np.ndarray]:
        every = scenes.draw(part, seed, count, size, (few, many), (small, large))
        for image, placed in every:
            mask = np.zeros(sides, np.uint8)
            for one in placed:
                mask[one.mask] = 1 + one.label
            yield np.dstack([image, mask])

    kind = f"masks-v{scenes.VERSION}.{VERSION}-{few}to{many}"
    kind += f"-{size}px" if size != scenes.SIZE else ""
    kind += f"-{small:g}to{large:g}x" if scale is not None else ""
    train, val = (
        _kept(kind, part, seed, count, sides, drawn)
        for part, count in (("train", 0 if eval_only else train_scenes), ("val", val_scenes))
    )
    return SegSet(
        "digits",
        ["background", *NAMES],
        train,
        val,
        background=0,
        size=sides,
        crop=sides,
        scale=(1.0, 1.0),
        flip=False,  # mirrored digits are not digits
        mean=(0.28, 0.28, 0.28),
        std=(0.14, 0.14, 0.14),
    )


def _pair(name: str, given: list[Number]) -> tuple[Number, Number]:
    """A range as it is given in `data.options`. Raises UsageError for more or fewer numbers."""
    if len(given) != 2:
        raise UsageError(f"data.options.{name} must be [least, most] (it is {given})")
    return given[0], given[1]


def m2nist_like(
    root: str | None = None,
    seed: int = 0,
    train_images: int = 4_000,
    val_images: int = 1_000,
    eval_only: bool = False,
) -> SegSet:
    """Grey images of 64x84 px on black with one to three digits that do not overlap.

    As M2NIST: digits at MNIST's size and untransformed; classes in its order, background last. A
    pixel is of a digit where it has any ink. `root` is not used.
    """
    train, val = (
        _kept(
            f"m2nist-v{VERSION}", part, seed, count, M2NIST, lambda p, n: _like_m2nist(p, seed, n)
        )
        for part, count in (("train", 0 if eval_only else train_images), ("val", val_images))
    )
    return m2nist_set("m2nist_like", train, val)


def m2nist_set(
    name: str, train: ArrayPairs, val: ArrayPairs, notes: tuple[str, ...] = ()
) -> SegSet:
    """M2NIST, or a set like it, with its usual settings."""
    size = (train.pixels if len(train) else val.pixels).shape[1:3]
    return SegSet(
        name,
        [*NAMES, "background"],
        train,
        val,
        background=10,
        size=(size[0], size[1]),
        crop=(size[0], size[1]),
        scale=(1.0, 1.0),
        flip=False,
        mean=(0.05, 0.05, 0.05),
        std=(0.2, 0.2, 0.2),
        notes=notes,
    )


def _like_m2nist(part: str, seed: int, count: int) -> Iterator[np.ndarray]:
    """`count` images (64, 84, 4); image i is the same whatever `count` is."""
    pool = scenes.load_digits(part)
    for number in range(count):
        key = np.array([seed, number * len(scenes.PARTS) + scenes.PARTS[part]], dtype=np.uint64)
        rng = np.random.RandomState(np.random.Philox(key=key))
        image, mask = np.zeros(M2NIST, np.uint8), np.full(M2NIST, 10, np.uint8)
        taken = np.zeros(M2NIST, bool)
        for index in rng.randint(len(pool), size=rng.randint(1, 4)):
            _paste(rng, pool[index], image, mask, taken)
        yield np.dstack([image] * 3 + [mask])


def _paste(
    rng: np.random.RandomState,
    digit: Digit,
    image: np.ndarray,
    mask: np.ndarray,
    taken: np.ndarray,
) -> None:
    """Put a digit where none is yet, in place; not at all if no room is found."""
    height, width = digit.ink.shape
    for _ in range(50):
        top = rng.randint(M2NIST[0] - height + 1)
        left = rng.randint(M2NIST[1] - width + 1)
        box = np.s_[top : top + height, left : left + width]
        if not taken[box].any():
            image[box] = digit.ink
            mask[box][digit.ink > 0] = digit.label
            taken[
                max(0, top - GAP) : top + height + GAP, max(0, left - GAP) : left + width + GAP
            ] = 1
            return


def _kept(
    kind: str,
    part: str,
    seed: int,
    count: int,
    size: tuple[int, int],
    draw: Callable[[str, int], Iterator[np.ndarray]],
) -> ArrayPairs:
    """What `draw` yields, from the cache if it is there."""
    file = scenes.cache_folder() / f"{kind}-{part}-seed{seed}-{count}.npz"
    cached = scenes.load_cached(file, count, (*size, CHANNELS))
    if cached is None:
        pixels = np.empty((count, *size, CHANNELS), np.uint8)
        for i, drawn in enumerate(draw(part, count)):
            pixels[i] = drawn
        cached = pixels, np.zeros(count, np.int64)
        scenes.save_cached(file, *cached)
    return ArrayPairs(cached[0], f"{kind.partition('-')[0]}/{part}")
