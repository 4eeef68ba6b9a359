"""What a run says of the machine before it begins."""

import errno
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from rfbench import machine
from rfbench.runs import folder as folders
from rfbench.runs import surroundings
from rfbench.runs.processes import Processes
from rfbench.runs.surroundings import Need

GB = 2**30
NEED = Need(workers=3, memory=GB, state=GB, kept=2)
Usage = namedtuple("Usage", "total used free")


def lines(folder: Path, device: str = "cpu", world: int = 1, need: Need = NEED) -> dict[str, str]:
    """The first word of each line that has a remedy, and the line."""
    group = Processes(torch.device(device), world=world)
    found = surroundings.look(folder, group, need)
    return {str(one).split()[0]: str(one) for one in found if one.remedy}


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(99 * GB, 0, 99 * GB))
    monkeypatch.setattr(machine, "cores", lambda: 12)
    monkeypatch.setattr(machine, "processes", lambda otherwise=1: otherwise)


@pytest.mark.usefixtures("roomy")
def test_nothing_to_say(tmp_path: Path) -> None:
    assert lines(tmp_path / "new" / "run") == {}
    found = surroundings.look(tmp_path / "new", Processes(torch.device("cpu")), NEED, probe=True)
    text = "\n".join(map(str, found))
    assert "12 of " in text and "3 DataLoader workers" in text
    assert "/dev/shm has 99.0 GB left, loading takes 1.0 GB" in text
    assert (
        f"99.0 GB free in {tmp_path}; 2 checkpoints and the one being written take up to 3.0 GB, "
        in text
    )
    assert "can be locked" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize(
    ("changed", "value", "device", "begins"),
    [
        ("cores", lambda: 1, "cuda", "1 of "),
        ("processes", lambda otherwise=1: 8, "cuda", ""),
    ],
)
def test_cores(
    changed: str, value: Any, device: str, begins: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(machine, "by_srun", lambda: False)
    monkeypatch.setattr(machine, changed, value)
    found = lines(tmp_path, device)
    if changed == "cores":
        assert found.pop("1") == (
            f"1 of {surroundings.os.cpu_count()} cores for this process, 3 DataLoader workers: "
            "a GPU wants 4; ask for more (Slurm: --cpus-per-task)"
        )
        assert found.pop("8").endswith("torchrun --nproc_per_node=8 takes all")
    assert found == {}


@pytest.mark.usefixtures("roomy")
def test_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(9 * GB, 0, 64 * 2**20))
    found = lines(tmp_path)
    assert "--shm-size" in found["/dev/shm"]
    assert found["64"].startswith(f"64 MB free in {tmp_path}; 2 checkpoints")
    assert "up to 3.0 GB: make room" in found["64"]


@pytest.mark.usefixtures("roomy")
def test_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert "two runs never share a folder" in lines(tmp_path)["no"]
    assert folders.lock_error(open(tmp_path / "file", "wb")) == "No locks available"  # noqa: SIM115


def test_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert surroundings.network(lambda _: "10.1.2.3").remedy == ""
    assert "GLOO_SOCKET_IFNAME" in surroundings.network(lambda _: "127.0.1.1").remedy
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    assert surroundings.network(lambda _: "127.0.1.1").remedy == ""
