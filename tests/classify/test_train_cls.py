"""`rfbench train-cls` as users meet it: files, records, dry runs, errors of one line."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from rfbench.classify import fit
from rfbench.classify.network import build
from rfbench.cli import main
from rfbench.config import load
from rfbench.schemas.cls import ClsConfig
from rfbench.training.optimizer import parameter_groups

FOLDER = Path(__file__).parents[2] / "configs" / "cls"
CONFIGS = sorted(FOLDER.rglob("*.yaml"))
SMALL = [
    *("-o", "data.train_scenes=96", "-o", "data.val_scenes=40"),
    *("-o", "schedule.epochs=1", "-o", "device=cpu"),
]


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["train-cls", *map(str, args)])


def jpegs(root: Path, count: int, size: tuple[int, int], suffix: str = ".JPEG") -> Path:
    """train/ and val/ with two classes of JPEGs that can be told apart."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, wnid in enumerate(("n01440764", "n01443537")):
            folder = root / part / wnid
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 120, (*size, 3), dtype=np.uint8)
                noise[..., label] += 120
                Image.fromarray(noise).save(folder / f"{wnid}_{i}{suffix}", format="JPEG")
    return root


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jpegs(tmp_path_factory.mktemp("imagenet"), 24, (80, 100))


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's files with few images; torchvision's sums of them are left out."""
    import pickle

    from torchvision import datasets

    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    folder = tmp_path / "cifar" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data = rng.integers(0, 255, (20, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [*range(10)] * 2}))
    names = {"label_names": [f"c{i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    hundred = tmp_path / "cifar" / "cifar-100-python"
    hundred.mkdir()
    for name in ("train", "test"):
        data = rng.integers(0, 255, (100, 3072), dtype=np.uint8)
        held = {"data": data, "fine_labels": [*range(100)]}
        (hundred / name).write_bytes(pickle.dumps(held))
    names = {"fine_label_names": [f"c{i}" for i in range(100)]}
    (hundred / "meta").write_bytes(pickle.dumps(names))
    return tmp_path / "cifar"


def tree_of(config: Path, imagenet: Path, cifar: Path) -> list[str]:
    values = load(ClsConfig, str(config))
    roots = {"imagenet": imagenet, "folder": imagenet, "cifar10": cifar, "cifar100": cifar}
    root = roots.get(values.data.name)
    few = ["-o", "prune.begin=1", "-o", "prune.end=2"] if values.prune else []
    return [*few, "-o", f"data.root={root}" if root else "data.train_scenes=96"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_dry_runs(
    path: Path, imagenet: Path, cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    values = load(ClsConfig, str(path))
    few = ["-o", "batch_size=32", "-o", "max_batch_per_gpu=8"]
    result = run(path, "--dry-run", *few, *tree_of(path, imagenet, cifar))
    assert result.exit_code == 0, result.stderr
    assert "32 = 1 process x 4 passes x 8 images" in result.stdout
    changed = re.search(r"(\d+) changed", result.stdout)
    assert changed and (int(changed[1]) > 0) == (values.variant != "baseline")
    assert sorted(tmp_path.rglob("*")) == before  # it writes nothing


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_opens_with_its_command(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ") and f"train-cls configs/cls/{path.relative_to(FOLDER)}" in first


def test_the_defaults_are_the_papers() -> None:
    paper = load(ClsConfig, str(FOLDER / "resnet50.yaml"))
    default = ClsConfig()
    assert paper.optim == default.optim and paper.schedule == default.schedule
    assert (paper.batch_size, paper.model, paper.init) == (4096, "resnet50", default.init)
    assert (default.optim.lr, default.optim.momentum, default.optim.nesterov) == (1.6, 0.9, True)
    assert (default.optim.weight_decay, default.optim.label_smoothing) == (1e-4, 0)
    assert default.optim.norm_weight_decay and not default.init.zero_gamma


def test_the_learning_rate_follows_the_batch(imagenet: Path, tmp_path: Path) -> None:
    """null is the paper's rule; the first line and the record hold the number."""
    for batch, peak in ((4096, 1.6), (256, 0.1), (32, 0.0125), (100, 0.0390625)):
        assert ClsConfig(batch_size=batch).optim.lr == peak
    assert load(ClsConfig, None, ["batch_size=32", "optim.lr=0.3"]).optim.lr == 0.3
    result = run(
        *("-o", "optim={}", "-o", "batch_size=32"),
        *("--output", tmp_path / "run", "-o", "schedule.epochs=1", "-o", "device=cpu"),
        *("-o", f"data={{name: folder, root: {imagenet}, image_size: 32}}"),
    )
    assert result.exit_code == 0, result.output
    assert "learning rate 0.0125 for batches of 32 images (sgd): the paper's 1.6" in result.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["config"]["optim"]["lr"] == 0.0125
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["optim"]["lr"] == 0.0125


def test_adamw_needs_a_learning_rate() -> None:
    result = run("-o", "optim={name: adamw}", "--dry-run")
    assert result.exit_code == 2 and "adamw needs optim.lr" in result.stderr


