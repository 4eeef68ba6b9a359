"""COCO sets are looked over before a training: every fault at once, one line each."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rfbench.data import coco
from rfbench.errors import RfbenchError

Change = Callable[[dict[str, Any]], object]


def content(pictures: int = 6) -> dict[str, Any]:
    """A set as COCO's own: ids with gaps, polygons, a crowd in run lengths."""
    square = [10.5, 10.0, 30.0, 10.0, 30.0, 25.5, 10.5, 25.5]
    annotations: list[dict[str, Any]] = [
        {
            **{"id": 100 + i, "image_id": 7 * i + 5, "category_id": (3, 90)[i % 2], "iscrowd": 0},
            **{"bbox": [10.5, 10.0, 19.5, 15.5], "area": 302.25, "segmentation": [square]},
        }
        for i in range(pictures)
    ]
    crowd = {"counts": [0, 60, 60 * 79], "size": [60, 80]}
    annotations += [{**annotations[0], "id": 99, "iscrowd": 1, "segmentation": crowd}]
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [
            {"id": 7 * i + 5, "file_name": f"{i:012d}.jpg", "width": 80, "height": 60}
            for i in range(pictures)
        ],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}],
    }


def save(folder: Path, found: Any, pictures: bool = True) -> tuple[Path, Path]:
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    path = folder / "annotations/instances_val2017.json"
    path.write_text(json.dumps(found))
    if pictures:
        for one in found["images"]:
            if isinstance(one, dict) and isinstance(one.get("file_name"), str):
                Image.new("RGB", (80, 60)).save(folder / "val2017" / one["file_name"])
    return path, folder / "val2017"


def faults(folder: Path, change: Change, pictures: bool = True) -> list[str]:
    """The lines of the error after a change, without the path before each."""
    found = content()
    paths = save(folder, found, pictures)
    change(found)
    paths[0].write_text(json.dumps(found))
    with pytest.raises(RfbenchError) as error:
        coco.check(*paths)
    assert error.value.exit_code == 1
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{paths[0]}: ") for line in lines)
    return [line.removeprefix(f"{paths[0]}: ").replace(str(folder), "ROOT") for line in lines]


def test_a_good_set(tmp_path: Path) -> None:
    found = coco.check(*save(tmp_path, content()))
    assert found == coco.CocoSet({3: "car", 90: "toothbrush"}, 6, 6, 1, 6, 0, 0, ())


def first(name: str, /, **values: Any) -> Change:
    return lambda found: found[name][0].update(values)


def without(name: str, key: str) -> Change:
    return lambda found: [one.pop(key) for one in found[name]]


