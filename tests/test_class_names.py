"""Names that people take for one are told, wherever classes are compared."""

from pathlib import Path

import pytest
from PIL import Image

from rfbench import class_names
from rfbench.data.sources import load
from rfbench.errors import RfbenchError
from rfbench.models import weight_files

COMPOSED, APART = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("Cat", "cat", "'Cat' and 'cat' differ only in case"),
        ("cat", "cat ", "'cat' and 'cat ' differ only in spaces"),
        ("a cat", "a  cat", "'a cat' and 'a  cat' differ only in spaces"),
        (COMPOSED, APART, r"'caf\xe9' and 'cafe\u0301' differ only in Unicode form"),
        ("cat", "\uff43at", r"'cat' and '\uff43at' differ only in Unicode form"),
        ("Cat", "cat ", "'Cat' and 'cat ' differ only in case, spaces or Unicode form"),
        ("cat", "cats", ""),
        ("\u00df", "ss", "'\u00df' and 'ss' differ only in case"),
        ("1", "01", ""),
    ],
)
def test_pairs(one: str, other: str, told: str) -> None:
    assert class_names.alike([one, other]) == [told] * bool(told)
    assert class_names.hint([one], [other]) == (f" ({told})" if told else "")
    assert class_names.hint([one, other], [one]) == (f" ({_swapped(told)})" if told else "")


def _swapped(told: str) -> str:
    names, what = told.split(" differ ")
    one, other = names.split("' and '")
    return f"'{other} and {one}' differ {what}"


def test_many_are_counted() -> None:
    names = [f"x{i}" for i in range(5)]
    told = class_names.hint(names, [name.upper() for name in names])
    assert told.count("differ") == 3 and told.endswith(", and 2 more)")


def images(root: Path, train: list[str], val: list[str]) -> Path:
    for part, names in (("train", train), ("val", val)):
        for name in names:
            (root / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(root / part / name / "a.png")
    return root


def test_folders_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError) as error:
        load("folder", str(images(tmp_path / "a", ["x", COMPOSED], ["x", APART])))
    assert str(error.value).endswith(r"('caf\xe9' and 'cafe\u0301' differ only in Unicode form)")
    both = ["Cat", "cat"]
    root = images(tmp_path / "b", both, both)
    told = "the classes 'Cat' and 'cat' differ only in case"
    assert load("folder", str(root)).notes == (f"{root}: {told}",)


def test_checkpoints_of_one_name() -> None:
    with pytest.raises(RfbenchError) as error:
        weight_files.compare_classes(["a", "Cat"], ["a", "cat"], "last.pth")
    assert str(error.value) == (
        "last.pth is of other classes: 2 (a, Cat); the data has 2 (a, cat) "
        "('Cat' and 'cat' differ only in case)."
    )
