"""Predictions drawn beside ground truth, from the files of an evaluation."""

import json
from pathlib import Path

from detectron2.config import CfgNode

from rfbench.detect import evaluate, images

FOLDER = images.FOLDER


def draw(cfg: CfgNode, folder: Path, count: int) -> list[str]:
    """Draw the first `count` images of the validation set; returns the files' names."""
    data = evaluate.data_of(cfg)
    predictions = json.loads((folder / evaluate.FOLDER / evaluate.RESULTS).read_text("utf-8"))
    paths = (Path(data.json_file), Path(data.image_root))
    # without predicted masks, ground-truth masks would make the sides hard to compare
    return images.save(*paths, predictions, folder, count, masks=cfg.MODEL.MASK_ON)