def again(name: str) -> Change:
    return lambda found: found[name].append(found[name][0])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            first("annotations", image_id=4),
            "'image_id' that is not in 'images': 1 (4 in annotation ",
        ),
        (
            first("annotations", category_id=1),
            "'category_id' that is not in 'categories': 1 (1 in annotation 100)",
        ),
        (again("images"), "duplicate ids in 'images': 1 (5)"),
        (again("annotations"), "duplicate ids in 'annotations': 1 (100)"),
        (again("categories"), "duplicate ids in 'categories': 1 (3)"),
        (
            first("annotations", bbox=[70, 50, 20, 5]),
            "boxes [x, y, width, height] that extend more than 1 px outside: "
            "1 ([70, 50, 20, 5] of annotation 100)",
        ),
        (first("annotations", bbox=[500, 50, 20, 5]), "boxes [x, y, width, height] that extend mo"),
        (first("annotations", bbox=[-2, 5, 20, 5]), "boxes [x, y, width, height] that extend more"),
        (first("annotations", bbox=[7, 5, 0, 5]), "boxes without area: 1 ([7, 5, 0, 5] of annota"),
        (first("annotations", bbox=[9, 5, -3, 5]), "boxes of negative width or height: 1 ([9, 5,"),
        (
            first("annotations", bbox=[1, 2, 3]),
            "'bbox' that is not four numbers [x, y, width, height]: 1 ([1, 2, 3] in annotations",
        ),
        (first("annotations", bbox=[1, 2, 3, float("nan")]), "'bbox' that is not four numbers [x"),
        (first("annotations", bbox=[1, 2, 3, "4"]), "'bbox' that is not four numbers [x, y, widt"),
        (first("annotations", bbox=None), "'bbox' that is not four numbers [x, y, width, height"),
        (
            without("annotations", "area"),
            "'annotations' without 'area': 7 (annotations[0], annotations[1], annotations[2], ...)",
        ),
        (without("annotations", "iscrowd"), "'annotations' without 'iscrowd': 7 (annotations[0],"),
        (first("annotations", id="x"), "'id' that is not a whole number: 1 (\"x\" in annotations"),
        (first("annotations", id=True), "'id' that is not a whole number: 1 (true in annotations"),
        (first("annotations", image_id=[1]), "'image_id' that is not a whole number: 1 ([1] in "),
        (first("annotations", iscrowd=2), "'iscrowd' that is not 0 or 1: 1 (2 in annotations[0])"),
        (first("annotations", ignore=1), "annotations with 'ignore', which Detectron2 does not s"),
        (first("annotations", segmentation="x"), "'segmentation' that is neither polygons nor ru"),
        (first("annotations", segmentation=[1, 2]), "'segmentation' that is neither polygons nor"),
        (first("annotations", segmentation={"size": [60, 80]}), "'segmentation' that is neither "),
        (
            first("annotations", segmentation={"size": [80, 60], "counts": [4700, 100]}),
            "run lengths of another size than their image: 1 (100)",
        ),
        (first("images", width=0), "'width' that is not a whole number above 0: 1 (0 in images[0"),
        (
            first("images", width=60, height=80),
            "images of another size than the JSON file says, of 6 looked into: "
            "1 (000000000000.jpg is 80x60, not 60x80)",
        ),
        (first("categories", name=" "), "'name' that is not a text: 1 (\" \" in categories[0])"),
        (
            first("images", id=2**53),
            "'id' that is not a whole number below 2^53, which NumPy would round: 1 (9007199",
        ),
        (first("categories", name=None), "'name' that is not a text: 1 (null in categories[0])"),
        (lambda f: f["annotations"].append(3), "'annotations' that are not objects: 1 (annotation"),
        (
            lambda f: f.update(annotations=f["annotations"][-1:]),
            "no annotations but crowds: 1 (99)",
        ),
        (
            lambda f: [one.update(file_name=f"x/{one['id']}.jpg") for one in f["images"]],
            "images that are not in ROOT/val2017: 6 (x/5.jpg, x/12.jpg, x/19.jpg, ...)",
        ),
    ],
)
def test_a_fault_is_one_line(change: Change, line: str, tmp_path: Path) -> None:
    found = faults(tmp_path, change)
    assert [one for one in found if one.startswith(line)], found
    assert len(found) <= 2  # a change of a size puts boxes outside, too


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        found["annotations"][0]["bbox"] = [1]
        found["annotations"][1]["category_id"] = 7
        found["annotations"][2]["bbox"] = [5, 5, 0, 0]
        found["images"][3]["file_name"] = "elsewhere.jpg"

    assert len(faults(tmp_path, change)) == 4


def test_files_and_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError) as error:
        coco.check(tmp_path / "annotations/instances_val2017.json", tmp_path / "val2017")
    text = str(error.value)
    assert text.startswith(f"no file {tmp_path}/annotations/instances_val2017.json; no folder ")
    assert "data.root=PATH" in text and "train2017/" in text and "\n" not in text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not JSON"),
        (b'{"images": [', "is not JSON"),
        (b"\x89PNG\r\n\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "no list 'images', 'annotations', 'categories'"),
        (b'{"images": {}, "annotations": []}', "no list 'images', 'categories'"),
        (b'{"images": [], "annotations": [], "categories": [1]}', "empty list 'images', "),
    ],
)
def test_json_that_is_not_coco(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(RfbenchError, match=words) as error:
        coco.check(path, tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_an_image(tmp_path: Path) -> None:
    paths = save(tmp_path, content())
    (paths[1] / "000000000002.jpg").write_bytes(b"no picture")
    (paths[1] / "000000000003.jpg").write_bytes(b"")
    with pytest.raises(RfbenchError, match=r"cannot be read, of 6 looked into: 2 \(000000000002"):
        coco.check(*paths)


def test_an_image_turned_by_exif_is_of_the_size_that_is_seen(tmp_path: Path) -> None:
    paths = save(tmp_path, content())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 80)).save(paths[1] / "000000000002.jpg", exif=exif)
    coco.check(*paths)


