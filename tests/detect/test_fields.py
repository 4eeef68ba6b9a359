"""Three heads at three fields of one full-resolution backbone, in Detectron2's RetinaNet."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("detectron2", reason="Detectron2 is not installed: make install-det")

from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

import rfbench.detect  # noqa: F401  # registers the builders
from rfbench import rf
from rfbench.classify import nets
from rfbench.cli import main
from rfbench.detect.fields import Layers
from rfbench.errors import UsageError
from rfbench.models import backbones
from tests.detect import runs

PATHS = ["branches.0", "branches.1", "branches.2"]


def config(features: list[str]) -> object:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_rfbench_fields_backbone"
    cfg.MODEL.RFBENCH.NAME = "rfbench.classify.nets:three_fields"
    cfg.MODEL.RFBENCH.FEATURES = features
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.RETINANET.IN_FEATURES = ["f1", "f2", "f3"]
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    cfg.MODEL.RETINANET.NUM_CLASSES = 10
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[6], [12], [20]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 3, [1.0] * 3
    return cfg


def test_every_level_has_the_resolution_of_the_image_and_a_field_of_its_own() -> None:
    model = build_model(config(PATHS))
    shapes = model.backbone.output_shape()
    assert {name: (s.stride, s.channels) for name, s in shapes.items()} == {
        f"f{i}": (1, 16) for i in (1, 2, 3)
    }
    maps = model.backbone(torch.zeros(2, 3, 24, 40))
    assert [tuple(m.shape) for m in maps.values()] == [(2, 16, 24, 40)] * 3
    graph = rf.record(nets.three_fields(), size=64)
    assert [rf.theory(graph, path)["y"]["size"] for path in PATHS] == [19, 23, 31]


def test_it_learns_and_detects() -> None:
    torch.manual_seed(0)
    model = build_model(config(PATHS))
    truth = Instances((32, 32))
    truth.gt_boxes = Boxes(torch.tensor([[4.0, 5.0, 11.0, 12.0]]))
    truth.gt_classes = torch.tensor([3])
    batch = [{"image": torch.rand(3, 32, 32), "instances": truth}]
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    laterals = [p.grad is not None for p in model.backbone.lateral.parameters()]
    assert set(losses) == {"loss_cls", "loss_box_reg"} and all(laterals)
    assert model.backbone.bottom_up.net.trunk[0][0].weight.grad.any()
    found = model.eval()([{"image": torch.rand(3, 32, 32)}])
    assert "instances" in found[0]


def test_unknown_layers_are_named() -> None:
    with pytest.raises(UsageError, match=r"no map 'branches\.7'"):
        build_model(config(["branches.7"]))
    with pytest.raises(UsageError, match=r"features: name the layers of the heads"):
        build_model(config([]))


def trained_by_train_det(**changes: Any) -> dict[str, Any]:
    """Two iterations of three fields, as a file for train-det."""
    found = runs.config(model="rfbench.classify.nets:three_fields", features=PATHS, fpn=False)
    found |= changes
    found["opts"]["MODEL"] = {
        "RESNETS": {"NORM": "BN"},
        "FPN": {"OUT_CHANNELS": 8},
        "RETINANET": {"NUM_CONVS": 1},
        "ANCHOR_GENERATOR": {"SIZES": [[12], [18], [26]], "ASPECT_RATIOS": [[1.0]]},
    }
    found["opts"]["SOLVER"] |= {"IMS_PER_BATCH": 2, "MAX_ITER": 2}
    return found


def test_train_det_trains_it_and_its_levels_are_measured(tmp_path: Path) -> None:
    (tmp_path / "fields.yaml").write_text(json.dumps(trained_by_train_det()))
    file, run = str(tmp_path / "fields.yaml"), str(tmp_path / "run")
    done = CliRunner().invoke(main, ["train-det", file, "--output", run])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["model"] == "rfbench.classify.nets:three_fields"
    state = torch.load(tmp_path / "run" / "last.pth")["model"]
    assert not [key for key in state if key.startswith("backbone.bottom_up.net.head")]

    shown = CliRunner().invoke(main, ["rf", "registration", file, "--json"])
    assert shown.exit_code == 0, shown.output
    (levels,) = json.loads(shown.stdout)["variants"].values()
    # a unit looks at the centre of its own pixel, anchors stand at its corner
    seen = [(at["level"], at["stride"], at["field"], at["field_size"]) for at in levels]
    assert seen == [("f1", 1, 0.5, 19), ("f2", 1, 0.5, 23), ("f3", 1, 0.5, 31)]

    args = ["rf", "effective", run, "--to", "levels.f1", "--size", "48", "--count", "1"]
    effective = CliRunner().invoke(main, [*args, "--output", str(tmp_path / "out")])
    assert effective.exit_code == 0, effective.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detector": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"}, "is for RetinaNet"),
        ({"features": []}, "features: name the layers"),
        ({"features": ["branches.9"]}, "no map 'branches.9'"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "fields.yaml").write_text(json.dumps(trained_by_train_det(**changes)))
    args = ["train-det", str(tmp_path / "fields.yaml"), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(main, [*args, "--dry-run"])
    assert done.exit_code == 2 and message in done.stderr, done.output


def test_nothing_freezes_without_a_stem(tmp_path: Path) -> None:
    values = trained_by_train_det()
    values["opts"]["MODEL"]["BACKBONE"] = {"FREEZE_AT": 2}
    (tmp_path / "fields.yaml").write_text(json.dumps(values))
    args = ["train-det", str(tmp_path / "fields.yaml"), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(main, [*args, "--dry-run"])
    assert done.exit_code == 2 and "FREEZE_AT: must be 0 without an FPN" in done.stderr


class Apart(torch.nn.Module):
    """Two branches of one resolution, each the second layer of a container that runs."""

    def __init__(self) -> None:
        super().__init__()
        convs = {"near": (3, 1), "far": (3, 4)}
        for name, (size, dilation) in convs.items():
            layers = [torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 4, size, 1, dilation, dilation)]
            setattr(self, name, torch.nn.Sequential(*layers, torch.nn.ReLU()))
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.near(x) + self.far(x)).mean((2, 3)))


def test_layers_of_one_resolution_may_be_in_containers_of_their_own() -> None:
    network = backbones.Backbone("own", Apart(), (32, 32), "baseline", [])
    found = Layers(network, ["near.1", "far.1"], "BN")
    assert [part.path for part in found.layers.values()] == ["near.1", "far.1"]
    images = torch.rand(1, 3, 16, 16)
    maps = found(images)
    for name, branch in (("f1", found.net.near), ("f2", found.net.far)):
        torch.testing.assert_close(maps[name], branch[1](branch[0](images)))
