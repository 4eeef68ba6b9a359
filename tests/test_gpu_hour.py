"""The script of a first hour on a GPU: its commands, its figures, and all of it in small."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def hour(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "gpu_hour.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def event(name: str, cat: str, ts: float, dur: float) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": cat, "ts": ts, "dur": dur}


def test_what_a_profile_says(monkeypatch: pytest.MonkeyPatch) -> None:
    found = script("gpu_profile", monkeypatch).read(
        [
            event("conv", "kernel", 1000, 400),
            event("Memcpy HtoD (Pinned -> Device)", "gpu_memcpy", 1200, 300),  # 100 beyond conv
            event("void cudnn::ops::nchwToNhwcKernel<float>", "kernel", 1550, 50),  # a gap of 50
            event("conv", "kernel", 2100, 400),  # a gap of 500
            event("cudaStreamSynchronize", "cuda_runtime", 1000, 30),
            event("cudaStreamSynchronize", "cuda_runtime", 1100, 40),
            event("cudaMemcpyAsync", "cuda_runtime", 1200, 5),
            event("aten::conv2d", "cpu_op", 0, 9999),
            {"ph": "i", "name": "mark"},
        ],
        "cuda",
    )
    assert (found.whole, found.busy) == (1500, 400 + 100 + 50 + 400)
    assert (found.gaps, found.conversions, found.copies) == ([500], 50, 200)
    assert found.waits == {"cudaStreamSynchronize": (2, 70)}


def test_a_profile_without_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no work of cuda"):
        script("gpu_profile", monkeypatch).read([event("aten::add", "cpu_op", 0, 1)], "cuda")


def test_what_a_checkpoint_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seconds = tmp_path / "metrics.jsonl", 0.0
    with open(path, "w") as file:
        for step in range(1, 101):
            # the checkpoint of step 20 stands between the lines of steps 20 and 21
            seconds += 1.5 if step % 20 == 1 else 0.25
            row = {"split": "train", "step": step, "seconds": seconds}
            file.write(json.dumps(row) + "\n")
        file.write(json.dumps({"split": "val", "step": 100}) + "\n")
    assert script("gpu_hour", monkeypatch).stalls(path, 20) == pytest.approx((0.25, 1.5))


def test_a_dry_run_prints_what_would_run(tmp_path: Path) -> None:
    found = hour("--dry-run", "--timm", "TIMM", "--output", tmp_path / "out")
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("# ") == 7 and "--timm TIMM" in found.stdout
    assert "bench_det.py --device cuda" in found.stdout and "deterministic=true" in found.stdout
    assert not (tmp_path / "out").exists()


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A checkout that is not there."""
    options = ["--device", "cpu", "--small", "--output", tmp_path]
    found = hour(*options, "--points", 2, 6, "--timm", tmp_path / "none")
    text = (tmp_path / "measurements.md").read_text()
    assert found.returncode == 1, found.stderr
    assert "**Failed**: bench_cls: exit code 1: Error: there is no" in text
    assert "ms a step" in text and "a checkpoint of" in text.lower()
    assert text.count("CPU (") == 2


@pytest.mark.slow
def test_the_whole_hour_with_small_numbers(tmp_path: Path) -> None:
    found = hour("--device", "cpu", "--small", "--output", tmp_path)
    text = (tmp_path / "measurements.md").read_text()
    assert found.returncode == 0, text
    for name in ("SIGTERM", "SIGKILL"):
        assert f"{name} at step " in text
    assert text.count("resumed: bit-equal weights.") == 2
    assert "| busy | " in text and "passed" in text and "training step" in text
    assert "| resnet18 | " in text  # the field of point 7
