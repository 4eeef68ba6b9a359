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
