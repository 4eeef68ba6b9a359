"""What scripts measure on a finished run: faint textures, and weights near zero."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

from rfbench.cli import main

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def textures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("textures")


@pytest.fixture
def near_zero(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("near_zero")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a short run, and its top-1."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    small = ["data.train_scenes=96", "data.val_scenes=40", "schedule.epochs=1", "device=cpu"]
    flags = [part for text in small for part in ("-o", text)]
    result = CliRunner().invoke(main, ["train-cls", "--output", str(folder), *flags, "--json"])
    assert result.exit_code == 0, result.stderr
    return folder, json.loads(result.stdout)["metrics"]["top1"]


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


def test_clean_images_give_the_evaluations_top1(
    textures: ModuleType, run: tuple[Path, float]
) -> None:
    folder, top1 = run
    found = textures.measure(folder, 16, 0, 1000)
    expected = dict.fromkeys(["clean", "2", "4", "8", "16"], pytest.approx(top1))
    assert found == {"variant": "baseline", "seed": 0, **expected}
    strong = textures.measure(folder, 16, 120, 1000)
    assert strong["clean"] == pytest.approx(top1)


def test_weights_near_zero_by_hand(near_zero: ModuleType) -> None:
    # root mean squares 5.02 and 4.33: of two tensors, 3 of 8 weights are below a tenth of it
    weights = [torch.tensor([[0.4, -0.4], [0.6, -10.0]]), torch.tensor([5.0, -5.0, 5.0, 0.0])]
    assert near_zero.share_below(weights, 10) == pytest.approx(100 * 3 / 8)
    zeroed = near_zero.without_smallest(torch.tensor([[3.0, -1.0], [-2.0, 4.0]]), 50)
    assert zeroed.tolist() == [[3, 0], [0, 4]]
    assert near_zero.without_smallest(torch.tensor([3.0, 1.0, 2.0]), 50).tolist() == [3, 0, 2]


def test_the_whole_network_is_the_evaluations(
    near_zero: ModuleType, run: tuple[Path, float]
) -> None:
    folder, top1 = run
    found = near_zero.measure(folder, 1000)
    assert found["whole"] == pytest.approx(top1)
    assert found["run"] == "resnet14 baseline seed 0"
    assert 0 <= found["below 1 %"] <= found["below 10 %"] <= 100
