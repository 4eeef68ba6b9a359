"""Pictures of predictions beside ground truth, from what an evaluation left."""

import json
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from rfbench.detect import evaluate, pictures

FOLDER = pictures.FOLDER


def draw(cfg: CfgNode, folder: Path, count: int) -> list[str]:
    """Draw the first `count` pictures of the validation set; returns the files' names."""
    data = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    predictions = json.loads((folder / evaluate.FOLDER / evaluate.RESULTS).read_text("utf-8"))
    return pictures.save(Path(data.json_file), Path(data.image_root), predictions, folder, count)