def test_images_are_checked_before_training(imagenet: Path, tmp_path: Path) -> None:
    """Also a validation image that would be noticed after an epoch, and nothing is written."""
    shutil.copytree(imagenet, tmp_path / "data")
    some = sorted((tmp_path / "data" / "val").glob("*/*.JPEG"))
    some[3].write_bytes(some[3].read_bytes()[:200])
    some[5].write_bytes(b"")
    some[5] = some[5].rename(some[5].with_name("x\nError: forged.JPEG"))
    data = ("-o", f"data={{name: folder, root: {tmp_path / 'data'}, image_size: 32}}")
    to = ("--output", tmp_path / "run")
    result = run("-o", "optim={}", *data, "--check-images", *to)
    assert result.exit_code == 1 and not (tmp_path / "run").exists()
    assert "0 of 48 training images cannot be read" in result.stderr
    assert f"{some[3]}: " in result.stderr
    assert f"{some[5].parent}/x\\nError: forged.JPEG: the file is empty" in result.stderr
    assert not any(line.startswith("Error: forged") for line in result.stderr.splitlines())
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: 2 of 48 validation images cannot be read, more than data.max_b")
    few = ("-o", "data.max_bad_share=0.1", "--dry-run")
    assert run("-o", "optim={}", *data, "--check-images", *few).exit_code == 0


def test_a_run_and_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run("--output", folder, *SMALL, "-o", "variant=1x1+3x3")
    assert result.exit_code == 0, result.stderr
    assert "No configuration given: taking cls/digits, the embedded demo" in result.stderr
    assert "resnet14 / 1x1+3x3 on digits, 1 epoch, seed 0" in result.stdout
    record = json.loads((folder / "result.json").read_text())
    assert all((folder / name).exists() for name in record["files"])
    assert record["kind"] == "cls" and len(record["replaced"]) == 6
    assert record["steps"] == 3 and record["metrics"]["images"] == 40
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["split"] for line in lines] == ["train", "val"]
    assert "digits: 96 training images, 40 validation images, 10 classes" in result.stderr
    assert f"{folder / 'result.json'}" in result.stderr
    # config.yaml runs the job again
    again = load(ClsConfig, str(folder / "config.yaml"))
    assert again.model_dump(mode="json") == record["config"]
    # a second run there is refused, --resume says that there is nothing to do
    assert "holds a run. Continue it with --resume" in run("--output", folder, *SMALL).stderr
    # a dry run looks at the configuration first
    dry = run("--output", folder, *SMALL, "--dry-run")
    assert dry.exit_code == 2 and "holds a run" in dry.stderr and "epochs" in dry.stdout
    wrong = run("--output", folder, *SMALL, "--dry-run", "-o", "variant=1x2")
    assert "unknown variant '1x2'" in wrong.stderr and "holds a run" not in wrong.stderr
    # and with --resume at what has changed, but not at weights that are needed no more
    more = ["--dry-run", "--resume", "-o", "init.weights=gone.pth"]
    wrong = run("--output", folder, *SMALL, *more)
    assert wrong.exit_code == 2
    assert "was started with variant = 1x1+3x3; now it is baseline" in wrong.stderr
    assert run("--output", folder, *SMALL, *more, "-o", "variant=1x1+3x3").exit_code == 0
    resumed = run("--output", folder, *SMALL, "-o", "variant=1x1+3x3", "--resume", "--json")
    assert resumed.exit_code == 0 and json.loads(resumed.stdout) == record
    assert "already finished" in resumed.stderr
    # the checkpoint evaluates to what the record says
    best = run(*SMALL, "-o", "variant=1x1+3x3", "--eval-only", folder / "last.pth", "--json")
    found = json.loads(best.stdout)
    assert found["top1"] == pytest.approx(record["metrics"]["top1"])
    other = run(*SMALL, "-o", "variant=1x1", "--eval-only", folder / "last.pth")
    assert other.exit_code == 1 and "The weights would load but mean something else" in other.stderr


