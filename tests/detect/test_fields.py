"""Three heads at three fields of one full-resolution backbone, in Detectron2's RetinaNet."""

import pytest
import torch

pytest.importorskip("detectron2", reason="Detectron2 is not installed: make install-det")

from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

import rfbench.detect  # noqa: F401  # registers the builders
from rfbench import rf
from rfbench.classify import nets
from rfbench.errors import UsageError

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
    assert model.backbone.net.trunk[0][0].weight.grad.any()
    found = model.eval()([{"image": torch.rand(3, 32, 32)}])
    assert "instances" in found[0]


def test_unknown_layers_are_named() -> None:
    with pytest.raises(UsageError, match=r"no map 'branches\.7'"):
        build_model(config(["branches.7"]))
    with pytest.raises(UsageError, match=r"MODEL\.RFBENCH\.FEATURES: name the layers"):
        build_model(config([]))
