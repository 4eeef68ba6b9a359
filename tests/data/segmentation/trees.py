"""Small sets in the layouts in which the real ones are distributed."""

from pathlib import Path

import numpy as np
from PIL import Image


def image(path: Path, size: tuple[int, int] = (20, 30), seed: int = 0) -> Path:
    """A photo-like file of `size` (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, values: np.ndarray, palette: bool = False) -> Path:
    """Indices as a grey PNG, or with a palette, as VOC has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = Image.fromarray(values.astype(np.uint8))
    if palette:
        held.putpalette([*np.random.default_rng(0).integers(0, 255, 768).tolist()])
    held.save(path)
    return path


def halves(left: int, right: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    """A mask of two values, side by side."""
    found = np.full(size, left, np.uint8)
    found[:, size[1] // 2 :] = right
    return found


def voc(root: Path) -> Path:
    folder = root / "VOCdevkit" / "VOC2012"
    for part, names in (("train", ["2007_1", "2007_2", "2007_3"]), ("val", ["2007_4", "2007_5"])):
        path = folder / "ImageSets" / "Segmentation" / f"{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
        for i, name in enumerate(names):
            size = (20 + i, 30 - i)  # they differ, as in VOC
            image(folder / "JPEGImages" / f"{name}.jpg", size, i)
            values = halves(0, 15, size)
            values[3] = 255
            mask(folder / "SegmentationClass" / f"{name}.png", values, palette=True)
    return root


def cityscapes(root: Path) -> Path:
    for part, city in (("train", "aachen"), ("val", "lindau")):
        for i in range(2):
            stem = f"{city}_00000{i}_000019"
            image(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png", (16, 32), i)
            own = root / "gtFine" / part / city
            mask(own / f"{stem}_gtFine_labelIds.png", halves(7, 33 if i else 4, (16, 32)))
            image(own / f"{stem}_gtFine_color.png", (16, 32))
    return root


def camvid(root: Path, colors: bool) -> Path:
    for part in ("train", "val"):
        for i in range(2):
            image(root / part / f"0001TP_{i}.png", (18, 24), i)
            values = halves(3, 11, (18, 24))
            if not colors:
                mask(root / f"{part}annot" / f"0001TP_{i}.png", values)
                continue
            path = root / f"{part}_labels" / f"0001TP_{i}_L.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            table = np.zeros((256, 3), np.uint8)
            table[3], table[11] = (128, 64, 128), (0, 0, 0)
            Image.fromarray(table[values]).save(path)
    if colors:
        lines = "name,r,g,b\nRoad, 128,64,128\nSky,128,128,128\nVoid,0,0,0\n"
        (root / "class_dict.csv").write_text(lines)
    return root


def folder(root: Path, parts: tuple[str, ...] = ("train", "val"), count: int = 3) -> Path:
    for part in parts:
        for i in range(count):
            image(root / "images" / part / "in" / f"{i}.jpg", seed=i)
            mask(root / "masks" / part / "in" / f"{i}.png", halves(0, 1 + i % 2))
    (root / "classes.txt").write_text("ground\ntree\nhouse\n")
    return root


def m2nist(root: Path, count: int = 10) -> Path:
    """Images of 64x84 px with one square each."""
    root.mkdir(parents=True, exist_ok=True)
    images = np.zeros((count, 64, 84), np.uint8)
    masks = np.zeros((count, 64, 84, 11), np.uint8)
    masks[..., 10] = 1
    for i in range(count):
        box = np.s_[i, 10:20, 5 * i : 5 * i + 10]
        images[box] = 200
        masks[box] = np.eye(11, dtype=np.uint8)[i % 10]
    np.save(root / "combined.npy", images)
    np.save(root / "segmented.npy", masks)
    return root
