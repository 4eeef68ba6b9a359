"""TrivialAugment, erasing, mixup and CutMix: what they do, and from which random numbers."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from rfbench.classify.mix import classes_of, mix
from rfbench.cli import main
from rfbench.data.augment import AUGMENTATIONS, image_rng
from rfbench.data.dataset import ArraySplit
from rfbench.data.loader import Loader
from rfbench.data.order import TrainTasks
from rfbench.data.policies import Augmented, seeded
from rfbench.schemas.cls import ClsConfig
from tests.classify import runs

KEYS: dict[str, Any] = {"policy": "trivial_augment", "erase": 0.25, "mixup": 0.2, "cutmix": 1.0}


def config(**data: Any) -> ClsConfig:
    return ClsConfig.model_validate({"data": data})


def batch(n: int = 8, side: int = 16) -> tuple[Tensor, Tensor]:
    """Images of one value each, 2^i, and labels i: a mean tells what was mixed."""
    values = 2.0 ** torch.arange(n)
    images = values[:, None, None, None].expand(n, 3, side, side).clone()
    return images.contiguous(memory_format=torch.channels_last), torch.arange(n)


def test_mixup_and_cutmix_mix_labels_as_pixels() -> None:
    for keys in ({"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0}):
        call, kinds = mix(config(**keys), 8), set()
        for step in range(40):
            images, labels = batch()
            found, targets = call(images, labels, step, 0)
            assert targets.shape == (8, 8)
            assert targets.sum(1) == pytest.approx(torch.ones(8))
            # the mean of an image is that of what the targets say, whichever of the two it is
            shares = targets.double() @ (2.0 ** torch.arange(8, dtype=torch.double))
            assert found.double().mean((1, 2, 3)) == pytest.approx(shares, rel=1e-5)
            assert found.is_contiguous(memory_format=torch.channels_last)
            own = targets.diagonal()
            before = targets[torch.arange(8), torch.arange(-1, 7)]
            assert own + before == pytest.approx(torch.ones(8))
            assert len(own.unique()) == 1
            if 0 < own[0] < 1:
                kinds.add("mixup" if len(found[3].unique()) == 1 else "cutmix")
        assert kinds == set(keys)


def test_without_keys_nothing_is_mixed() -> None:
    images, labels = batch()
    found, targets = mix(config(), 8)(images, labels, 0, 0)
    assert found is images and targets is labels and classes_of(targets) is labels


def test_mixing_is_a_function_of_seed_step_and_part() -> None:
    call = mix(config(mixup=1.0, cutmix=1.0), 8)
    torch.manual_seed(5)
    state = torch.get_rng_state()

    def shares(seed: int = 0, step: int = 3, part: int = 1) -> float:
        other = config(mixup=1.0, cutmix=1.0).model_copy(update={"seed": seed})
        return float(mix(other, 8)(*batch(), step, part)[1][0, 0])

    first = float(call(*batch(), 3, 1)[1][0, 0])
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(9)
    assert shares() == first
    assert len({first, shares(seed=1), shares(step=4), shares(part=0)}) == 4
    assert classes_of(torch.tensor([[0.4, 0.6], [0.7, 0.3]])).tolist() == [1, 0]


def photo(seed: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def test_a_policy_is_torchvisions_with_the_images_numbers() -> None:
    base = AUGMENTATIONS["resized_crop"](24, True)
    both = Augmented(base, "trivial_augment", 1.0, (0.5, 0.25, 0.125))
    assert both.size == 24
    changed = 0
    for index in range(30):
        image, rng = torch.from_numpy(photo(index)), image_rng(0, 2, index)
        state = torch.get_rng_state()
        found = both(image, image_rng(0, 2, index))
        assert torch.equal(torch.get_rng_state(), state)
        crop = base(image, rng).permute(2, 0, 1)
        torch.manual_seed(int(rng.random() * 2**53))
        expected = v2.TrivialAugmentWide()(crop)
        expected = v2.RandomErasing(p=1.0, value=[128.0, 64.0, 32.0])(expected)
        assert found.dtype == torch.uint8 and torch.equal(found, expected.permute(1, 2, 0))
        assert ((found == torch.tensor([128, 64, 32])).all(2)).float().mean() > 0.015
        changed += not torch.equal(expected, crop)
    assert changed == 30


def test_seeded_leaves_the_global_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(random.Random(3)):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected) and not torch.equal(inside, expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_augmented_batches_do_not_depend_on_the_workers(workers: int) -> None:
    images = np.stack([photo(i) for i in range(24)])
    split = ArraySplit(images, np.zeros(24), "photos")
    tasks = TrainTasks(24, 6, 0, 8)
    found = []
    for number in (0, workers):
        transform = Augmented(AUGMENTATIONS["pad_crop"](40, True), "trivial_augment", 0.5, (0,) * 3)
        loader = Loader(split, transform, train=True, workers=number)
        found.append([b.images.clone() for b in loader.batches(tasks)])
        loader.close()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_modern_run_that_is_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    given = runs.config(
        data=KEYS, optim={"label_smoothing": 0.1, "ema": 0.9}, schedule={"name": "cosine"}
    )
    assert runs.finish(runs.start(given, tmp_path / "whole")) == [0]
    landed = runs.kill_and_resume(given, tmp_path / "run", kills=3, in_writes=1)
    print("killed at (step, checkpoint, writing):", landed)
    runs.assert_equal(tmp_path / "whole", tmp_path / "run")


def test_two_processes_mix_as_one(tmp_path: Path) -> None:
    # without dropout, whose numbers are each process's own
    given = runs.config(
        model="rfbench.classify.nets:resnet14",
        data={**KEYS, "train_scenes": 96, "val_scenes": 13},
        schedule={"epochs": 1, "name": "cosine", "warmup_epochs": 0},
        max_batch_per_gpu=6,
    )
    assert runs.finish(runs.start(given, tmp_path / "one")) == [0]
    assert runs.finish(runs.start(given, tmp_path / "two", world=2)) == [0, 0]
    losses = [
        [line["loss"] for line in runs.lines(tmp_path / name) if line["split"] == "train"]
        for name in ("one", "two")
    ]
    assert len(losses[0]) == 8
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def one_class(root: Path, names: Sequence[str] = ("only",)) -> Path:
    for part in ("train", "val"):
        for name in names:
            (root / part / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(photo(i)).save(root / part / name / f"{i}.png")
    return root


def test_top5_needs_more_than_five_classes(tmp_path: Path) -> None:
    for names, told in {"abcde": "top5 of 5 classes is always 100 %", "abcdef": ""}.items():
        root = one_class(tmp_path / names, names)
        given = [
            f"data={{name: folder, root: {root}, image_size: 32}}",
            "best_metric=top5",
            "batch_size=4",
        ]
        flags = [part for text in given for part in ("-o", text)]
        more = ["--output", str(tmp_path / "run"), "--device", "cpu", "--dry-run"]
        result = CliRunner().invoke(main, ["train-cls", *flags, *more])
        assert (told in result.stderr) if told else result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["data={name: folder, root: ROOT, image_size: 32, mixup: 0.2, cutmix: 1.0}"],
            "data.mixup and data.cutmix mix the labels of several classes; folder has one: only",
        ),
        (
            ["data={name: folder, root: ROOT, image_size: 32}"],
            "folder has one class, only: top-1 would be 100 %, whatever is learnt",
        ),
        (["data.image_size=1000000"], "images of 1000000x1000000 px are more than 128 million"),
        (
            ["data.mixup=0.2", "max_batch_per_gpu=1"],
            "data.mixup mix the images of a pass, and a pass is of one image",
        ),
        (
            ["schedule={name: cosine, epochs: 3}"],
            "the schedule ends before its warm-up: schedule.epochs is 3, schedule.warmup_epochs 5",
        ),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_what_cannot_work_is_one_line_before_training(
    args: list[str], message: str, dry: bool, tmp_path: Path
) -> None:
    root = str(one_class(tmp_path / "images"))
    given = ["batch_size=4", "data.train_scenes=96", "data.val_scenes=40", *args]
    given = [text.replace("ROOT", root) for text in given]
    flags = [part for text in given for part in ("-o", text)]
    more = ["--dry-run"] if dry else []
    result = CliRunner().invoke(
        main, ["train-cls", *flags, "--output", str(tmp_path / "run"), "--device", "cpu", *more]
    )
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert result.exit_code == 2 and len(errors) == 1 and message in errors[0], result.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("dry", [False, True])
def test_scores_beside_others_in_training_are_refused_before_it(dry: bool, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        scores = super().forward(x)\n"
        "        return (scores, scores) if self.training else scores\n"
        "def net(): return Net(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))\n"
    )
    given = [f"model={tmp_path}/net.py:net", "data.train_scenes=96", "data.val_scenes=40"]
    flags = [part for text in given for part in ("-o", text)] + ["--dry-run"] * dry
    result = CliRunner().invoke(
        main, ["train-cls", *flags, "--output", str(tmp_path / "run"), "--device", "cpu"]
    )
    assert result.exit_code == 1, result.stderr
    assert "in training, but tuple (of an auxiliary head?)" in result.stderr.splitlines()[-1]
