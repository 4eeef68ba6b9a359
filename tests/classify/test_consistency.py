"""Consistency of networks whose answer is known, for any number of processes."""

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from PIL import Image
from scipy.stats import chisquare
from torch import Tensor, nn

from rfbench.classify.consistency import consistency
from rfbench.classify.images import Images
from rfbench.cli import main
from rfbench.data import augment, sources
from rfbench.data.augment import image_rng
from rfbench.data.dataset import ArraySplit, Dataset
from rfbench.data.moved import SEED, Moved, moves
from rfbench.runs.processes import Processes, started
from rfbench.schemas.cls import ClsConfig
from tests.classify import runs

IMAGES, SIDE = 201, 48


def marked(root: str | None = None, eval_only: bool = False) -> Dataset:
    """Black images with one bright pixel of the class's colour, 8 px or more inside."""
    rng = np.random.default_rng(0)
    images = np.zeros((IMAGES, SIDE, SIDE, 3), np.uint8)
    labels = rng.integers(0, 3, IMAGES)
    for image, label, (y, x) in zip(
        images, labels, rng.integers(8, SIDE - 8, (IMAGES, 2)), strict=True
    ):
        image[y, x, label] = 255
    split = ArraySplit(images, labels, "marked")
    return Dataset("marked", ["r", "g", "b"], split, split, SIDE, 1.0, "none", mean=(0, 0, 0))


def striped(root: str | None = None, eval_only: bool = False) -> Dataset:
    """Columns of 255, 0, 255, 0, ..."""
    images = np.zeros((IMAGES, SIDE, SIDE, 3), np.uint8)
    images[:, :, ::2] = 255
    split = ArraySplit(images, np.zeros(IMAGES, np.int64), "striped")
    return Dataset("striped", ["a", "b"], split, split, SIDE, 1.0, "none", mean=(0, 0, 0))


class Brightest(nn.Module):
    """Exactly shift-invariant: the brightest pixel of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


class Corner(nn.Module):
    """The first pixel's brightness against a threshold."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, 0, 0, 0]
        return torch.stack([bright, 0.5 - bright], 1)


@pytest.fixture(autouse=True)
def known_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (marked, striped):
        monkeypatch.setitem(sources.SOURCES, make.__name__, sources.Source(make, "a test's"))


def measured(name: str, model: nn.Module, group: Processes, **changes: Any) -> dict[str, Any]:
    config = ClsConfig.model_validate({"data": {"name": name, "workers": 0}, **changes})
    data = Images(config, group)
    try:
        return consistency(model, data, config, 32, group)
    finally:
        data.close()


CPU = Processes(torch.device("cpu"))


def test_a_shift_invariant_network_is_consistent() -> None:
    model = Brightest().train()
    assert measured("marked", model, CPU) == {"consistency": 100.0, "consistency_images": IMAGES}
    assert model.training
    few = measured("marked", model, CPU, consistency_images=7)
    assert few == {"consistency": 100.0, "consistency_images": 7}
    assert measured("marked", model, CPU, consistency_images=0) == {}


def striped_share() -> float:
    """By the moves alone: columns repeat every 2 px, and mirroring at the edge keeps that."""
    found = [moves(image_rng(SEED, 0, i), SIDE) for i in range(IMAGES)]
    return 100 * sum((a[1] - b[1]) % 2 == 0 for a, b in found) / IMAGES


def test_a_network_of_known_share() -> None:
    found = measured("striped", Corner(), CPU)
    assert found["consistency"] == pytest.approx(striped_share())
    assert 40 < found["consistency"] < 60  # 3 even and 4 odd moves, the same one left out


def test_moves_are_uniform_different_and_of_the_stated_size() -> None:
    pairs = [moves(random.Random(i), 48) for i in range(20_000)]
    assert all(a != b for a, b in pairs)
    for which in (0, 1):
        counts = Counter(pair[which] for pair in pairs)
        assert set(counts) == {(y, x) for y in range(-3, 4) for x in range(-3, 4)}
        assert chisquare([*counts.values()]).pvalue > 0.001
    for size, low, high in ((224, -14, 14), (32, -2, 2), (8, 0, 1), (31, -1, 2), (57, -3, 4)):
        seen = {n for i in range(5000) for move in moves(random.Random(i), size) for n in move}
        assert (min(seen), max(seen)) == (low, high)
    with pytest.raises(ValueError, match="less than one pixel"):
        moves(random.Random(0), 7)


