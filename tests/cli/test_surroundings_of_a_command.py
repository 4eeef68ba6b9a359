"""Where a command runs: no Greek letters in the terminal, a full stdout, a folder that is gone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "docs" / "runs" / "retinanet"


def command(*args: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    given = {"PYTHONPATH": str(ROOT), **dict(options.pop("env", {}))}  # type: ignore[call-overload]
    line = [sys.executable, "-m", "rfbench", *args]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(line, env={**os.environ, **given}, timeout=120, **streams)  # type: ignore[call-overload]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_table_is_shown_in_any_encoding(encoding: str) -> None:
    plain = command("compare", str(RUNS), env={"PYTHONIOENCODING": "utf-8"})
    shown = command("compare", str(RUNS), env={"PYTHONIOENCODING": encoding})
    assert shown.returncode == 0, shown.stderr
    escaped = plain.stdout.decode().encode(encoding, "backslashreplace")
    assert "Δ" in plain.stdout.decode() and shown.stdout == escaped
    found = command("compare", str(RUNS), "--format", "json", env={"PYTHONIOENCODING": encoding})
    assert json.loads(found.stdout)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_full_stdout_is_named() -> None:
    with open("/dev/full", "w") as full:
        done = command("compare", str(RUNS), stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == (
        "Error: cannot write /dev/stdout: No space left on device"
    )


def test_a_library_that_does_not_load_is_no_bug(tmp_path: Path) -> None:
    """As torch where memory is short: its file is found, and raises ImportError."""
    (tmp_path / "torch").mkdir()
    raised = 'raise ImportError("libtorch_cpu.so: failed to map segment from shared object")'
    (tmp_path / "torch/__init__.py").write_text(raised)
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    done = command("rf", "theory", "resnet18", env={"PYTHONPATH": path})
    said = done.stderr.decode().splitlines()[-1]
    assert done.returncode == 1 and said.startswith("Error: torch cannot be loaded from ")
    assert said.endswith("Memory may be short, or its installation damaged")


def shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line of the shell, in which $R is `python -m rfbench`."""
    given = {"PYTHONPATH": str(ROOT), "R": f"{sys.executable} -m rfbench", **env}
    return subprocess.run(
        ["sh", "-c", line], env={**os.environ, **given}, capture_output=True, text=True, timeout=120
    )


CLOSED = "Error: cannot write /dev/stdout: Bad file descriptor\n"
FULL = "Error: cannot write /dev/stdout: No space left on device\n"


@pytest.mark.parametrize(
    ("line", "code", "stdout", "stderr"),
    [
        ("$R schema rf >&-", 1, "", CLOSED),
        ("$R configs <&- >&- 2>&-", 1, "", ""),
        ("$R --version >&-", 1, "", CLOSED),
        ("$R --help >/dev/full", 1, "", FULL),
        ("$R schema rff 2>&-", 2, "", ""),
        ("$R schema rff 2>/dev/full", 2, "", ""),
        ("$R configs --help 2>&- | head -c 5", 0, "Usage", ""),
        ("$R configs cls/digits.yaml 2>&- | head -c 1", 0, "#", ""),
    ],
)
def test_closed_and_full_streams(line: str, code: int, stdout: str, stderr: str) -> None:
    """A result that nobody can read is a failure; messages that nobody can read are not."""
    done = shell(line)
    assert (done.returncode, done.stdout) == (code, stdout), done.stderr
    assert done.stderr == stderr


WRITES = """
import os, sys
from pathlib import Path
from tqdm import tqdm
from rfbench.cli import CommandGroup, out
group = CommandGroup("group")
@group.command("writes")
def writes():
    with open("file", "w") as file:
        os.system("echo printed; echo printed >&2")
        for number in tqdm(range(3), mininterval=0):
            print(number, file=sys.stderr)
        out.note("wrote file")
        file.write("whole")
    Path("done").touch()
group(["writes"])
"""


@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&1 | true", "2>&-", ">&- 2>&-"])
def test_a_log_that_cannot_be_written_ends_no_run(stream: str, tmp_path: Path) -> None:
    """Nor does a file get the number of a closed stream: it would hold what others print."""
    (tmp_path / "script.py").write_text(WRITES)
    done = shell(f"cd {tmp_path}; {sys.executable} script.py {stream}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "done").exists()
    assert (tmp_path / "file").read_text() == "whole"


def test_a_working_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    line = f"cd {folder} && rmdir {folder} && exec {sys.executable} -m rfbench rf theory resnet18"
    done = subprocess.run(
        ["sh", "-c", line],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "Error: the working directory has been deleted: change to another\n"
    )
