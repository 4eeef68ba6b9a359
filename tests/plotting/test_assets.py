"""The files that pages are made of are in the wheel."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rfbench.plotting import webpage
from rfbench.rf.questions.zoo.page import ASSETS

ROOT = Path(__file__).parents[2]


def test_a_wheel_holds_every_asset(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    # a copy: building leaves files in the tree
    shutil.copytree(ROOT / "rfbench", source / "rfbench", ignore=lambda *_: ["__pycache__"])
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "configs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    call = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*call, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        held = set(files.namelist())
    assets = {str(path.relative_to(ROOT)) for path in (ROOT / "rfbench").rglob("assets/*")}
    assert len(assets) >= 7
    assert assets <= held


@pytest.mark.parametrize("name", ["page.html", "parts.html", "page.css", "page.js"])
def test_an_asset_is_read(name: str) -> None:
    assert webpage.asset("rfbench.plotting", name)


@pytest.mark.parametrize("name", ASSETS)
def test_an_asset_of_the_zoo_is_read(name: str) -> None:
    assert webpage.asset("rfbench.rf.questions.zoo", name)


def test_a_script_finds_its_data_which_cannot_end_it() -> None:
    text = webpage.page("x", [], script="show(data);", data={"a": "</script><b>"})
    assert '<script type="application/json" id="data">{' in text and "show(data);" in text
    assert "</script><b>" not in text