def test_windows_are_the_evaluations_moved() -> None:
    """Against torchvision's crop where there are pixels, NumPy's reflection elsewhere."""
    from torchvision.transforms import v2

    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (90, 75, 3), np.uint8))
    crop = augment.evaluation(28, 0.875)  # 32 px, a margin of 2
    sized = v2.functional.resize(image.permute(2, 0, 1), [32], antialias=True)
    assert sized.shape[1:] == (38, 32)
    split = ArraySplit(image[None].repeat(40, 1, 1, 1).numpy(), np.zeros(40), "one")
    padded = np.pad(sized.permute(1, 2, 0).numpy(), ((9, 9), (9, 9), (0, 0)), "reflect")
    windows = Moved(split, crop, 40)
    assert len(windows) == 80 and windows.name(7) == "one/3"
    for i in range(80):
        down, right = moves(image_rng(SEED, 0, i // 2), 28)[i % 2]
        assert max(abs(down), abs(right)) <= 2
        inside = v2.functional.crop(sized, 5 + down, 2 + right, 28, 28)
        assert torch.equal(windows.read(i), inside.permute(1, 2, 0))
    for down, right in ((0, 0), (-7, 3), (9, -9), (1, 9)):
        expected = padded[14 + down :, 11 + right :][:28, :28]
        assert np.array_equal(crop.window(image, down, right).numpy(), expected)


def count(folder: str, env: dict[str, str]) -> None:
    """Measure in one of the processes; each writes what it found."""
    os.environ.update(env)
    torch.set_num_threads(1)
    for make in (marked, striped):
        sources.SOURCES[make.__name__] = sources.Source(make, "a test's")
    with started("cpu") as group:
        found = [measured("marked", Brightest(), group), measured("striped", Corner(), group)]
    Path(folder, str(group.rank)).write_text(json.dumps(found))


@pytest.mark.parametrize("world", [2, 3])
def test_every_image_counts_once_whatever_the_number_of_processes(
    world: int, tmp_path: Path
) -> None:
    assert runs.finish(runs.start_all(count, (str(tmp_path),), world)) == [0] * world
    (text,) = {path.read_text() for path in tmp_path.iterdir()}
    marks, stripes = json.loads(text)
    assert marks == {"consistency": 100.0, "consistency_images": IMAGES}
    assert stripes["consistency"] == pytest.approx(striped_share())
    assert stripes["consistency_images"] == IMAGES


SMALL = [
    *("-o", "data.train_scenes=96", "-o", "data.val_scenes=40"),
    *("-o", "schedule.epochs=1", "-o", "device=cpu"),
]


def run(*args: Any) -> Result:
    return CliRunner().invoke(main, ["train-cls", *map(str, args)])


def test_it_stands_in_record_table_and_comparison(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run("--output", folder, *SMALL, "-o", "optim.ema=0.9")
    assert result.exit_code == 0, result.stderr
    record = json.loads((folder / "result.json").read_text())
    metrics = record["metrics"]
    assert metrics["consistency_images"] == metrics["ema"]["consistency_images"] == 40
    assert f"  consistency {metrics['consistency']:.2f} % (EMA weights: " in result.stdout
    assert "the same top-1 at two positions, of 40 images" in result.stdout
    # a run that ended before its record was written measures it again
    (folder / "result.json").unlink()
    resumed = run("--output", folder, *SMALL, "-o", "optim.ema=0.9", "--resume", "--json")
    assert json.loads(resumed.stdout)["metrics"] == metrics, resumed.stderr
    again = run(*SMALL, "--eval-only", folder / "last.pth", "--json")
    assert json.loads(again.stdout)["consistency"] == metrics["consistency"]
    shown = run(*SMALL, "--eval-only", folder / "last.pth", "-o", "init.ema=true")
    assert f", consistency {metrics['ema']['consistency']:.2f} %" in shown.stdout
    table = CliRunner().invoke(main, ["compare", str(folder), "--format", "csv"]).stdout
    row = next(line for line in table.splitlines() if ",consistency," in line)
    assert str(metrics["consistency"]) in row.split(",")
    shown = CliRunner().invoke(main, ["compare", str(folder), "--format", "markdown"]).stdout
    assert "consistency: share of validation images" in " ".join(shown.split())
    # by hand: the same windows, one at a time
    from rfbench.models import backbones

    model = backbones.build(record["model"], weights=str(folder / "last.pth")).module
    data = sources.load("digits", train_scenes=96, val_scenes=40)
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    same = 0
    for i in range(40):
        padded = F.pad(data.val.read(i).permute(2, 0, 1)[None].float(), (3, 3, 3, 3), "reflect")
        best = [
            model((padded[:, :, 3 + down : 51 + down, 3 + right : 51 + right] / 255 - mean) / std)
            for down, right in moves(image_rng(SEED, 0, i), 48)
        ]
        same += bool(best[0].argmax() == best[1].argmax())
    assert metrics["consistency"] == pytest.approx(100 * same / 40)


def test_runs_without_it_have_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run("--output", folder, *SMALL, "-o", "consistency_images=0")
    assert result.exit_code == 0 and "consistency" not in result.stdout
    table = CliRunner().invoke(main, ["compare", str(folder), "--format", "markdown"]).stdout
    assert "top5" in table and "consistency" not in table


def test_an_unreadable_image_is_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / label / f"{i}.png")
    (tmp_path / "val" / "a" / "3.png").write_bytes(b"")
    values = {
        "data": {"name": "folder", "root": str(tmp_path), "image_size": 16, "max_bad_share": 0.1}
    }
    data = {**values["data"], "workers": 0}
    config = ClsConfig.model_validate({"data": data})
    images = Images(config, CPU)
    found = consistency(Brightest(), images, config, 5, CPU)
    assert found["consistency_images"] == 11
    assert [Path(name).name for name in images.bad] == ["3.png"]


def test_images_smaller_than_the_move_are_refused_before_training(tmp_path: Path) -> None:
    small = [*SMALL, "-o", "data.image_size=7"]
    for more in (["--output", tmp_path / "run"], ["--dry-run"]):
        result = run(*small, *more)
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
        assert result.exit_code == 2 and len(errors) == 1
        assert "less than a pixel of 7 px" in errors[0] and "consistency_images=0" in errors[0]
    assert not (tmp_path / "run" / "config.yaml").exists()
    off = run(*small, "--dry-run", "-o", "consistency_images=0")
    assert off.exit_code == 0, off.stderr