def test_a_truncated_image_and_a_pipe_are_found_before_training(tmp_path: Path) -> None:
    paths = save(tmp_path, content())
    noise = np.random.RandomState(0).randint(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(paths[1] / "000000000001.jpg")
    whole = (paths[1] / "000000000001.jpg").read_bytes()
    (paths[1] / "000000000001.jpg").write_bytes(whole[: len(whole) // 2])
    (paths[1] / "000000000004.jpg").unlink()
    os.mkfifo(paths[1] / "000000000004.jpg")
    with pytest.raises(RfbenchError) as error:
        coco.check(*paths)
    pipe, truncated = str(error.value).splitlines()
    assert "images that are no regular files in" in pipe and pipe.endswith("1 (000000000004.jpg)")
    assert "1 (000000000001.jpg: " in truncated and "truncated" in truncated


def test_categories_of_one_name(tmp_path: Path) -> None:
    found = content()
    paths = save(tmp_path, found)
    found["categories"][1]["name"] = "car"
    paths[0].write_text(json.dumps(found))
    with pytest.raises(RfbenchError, match=r"categories of one name: 1 \(car: 3 and 90\)"):
        coco.check(*paths)


@pytest.mark.parametrize("name", ["a\0.jpg", "\ud800.jpg", ""])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    found = content()
    paths = save(tmp_path, found)
    found["images"][0]["file_name"] = name
    paths[0].write_text(json.dumps(found))
    with pytest.raises(RfbenchError, match="'file_name' that is not a text"):
        coco.check(*paths)


def test_images_in_folders_of_their_own(tmp_path: Path) -> None:
    found = content()
    paths = save(tmp_path, found)
    for name in ("a", "b"):
        os.mkdir(paths[1] / name)
    for i, one in enumerate(found["images"]):
        target = f"{'ab'[i % 2]}/{one['file_name']}"
        os.rename(paths[1] / one["file_name"], paths[1] / target)
        one["file_name"] = target
    paths[0].write_text(json.dumps(found))
    assert coco.check(*paths).images == 6


def test_what_training_survives_is_a_note(tmp_path: Path) -> None:
    found = content(pictures=2500)
    objects = found["annotations"]
    objects += [{**objects[0], "id": 10_000 + i} for i in range(7500)]
    found["annotations"][0]["bbox"] = [60.2, 5, 20, 5]  # a fifth of a px: the real COCO has them
    found["annotations"][1]["bbox"] = [60, 5, 20, 0]  # no area: one in 10,000 may be so
    found["annotations"][2]["bbox"] = [60, 5, 23, 4]
    found["annotations"][3]["segmentation"] = [[1, 2, 3, 4, 1, 4], [1, 2, 3, 4]]
    found["annotations"][5]["segmentation"] = [[1, 2, 3, 4, 1, 4]]  # a triangle is enough
    found["annotations"][4]["id"] = 0
    found["categories"].append({"id": 91, "name": "hair brush"})
    found["images"] += [{**found["images"][0], "id": 1}]
    paths = save(tmp_path, found, pictures=False)
    for one in found["images"][:-1]:
        (paths[1] / one["file_name"]).symlink_to("../one.jpg")
    Image.new("RGB", (80, 60)).save(tmp_path / "one.jpg")
    notes = [note.partition(": ")[2] for note in coco.check(*paths).notes]
    assert notes == [
        "'images' without annotations, of 2501: 1 (1)",
        "'categories' without annotations, of 3: 1 (91)",
        "annotations whose match pycocotools counts as a miss; number from 1: 1 (id 0)",
        "files that are named more than once: 1 (000000000000.jpg)",
        "boxes without area: 1 ([60, 5, 20, 0] of annotation 101)",
        "boxes [x, y, width, height] that extend more than 1 px outside: "
        "1 ([60, 5, 23, 4] of annotation 102)",
        "boxes that extend up to 1 px outside: 1 ([60.2, 5, 20, 5] of annotation 100)",
        "annotations of the image, category and box of another: 7499 (10001 as 10000, 10002 as "
        "10000, 10003 as 10000, ...)",
        "boxes [x, y, width, height] that are not those of their polygons, of 9999 looked into: 4 "
        "([60.2, 5, 20, 5] of annotation 100, [60, 5, 23, 4] of annotation 102, "
        "[10.5, 10.0, 19.5, 15.5] of annotation 103, ...)",
        "'area' larger than the box: 3 (302.25 of annotation 100, 302.25 of annotation 101, "
        "302.25 of annotation 102)",
        "further polygons that are empty, odd or of fewer than three points; training drops "
        "them: 1 (103)",
    ]


@pytest.mark.parametrize("other", ["./000000000000.jpg", "link.jpg", "../val2017/000000000000.jpg"])
def test_one_file_of_two_names_is_told(other: str, tmp_path: Path) -> None:
    """Half of its objects would be background, each time that it is trained on."""
    found = content()
    found["images"][1]["file_name"] = other
    paths = save(tmp_path, found, pictures=False)
    for one in found["images"]:
        Image.new("RGB", (80, 60)).save(paths[1] / one["file_name"])
    if other == "link.jpg":
        (paths[1] / other).unlink()
        (paths[1] / other).symlink_to(found["images"][0]["file_name"])
    (note,) = [one for one in coco.check(*paths).notes if "named more than once" in one]
    assert note.endswith(f"1 ({found['images'][0]['file_name']})")


ORDERS: dict[str, Callable[[list[float]], list[float]]] = {
    "corners": lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]],
    "rows first": lambda b: [b[1], b[0], b[3], b[2]],
    "centre": lambda b: [b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]],
}


