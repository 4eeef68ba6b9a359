"""Checkpoints: whole or not at all, the newest whole one is found, changes are refused."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench import files
from rfbench.errors import RfbenchError, UsageError
from rfbench.runs import checkpoint, folder
from rfbench.runs.checkpoint import random_state, set_random_state
from rfbench.schemas.cls import ClsConfig, ClsData, ClsOptim


def content(step: int) -> dict[str, Any]:
    return {
        "model": "m",
        "variant": "baseline",
        "state_dict": {"w": torch.full((1000,), float(step))},
        "optimizer": {},
        "step": step,
        "ranks": [{"rng": random_state(torch.device("cpu")), "window": [0.0]}],
    }


def save(folder: Path, *steps: int) -> Path:
    for step in steps:
        checkpoint.save(folder / checkpoint.LAST, content(step), keep=2)
    return folder / checkpoint.LAST


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last-1.pth", "last.pth"]
    found = checkpoint.load_last(tmp_path)
    assert found is not None and found["step"] == 3
    assert torch.load(tmp_path / "last-1.pth", weights_only=True)["step"] == 2


def test_none_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_last(tmp_path) is None


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "other"])
def test_a_damaged_one_falls_back_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path, 1, 2)
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 8] = b"\xff" * 8
    damaged = {"truncated": data[: len(data) // 2], "empty": b"", "flipped": bytes(data)}
    path.write_bytes(damaged.get(damage, b"something else"))
    found = checkpoint.load_last(tmp_path)
    assert found is not None and found["step"] == 1
    (message,) = caplog.messages
    assert "last.pth is damaged or was changed" in message
    (tmp_path / "last-1.pth").write_bytes(b"")
    with pytest.raises(RfbenchError, match="no checkpoint can be read"):
        checkpoint.load_last(tmp_path)


class Bomb:
    """Would leave a file behind if it were unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({**content(1), "format": "rfbench-checkpoint/1", "more": Bomb()}, "last.pth")
    with pytest.raises(RfbenchError, match="no checkpoint can be read"):
        checkpoint.load_last(tmp_path)
    assert not Path("exploded").exists()


def test_what_failed_before_its_first_checkpoint_is_no_run(tmp_path: Path) -> None:
    with folder.held(tmp_path, resume=False, overwrite=False):
        for name in ("config.yaml", "metrics.jsonl"):
            files.write_text(tmp_path / name, "")
    folder.check(tmp_path, resume=False, overwrite=False)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="exists already"):
        folder.check(tmp_path, resume=False, overwrite=False)


def test_between_the_two_renames_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.replace(save(tmp_path, 1, 2), tmp_path / "last-1.pth")
    found = checkpoint.load_last(tmp_path)
    assert found is not None and (found["step"], caplog.messages) == (2, [])


def test_a_full_disk_leaves_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, 2)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RfbenchError, match=r"cannot write .*last.pth: No space left") as error:
        save(tmp_path, 3)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last-1.pth", "last.pth"]
    found = checkpoint.load_last(tmp_path)
    assert found is not None and found["step"] == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_torchs_own_error_of_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    monkeypatch.setattr(
        checkpoint.files, "aside", lambda path: contextlib.nullcontext(Path("/dev/full"))
    )
    with pytest.raises(RfbenchError, match="No space left on device"):
        save(tmp_path, 1)


def test_random_numbers_come_back(tmp_path: Path) -> None:
    save(tmp_path, 1)
    expected = torch.rand(3)
    found = checkpoint.load_last(tmp_path)
    assert found is not None
    set_random_state(found["ranks"][0]["rng"], torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)


def test_changed_keys_are_named(tmp_path: Path) -> None:
    before = ClsConfig(optim=ClsOptim(lr=1.6), data=ClsData(workers=1)).model_dump(mode="json")
    after = ClsConfig(seed=1, optim=ClsOptim(lr=0.1), data=ClsData(workers=4))
    with pytest.raises(UsageError) as error:
        checkpoint.refuse_changes(tmp_path, before, after)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "optim.lr = 1.6; now it is 0.1" in lines[0]
    assert "seed = 0; now it is 1" in lines[1]
    free = ClsConfig(data=ClsData(workers=9, max_bad_share=0.5), max_batch_per_gpu=8)
    checkpoint.refuse_changes(tmp_path, before, free)
    with pytest.raises(UsageError, match="started with gone = 1; now it is None"):
        checkpoint.refuse_changes(tmp_path, {**before, "gone": 1}, free)


HOLD = """
import sys, time, pathlib
from rfbench.runs import folder
with folder.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_folder_is_locked_until_the_process_dies(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(RfbenchError, match="another run is writing"):
            folder.locked(tmp_path).__enter__()
    finally:
        holder.kill()
        holder.wait()
    (tmp_path / ".last.pth.123.tmp.pth").write_bytes(b"left by a kill")
    with folder.locked(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]
