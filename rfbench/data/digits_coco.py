"""Digit scenes as a COCO data set: the same files, so the same loaders, trainer and evaluator run.

A root in COCO's layout: `annotations/instances_{train,val}2017.json`, `train2017/`, `val2017/`.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from contourpy import contour_generator
from scipy import ndimage

from rfbench.data.digits import MNIST, Digit, Placed, load_digits, scene
from rfbench.errors import RfbenchError, UsageError

# increase with every change of the files
VERSION = 1
MAKER = "rfbench digit scenes"
PARTS = ("train", "val")
# with gaps, like COCO's, so that confusing a class's index with its id is noticed
CATEGORY_IDS = tuple(3 * label + 2 for label in range(10))


def write(
    root: Path,
    seed: int = 0,
    train: int = 600,
    val: int = 100,
    size: int = 128,
    objects: tuple[int, int] = (1, 3),
    scale: tuple[float, float] = (1.3, 4.1),
    distractors: int = 3,
    thicken: int = 1,
) -> None:
    """Write `train` and `val` scenes of `size` px, each with objects[0] to objects[1] digits.

    MNIST's digits are 20 px high or wide; they grow by `thicken` of those px on each side and then
    by `scale`: from 28 to 90 px by default. The same set at `root` is kept; another set of
    digit scenes is replaced, as a whole folder; anything else is an RfbenchError. Impossible
    settings are a UsageError.
    """
    settings = {
        "version": VERSION,
        "seed": seed,
        "scenes": {"train": train, "val": val},
        "size": size,
        "objects": list(objects),
        "scale": list(scale),
        "distractors": distractors,
        "thicken": thicken,
    }
    _check(settings)
    if _is_complete(root, settings):
        return
    _refuse_foreign(root)
    root = root.absolute()
    aside = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        for part in PARTS:
            _write_part(aside, part, settings)
        _become(aside, root, settings)
    except OSError as error:
        raise RfbenchError(f"{root}: cannot write the digit scenes: {error.strerror}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def scenes(part: str, settings: dict[str, Any]) -> Iterator[tuple[np.ndarray, list[Placed]]]:
    """The images (H, W, 3) uint8 of "train" or "val" with their digits; see `write`.

    Scene i is the same whatever the number of scenes is.
    """
    pool = [_thicker(digit, settings["thicken"]) for digit in load_digits(part)]
    low, high = settings["objects"]
    for number in range(settings["scenes"][part]):
        key = np.array([settings["seed"], number * len(PARTS) + PARTS.index(part)], np.uint64)
        rng = np.random.RandomState(np.random.Philox(key=key))
        chosen = rng.randint(len(pool), size=rng.randint(low, high + 1))
        parts = rng.randint(len(pool), size=settings["distractors"])
        yield scene(
            rng,
            [pool[i] for i in chosen],
            [pool[i].ink for i in parts],
            size=settings["size"],
            scale=tuple(settings["scale"]),
        )


def segmentation(mask: np.ndarray) -> list[list[float]] | dict[str, Any]:
    """A mask (H, W) in COCO's format: polygons [x, y, x, y, ...], or run lengths if it has holes.

    COCO's polygons have no holes; pixel i spans i to i + 1.
    """
    if (ndimage.binary_fill_holes(mask) != mask).any():
        return {"size": list(mask.shape), "counts": run_lengths(mask)}
    outlines: Any = contour_generator(z=np.pad(mask.astype(np.float64), 1)).lines(0.5)
    # the last point repeats the first; padding shifts by one px, a pixel's centre by half
    return [(points[:-1] - 0.5).ravel().tolist() for points in outlines]


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths of a mask (H, W): down the columns, zeros first."""
    column = np.concatenate([[False], mask.ravel(order="F"), [False]])
    # ends of runs; the first and the last may be empty
    ends = np.flatnonzero(column[1:] != column[:-1])
    runs = np.diff(np.concatenate([[0], ends, [mask.size]])).tolist()
    return runs if runs[-1] else runs[:-1]