@pytest.mark.parametrize("order", ORDERS)
def test_boxes_in_another_order_are_told_by_their_polygons(order: str, tmp_path: Path) -> None:
    """All lie within their images; without a mask they would be trained on."""

    def change(found: dict[str, Any]) -> None:
        x, y = 20, 15
        polygon = [x, y, x + 11, y, x + 11, y + 13, x, y + 13]
        for one in found["annotations"][:4]:
            box = ORDERS[order]([x, y, 11, 13])
            one.update(bbox=box, area=143, segmentation=[polygon])

    (line,) = faults(tmp_path, change)
    assert line.startswith(
        "boxes [x, y, width, height] that are not those of their polygons, of 6 looked into: 4 (["
    )


def test_boxes_around_what_is_hidden_may_be_larger_than_their_polygons(tmp_path: Path) -> None:
    found = content()
    for one in found["annotations"][:5]:  # amodal: the mask is what is seen
        one["bbox"] = [10.5, 10.0, 19.5, 28.0]
    thin = [[5.0, 5.0, 25.0, 5.0, 25.0, 5.6]]
    found["annotations"][5].update(bbox=[4.5, 4.0, 21.0, 2.0], area=6, segmentation=thin)
    assert coco.check(*save(tmp_path, found)).notes == ()


def test_annotations_twice_are_told(tmp_path: Path) -> None:
    """Evaluation would count one of each as missed."""
    found = content()
    found["annotations"] += [{**one, "id": one["id"] + 500} for one in found["annotations"][:6]]
    (note,) = coco.check(*save(tmp_path, found)).notes
    assert note.endswith("box of another: 6 (600 as 100, 601 as 101, 602 as 102, ...)")


