"""The files that come with rfbench, by name from any folder; also from a built wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from rfbench import shipped
from rfbench.cli import main
from rfbench.config import load
from rfbench.schemas.cls import ClsConfig

ROOT = Path(__file__).parents[1]
SLURM = {"slurm/train.sbatch", "slurm/grid.sbatch"}


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_every_file_of_the_checkout_has_a_name() -> None:
    folder = ROOT / "configs"
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml")}
    assert set(shipped.files()) == here | SLURM
    for name in ("cls/resnet50", "cls/resnet50.yaml", "configs/cls/resnet50.yaml"):
        assert shipped.find(name) == ROOT / "configs/cls/resnet50.yaml"
    for name in ("resnet50", "cls", "../configs/cls/resnet50.yaml", "cls/resnet5", ""):
        assert shipped.find(name) is None
    assert not any(map(shipped.is_configuration, ("resnet50", "m.py:net", "a/b", "timm/resnet50")))


def test_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(ClsConfig, "cls/resnet50_1x1") == load(
        ClsConfig, str(ROOT / "configs/cls/resnet50_1x1.yaml")
    )
    Path("mine.yaml").write_text("base: cls/resnet50\nvariant: 3x3\n")
    mine = load(ClsConfig, "mine.yaml")
    assert (mine.model, mine.variant, mine.optim.lr) == ("resnet50", "3x3", 1.6)
    # one's own file goes first
    Path("cls").mkdir()
    Path("cls/resnet50").write_text("model: vgg16\n")
    assert load(ClsConfig, "mine.yaml").model == load(ClsConfig, "cls/resnet50").model == "vgg16"


def test_a_mistyped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("train-cls", "configs/cls/resnet5.yaml", "--dry-run")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "no such file. Did you mean: cls/resnet50.yaml" in err


def test_configs(tmp_path: Path) -> None:
    code, listed, _ = run("configs")
    assert code == 0
    assert [line.split()[0] for line in listed.splitlines()] == [*shipped.files()]
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in listed.splitlines())
    assert "as in Luo et al. (2016, section 3.4)" in listed  # no end of a sentence
    text = (ROOT / "configs/cls/digits.yaml").read_text()
    assert run("configs", "cls/digits") == (0, text, "")
    copy = tmp_path / "mine.yaml"
    assert run("configs", "cls/digits", "--output", copy) == (0, "", f"wrote {copy}\n")
    assert copy.read_text() == text
    code, _, err = run("configs", "cls/cifar10", "--output", copy)
    assert (code, err) == (2, f"Error: {copy} exists; name a new file\n")
    assert copy.read_text() == text
    assert "Did you mean: cls/digits.yaml" in run("configs", "cls/digit.yaml")[2]
    assert run("configs", "--output", copy)[0] == 2


@pytest.mark.parametrize("name", [n for n in shipped.files() if n.endswith(".yaml")])
def test_a_copy_anywhere_is_the_same(name: str, tmp_path: Path) -> None:
    """What a configuration is based on is named so that a copy finds it."""
    base = yaml.safe_load((ROOT / "configs" / name).read_text()).get("base")
    assert base is None or shipped.find(base)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel of this checkout installs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files behind
    for name in ("rfbench", "configs", "scripts"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    given = ["--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(source)]
    subprocess.run([*pip, "wheel", *given], check=True)
    (wheel,) = folder.glob("*.whl")
    given = ["--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([*pip, "install", *given], check=True)
    return folder / "site"


def test_a_wheel_is_whole(installed: Path, tmp_path: Path) -> None:
    held = installed / "rfbench" / "shipped"
    for name, path in shipped.files().items():
        copy = held / ("" if name.startswith("slurm/") else "configs") / name
        assert copy.read_bytes() == path.read_bytes()
        assert not copy.is_symlink()
    assert (installed / "rfbench/py.typed").exists()

    env = {**os.environ, "PYTHONPATH": str(installed)}

    def rfbench(*arguments: str) -> str:
        command = [sys.executable, "-m", "rfbench", *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert len(rfbench("configs").splitlines()) == len(shipped.files())
    (tmp_path / "mine.yaml").write_text("base: cls/digits\nvariant: 1x1\n")
    assert "variant: 1x1\n" in rfbench("train-cls", "mine.yaml", "--dry-run")
    assert "conv3x3" in rfbench("visualize-rf", "rf/fig5_modules", "--dry-run")
    assert str(installed) in rfbench("grid", "grids/digits", "--dry-run", "--json")


def test_without_torch() -> None:
    hidden = "import sys; sys.modules['torch'] = None; from rfbench.cli import main; main()"
    for arguments in (["rf", "theory", "resnet18"], ["train-cls"], ["visualize-rf", "vgg16"]):
        command = [sys.executable, "-c", hidden, *arguments]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert result.returncode == 1
        says = f"Error: rfbench needs torch, which is not installed in {sys.prefix}: `pip install"
        assert result.stderr.splitlines()[-1].startswith(says), result.stderr