def _check(settings: dict[str, Any]) -> None:
    """Raise UsageError where no scene can be drawn as `settings` say."""
    (few, many), (small, large) = settings["objects"], settings["scale"]
    side = large * (MNIST + 2 * settings["thicken"])
    if not 0 <= few <= many or not many:
        raise UsageError(f"digit scenes: objects must be [least, most] (it is [{few}, {many}])")
    if not 0 < small <= large:
        raise UsageError(f"digit scenes: scale must be [least, most] (it is [{small}, {large}])")
    if side > settings["size"]:
        raise UsageError(
            f"digit scenes: a scale of {large:g} makes digits of {side:.0f} px, which do not fit "
            f"into {settings['size']} px. Lower scale or thicken, or raise size."
        )


def _thicker(digit: Digit, by: int) -> Digit:
    """The digit with strokes wider by `by` px of MNIST on each side; thin ones are hard to see."""
    ink = np.pad(digit.ink, by)
    return Digit(digit.label, ndimage.grey_dilation(ink, size=2 * by + 1)) if by else digit


def _write_part(root: Path, part: str, settings: dict[str, Any]) -> None:
    folder = root / f"{part}2017"
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, placed in scenes(part, settings):
        # no id is used twice, not even in the other part
        number = len(PARTS) * len(images) + PARTS.index(part) + 1
        name = f"{number:012d}.jpg"
        image = np.ascontiguousarray(image)
        data = simplejpeg.encode_jpeg(image, quality=95, colorsubsampling="444")
        (folder / name).write_bytes(data)
        height, width, _ = image.shape
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        annotations += [_annotation(one, number) for one in placed]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    content = {
        "info": {"description": MAKER, "settings": settings},
        "licenses": [{"id": 1, "name": "MNIST", "url": "http://yann.lecun.com/exdb/mnist/"}],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": str(label), "supercategory": "digit"}
            for label, number in enumerate(CATEGORY_IDS)
        ],
    }
    _annotations(root, part).parent.mkdir(exist_ok=True)
    _annotations(root, part).write_text(json.dumps(content), encoding="utf-8")


def _annotation(one: Placed, image: int) -> dict[str, Any]:
    x0, y0, x1, y1 = one.box
    return {
        "image_id": image,
        "category_id": CATEGORY_IDS[one.label],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(one.mask.sum()),
        "iscrowd": 0,
        "segmentation": segmentation(one.mask),
    }


def _annotations(root: Path, part: str) -> Path:
    return root / "annotations" / f"instances_{part}2017.json"


def _is_complete(root: Path, settings: dict[str, Any]) -> bool:
    """Whether `root` holds the set with these settings, and every image of it."""
    for part in PARTS:
        content = _read(_annotations(root, part))
        if content.get("info") != {"description": MAKER, "settings": settings}:
            return False
        try:
            present = set(os.listdir(root / f"{part}2017"))
        except OSError:
            return False
        if not present.issuperset(image["file_name"] for image in content["images"]):
            return False
    return True


def _read(path: Path) -> dict[str, Any]:
    """The content of a JSON file; {} if it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_foreign(root: Path) -> None:
    """Only an earlier set of digit scenes may be replaced, and an empty folder."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    own = [_read(_annotations(root, part)).get("info") for part in PARTS]
    if not any(isinstance(info, dict) and info.get("description") == MAKER for info in own):
        raise RfbenchError(
            f"{root} holds something other than digit scenes. Choose another folder with "
            "-o data.root=PATH."
        )


def _become(aside: Path, root: Path, settings: dict[str, Any]) -> None:
    """Rename the whole folder; keep the same set if another process was faster."""
    root.parent.mkdir(parents=True, exist_ok=True)
    if _is_complete(root, settings):
        return
    old = aside.with_suffix(".old")
    try:
        if root.exists():
            os.rename(root, old)
        os.rename(aside, root)
    except OSError:
        if not _is_complete(root, settings):
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