@pytest.mark.parametrize(
    "name", ["val2017/{}", "images\\{}", "/data/project/{}", "http://host/upload/{}"]
)
def test_images_that_are_there_under_their_bare_name(name: str, tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        for one in found["images"]:
            one["file_name"] = name.format(one["file_name"].replace("0", "%30", 1))

    (line,) = faults(tmp_path, change)
    assert "(000000000000.jpg is there: name files as they lie in this folder): 6 (" in line


@pytest.mark.parametrize(
    ("written", "real"),
    [
        ("images\\a.jpg", "images/a.jpg"),
        ("images/A.JPG", "images/a.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("a%20b.jpg", "a b.jpg"),
    ],
)
def test_images_that_are_there_under_another_spelling(
    written: str, real: str, tmp_path: Path
) -> None:
    def change(found: dict[str, Any]) -> None:
        path = tmp_path / "val2017" / real
        path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "val2017" / found["images"][0]["file_name"]).rename(path)
        found["images"][0]["file_name"] = written

    (line,) = faults(tmp_path, change)
    assert f"({real} is there: name files as they lie in this folder): 1 (" in line


def test_masks_are_counted(tmp_path: Path) -> None:
    found = content()
    found["annotations"][0]["segmentation"] = {"size": [60, 80], "counts": [4700, 100]}
    found["annotations"][1]["segmentation"] = []
    del found["annotations"][2]["segmentation"]
    got = coco.check(*save(tmp_path, found))
    assert (got.polygons, got.rle, got.bare, got.crowds) == (3, 1, 2, 1)


def test_pycocotools_takes_the_id_0_for_no_match() -> None:
    # why the id 0 is noted: when this fails, the note may go
    tools = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    found = []
    for start in (0, 1):
        boxes = [{"image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9]} for i in range(2)]
        truth = tools.COCO()
        truth.dataset = {"images": [{"id": 0}, {"id": 1}], "categories": [{"id": 1}]}
        truth.dataset["annotations"] = [
            {**one, "id": start + i, "area": 81, "iscrowd": 0} for i, one in enumerate(boxes)
        ]
        truth.createIndex()
        predictions = truth.loadRes([{**one, "score": 0.9} for one in boxes])
        tool = evaluation.COCOeval(truth, predictions, "bbox")
        tool.evaluate()
        tool.accumulate()
        found.append(float(np.mean(tool.eval["precision"][:, :, :, 0, -1])))
    assert found[0] < 0.5 and found[1] == 1


def test_collection_is_as_it_was(tmp_path: Path) -> None:
    import gc

    assert gc.isenabled()
    with pytest.raises(RfbenchError):
        coco.check(tmp_path, tmp_path)
    assert gc.isenabled()


def test_messages_survive_without_docstrings() -> None:
    """`python -OO` drops docstrings; what a value must be is no docstring."""
    code = """
from pathlib import Path
from rfbench.data.coco import KINDS
from rfbench.data.coco_json import Findings, entries
findings = Findings(Path("x.json"))
entries({"images": [{"id": "1", "file_name": "", "width": 0, "height": 2}]}, "images",
        KINDS["images"], findings)
print(*findings.faults, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "x.json: 'id' that is not a whole number: 1 (\"1\" in images[0])",
        "x.json: 'file_name' that is not a text: 1 (\"\" in images[0])",
        "x.json: 'width' that is not a whole number above 0: 1 (0 in images[0])",
    ], done.stderr


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_encoding_that_pycocotools_cannot_read(encoding: str, tmp_path: Path) -> None:
    path, images = save(tmp_path, content())
    path.write_text(path.read_text(), encoding)
    with pytest.raises(RfbenchError, match="is not JSON: "):
        coco.check(path, images)


def test_a_box_that_vanishes_in_single_precision(tmp_path: Path) -> None:
    lines = faults(tmp_path, first("annotations", bbox=[1.0, 1.0, 1e-12, 5.0]))
    assert len(lines) == 1 and "boxes without area" in lines[0]


def test_categories_that_people_take_for_one(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        found["categories"][1]["name"] = "CAR"

    found = content()
    change(found)
    (note,) = coco.check(*save(tmp_path, found)).notes
    assert note.endswith(
        "categories that people would take for one: 1 ('car' and 'CAR' differ only in case)"
    )


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('{"info"', '{"annotations": [], "info"', "annotations"),  # two files in one
        ('"category_id": 3', '"category_id": 90, "category_id": 3', "category_id"),
    ],
)
def test_a_key_that_is_there_twice(tmp_path: Path, old: str, new: str, key: str) -> None:
    """JSON keeps the last: the first list would be lost without a word."""
    path, images = save(tmp_path, content())
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(RfbenchError, match=f"an object has the key '{key}' twice"):
        coco.check(path, images)


@pytest.mark.filterwarnings("error")
def test_boxes_without_end_are_refused_without_a_warning(tmp_path: Path) -> None:
    def change(found: dict[str, Any]) -> None:
        found["annotations"][0]["bbox"] = [1e300, 0, 1, 1]

    assert any("more than 1 px outside" in line for line in faults(tmp_path, change))
