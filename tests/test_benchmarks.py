"""The benchmarks run on a CPU with small numbers, as they do on a GPU with large ones."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tables(text: str) -> dict[str, dict[str, list[float]]]:
    """Numbers of each row by its name, by the heading of its table."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or set(cells[0]) == {"-"}:
            continue
        if "ms an image" in cells[1] or "MiB" in cells[1]:
            rows = found.setdefault(f"{cells[0]}: {cells[1]}", {})
            continue
        rows[cells[0]] = [float(re.sub(r"[*]|\s.*", "", cell)) for cell in cells[1:]]
    return found


def run(script: str, markdown: Path, *options: object) -> dict[str, dict[str, list[float]]]:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, options)]
    done = subprocess.run([*command, "--markdown", str(markdown)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = markdown.read_text()
    assert text.startswith("## Training a ") and f"`python scripts/{script} --" in text
    assert "CPU (" in text and "torch 2." in text
    return tables(text)


def test_of_a_classifier(tmp_path: Path) -> None:
    small = ["--size", 32, "--model", "torchvision:resnet18", "--rounds", 2, "--images", 12]
    small += ["--batch", 4, "--updates", 3, "--end-batch", 4, "--variants", "baseline", "max:3x3"]
    found = run("bench_cls.py", tmp_path / "section.md", *small)
    assert found.keys() == {
        "loading: ms an image",
        "training step: ms an image",
        "JPEGs to updates: ms an image",
        "variant: ms an image",
        "variant: MiB an image kept for backward",
    }
    for name, rows in found.items():
        for ms, per_second, *_ in rows.values():
            assert ms > 0
            if "ms" in name:
                assert per_second == pytest.approx(1000 / ms, rel=0.05)
    # what is timed as slower is not called faster
    ms, _, speed = found["variant: ms an image"]["max:3x3"]
    assert speed == pytest.approx(found["variant: ms an image"]["baseline"][0] / ms, rel=0.5)
    # the max pools of the four strided 3x3 convolutions keep their inputs at full resolution
    (kept, ratio), (before, one) = (
        found["variant: MiB an image kept for backward"][name] for name in ("max:3x3", "baseline")
    )
    assert one == 1 and ratio == pytest.approx(kept / before, rel=0.1) and ratio > 1


def test_of_a_detector(tmp_path: Path) -> None:
    pytest.importorskip("detectron2", reason="run `make install-det`")
    small = ["--device", "cpu", "--size", 64, "--batch", 1, "--rounds", 1, "--variants", "baseline"]
    found = run("bench_det.py", tmp_path / "section.md", *small)
    (rows,) = found.values()
    assert rows.keys() == {"Detectron2's own R-50", "baseline"}
