"""The network of a finished training, with its weights: for `rfbench rf effective RUN`."""

import json
from typing import Any

from torch import Tensor, nn

from rfbench.classify import network
from rfbench.errors import RfbenchError
from rfbench.models import variants, weight_files
from rfbench.schemas.cls import ClsConfig


def classifier(run: str, checkpoint: str, ema: bool = False) -> nn.Module:
    """The classifier of the run in a folder. checkpoint: a file of it, such as best.pth.

    ema: take its averaged weights.
    """
    with open(f"{run}/result.json", encoding="utf-8") as file:
        config = ClsConfig.model_validate_json(json.dumps(json.load(file)["config"]))
    variant: Any = config.variant if isinstance(config.variant, str) else dict(config.variant)
    source = f"{run}/{checkpoint}"
    held = weight_files.read(source, config.network, variants.get(variant).name, ema)
    plain = network.build(config, _classes(config, held.state), meta=False)
    network.load(plain, source, held.classes or (), ema)
    return plain.module


def _classes(config: ClsConfig, state: dict[str, Tensor]) -> int:
    """The number of outputs of the last linear layer that the weights are for."""
    from rfbench.models import backbones

    module = backbones.build(config.network, meta=True).module
    for name, layer in reversed([*module.named_modules()]):
        head = isinstance(layer, nn.Linear) or getattr(layer, "kernel_size", 0) == (1, 1)
        if head and f"{name}.weight" in state:
            return len(state[f"{name}.weight"])
    raise RfbenchError(f"{config.network} has no linear layer, so it is not a classifier.")
