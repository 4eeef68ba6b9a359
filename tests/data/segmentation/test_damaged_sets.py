"""Sets with masks, with parts missing, doubled or called otherwise: named, never trained on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from rfbench.data.segmentation.pairs import SegSet
from rfbench.data.segmentation.sources import SOURCES
from rfbench.data.sources import open_set
from rfbench.errors import RfbenchError
from tests.data.segmentation import trees
from tests.data.segmentation.test_sets import load


def opened(name: str, root: Path) -> SegSet:
    return open_set(SOURCES, name, str(root))


def in_list(text: bytes, part: str = "train") -> Callable[[Path], object]:
    """Replaces a list of VOC."""
    return lambda year: (year / "ImageSets/Segmentation" / f"{part}.txt").write_bytes(text)


def with_space(year: Path) -> None:
    for folder, ending in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        path = year / folder / f"2007_1{ending}"
        path.rename(path.with_stem("2007_1 b"))
    in_list(b"2007_1 b\n2007_2\n")(year)


def linked(year: Path) -> None:
    for folder, ending in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        (year / folder / f"again{ending}").symlink_to(f"2007_1{ending}")


def linked_twice(year: Path) -> None:
    linked(year)
    in_list(b"2007_1\nagain\n")(year)


def linked_in_val(year: Path) -> None:
    linked(year)
    in_list(b"2007_4\nagain\n", "val")(year)


def pipe(year: Path) -> None:
    (year / "SegmentationClass/2007_1.png").unlink()
    os.mkfifo(year / "SegmentationClass/2007_1.png")


def other_ending(year: Path) -> None:
    (year / "JPEGImages/2007_1.jpg").rename(year / "JPEGImages/2007_1.JPG")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (in_list(b"2007_1\n2007_2\n2007_1\n"), "names images more than once: .*/2007_1.jpg$"),
        (in_list(b"2007_4\n2007_1\n"), "1 images are for training and for validation: .*_4.jpg"),
        (in_list(b"2007_1 1\n2007_2 -1\n"), "2 masks are missing: .*2007_1 1.png, .*_2 -1.png"),
        (in_list(b"2007_1 copy\n2007_2\n"), "a mask is missing: .*/2007_1 copy.png"),
        (in_list(b"/J/2007_1.jpg /S/2007_1.png\n"), "a mask is missing: "),
        (in_list(b"2007_1.jpg\n"), "a mask is missing: .*2007_1.jpg.png"),
        (in_list(b"2007_1\x00\n"), r"a mask is missing: .*2007_1\x00.png"),
        (in_list("2007_1\n".encode("utf-16")), "train.txt is not UTF-8: it is in UTF-16"),
        (in_list(b""), "train.txt names no images"),
        (in_list(b"\n \r\n", "val"), "val.txt names no images"),
        (linked_twice, "2007_1.jpg and .*/again.jpg are one file"),
        (linked_in_val, "1 images are for training and for validation: .*/again.jpg"),
        (pipe, r"a mask is missing: .*2007_1.png \(what is there is no regular file\)"),
        (other_ending, r"an image is missing: .*2007_1.jpg \(there is 2007_1.JPG\)"),
    ],
)
def test_voc(change: Callable[[Path], object], told: str, tmp_path: Path) -> None:
    trees.voc(tmp_path)
    change(tmp_path / "VOCdevkit/VOC2012")
    with pytest.raises(RfbenchError, match=told):
        load("voc", tmp_path)


def test_lists_of_voc_as_other_systems_write_them(tmp_path: Path) -> None:
    year = trees.voc(tmp_path) / "VOCdevkit/VOC2012"
    in_list(b"\xef\xbb\xbf\r\n2007_1  \r\n\r\n\t2007_3")(year)
    found = load("voc", tmp_path)
    assert [Path(found.train.name(i)).stem for i in range(len(found.train))] == ["2007_1", "2007_3"]
    with_space(year)
    assert Path(load("voc", tmp_path).train.name(0)).stem == "2007_1 b"


ROAD, VOID = "Road,128,64,128", "Void,0,0,0"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([ROAD, "Street,128,64,128", VOID], r"Road and Street have one colour, \[128, 64, 128\]"),
        ([ROAD, ROAD, VOID], "a line is there twice"),
        (["Road,128,64,300", VOID], "the colour of Road is not of values from 0 to 255"),
        (["Road,128,64,-1", VOID], "the colour of Road is not of values from 0 to 255"),
        ([",128,64,128", VOID], r"the class of the colour \[128, 64, 128\] has no name"),
        (["Road,128,64,128,0", VOID], "expected lines of name,r,g,b: line 2 has 5 values"),
        (["Road,128,64", VOID], "line 2 has 3 values"),
        (["Road,128,64,x", VOID], "invalid literal for int"),
        (["Road,128.0,64,128", VOID], "invalid literal for int"),
        ([VOID], "names no classes"),
        ([ROAD, "Road,1,1,1", VOID], "two classes are called 'Road'"),
    ],
)
def test_colours_of_camvid(lines: list[str], told: str, tmp_path: Path) -> None:
    trees.camvid(tmp_path, colors=True)
    (tmp_path / "class_dict.csv").write_text("\n".join(["name,r,g,b", *lines, ""]))
    with pytest.raises(RfbenchError, match=told):
        load("camvid", tmp_path)


@pytest.mark.parametrize("head", ["", "Name;R;G;B\nRoad;128;64;128\n", "Road,128,64,128\n"])
def test_a_table_of_colours_without_its_first_line(head: str, tmp_path: Path) -> None:
    trees.camvid(tmp_path, colors=True)
    (tmp_path / "class_dict.csv").write_text(head)
    with pytest.raises(RfbenchError, match="expected lines of name,r,g,b: the first line is"):
        load("camvid", tmp_path)


def test_a_table_of_colours_as_spreadsheets_write_it(tmp_path: Path) -> None:
    trees.camvid(tmp_path, colors=True)
    lines = ['"name", r,g,b', "", '"Road, paved",128, 64 ,128', "unlabelled,1,1,1", VOID]
    (tmp_path / "class_dict.csv").write_bytes(
        "\r\n".join(["\ufeff" + lines[0], *lines[1:]]).encode()
    )
    found = load("camvid", tmp_path)
    assert found.classes == ["Road, paved"]
    assert set(found.train.read(0)[..., 3].unique().tolist()) == {0, 255}


@pytest.mark.parametrize(("name", "masks"), [("camvid", "trainannot"), ("folder", "masks/train")])
def test_two_images_of_one_mask(name: str, masks: str, tmp_path: Path) -> None:
    trees.camvid(tmp_path, False) if name == "camvid" else trees.folder(tmp_path)
    below = "train" if name == "camvid" else "images/train"
    first = sorted((tmp_path / below).rglob("*.*"))[0]
    shutil.copy(first, first.with_suffix(".bmp"))
    with pytest.raises(RfbenchError, match=f"has images of one mask: .*{first.stem}.bmp, .*"):
        load(name, tmp_path)


def test_images_of_cityscapes_that_are_called_otherwise(tmp_path: Path) -> None:
    """They would be left out without a word, and so would masks whose image is not there."""
    trees.cityscapes(tmp_path)
    assert opened("cityscapes", tmp_path).notes == ()
    first = sorted((tmp_path / "leftImg8bit/train").rglob("*.png"))[0]
    first.rename(first.with_suffix(".PNG"))
    called, idle = opened("cityscapes", tmp_path).notes
    assert "left out what is not called *_leftImg8bit.png: " in called and first.stem in called
    assert "masks without an image: " in idle and idle.endswith("_gtFine_labelIds.png")


def test_masks_of_camvid_without_an_image(tmp_path: Path) -> None:
    trees.camvid(tmp_path, False)
    (tmp_path / "train/0001TP_0.png").unlink()
    (note,) = opened("camvid", tmp_path).notes
    assert note.endswith("masks without an image: " + str(tmp_path / "trainannot/0001TP_0.png"))


def test_a_mask_of_several_images(tmp_path: Path) -> None:
    """Decoders would take the first."""
    trees.folder(tmp_path)
    frames = [Image.fromarray(trees.halves(0, one)) for one in (1, 2)]
    path = tmp_path / "masks/train/in/1.png"
    frames[0].save(path, format="TIFF", save_all=True, append_images=frames[1:])
    with pytest.raises(RfbenchError, match="1.png: holds 2 images: save the mask alone"):
        load("folder", tmp_path)
