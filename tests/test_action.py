"""The action for continuous integration: its file, and its steps run as a runner runs them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import blocks, schema_of

ROOT = Path(__file__).parents[1]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step}
PAGE = ROOT / "docs" / "ci.md"
INPUT = re.compile(r"\$\{\{ inputs\.([\w-]+) \}\}")


def test_inputs_are_declared_used_and_told() -> None:
    used = INPUT.findall((ROOT / "action.yml").read_text())
    assert set(used) == set(ACTION["inputs"])
    rows = dict(re.findall(r"^\| `([\w-]+)` \| *`?([^|`]*?)`? *\|", PAGE.read_text(), re.MULTILINE))
    for name, entry in ACTION["inputs"].items():
        assert entry["description"]
        assert rows[name] == ("(required)" if entry.get("required") else entry["default"])
    assert all(step["shell"] == "bash" for step in STEPS.values())
    assert not any(INPUT.search(step["run"]) for step in STEPS.values())  # never in a script


def test_the_workflow_of_the_page_uses_what_is_there() -> None:
    (block,) = (b for b in blocks(PAGE) if schema_of(b) == "workflow")
    (job,) = yaml.safe_load(block.text)["jobs"].values()
    (audit,) = (step for step in job["steps"] if "/rfbench@" in step["uses"])
    assert set(audit["with"]) <= set(ACTION["inputs"])
    needed = {name for name, entry in ACTION["inputs"].items() if entry.get("required")}
    assert needed <= set(audit["with"])


def run_step(name: str, folder: Path, inputs: dict[str, str], **more: str) -> Any:
    """A step as a runner runs it: in the user's checkout, with its variables and `bash -e`."""
    values = {key: entry.get("default", "") for key, entry in ACTION["inputs"].items()} | inputs
    step, place = STEPS[name], {"GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    named = {k: INPUT.sub(lambda m: values[m[1]], str(v)) for k, v in step["env"].items()}
    python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder / "checkout",
        env={**os.environ, "PATH": python, "RUNNER_TEMP": str(folder), **place, **named, **more},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the user's, and rfbench installed by the action's first step beside it."""
    folder = tmp_path_factory.mktemp("runner")
    action, site = folder / "action", folder / "site"
    action.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, action)
    shutil.copytree(ROOT / "rfbench", action / "rfbench", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copytree(ROOT / "configs", action / "configs")
    checkout = folder / "checkout"
    checkout.mkdir()
    (checkout / "mynets.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Conv2d(3, 8, 3, 2, 1)\n\n\n"
        "def plain():\n    return nn.Conv2d(3, 8, 3, 1, 1)\n"
    )
    # what rfbench and its build need is there; pip reads "0" as --no-build-isolation
    pip = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_TARGET": str(site)}
    place = {"GITHUB_ACTION_PATH": str(action), "PIP_NO_INDEX": "1", **pip}
    done = run_step("Install rfbench", folder, {}, **place)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_network_within_the_limits_passes_and_another_fails(runner: Path) -> None:
    path, summary = {"PYTHONPATH": str(runner / "site")}, runner / "summary.md"
    inputs = {"model": "mynets.py:plain", "args": "--size 64", "output": "audit"}
    done = run_step("Audit", runner, inputs, **path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gridding    0.0000" in done.stdout and "gridding    0.0000" in summary.read_text()
    assert (runner / "checkout" / "audit" / "result.json").exists()
    summary.unlink()
    done = run_step("Audit", runner, {"model": "mynets.py:build", "args": "--size 64"}, **path)
    assert done.returncode == 1 and "gridding" in done.stdout
    assert "shift y, x  -0.50, -0.50 px" in summary.read_text()
