"""The pyramid of a finished training, with its weights: for `rfbench rf effective RUN`."""

import json
from pathlib import Path

from torch import nn

from rfbench.detect import config as configs
from rfbench.detect.levels import Named
from rfbench.detect.run import load_detector, read_detector
from rfbench.detect.setup import detector
from rfbench.errors import RfbenchError, UsageError
from rfbench.schemas.det import DetConfig


def pyramid(run: str, checkpoint: str) -> nn.Module:
    """Backbone and FPN of the run in a folder; its levels are the layers levels.p3, levels.p4, ...

    checkpoint: a file of the run, such as best.pth. An image is (1, 3, H, W), normalised by the
    run's own mean and deviation, which the module's `default_cfg` holds for images of 0 to 1.
    """
    with open(f"{run}/result.json", encoding="utf-8") as file:
        record = json.load(file)
    config = DetConfig.model_validate_json(json.dumps(record["config"]))
    try:
        model = detector(configs.resolve(config, record["classes"], Path(run)))
    except UsageError as error:  # also where layers are built without memory: tried again with it
        raise RfbenchError(str(error)) from error
    source = f"{run}/{checkpoint}"
    load_detector(model, config, read_detector(source), source)
    found = Named(model.get_submodule("backbone"))
    found.default_cfg = {  # type: ignore[assignment]  # as timm's
        "mean": [m / 255 for m in config.pixel_mean],
        "std": [s / 255 for s in config.pixel_std],
        "input_size": (3, 224, 224),
    }
    return found
