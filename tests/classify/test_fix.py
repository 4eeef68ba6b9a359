"""Starting from weights, and giving a trained network another variant."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from rfbench.classify import network
from rfbench.cli import main
from rfbench.errors import RfbenchError
from rfbench.schemas.cls import ClsConfig, ClsInit

SMALL = [
    *("-o", "data.train_scenes=320", "-o", "data.val_scenes=100"),
    *("-o", "schedule.epochs=1", "-o", "device=cpu"),
]


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["train-cls", *SMALL, *map(str, args)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = run("--output", folder)
    assert result.exit_code == 0, result.stderr
    return folder


def test_every_stage_of_the_change_is_reported(trained: Path, tmp_path: Path) -> None:
    weights = trained / "last.pth"
    args = ("-o", "variant=1x1+3x3", "-o", f"init.weights={weights}", "-o", "init.fix=true")
    result = run("--output", tmp_path / "run", *args, "-o", "optim.lr=1e-4", "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    fix = record["fix"]
    before = json.loads((trained / "result.json").read_text())["metrics"]
    assert fix["from"] == "baseline"
    # the weights do in their own variant what they did when they were saved
    assert fix["before"]["top1"] == before["top1"]
    assert fix["before"]["loss"] == pytest.approx(before["loss"])
    assert fix["changed"]["loss"] != fix["before"]["loss"]
    assert fix["norms"]["loss"] != fix["changed"]["loss"]
    lines = [json.loads(t) for t in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [x.get("stage") for x in lines[:3]] == ["before", "changed", "norms"]
    assert all(
        text in result.stderr for text in ("as baseline:", "as 1x1+3x3:", "after precise BN:")
    )
    for text in ("before", "after the change", "after precise BN", "after fine-tuning"):
        assert (
            text
            in run("--output", tmp_path / "run", *args, "-o", "optim.lr=1e-4", "--resume").stdout
        )


def test_without_fix_another_variant_is_refused(trained: Path, tmp_path: Path) -> None:
    weights = ("-o", f"init.weights={trained / 'last.pth'}")
    result = run("--output", tmp_path / "run", "-o", "variant=1x1", *weights)
    assert result.exit_code == 2
    assert "of the variant baseline; this run is 1x1" in result.stderr
    assert "init.fix=true" in result.stderr
    dry = run("--dry-run", "--output", tmp_path / "run", "-o", "variant=1x1", *weights)
    assert dry.exit_code == 2
    assert dry.stderr.splitlines()[-1] == result.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()  # nor a folder with nothing but its lock


@pytest.mark.parametrize(
    ("model", "variant", "message"),
    [
        ("resnet18", "1x1", "init.weights pretrained are of the variant baseline; this run is 1x1"),
        ("rfbench.classify.nets:resnet14", "baseline", "nets:resnet14 has no pretrained weights"),
    ],
)
def test_dry_runs_refuse_pretrained_weights_that_there_are_not(
    model: str, variant: str, message: str, tmp_path: Path
) -> None:
    given = ("-o", f"model={model}", "-o", f"variant={variant}", "-o", "init.weights=pretrained")
    result = run("--dry-run", "--output", tmp_path / "run", *given)
    assert result.exit_code == 2 and message in result.stderr


def test_weights_without_a_recorded_variant_are_warned_of(trained: Path, tmp_path: Path) -> None:
    state = torch.load(trained / "last.pth", weights_only=True)["state_dict"]
    torch.save(state, tmp_path / "plain.pth")
    weights = ("-o", f"init.weights={tmp_path / 'plain.pth'}")
    result = run("--output", tmp_path / "run", "-o", "variant=1x1", *weights)
    assert result.exit_code == 0, result.stderr
    message = "plain.pth does not record the variant of its weights: taken as 1x1."
    assert result.stderr.count(message) == 1


def test_pretrained_weights_are_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    state = models.resnet18(num_classes=1000).state_dict()
    enum = models.ResNet18_Weights
    monkeypatch.setattr(enum, "get_state_dict", lambda *_, **__: state)
    config = ClsConfig.model_validate({"model": "resnet18", "init": {"weights": "pretrained"}})
    for classes in (1000, 10):
        backbone = network.build(config, classes)
        network.load_start(backbone, config, [])
        assert torch.equal(backbone.module.conv1.weight, state["conv1.weight"])  # type: ignore
        same = torch.equal(backbone.module.fc.weight[:5], state["fc.weight"][:5])  # type: ignore
        assert same == (classes == 1000)

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(enum, "get_state_dict", offline)
    with pytest.raises(RfbenchError, match="cannot be loaded: no network. Give a file"):
        network.load_start(backbone, config, [])


def test_the_key_of_version_0_1_is_read() -> None:
    old = ClsInit.model_validate({"weights": "some.pth", "convert": True})
    assert old.fix and "convert" not in old.model_dump()
