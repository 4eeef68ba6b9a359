"""Digit scenes: a pure function of a seed, with exact masks, cached where that is possible."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rfbench.data import digits as module
from rfbench.data.digits import Placed, digits, draw, load_digits


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test draws into a cache folder of its own, which does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rfbench"


def drawn(**options: object) -> list[tuple[np.ndarray, list[Placed]]]:
    return list(draw("train", 0, **{"count": 12, **options}))  # type: ignore[arg-type]


def test_scenes_never_change() -> None:
    # golden, for every machine: a change of what is drawn must raise VERSION
    digest = hashlib.sha256()
    for part in ("train", "val"):
        for size, objects in ((48, (1, 1)), (96, (1, 3))):
            for image, placed in draw(part, 3, 5, size=size, objects=objects):
                digest.update(image.tobytes())
                digest.update(repr([(p.label, p.box) for p in placed]).encode())
    assert (module.VERSION, digest.hexdigest()[:16]) == (1, "d3ad116dee6632f9")


def test_a_scene_does_not_depend_on_how_many_are_drawn() -> None:
    few, many = drawn(count=3), drawn(count=6)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(few, many, strict=False))


def test_seeds_and_parts_draw_other_scenes() -> None:
    scenes = [list(draw(part, seed, 2)) for part in ("train", "val") for seed in (0, 1)]
    assert len({image.tobytes() for pair in scenes for image, _ in pair}) == 8


def test_training_and_test_scenes_share_no_digit() -> None:
    train, val = load_digits("train"), load_digits("val")
    for pool, each in ((train, 400), (val, 100)):
        assert np.bincount([digit.label for digit in pool]).tolist() == [each] * 10
    inks = [{(digit.ink.shape, digit.ink.tobytes()) for digit in pool} for pool in (train, val)]
    assert not inks[0] & inks[1]


def test_digits_are_cut_to_their_ink() -> None:
    for digit in load_digits("val"):
        edges = (digit.ink[0], digit.ink[-1], digit.ink[:, 0], digit.ink[:, -1])
        assert all(edge.any() for edge in edges)


def test_scenes_with_several_digits() -> None:
    counts = set()
    for image, placed in drawn(count=40, size=96, objects=(1, 3)):
        assert image.shape == (96, 96, 3) and image.dtype == np.uint8
        counts.add(len(placed))
        for one in placed:
            rows, columns = np.flatnonzero(one.mask.any(1)), np.flatnonzero(one.mask.any(0))
            assert one.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.sum([one.mask for one in placed], axis=0).max() == 1  # nothing belongs to two
    assert counts == {1, 2, 3}


def test_a_digit_stands_out_from_the_noise_around_it() -> None:
    for image, (one,) in drawn(count=40, distractors=0):
        inside, outside = image[one.mask], image[~one.mask]
        assert inside.mean() > outside.mean() + 2 * outside.mean(1).std()


def test_digits_fill_the_whole_scene() -> None:
    boxes = np.array([placed[0].box for _, placed in drawn(count=300)])
    assert boxes.min(0)[:2].max() <= 1
    assert boxes.max(0)[2:].min() >= 47


def test_the_data_set() -> None:
    found = digits(train_scenes=20, val_scenes=10)
    assert found.classes == list("0123456789")
    assert (len(found.train), len(found.val)) == (20, 10)
    image, placed = next(draw("train", 0, 1))
    assert np.array_equal(found.train.read(0).numpy(), image)
    assert found.train.labels[0] == placed[0].label
    assert found.val.name(3) == "digits/val/3"
    assert len(digits(val_scenes=10, eval_only=True).train) == 0


def test_mean_and_deviation_are_those_of_the_scenes() -> None:
    found = digits(train_scenes=200, val_scenes=1)
    pixels = np.stack([found.train.read(i).numpy() for i in range(200)]) / 255
    assert np.allclose(pixels.mean((0, 1, 2)), found.mean, atol=0.01)
    assert np.allclose(pixels.std((0, 1, 2)), found.std, atol=0.01)


def test_scenes_are_drawn_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digits(train_scenes=5, val_scenes=5)
    assert len(list(cache.iterdir())) == 2  # and nothing written aside is left
    monkeypatch.setattr(module, "draw", None)  # drawing again would fail
    again = digits(train_scenes=5, val_scenes=5)
    assert all(np.array_equal(first.train.read(i), again.train.read(i)) for i in range(5))
    assert np.array_equal(first.val.labels, again.val.labels)


def test_other_scenes_have_another_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits(train_scenes=2, val_scenes=2)
    digits(train_scenes=3, val_scenes=2)
    digits(train_scenes=2, val_scenes=2, seed=1)
    monkeypatch.setattr(module, "VERSION", 2)
    digits(train_scenes=2, val_scenes=2)
    assert len(list(cache.iterdir())) == 2 + 1 + 2 + 2


def test_a_damaged_cache_is_drawn_again(cache: Path) -> None:
    whole = digits(train_scenes=5, val_scenes=5)
    for file in cache.iterdir():
        data = bytearray(file.read_bytes())
        data[2000:2100] = bytes(100)
        file.write_bytes(data if "train" in file.name else data[:500])
    again = digits(train_scenes=5, val_scenes=5)
    assert all(np.array_equal(whole.train.read(i), again.train.read(i)) for i in range(5))
    assert all(np.array_equal(whole.val.read(i), again.val.read(i)) for i in range(5))


def test_without_a_cache_folder_it_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(digits(train_scenes=2, val_scenes=1).train) == 2


def test_a_full_disk_is_no_reason_to_stop(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(digits(train_scenes=2, val_scenes=1).train) == 2
    assert not list(cache.iterdir())


def test_two_processes_may_draw_at_once(cache: Path) -> None:
    code = "from rfbench.data.digits import digits; digits(train_scenes=20, val_scenes=5)"
    runs = [subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ)) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(list(cache.iterdir())) == 2
