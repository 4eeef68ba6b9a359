"""Weights of a classifier for a detector's backbone, compared key by key before loading.

Detectron2's own loading skips mismatches with a warning, and silently resets a missing frozen norm.
Here every missing or unexpected key is an error.
"""

from pathlib import Path

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from rfbench import files
from rfbench.detect.backbone import FeatureBackbone
from rfbench.models import backbones, classifier_weights, pyramid, weight_names

PREFIX = "backbone.bottom_up."  # of a detector's parameters


def load(detector: nn.Module, source: str, model: str, variant: str, ema: bool = False) -> None:
    """Load the backbone of a detector from `source`; see `state_of`."""
    network = detector.get_submodule(f"{PREFIX}net")
    state = classifier_weights.state_of(network.state_dict(), source, model, variant, ema=ema)
    # Detectron2's would take a BatchNorm's version for an old one of its own, and change variances
    frozen = [name for name, m in network.named_modules() if isinstance(m, FrozenBatchNorm2d)]
    state = weight_names.without_versions(state, frozen)
    network.load_state_dict(state, strict=False)  # only the counts of batches are missing


def check(detector: nn.Module, source: str, model: str, variant: str, ema: bool = False) -> None:
    """Raise what `load` would, without loading or downloading anything."""
    network = detector.get_submodule(f"{PREFIX}net")
    classifier_weights.check(network.state_dict(), source, model, variant, ema)


def save(source: str | Path, target: str | Path, model: str, variant: str = "baseline") -> None:
    """Write the weights `source` as a file for MODEL.WEIGHTS of any Detectron2 configuration.

    Raises as `state_of`.
    """
    network = backbones.build(model, variant)
    levels = sorted(pyramid.find(network.module, network.name).levels)
    bottom = FeatureBackbone(network, [f"res{stride.bit_length() - 1}" for stride in levels])
    own = bottom.net.state_dict()
    state = classifier_weights.state_of(own, str(source), model, variant)
    content = {"model": {f"{PREFIX}net.{key}": value for key, value in state.items()}}
    with files.aside(Path(target)) as temporary:
        torch.save({**content, "__author__": "rfbench", "matching_heuristics": False}, temporary)
