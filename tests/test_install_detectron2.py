"""The installer of Detectron2: small archives with what can be wrong in them."""

import io
import os
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "install_detectron2.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script's names; its functions see what is changed here."""
    names = runpy.run_path(str(SCRIPT))
    return names["main"].__globals__


def archive(path: Path, script: dict[str, Any], without: str = "", spoil: str = "") -> Path:
    """A source archive with all that the script changes, and a setup.py that must not run."""
    texts = {
        f"detectron2/{name}": "".join(old * times + "\n" for old, _, times in changes)
        for name, changes in script["CHANGES"].items()
        if name != without
    }
    if spoil:
        texts[f"detectron2/{spoil}"] += texts[f"detectron2/{spoil}"]
    texts |= {
        "detectron2/__init__.py": "__version__ = '0.6'\n",
        "detectron2/model_zoo/configs/Base-RetinaNet.yaml": "VERSION: 2\n",
        "setup.py": "raise SystemExit('setup.py was run')\n",
        "LICENSE": "Apache License\n",
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, text in texts.items():
            info = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def pinned(script: dict[str, Any], path: Path) -> None:
    """Make the archive the one that is expected."""
    import hashlib

    script["SHA256"] = hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_of_changed_files(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sdist = archive(tmp_path / "a.tar.gz", script)
    pinned(script, sdist)
    assert script["main"](["--sdist", str(sdist), "--wheel-dir", str(tmp_path)]) == 0
    (wheel,) = tmp_path.glob("*.whl")
    assert str(wheel) in capsys.readouterr().out
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        assert "setup.py" not in names
        assert "detectron2/model_zoo/configs/Base-RetinaNet.yaml" in names
        for name, changes in script["CHANGES"].items():
            text = files.read(f"detectron2/{name}").decode()
            for old, new, times in changes:
                assert text.count(new or "#") == (times if new else 0)
                assert new.find(old.strip()) >= 0 or old not in text
        metadata = files.read("detectron2-0.6+purepy.dist-info/METADATA").decode()
        assert "Name: detectron2\n" in metadata and "- detectron2/data/build.py" in metadata
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    assert (target / "detectron2" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"without": "data/build.py"}, "detectron2/data/build.py is not in a.tar.gz"),
        (
            {"spoil": "layers/deform_conv.py"},
            "detectron2/layers/deform_conv.py does not hold 'from detectron2 import _C' 1 times "
            "but 2",
        ),
    ],
)
def test_a_change_that_does_not_match(
    changes: dict[str, str],
    says: str,
    script: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sdist = archive(tmp_path / "a.tar.gz", script, **changes)
    pinned(script, sdist)
    assert script["main"](["--sdist", str(sdist), "--wheel-dir", str(tmp_path)]) == 1
    assert_one_line(capsys, f"Error: {says}. Nothing was installed.")
    assert not list(tmp_path.glob("*.whl"))


def test_a_wrong_hash(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sdist = archive(tmp_path / "a.tar.gz", script)
    assert script["main"](["--sdist", str(sdist), "--wheel-dir", str(tmp_path)]) == 1
    assert_one_line(capsys, f"Error: {sdist} is not pb1-detectron2==0.6: its sha256 is ")
    assert script["main"](["--sdist", "nowhere.tar.gz", "--wheel-dir", str(tmp_path)]) == 1
    assert_one_line(capsys, "Error: nowhere.tar.gz cannot be read: No such file or directory")


def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index in a folder, which is all that pip sees."""
    index = tmp_path / "index" / "pb1-detectron2"
    index.mkdir(parents=True)
    for name in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", index.parent.as_uri())
    return index


def test_fetching_runs_nothing_of_the_archive(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = served(tmp_path, monkeypatch)
    sdist = archive(index / "pb1-detectron2-0.6.tar.gz", script)
    (index / "index.html").write_text(f'<a href="{sdist.name}">{sdist.name}</a>')
    pinned(script, sdist)
    out = tmp_path / "out"
    out.mkdir()
    assert script["main"](["--wheel-dir", str(out)]) == 0
    assert len(list(out.glob("*.whl"))) == 1


def test_an_index_with_another_archive(
    script: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    index = served(tmp_path, monkeypatch)
    sdist = archive(index / "pb1-detectron2-0.6.tar.gz", script)
    (index / "index.html").write_text(f'<a href="{sdist.name}">{sdist.name}</a>')
    assert script["main"](["--wheel-dir", str(tmp_path)]) == 1
    assert_one_line(capsys, "is not the archive expected (sha256 5d2e9e51e523...): its hash diff")


def test_no_network(
    script: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    served(tmp_path, monkeypatch)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert script["main"](["--wheel-dir", str(tmp_path)]) == 1
    assert_one_line(capsys, "pip could not fetch pb1-detectron2==0.6: ")


def test_what_works_is_left_alone(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script["works"] = lambda: "0.7 in /somewhere"
    script["install"] = script["fetch"] = lambda *_: pytest.fail("something was installed")
    assert script["main"]([]) == 0
    assert capsys.readouterr().out == "Detectron2 0.7 in /somewhere works already: left as it is.\n"


def test_what_is_needed_beside_torch(script: dict[str, Any]) -> None:
    names = {need.partition(">=")[0] for need in script["needs"]()}
    assert {"fvcore", "iopath", "pycocotools", "yacs"} <= names


def assert_one_line(capsys: pytest.CaptureFixture[str], says: str) -> None:
    said = capsys.readouterr().err
    assert says in said, said
    assert len(said.splitlines()) == 1
