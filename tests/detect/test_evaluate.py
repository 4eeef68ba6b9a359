"""The figures of an evaluation, of a detector that knows the answers, and errs as it is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import coco_evaluation
from detectron2.structures import Boxes, Instances
from pycocotools import mask as tools
from pycocotools.cocoeval import COCOeval
from torch import nn

from rfbench.detect import config, evaluate, sets
from rfbench.runs.processes import Processes
from rfbench.schemas.det import DetConfig

GROUP = Processes(torch.device("cpu"))
SETTINGS = DetConfig.model_validate_json(
    """{
    "detector": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "data": {"name": "digits", "scenes": {"train": 1, "val": 20, "size": 96}},
    "opts": {"INPUT": {"MASK_FORMAT": "bitmask", "MIN_SIZE_TEST": 96}}
    }"""
)


class Knowing(nn.Module):
    """Answers a picture of the set with its objects, moved by `shift` px, and of random scores."""

    def __init__(self, name: str, shift: float = 0.0, noise: float = 0.0, misses: float = 0.0):
        super().__init__()
        self.entries = {entry["image_id"]: entry for entry in DatasetCatalog.get(name)}
        self.shift, self.noise, self.misses = shift, noise, misses
        self.rng = np.random.default_rng(0)

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (given,) = inputs
        objects = [
            one
            for one in self.entries.get(given.get("image_id"), {"annotations": []})["annotations"]
            if self.rng.random() >= self.misses
        ]
        found = Instances((given["height"], given["width"]))
        boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        noise = torch.tensor(self.rng.normal(size=boxes.shape), dtype=torch.float)
        found.pred_boxes = Boxes(boxes + self.shift + self.noise * noise)
        found.pred_classes = torch.tensor([one["category_id"] for one in objects], dtype=torch.long)
        found.scores = torch.tensor(self.rng.random(len(objects)))
        masks = [self.mask(one["segmentation"], given) for one in objects]
        size = (given["height"], given["width"])
        found.pred_masks = torch.tensor(np.array(masks, dtype=bool).reshape(-1, *size))
        return [{"instances": found}]

    def mask(self, words: Any, given: dict[str, Any]) -> np.ndarray:
        """The mask (H, W), some rows of which are left out where there is noise."""
        if isinstance(words, list):
            words = tools.merge(tools.frPyObjects(words, given["height"], given["width"]))
        mask = tools.decode(words)
        if self.noise:
            mask[self.rng.random(len(mask)) < 0.2] = 0
        return mask


@pytest.fixture
def cfg() -> CfgNode:
    sets.prepare(SETTINGS.data, GROUP, lambda _: None)
    return config.resolve(SETTINGS, 10, Path("."))


def figures(cfg: CfgNode, folder: Path, tool: str = "pycocotools", **errors: float) -> Any:
    model = Knowing(cfg.DATASETS.TEST[0], **errors)
    settings = SETTINGS.model_copy(update={"eval": tool})
    return evaluate.evaluate(model, cfg, settings, GROUP, folder)


def test_who_knows_all_gets_all(cfg: CfgNode, tmp_path: Path) -> None:
    """Also the classes' numbers of the set, which have gaps, come back."""
    found = figures(cfg, tmp_path)
    assert found["bbox"]["AP"] == pytest.approx(100) and found["segm"]["AP"] == pytest.approx(100)
    assert found["registration"]["dx"] == found["registration"]["dy"] == 0
    assert found["jitter"]["pairs"] == 0  # pictures that are not of the set: no answer
    assert set(found["bbox"]["classes"]) == {str(n) for n in range(10)}
    assert found["bbox"]["APl"] is None  # there is no large one
    assert (tmp_path / "inference" / "coco_instances_results.json").exists()


def test_a_shift_is_told_with_its_sign(cfg: CfgNode, tmp_path: Path) -> None:
    found = figures(cfg, tmp_path, shift=-1.5)
    assert found["registration"]["dx"] == pytest.approx(-1.5, abs=1e-4)
    assert "dx -1.50" in evaluate.placed(found)


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_faster_coco_eval_finds_the_same(cfg: CfgNode, tmp_path: Path, noise: float) -> None:
    one = figures(cfg, tmp_path / "a", "pycocotools", noise=noise, misses=0.2)
    other = figures(cfg, tmp_path / "b", "faster", noise=noise, misses=0.2)
    for task in ("bbox", "segm"):
        assert 10 < one[task]["AP"] < 90
        # the same sums in another order
        assert one[task].pop("classes") == pytest.approx(other[task].pop("classes"), rel=1e-12)
        assert one[task] == other[task]
    assert coco_evaluation.COCOeval is COCOeval


def test_nothing_detected(cfg: CfgNode, tmp_path: Path) -> None:
    """0 of what is there, and no figure of what is not: as with detections."""
    found = figures(cfg, tmp_path, misses=1.1)
    some = figures(cfg, tmp_path, misses=0.5)
    for task in ("bbox", "segm"):
        assert {some[task][name] is None for name in ("AP", "APs", "APm")} == {False}
        absent = {name for name in evaluate.SHOWN if some[task][name] is None}
        assert absent == {"APl"}  # there is no large one
        wanted = {name: None if name in absent else 0.0 for name in evaluate.SHOWN}
        assert found[task] == wanted
    assert evaluate.shown(found).startswith("box AP 0.00, AP50 0.00")
    assert evaluate.placed(found) == "no box is matched"


def test_sizes_are_cocos() -> None:
    """Both ends of a range count, as in pycocotools; a crowd is no object."""
    objects = [{"area": 32.0**2, "iscrowd": 0}, {"area": 1e6, "iscrowd": 1}]
    found = evaluate.nothing_found(objects)
    assert (found["AP"], found["APs"], found["APm"], found["APl"]) == (0.0, 0.0, 0.0, None)
    assert set(evaluate.nothing_found(objects[1:]).values()) == {None}
