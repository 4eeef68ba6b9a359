"""What a network of the user's own does: its prints, its exits, its own kinds of errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rfbench.cli import main

NET = """
import os, sys
from torch import nn
print("imported")
class Mine(BaseException): pass
class Net(nn.Conv2d):
    def forward(self, x):
        print("called")
        {inside}
        return super().forward(x)
def build():
    print("built")
    {making}
    return Net(3, 8, 3, 2, 1)
"""
ROOT = Path(__file__).parents[2]
ENDS = ["sys.exit(0)", "sys.exit()", "raise GeneratorExit", "raise Mine('no')", "raise SystemExit"]
COMMANDS = {
    "theory": ("rf", "theory"),
    "audit": ("rf", "audit", "--fail-on", "shift>100"),
    "map": ("visualize-rf", "--variant", "baseline", "--output", "map"),
    "effective": ("rf", "effective", "--output", "erf", "--count", "1", "--size", "32"),
}


def run(name: str, folder: Path, inside: str = "pass", making: str = "pass") -> Result:
    (folder / "net.py").write_text(NET.format(inside=inside, making=making))
    args = COMMANDS[name]
    return CliRunner().invoke(main, [*args, f"{folder}/net.py:build", "--json"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_json_is_json_whatever_it_prints(tmp_path: Path, name: str) -> None:
    result = run(name, tmp_path)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout, parse_constant=pytest.fail)
    assert "built" in result.stderr and "called" in result.stderr


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", ["inside", "making"])
@pytest.mark.parametrize("name", ["theory", "audit"])
def test_nothing_it_raises_is_a_success(tmp_path: Path, name: str, where: str, end: str) -> None:
    result = run(name, tmp_path, **{where: end})
    assert result.exit_code == 1, (result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert "net.py, line" in lines[0] and "internal error" not in lines[0]
    if name == "audit":
        assert result.stdout in ("", "[]\n")


@pytest.mark.parametrize("making", [False, True])
def test_a_file_that_reads_its_own_arguments_gets_none(tmp_path: Path, making: bool) -> None:
    line = "import argparse; argparse.ArgumentParser().parse_args()"
    text = NET.format(inside="pass", making=line if making else "pass")
    (tmp_path / "net.py").write_text(text if making else f"{line}\n{text}")
    result = CliRunner().invoke(main, ["rf", "theory", f"{tmp_path}/net.py:build"])
    assert result.exit_code == 0, result.stderr


TRAINING = """
import sys
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 10)
        self.calls = 0
    def forward(self, x):
        print("called")
        self.calls += 1
        if self.calls == {call}:
            {end}
        return self.head(self.net(x))
"""
SMALL = ("-o", "data.train_scenes=96", "-o", "data.val_scenes=20", "-o", "device=cpu")


def train(folder: Path, call: int, end: str = "pass") -> Result:
    (folder / "net.py").write_text(TRAINING.format(call=call, end=end))
    more = ("-o", "model=net.py:Net", "-o", "schedule.epochs=1", "--output", "run", "--json")
    return CliRunner().invoke(main, ["train-cls", *SMALL, *more])


def test_a_training_prints_its_record_only(tmp_path: Path) -> None:
    result = train(tmp_path, 0)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["steps"] > 0
    assert "called" in result.stderr


@pytest.mark.parametrize("end", ENDS[:3])
def test_a_training_that_its_network_ends_has_failed(tmp_path: Path, end: str) -> None:
    result = train(tmp_path, 3, end)
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and "net.py, line 14" in lines[0]
    assert not Path("run/result.json").exists()


LOUD = """
import atexit, ctypes, os
os.system("echo from a shell")
os.write(1, b"from the descriptor\\n")
ctypes.CDLL(None).printf(b"from C\\n")
atexit.register(print, "at the end")
from torch import nn
def build():
    return nn.Conv2d(3, 8, 3, 2, 1)
"""


def test_what_is_written_to_the_descriptor_of_stdout(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(LOUD)
    command = [sys.executable, "-m", "rfbench", "rf", "theory", "net.py:build", "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["model"] == "net.py:build"
    for text in ("from a shell", "from the descriptor", "from C", "at the end"):
        assert text in done.stderr
