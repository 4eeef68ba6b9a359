"""Whatever the folder of a segmentation holds: one line, and never a finished run."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench.errors import RfbenchError
from rfbench.models import integrity
from rfbench.schemas.seg import SegConfig
from rfbench.segment import fit
from tests.segment import runs

Content = dict[str, Any]
SMALL = {"data": {"options": {"train_scenes": 24, "val_scenes": 4}}, "schedule": {"epochs": 2}}


def resume(folder: Path, **changes: Any) -> Content | None:
    settings = SegConfig.model_validate_json(json.dumps(runs.config(**SMALL, **changes)))
    return fit.fit(settings, folder, folder.exists(), False)[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert resume(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy at its last step, with a single checkpoint and no record."""
    copy = tmp_path / "run"
    shutil.copytree(whole, copy)
    (copy / "result.json").unlink()
    (copy / "last-1.pth").unlink()
    return copy


def edit(path: Path, change: Callable[[Content], object]) -> None:
    content = torch.load(path, weights_only=True)
    del content[integrity.DIGEST]
    change(content)
    torch.save({**content, integrity.DIGEST: integrity.digest(content)}, path)


def put(*keys: Any) -> Callable[[Content], object]:
    """A change of content[key][key]... to the last of `keys`."""

    def change(content: Any) -> None:
        for key in keys[:-2]:
            content = content[key]
        content[keys[-2]] = keys[-1]

    return change


FIRST = ("optimizer", "state", 0)
TAMPERED: dict[str, Callable[[Content], object]] = {
    "step": put("step", 10**9),
    "step of another epoch": put("step", 3),
    "epoch": put("epoch", 1),
    "evaluated": put("evaluated", 10**6),
    "waited": put("waited", 2),
    "waited for ever": put("waited", 2**40),
    "best of nothing": put("best", {}),
    "best without its metric": lambda c: c["best"]["ema"].pop("mIoU"),
    "best without an epoch": lambda c: c["best"].pop("epoch"),
    "metrics of nothing": put("metrics", {}),
    "no IoU by class": lambda c: c["metrics"].pop("iou"),
    "IoU as a list": put("metrics", "iou", [1.0, 2.0]),
    "text in a class": put("metrics", "iou", "3", "x"),
    "an infinite IoU": put("best", "iou", "3", float("inf")),
    "no best": put("best", None),
    "a percentage of 2**70": put("metrics", "mIoU", 2**70),
    "a percentage above 100": put("best", "pixel_accuracy", 100.5),
    "a loss below 0": put("metrics", "ema", "loss", -0.5),
    "a mean that is none": put("metrics", "boundary_mIoU", 12.5),
    "a class without a figure": lambda c: c["metrics"]["iou"].pop("3"),
    "another foreground": put("metrics", "foreground_mIoU", 99.0),
    "no boundaries": lambda c: (c["metrics"].pop("boundary_iou"), c["best"].pop("boundary_iou")),
    "another last epoch": put("metrics", "epoch", 0),
    "more images than there are": put("metrics", "images", 5),
    "no average's metrics": lambda c: (c["metrics"].pop("ema"), c["best"].pop("ema")),
    "no classes": lambda c: c.pop("classes"),
    "text as loss": put("metrics", "loss", "x"),
    "sums": put("total", [1.0] * 3),
    "sums of a process": put("ranks", 0, "window", None),
    "ranks": put("ranks", []),
    "random state": put("ranks", 0, "rng", "torch", torch.zeros(3)),
    "classes as text": put("classes", "abc"),
    "other classes": put("classes", [f"x{i}" for i in range(11)]),
    "fewer classes": lambda c: c["classes"].pop(),
    "classes in another case": lambda c: c["classes"].__setitem__(0, "Background"),
    "format": put("format", "rfbench-segmentation/2"),
    "of another kind": put("format", "rfbench-detection/1"),
    "config": put("config", 3),
    "config of other data": put("config", "data", "name", "voc"),
    "images": put("images", {"train": 3, "val": 4}),
    "no average": lambda c: c.pop("state_dict_ema"),
    "weights of another shape": put("state_dict", "scores.bias", torch.zeros(3)),
    "weights of another dtype": put("state_dict", "scores.bias", torch.zeros(11).double()),
    "NaN": put("state_dict_ema", "scores.bias", torch.full((11,), float("nan"))),
    "negative variance": put("state_dict", "stem.1.running_var", -torch.ones(8)),
    "a number as a name": put("state_dict", 5, torch.zeros(1)),
    "steps as a flag": put(*FIRST, "step", True),
    "moments as a list": put(*FIRST, "exp_avg_sq", []),
    "no moments": lambda c: c["optimizer"]["state"][0].pop("exp_avg"),
    "learning rate": put("optimizer", "param_groups", 0, "lr", float("nan")),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_checkpoint(folder: Path, name: str) -> None:
    edit(folder / "last.pth", TAMPERED[name])
    with pytest.raises(RfbenchError) as error:
        resume(folder)
    assert str(folder) in str(error.value).splitlines()[0]
    assert not (folder / "result.json").exists()


def test_as_it_was_it_ends_as_before(whole: Path, folder: Path) -> None:
    record = resume(folder)
    before = json.loads((whole / "result.json").read_text())
    assert record and record["metrics"] == before["metrics"] and record["best"] == before["best"]


FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "a flipped bit": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "text": lambda path: path.write_text("hello"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link": lambda path: (path.rename(path.parent.parent / "e"), path.symlink_to("../e")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
}


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("name", ["last.pth", "metrics.jsonl", ".rfbench.json"])
@pytest.mark.parametrize("what", FILES)
def test_a_tampered_file(folder: Path, name: str, what: str) -> None:
    if name != "last.pth" and what == "a flipped bit":
        return  # texts have no checksum
    FILES[what](folder / name)
    if (name, what) == ("metrics.jsonl", "empty"):  # what is lost is told
        assert resume(folder)
        return
    with pytest.raises((RfbenchError, OSError)) as error:
        resume(folder)
    assert name in str(error.value)
    assert not (folder / "result.json").exists()
