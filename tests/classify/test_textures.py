"""The texture by hand, and a run whose classifier sees nothing else."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

from rfbench.cli import main

PATH = Path(__file__).parents[2] / "scripts" / "textures.py"


@pytest.fixture(scope="module")
def textures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("textures", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_texture_by_hand(textures: ModuleType) -> None:
    board = textures.texture(4, 2, 8)[..., 0]
    assert torch.equal(board, 8 * torch.tensor([[1.0, -1, 1, -1], [-1, 1, -1, 1]]).repeat(2, 1))
    four = textures.texture(4, 4, 8)[..., 0]
    assert four[0].tolist() == [8, 0, -8, 0] and four[2].tolist() == [-8, 0, 8, 0]
    assert not four[1].any() and textures.texture(48, 16, 8).mean() == 0
    assert textures.periods(16) == [2, 4, 8, 16] and textures.periods(12) == [2, 4, 8]
    images = torch.tensor([3, 100, 250], dtype=torch.uint8).expand(1, 4, 4, 3)
    found = textures.textured(images, textures.texture(4, 2, 8))
    assert found[0, 0, 0].tolist() == [11, 108, 255] and found[0, 0, 1].tolist() == [0, 92, 242]


def test_clean_images_give_the_evaluations_top1(textures: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    small = ["data.train_scenes=96", "data.val_scenes=40", "schedule.epochs=1", "device=cpu"]
    flags = [part for text in small for part in ("-o", text)]
    result = CliRunner().invoke(main, ["train-cls", "--output", str(folder), *flags, "--json"])
    assert result.exit_code == 0, result.stderr
    found = textures.measure(folder, 16, 0, 1000)
    top1 = json.loads(result.stdout)["metrics"]["top1"]
    expected = dict.fromkeys(["clean", "2", "4", "8", "16"], pytest.approx(top1))
    assert found == {"variant": "baseline", "seed": 0, **expected}
    strong = textures.measure(folder, 16, 120, 1000)
    assert strong["clean"] == pytest.approx(top1)
