"""The network of a finished training, with its weights: for `rfbench rf effective RUN`."""

import json

from torch import nn

from rfbench.errors import RfbenchError
from rfbench.models import integrity
from rfbench.schemas.seg import SegConfig
from rfbench.segment import network


def segmenter(run: str, checkpoint: str, ema: bool = False) -> nn.Module:
    """The segmenter of the run in a folder. checkpoint: a file of it, such as best.pth.

    ema: take its averaged weights.
    """
    with open(f"{run}/result.json", encoding="utf-8") as file:
        config = SegConfig.model_validate_json(json.dumps(json.load(file)["config"]))
    source = f"{run}/{checkpoint}"
    content = integrity.read(source)
    classes = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(classes, list):
        raise RfbenchError(f"{source} does not tell its classes: it is no checkpoint of train-seg.")
    backbone = network.build(config, len(classes))
    network.load(backbone, config.model_copy(update={"ema": ema}), source, classes)
    return backbone.module
