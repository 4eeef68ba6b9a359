"""Files that other programs write: a byte order mark is read over, UTF-16 is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from rfbench.data import coco, imagenet
from rfbench.data import text as texts
from rfbench.data.segmentation import camvid, lists
from rfbench.errors import RfbenchError
from tests.data.test_coco import content, save

MARK = b"\xef\xbb\xbf"
OTHER = [
    ("{}".encode("utf-16"), "it is in UTF-16 or UTF-32. Save it as UTF-8 text."),
    ("{}".encode("utf-16-le"), "it is in UTF-16 or UTF-32. Save it as UTF-8 text."),
    ("{}".encode("utf-32"), "it is in UTF-16 or UTF-32. Save it as UTF-8 text."),
    (bytes(64), "it begins with zeros. Save it as UTF-8 text."),
    (b"a\n\xe9t\xe9\n", "byte 0xe9 in line 2. Save it as UTF-8 text."),
]


@pytest.mark.parametrize(("data", "what"), OTHER)
def test_what_is_not_utf8_is_one_line(tmp_path: Path, data: bytes, what: str) -> None:
    """In annotations, lists of names and classes: `UTF-8 with BOM` and UTF-8 are the same."""
    path, images = save(tmp_path, content())
    readers: list[tuple[str, Any]] = [
        ("JSON", lambda: coco.check(path, images)),
        ("UTF-8", lambda: lists.names_in(str(path))),
        ("UTF-8", lambda: camvid._colours(str(path))),
        ("UTF-8", lambda: imagenet._kaggle(str(path))),
    ]
    path.write_bytes(data)
    for kind, read in readers:
        with pytest.raises(RfbenchError) as error:
            read()
        assert str(error.value) == f"{path} is not {kind}: {what}"


def test_a_mark_is_read_over(tmp_path: Path) -> None:
    path, images = save(tmp_path, content())
    plain = coco.check(path, images)
    path.write_bytes(MARK + path.read_bytes())
    assert coco.check(path, images) == plain
    names = tmp_path / "names.txt"
    names.write_bytes(MARK + "sky\r\nétang\r\n".encode())
    assert lists.names_in(str(names)) == ["sky", "étang"]
    names.write_bytes(MARK + b"ImageId,Prediction\r\na,n01 1 2\r\n")
    assert imagenet._kaggle(str(names)) == {"a": "n01"}


def test_a_copy_without_the_mark_is_given_to_libraries(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    assert texts.plain(str(path)) == str(path)
    path.write_bytes(MARK + b"[1]")
    copy = Path(texts.plain(str(path)))
    assert copy != path and json.loads(copy.read_text()) == [1]
    assert path.read_bytes() == MARK + b"[1]"


def test_detectron2_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    from detectron2.data import DatasetCatalog

    from rfbench.detect import loaders

    path, images = save(tmp_path, content())
    loaders.register("plain", str(path), str(images))
    plain = DatasetCatalog.get("plain")
    path.write_bytes(MARK + path.read_bytes())
    for categories in (None, {3: "a", 90: "b"}):
        loaders.register("marked", str(path), str(images), categories)
        assert DatasetCatalog.get("marked") == plain
