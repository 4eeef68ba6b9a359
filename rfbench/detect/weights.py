"""Weights of a classifier for a detector's backbone, compared key by key before loading.

Detectron2's own loading skips mismatches with a warning, and silently resets a missing frozen norm.
Here every missing or unexpected key is an error.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from rfbench import files
from rfbench.detect.backbone import FeatureBackbone
from rfbench.models import backbones, classifier_weights, pyramid

PREFIX = "backbone.bottom_up."  # of a detector's parameters


def load(detector: nn.Module, source: str, model: str, variant: str, ema: bool = False) -> None:
    """Load the backbone of a detector from `source`; see `state_of`."""
    bottom = detector.get_submodule(PREFIX.rstrip("."))
    state = state_of(bottom, source, model, variant, ema=ema)
    bottom.load_state_dict(state, strict=False)  # only the counts of batches are missing


def check(detector: nn.Module, source: str, model: str, variant: str, ema: bool = False) -> None:
    """Raise what `load` would, without loading or downloading anything."""
    bottom = detector.get_submodule(PREFIX.rstrip("."))
    theirs = {key.removeprefix("net."): value for key, value in bottom.state_dict().items()}
    classifier_weights.check(theirs, source, model, variant, ema)


def save(source: str | Path, target: str | Path, model: str, variant: str = "baseline") -> None:
    """Write the weights `source` as a file for MODEL.WEIGHTS of any Detectron2 configuration.

    Raises as `state_of`.
    """
    network = backbones.build(model, variant)
    levels = sorted(pyramid.find(network.module, network.name).levels)
    bottom = FeatureBackbone(network, [f"res{stride.bit_length() - 1}" for stride in levels])
    state = state_of(bottom, str(source), model, variant)
    content = {"model": {f"{PREFIX}{key}": value for key, value in state.items()}}
    with files.aside(Path(target)) as temporary:
        torch.save({**content, "__author__": "rfbench", "matching_heuristics": False}, temporary)


def state_of(
    bottom: nn.Module,
    source: str,
    model: str,
    variant: str,
    device: str = "cpu",
    ema: bool = False,
) -> dict[str, Tensor]:
    """The parameters of `bottom`, which is `model` in `variant`: `classifier_weights.state_of`."""
    theirs = {key.removeprefix("net."): value for key, value in bottom.state_dict().items()}
    state = classifier_weights.state_of(theirs, source, model, variant, device, ema)
    return {f"net.{key}": value for key, value in state.items()}
