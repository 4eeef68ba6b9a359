"""What a record says of images that cannot be read, and what --check-images tells of copies."""

import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rfbench.data import decode
from rfbench.data.sources import load
from rfbench.runs import records
from rfbench.training import epochs, unreadable
from tests.report.records import record

RANDOM = random.Random(0)


def test_a_record_of_a_set_in_ruins_can_be_read_again(tmp_path: Path) -> None:
    """70,000 paths of 150 letters are more than a record may hold."""
    bad = {f"/data/{i:06d}{'x' * 140}.jpg": "the file is empty" for i in range(70_000)}
    told = epochs.told_of(bad)
    assert list(told["bad_images"]) == sorted(bad)[:1000]
    assert told["bad_images_more"] == 69_000
    content = {**record(), **told}
    content = {key: value for key, value in content.items() if key not in ("format", "kind")}
    records.write_record(tmp_path, "cls", content)
    assert records.read_training(tmp_path / records.RECORD).bad_images_more == 69_000  # type: ignore[attr-defined]
    few = dict(list(bad.items())[:3])
    assert epochs.told_of(few) == {"bad_images": few}


@pytest.mark.parametrize("channels", [3, 4])
def test_digests_tell_pixels_and_shapes_but_no_masks(channels: int) -> None:
    rng = np.random.RandomState(0)
    image = torch.from_numpy(rng.randint(0, 256, (6, 4, channels), np.uint8))
    made = unreadable.Digest(channels)
    assert made(image, RANDOM).shape == (*made.size, channels)

    def same(other: Tensor) -> bool:
        return bool((made(other, RANDOM) == made(image, RANDOM)).all())

    changed = image.clone()
    changed[5, 3, 2] += 1
    assert same(image.clone()) and not same(changed)
    assert not same(image.reshape(4, 6, channels))
    changed = torch.cat([image[..., :3], image[..., 3:] + 1], 2)  # another mask
    assert same(changed)


def test_copies_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hard links and copies, which no listing shows, also in another format of the same pixels."""
    rng = np.random.RandomState(0)
    for part, count in (("train", 3), ("val", 2)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.randint(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")

    def told() -> list[str]:
        caplog.clear()
        data = SimpleNamespace(set=load("folder", str(tmp_path)), workers=0, channels=3)
        unreadable._check(data, 0.0)  # type: ignore[arg-type]
        return [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]

    assert told() == []
    train, val = tmp_path / "train", tmp_path / "val"
    shutil.copy(train / "a/1.png", val / "a/copy.png")
    Image.open(train / "b/0.png").save(train / "a/again.bmp")
    (val / "b/link.png").hardlink_to(val / "a/0.png")
    assert told() == [
        f"the pixels of training images in validation: 1 image: {val}/a/copy.png "
        f"(as {train}/a/1.png)",
        # each after the first; those of training come first
        f"the pixels of images of another class: 2 images: {train}/b/0.png "
        f"(as {train}/a/again.bmp), {val}/b/link.png (as {val}/a/0.png)",
    ]


def test_animations_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of several images in a file the first is read, as torchvision does; nobody may expect it."""
    one = Image.new("RGB", (8, 8), "red")
    rest = [Image.new("RGB", (8, 8), c) for c in ("green", "blue")]
    for part in ("train", "val"):
        for i, name in enumerate("ab"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (i, part == "val", 9)).save(tmp_path / part / name / "0.png")
    train, val = tmp_path / "train", tmp_path / "val"
    one.save(train / "a/pages.tif", save_all=True, append_images=rest)
    one.rotate(90).save(val / "b/moving.webp", save_all=True, append_images=rest, lossless=True)
    data = SimpleNamespace(set=load("folder", str(tmp_path)), workers=0, channels=3)
    unreadable._check(data, 0.0)  # type: ignore[arg-type]
    said = [m.getMessage() for m in caplog.records if "more than one image" in m.getMessage()]
    what = "holds more than one image; the first is read"
    assert said == [
        f"1 training file {what}: {train}/a/pages.tif",
        f"1 validation file {what}: {val}/b/moving.webp",
    ]
    one.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=rest)  # as phones do
    assert decode.frames(str(tmp_path / "photo.jpg")) == 1
