"""Artificial photos in ImageNet's layout, for bench_cls."""

import os
from pathlib import Path

import numpy as np
from PIL import Image


def photo(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """An image with the spectrum of a photo: noise whose amplitude falls as 1 / frequency."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    shape = (3, *fall.shape)
    spectrum = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * fall
    spectrum[1:] = 0.8 * spectrum[:1] + 0.2 * spectrum[1:]  # channels are correlated
    values = np.fft.irfft2(spectrum, s=(height, width))
    values = 128 + 50 * values / values.std()
    return Image.fromarray(values.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def write_tree(root: Path, count: int, val: int = 10) -> None:
    """JPEGs of ImageNet's usual size and layout, about 100 KB each, at most 100 different ones."""
    root.mkdir(parents=True, exist_ok=True)
    rng, different = np.random.default_rng(0), min(100, max(count, 10))
    for i in range(different):
        photo(rng, 375, 500).save(root / f"{i}.jpg", quality=87)
    for part, number in (("train", count), ("val", val)):
        for i in range(number):
            folder = root / part / f"n0000000{i % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            os.link(
                root / f"{i % different}.jpg", folder / f"{i}.JPEG"
            )  # no second copy on the disk
