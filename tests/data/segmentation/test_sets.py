"""Sets with masks, from their real layouts; what is wrong with a mask is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfbench.data.segmentation import check
from rfbench.data.segmentation.pairs import SegSet
from rfbench.data.segmentation.sources import SOURCES
from rfbench.data.sources import open_set
from rfbench.errors import RfbenchError, UsageError
from tests.data.segmentation import trees


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def load(name: str, root: Path, eval_only: bool = False, **options: Any) -> SegSet:
    """The set, with every mask looked at."""
    found = open_set(SOURCES, name, str(root), eval_only, options)
    for part in (found.train, found.val):
        check.check(part)
    return found


def values(found: SegSet, i: int = 0) -> list[int]:
    """The classes in a training mask."""
    return np.unique(found.train.read(i)[..., 3].numpy()).tolist()


def test_voc(tmp_path: Path) -> None:
    found = load("voc", trees.voc(tmp_path))
    assert (len(found.train), len(found.val), len(found.classes)) == (3, 2, 21)
    assert found.classes[15] == "person" and found.background == 0
    assert values(found) == [0, 15, 255]  # indices, whatever the palette
    assert found.train.read(2).shape == (22, 28, 4)
    again = load("voc", tmp_path / "VOCdevkit", val="train", eval_only=True)
    assert (len(again.train), len(again.val)) == (0, 3)
    (tmp_path / "VOCdevkit" / "VOC2007").mkdir()
    with pytest.raises(UsageError, match="has VOC2007, VOC2012: choose one, as in -o data.root="):
        load("voc", tmp_path)
    with pytest.raises(RfbenchError, match="3 images are for training and for validation: "):
        load("voc", tmp_path / "VOCdevkit" / "VOC2012", val="train")


def test_cityscapes(tmp_path: Path) -> None:
    found = load("cityscapes", trees.cityscapes(tmp_path))
    assert (len(found.train), len(found.val), len(found.classes)) == (2, 2, 19)
    assert values(found) == [0, 255]  # road, and "static", which is no class of the benchmark
    assert values(found, 1) == [0, 18] and found.classes[18] == "bicycle"
    assert found.background is None


@pytest.mark.parametrize("colors", [False, True])
def test_camvid(colors: bool, tmp_path: Path) -> None:
    found = load("camvid", trees.camvid(tmp_path, colors))
    assert values(found) == ([0, 255] if colors else [3, 255])
    assert found.classes == ["Road", "Sky"] if colors else found.classes[3] == "road"
    assert len(found.classes) == (2 if colors else 11)


def test_m2nist(tmp_path: Path) -> None:
    found = load("m2nist", trees.m2nist(tmp_path))
    assert (len(found.train), len(found.val), found.size) == (8, 2, (64, 84))
    pixels = found.train.read(3)
    assert pixels.shape == (64, 84, 4) and pixels[12, 16].tolist() == [200, 200, 200, 3]
    assert pixels[0, 0].tolist() == [0, 0, 0, 10] and found.classes[10] == "background"
    assert found.background == 10


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("combined", lambda a: a[:3], "combined.npy is .3, 64, 84. and segmented.npy"),
        ("combined", lambda a: a / 255, "expected grey values of 0 to 255; they are from 0 to 0.7"),
        ("segmented", lambda a: a[..., :10], "segmented.npy .10, 64, 84, 10.; expected"),
        ("segmented", lambda a: a * 2, "expected masks of 0 and 1; there is 2"),
        ("segmented", lambda a: a * 0, "53760 of 53760 pixels are in no mask or in several"),
    ],
)
def test_m2nist_of_another_kind(name: str, change: Any, message: str, tmp_path: Path) -> None:
    path = trees.m2nist(tmp_path) / f"{name}.npy"
    np.save(path, change(np.load(path)))
    with pytest.raises(RfbenchError, match=message):
        load("m2nist", tmp_path)


def test_a_folder(tmp_path: Path) -> None:
    found = load("folder", trees.folder(tmp_path), background="ground")
    assert (len(found.train), len(found.val)) == (3, 3)
    assert found.classes == ["ground", "tree", "house"] and found.background == 0
    assert values(found, 1) == [0, 2]
    plain = trees.folder(tmp_path / "plain", ("",), 10)
    held = load("folder", plain, val_share=0.2)
    assert (len(held.train), len(held.val)) == (8, 2)
    same = load("folder", plain, val_share=0.2)
    assert [held.val.name(i) for i in range(2)] == [same.val.name(i) for i in range(2)]


def test_colours_of_a_folder(tmp_path: Path) -> None:
    for part in ("train", "val"):
        trees.image(tmp_path / "images" / part / "0.png")
        path = tmp_path / "masks" / part / "0.png"
        path.parent.mkdir(parents=True)
        table = np.array([[0, 0, 0], [128, 0, 0], [255, 255, 255]], np.uint8)
        stored = trees.halves(0, 1)
        stored[0] = 2
        Image.fromarray(table[stored]).save(path)
    own = {"classes": ["ground", "tree"]}
    found = load("folder", tmp_path, colors=[[0, 0, 0], [128, 0, 0]], **own)
    assert values(found) == [0, 1, 255]  # white is ignored
    with pytest.raises(RfbenchError) as caught:
        load("folder", tmp_path, **own)
    (line,) = caught.value.args
    assert line.startswith(f"{tmp_path}/masks/train/0.png: a colour image (RGB) where the index")
    assert "data.options.colors=[[0,0,0],[128,0,0],...]" in line and "convert('L')" in line
    with pytest.raises(RfbenchError, match=r"colours beyond the classes, \[128, 0, 0\] at 285 pix"):
        load("folder", tmp_path, colors=[[0, 0, 0], [1, 1, 1]], **own)


@pytest.mark.parametrize(
    ("values_", "message"),
    [
        (trees.halves(0, 3), "holds values beyond the classes, 3 at 300 pixels; known: 0 to 2"),
        (trees.halves(0, 1, (20, 31)), "the mask is 31x20 px, its image 30x20 px"),
    ],
)
def test_a_mask_that_does_not_fit(values_: np.ndarray, message: str, tmp_path: Path) -> None:
    trees.folder(tmp_path)
    path = trees.mask(tmp_path / "masks/val/in/2.png", values_)
    with pytest.raises(RfbenchError) as caught:
        load("folder", tmp_path)
    (line,) = caught.value.args
    assert line.startswith(f"{path}: ") and message in line


def test_masks_that_are_not_there(tmp_path: Path) -> None:
    trees.folder(tmp_path)
    (tmp_path / "masks/train/in/1.png").unlink()
    with pytest.raises(RfbenchError, match=r"a mask is missing: .*/masks/train/in/1.png$"):
        load("folder", tmp_path)
    Image.fromarray(trees.halves(0, 1)).save(tmp_path / "masks/train/in/1.png", format="JPEG")
    with pytest.raises(RfbenchError, match="JPEG changes the values of a mask; save it as PNG"):
        load("folder", tmp_path)
    (tmp_path / "masks/train/in/1.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(RfbenchError, match="1.png: not an image of a known format"):
        load("folder", tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(UsageError, match="which classes do the masks of"):
        load("folder", tmp_path)


def test_many_problems_are_told_shortly(tmp_path: Path) -> None:
    trees.folder(tmp_path, count=12)
    for i in range(12):
        trees.mask(tmp_path / f"masks/train/in/{i}.png", trees.halves(7, 9))
    with pytest.raises(RfbenchError) as caught:
        load("folder", tmp_path)
    assert len(caught.value.args) == 9 and caught.value.args[-1] == "and 4 more masks"


@pytest.mark.parametrize("name", [name for name in SOURCES if "digits" not in name])
def test_a_set_that_is_not_there(name: str, tmp_path: Path) -> None:
    if name == "m2nist_like":
        return
    with pytest.raises(RfbenchError, match=rf"at {tmp_path}. Expected .*data.root=PATH"):
        load(name, tmp_path)


def test_digit_scenes_have_the_masks_of_detection(tmp_path: Path) -> None:
    """The same scenes as `data.digits` draws, with one or two digits."""
    from rfbench.data import digits

    found = load("digits", tmp_path, train_scenes=6, val_scenes=2)
    for i, (image, placed) in enumerate(digits.draw("train", 0, 6, objects=(1, 2))):
        pixels = found.train.read(i).numpy()
        assert (pixels[..., :3] == image).all()
        expected = np.zeros((48, 48), int)
        for one in placed:
            expected[one.mask] = int(found.classes.index(str(one.label)))
        assert (pixels[..., 3] == expected).all()
    cached = load("digits", tmp_path, train_scenes=6, val_scenes=2)
    assert (cached.train.pixels == found.train.pixels).all()  # type: ignore[union-attr]


def test_larger_scenes(tmp_path: Path) -> None:
    small = load("digits", tmp_path, train_scenes=2, val_scenes=2)
    found = load("digits", tmp_path, train_scenes=2, val_scenes=2, size=96, objects=[3, 3])
    assert found.train.read(0).shape == (96, 96, 4) and found.crop == (96, 96)
    labels = [len(np.unique(found.train.read(i)[..., 3])) - 1 for i in range(2)]
    assert 1 <= max(labels) <= 3
    assert small.train.read(0).shape == (48, 48, 4)
    for size in (0, 31, 2000):
        with pytest.raises(UsageError, match=rf"size must be 32 to 1024 px \(it is {size}\)"):
            load("digits", tmp_path, train_scenes=2, val_scenes=2, size=size)


def test_larger_digits(tmp_path: Path) -> None:
    scenes = {"train_scenes": 4, "val_scenes": 2, "size": 96, "objects": [1, 1]}
    shares = {}
    for scale in (None, [0.7, 1.2], [3, 4]):
        pixels = load("digits", tmp_path, **scenes, scale=scale).train.pixels  # type: ignore[union-attr]
        shares[str(scale)] = float((pixels[..., 3] > 0).float().mean())
    assert shares["None"] == shares["[0.7, 1.2]"]
    assert shares["[3, 4]"] > 5 * shares["None"]  # areas grow with the square
    for scale, why in {
        (2, 1): r"scale must be \[least, most\] \(it is \[2, 1\]\)",
        (0, 1): "scale must be",
        (1, 5): "digits of 100 px do not fit into 96 px",
        (): r"scale must be \[least, most\] \(it is \[\]\)",
        (1, 2, 3): r"scale must be \[least, most\] \(it is \[1, 2, 3\]\)",
    }.items():
        with pytest.raises(UsageError, match=why):
            load("digits", tmp_path, **scenes, scale=list(scale))
    for objects in ([], [2], [1, 2, 3], [2, 1], [0, 0]):
        with pytest.raises(UsageError, match=r"objects must be \[least, most\]"):
            load("digits", tmp_path, **{**scenes, "objects": objects})


def test_images_like_those_of_m2nist(tmp_path: Path) -> None:
    found = load("m2nist_like", tmp_path, train_images=40, val_images=5)
    counts = set()
    for i in range(40):
        pixels = found.train.read(i).numpy()
        assert pixels.shape == (64, 84, 4) and (pixels[..., 0] == pixels[..., 2]).all()
        ink, digits = pixels[..., 0] > 0, pixels[..., 3] != 10
        assert (ink == digits).all()  # so that no digit lies over another
        counts.add(len(np.unique(pixels[..., 3])) - 1)
    assert counts == {1, 2, 3}
    assert found.classes == [*map(str, range(10)), "background"] and found.background == 10


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_one_mask_of_two_images_is_told(link: str, tmp_path: Path) -> None:
    trees.folder(tmp_path, count=3)
    first, second = sorted((tmp_path / "masks" / "train" / "in").iterdir())[:2]
    assert load("folder", tmp_path).notes == ()
    second.unlink()
    getattr(second, link)(first)
    (note,) = load("folder", tmp_path).notes
    assert note == f"1 mask is another image's, by links: {second} (is {first})"
