"""The installer of Detectron2: small archives with what can be wrong in them."""

import configparser
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from rfbench import install_detectron2
from rfbench.cli import main


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `rfbench install-detectron2`."""
    result = CliRunner().invoke(main, ["install-detectron2", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def archive(path: Path, without: str = "", spoil: str = "") -> Path:
    """A source archive with all that the script changes, and a setup.py that must not run."""
    texts = {
        f"detectron2/{name}": "".join(old * times + "\n" for old, _, times in changes)
        for name, changes in install_detectron2.CHANGES.items()
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


def pinned(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make the archive the one that is expected."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(install_detectron2, "SHA256", digest)


def test_a_wheel_of_changed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdist = archive(tmp_path / "a.tar.gz")
    pinned(monkeypatch, sdist)
    code, out, _ = run("--sdist", sdist, "--wheel-dir", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert (code, out) == (0, f"wrote {wheel}\n")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        assert "setup.py" not in names
        assert "detectron2/model_zoo/configs/Base-RetinaNet.yaml" in names
        for name, changes in install_detectron2.CHANGES.items():
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
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sdist = archive(tmp_path / "a.tar.gz", **changes)
    pinned(monkeypatch, sdist)
    refused(f"Error: {says}. Nothing was installed.", "--sdist", sdist, "--wheel-dir", tmp_path)
    assert not list(tmp_path.glob("*.whl"))


def test_a_wrong_hash(tmp_path: Path) -> None:
    sdist = archive(tmp_path / "a.tar.gz")
    refused(
        f"Error: {sdist} is not pb1-detectron2==0.6: its sha256 is ",
        "--sdist",
        sdist,
        "--wheel-dir",
        tmp_path,
    )
    refused(
        "Error: nowhere.tar.gz cannot be read: No such file or directory",
        "--sdist",
        "nowhere.tar.gz",
        "--wheel-dir",
        tmp_path,
    )


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = served(tmp_path, monkeypatch)
    sdist = archive(index / "pb1-detectron2-0.6.tar.gz")
    (index / "index.html").write_text(f'<a href="{sdist.name}">{sdist.name}</a>')
    pinned(monkeypatch, sdist)
    out = tmp_path / "out"
    assert run("--wheel-dir", out)[0] == 0
    assert len(list(out.glob("*.whl"))) == 1


def test_an_index_with_another_archive(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = served(tmp_path, monkeypatch)
    sdist = archive(index / "pb1-detectron2-0.6.tar.gz")
    (index / "index.html").write_text(f'<a href="{sdist.name}">{sdist.name}</a>')
    refused(
        "is not the archive expected (sha256 5d2e9e51e523...): its hash diff",
        "--wheel-dir",
        tmp_path,
    )


def test_no_network(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served(tmp_path, monkeypatch)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    refused("pip could not fetch pb1-detectron2==0.6: ", "--wheel-dir", tmp_path)


def test_what_works_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_detectron2, "works", lambda: "0.7 in /somewhere")
    for name in ("install", "fetch"):
        monkeypatch.setattr(install_detectron2, name, lambda *_: pytest.fail("was installed"))
    assert run() == (0, "Detectron2 0.7 in /somewhere works already: left as it is.\n", "")


def test_what_is_needed_beside_torch() -> None:
    needs = install_detectron2.needs()
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    assert needs == setup["options.extras_require"]["det"].split()
    names = {need.partition(">=")[0] for need in needs}
    assert {"fvcore", "iopath", "pycocotools", "yacs"} <= names


def refused(says: str, *arguments: object) -> None:
    """In one line, below those on the steps."""
    code, _, err = run(*arguments)
    assert code == 1
    assert says in err, err
    assert len([line for line in err.splitlines() if "/3 " not in line]) == 1
