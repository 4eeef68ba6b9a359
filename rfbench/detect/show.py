"""Pictures of predictions beside ground truth, from what an evaluation left."""

import json
from pathlib import Path

from detectron2.config import CfgNode

from rfbench.detect import evaluate
from rfbench.detect import images as pictures

FOLDER = pictures.FOLDER


def draw(cfg: CfgNode, folder: Path, count: int) -> list[str]:
    """Draw the first `count` pictures of the validation set; returns the files' names."""
    data = evaluate.data_of(cfg)
    predictions = json.loads((folder / evaluate.FOLDER / evaluate.RESULTS).read_text("utf-8"))
    places = (Path(data.json_file), Path(data.image_root))
    # masks of the truth beside boxes alone would look like another picture
    return pictures.save(*places, predictions, folder, count, masks=cfg.MODEL.MASK_ON)
