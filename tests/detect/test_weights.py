"""A classifier's weights in a detector: all of them, of this model and variant, or none."""

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from torch import nn

from rfbench.detect import config, weights
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones, pretrained, weight_files

TAKING = (weights.load, weights.check)


def detector(variant: str = "baseline", name: str = "resnet18", norm: str = "FrozenBN") -> Any:
    cfg = config.stock("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_rfbench_retinanet_fpn_backbone"
    cfg.MODEL.RFBENCH.NAME, cfg.MODEL.RFBENCH.VARIANT = name, variant
    cfg.MODEL.RESNETS.NORM = norm
    return build_model(cfg)


def checkpoint(path: Path, variant: str = "1x1", classes: int = 7, **changes: Any) -> str:
    """As train-cls writes it, of a classifier of `classes` classes."""
    network = backbones.build("resnet18", variant)
    network.module.fc = nn.Linear(512, classes)
    state = {**network.module.state_dict(), **changes}
    state = {key: value for key, value in state.items() if value is not None}
    content = {"model": network.name, "variant": network.variant, "state_dict": state}
    torch.save({"format": weight_files.FORMAT, "classes": ["a"], **content}, path)
    return str(path)


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_a_checkpoint_of_train_cls(tmp_path: Path, norm: str) -> None:
    path = checkpoint(tmp_path / "best.pth")
    model = detector("1x1", norm=norm)
    weights.load(model, path, "resnet18", "1x1")
    state = torch.load(path, weights_only=True)["state_dict"]
    own = model.backbone.bottom_up.net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in own.items() if not k.endswith("tracked"))
    assert {k for k in state if not k.endswith("tracked")} - own.keys() == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layer1.0.bn1.running_var": None}, "1 missing (layer1.0.bn1.running_var)"),
        ({"layer9.weight": torch.zeros(1)}, "1 unexpected (layer9.weight)"),
        (
            {"conv1.weight": torch.zeros(64, 3, 3, 3)},
            "1 of another shape (conv1.weight: [64, 3, 3, 3] for [64, 3, 7, 7])",
        ),
    ],
)
def test_what_does_not_fit(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = checkpoint(tmp_path / "best.pth", **changes)
    for take in TAKING:
        with pytest.raises(RfbenchError) as caught:
            take(detector("1x1"), path, "resnet18", "1x1")
        assert str(caught.value) == f"weights: {path} does not fit resnet18: {says}"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("conv1.weight", torch.full((64, 3, 7, 7), float("nan")), "not finite: conv1.weight (9408"),
        ("bn1.running_var", -torch.ones(64), "holds variances below 0: bn1.running_var"),
        ("bn1.bias", torch.empty(64, device="meta"), "holds no values for bn1.bias (meta tensors)"),
    ],
)
def test_values_that_are_none(tmp_path: Path, name: str, value: Any, says: str) -> None:
    """A dry run refuses them too."""
    path = checkpoint(tmp_path / "best.pth", **{name: value})
    for take in TAKING:
        with pytest.raises(RfbenchError) as caught:
            take(detector("1x1"), path, "resnet18", "1x1")
        assert says in str(caught.value)


@pytest.mark.parametrize("take", TAKING)
def test_another_variant_or_model(tmp_path: Path, take: Any) -> None:
    path = checkpoint(tmp_path / "best.pth")
    with pytest.raises(RfbenchError, match="holds resnet18 / 1x1; this run is resnet18 / baseline"):
        take(detector(), path, "resnet18", "baseline")
    with pytest.raises(RfbenchError, match="holds resnet18 / 1x1; this run is resnet34 / 1x1"):
        take(detector("1x1", "resnet34"), path, "resnet34", "1x1")
    with pytest.raises(UsageError, match="pretrained ones are of the baseline; this run is 1x1"):
        take(detector("1x1"), "pretrained", "resnet18", "1x1")
    with pytest.raises(UsageError, match="nets:resnet14 has no pretrained weights"):
        take(detector(), "pretrained", "rfbench.classify.nets:resnet14", "baseline")
    with pytest.raises(UsageError, match="no such file: nowhere.pth"):
        take(detector(), "nowhere.pth", "resnet18", "baseline")


@pytest.mark.parametrize("take", TAKING)
def test_a_detectors_weights(tmp_path: Path, take: Any) -> None:
    model, path = detector(), tmp_path / "last.pth"
    torch.save({"format": "rfbench-detection/1", "model": model.state_dict()}, path)
    with pytest.raises(RfbenchError, match="holds a detector; a backbone takes a classifier's"):
        take(model, str(path), "resnet18", "baseline")


def test_a_check_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "state_dict", lambda _: pytest.fail("a download"))
    model = detector()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weights.check(model, checkpoint(tmp_path / "best.pth", "baseline"), "resnet18", "baseline")
    weights.check(model, "pretrained", "resnet18", "baseline")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_plain_state_dict(tmp_path: Path) -> None:
    """Of torchvision's own files nothing says what they are; keys and shapes must do."""
    torch.save(backbones.build("resnet18").module.state_dict(), tmp_path / "resnet18.pth")
    weights.load(detector(), str(tmp_path / "resnet18.pth"), "resnet18", "baseline")


def test_a_file_for_detectron2_itself(tmp_path: Path) -> None:
    path, target = checkpoint(tmp_path / "best.pth"), tmp_path / "backbone.pth"
    weights.save(path, target, "resnet18", "1x1")
    ours, theirs = detector("1x1"), detector("1x1")
    weights.load(ours, path, "resnet18", "1x1")
    DetectionCheckpointer(theirs).load(str(target))
    own = theirs.backbone.bottom_up.state_dict()
    for key, value in ours.backbone.bottom_up.state_dict().items():
        assert torch.equal(value, own[key]), key