def test_it_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    # at a rate this small no epoch is better than the first by top-5 of few scenes
    more = ("-o", "schedule.epochs=6", "-o", "optim.lr=1e-12", "-o", "best_metric=top5")
    folder = tmp_path / "run"
    result = run("--output", folder, *SMALL, *more, "-o", "patience=2", "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["stopped_early"] and record["steps"] == 3 * (record["metrics"]["epoch"] + 1) < 18
    assert record["metrics"]["epoch"] == record["best"]["epoch"] + 2
    held = torch.load(folder / "best.pth", weights_only=True)
    assert held["metrics"] == record["best"]
    assert "stopped early at step" in result.stderr
    again = run("--output", folder, *SMALL, *more, "-o", "patience=2", "--resume", "--json")
    assert json.loads(again.stdout) == record


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_error_of_another_process_is_not_printed_here(
    rank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", rank)
    result = run("--output", tmp_path, "-o", "variant=1x2", "--dry-run", "-o", "seed=x")
    assert result.exit_code == 2 and bool(result.stderr) == (rank == "0")


def test_imagenet_like(imagenet: Path, tmp_path: Path) -> None:
    values = {
        "model": "resnet18",
        "variant": "3x3",
        "data": {"root": str(imagenet), "image_size": 64, "workers": 1},
        "schedule": {"epochs": 1, "warmup_epochs": 1},
        "batch_size": 16,
        "max_batch_per_gpu": 8,
        "tensorboard": False,
        "device": "cpu",
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    bad = imagenet / "train" / "n01440764" / "n01440764_3.JPEG"
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    try:
        result = run(path, "--output", tmp_path / "run", "--json")
        assert result.exit_code == 1
        assert "1 of 48 images cannot be read" in result.stderr and bad.name in result.stderr
        more = ("-o", "data.max_bad_share=0.05", "--overwrite")
        result = run(path, "--output", tmp_path / "run", "--json", *more)
    finally:
        bad.write_bytes(whole)
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["batch"]["accumulation"] == 2 and record["batch"]["per_batchnorm"] == 8
    assert [Path(name).name for name in record["bad_images"]] == [bad.name]
    # one documented line loads it into plain torchvision
    from torchvision.models import resnet18

    state = torch.load(tmp_path / "run" / "best.pth", weights_only=True)["state_dict"]
    resnet18(num_classes=2).load_state_dict(state)


def test_cifar_like(cifar: Path, tmp_path: Path) -> None:
    path = FOLDER / "cifar10.yaml"
    size = ("-o", "schedule.epochs=1", "-o", "batch_size=20", "-o", "device=cpu")
    model = ("-o", "model=timm:resnet10t", "-o", "variant=1x1+3x3")
    result = run(path, "-o", f"data.root={cifar}", *size, *model, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    state = torch.load(tmp_path / "run" / "best.pth", weights_only=True)["state_dict"]
    import timm

    timm.create_model("resnet10t", num_classes=10).load_state_dict(state)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    result = run("--output", tmp_path / "run", *SMALL, "-o", "optim={name: sgd, lr: 1e30}")
    assert result.exit_code == 1
    assert re.search(
        r"the loss at step \d is (nan|inf), learning rate .*digits/train/\d+", result.stderr
    )


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["-o", "optim.nestrov=true"], 2, "did you mean 'optim.nesterov'"),
        (["-o", "variant=1x2"], 2, "unknown variant '1x2'"),
        (["-o", "model=restnet50"], 2, "unknown model 'restnet50'"),
        (["-o", "data.name=imagenet"], 1, "no ImageNet at datasets/imagenet"),
        (["-o", "batch_size=31", "-o", "max_batch_per_gpu=8"], 2, "-o batch_size=32"),
        (["-o", "data.val_share=0.1"], 2, "no option 'val_share'"),
        (["--device", "cudaa"], 2, "unknown device 'cudaa'"),
        (["--resume", "--overwrite"], 2, "give one of them"),
        (["-o", "init.fix=true"], 2, "init.fix needs init.weights: pretrained, or a file"),
        (["-o", "model=vgg11", "-o", "data.image_size=16"], 1, "does not train on 16 px"),
        (["--eval-only", "nothing.pth"], 2, "no such file: nothing.pth"),
        (["-o", "schedule={epochs: 1}"], 2, "the schedule ends before its warm-up: schedule.epo"),
    ],
)
def test_bad_input_is_one_line(
    args: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    size = () if "data.name=imagenet" in args else SMALL
    result = run("--output", "run", *size, *args)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert result.exit_code == code, result.stderr
    assert len(errors) == 1 and message in errors[0]
    assert result.stdout == ""


def config(**values: Any) -> ClsConfig:
    return ClsConfig.model_validate(values)


def test_zero_gamma_is_the_configurations_word() -> None:
    for model in ("torchvision:resnet18", "timm:resnet18"):
        for zero in (False, True):
            net = build(config(model=model, init={"zero_gamma": zero}), 10).module
            zeros = sum(
                not m.weight.any() for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)
            )
            assert zeros == (8 if zero else 0), model


def test_weight_decay_of_norms_is_the_configurations_word() -> None:
    net = build(config(model="resnet18"), 10).module
    assert len(parameter_groups(net, config().optim)) == 1
    groups = parameter_groups(net, config(optim={"norm_weight_decay": False}).optim)
    assert [group["weight_decay"] for group in groups] == [1e-4, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


@pytest.mark.parametrize(
    "model", ["resnet18", "timm:mobilenetv2_100", "squeezenet1_1", "mobilenet_v2", "densenet121"]
)
def test_any_classifier_gets_the_classes(model: str) -> None:
    net = build(config(model=model), 7).module.eval()
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_the_folder_is_named_after_the_run() -> None:
    found = fit.folder_of(config(variant={"kernels": [1, 3], "pool": "blur"}, seed=3))
    assert found == Path("results/cls-imagenet-resnet50-blur-1x1+3x3-s3")
