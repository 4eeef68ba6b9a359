"""Weights of a classifier for a detector's backbone, compared key by key before loading.

Detectron2's own loading skips mismatches with a warning, and silently resets a missing frozen norm.
Here every missing or unexpected key is an error.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from rfbench import files
from rfbench.detect.backbone import FeatureBackbone
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones, pretrained, pyramid, weight_files

PRETRAINED = "pretrained"
PREFIX = "backbone.bottom_up."  # of a detector's parameters
TRACKED = "num_batches_tracked"  # of a BatchNorm; nothing reads it


def load(detector: nn.Module, source: str, model: str, variant: str, ema: bool = False) -> None:
    """Load the backbone of a detector from `source`; see `state_of`."""
    bottom = detector.get_submodule(PREFIX.rstrip("."))
    assert isinstance(bottom, FeatureBackbone)
    state = state_of(bottom, source, model, variant, ema=ema)
    bottom.load_state_dict(state, strict=False)  # only the counts of batches are missing


def check(detector: nn.Module, source: str, model: str, variant: str, ema: bool = False) -> None:
    """Raise what `load` would, without loading or downloading anything."""
    bottom = detector.get_submodule(PREFIX.rstrip("."))
    assert isinstance(bottom, FeatureBackbone)
    if source == PRETRAINED:
        refuse_pretrained(backbones.build(model, variant, meta=True))
    else:
        state_of(bottom, source, model, variant, device="meta", ema=ema)


def refuse_pretrained(classifier: backbones.Backbone) -> None:
    """Raise UsageError if no library has weights of this network in this variant."""
    pretrained.check(classifier.name)
    if classifier.variant != "baseline":
        raise UsageError(
            "weights: the pretrained ones are of the baseline; this run is "
            f"{classifier.variant}. They would load but mean something else. Give a checkpoint of "
            "train-cls, or null."
        )


def save(source: str, target: Path, model: str, variant: str = "baseline") -> None:
    """Write the weights `source` as a file for MODEL.WEIGHTS of any Detectron2 configuration.

    Raises as `state_of`.
    """
    network = backbones.build(model, variant)
    levels = sorted(pyramid.find(network.module, network.name).levels)
    bottom = FeatureBackbone(network, [f"res{stride.bit_length() - 1}" for stride in levels])
    state = state_of(bottom, source, model, variant)
    content = {"model": {f"{PREFIX}{key}": value for key, value in state.items()}}
    with files.aside(target) as temporary:
        torch.save({**content, "__author__": "rfbench", "matching_heuristics": False}, temporary)


def state_of(
    bottom: FeatureBackbone,
    source: str,
    model: str,
    variant: str,
    device: str = "cpu",
    ema: bool = False,
) -> dict[str, Tensor]:
    """The parameters of `bottom`, which is `model` in `variant`, from a classifier's weights.

    source: a file, or "pretrained", the library's own, which are the baseline's. Raises UsageError
    or RfbenchError if they are of another model or variant, or if a parameter is missing, has
    another shape, or is unexpected and not part of the classifier's head. device: to load them
    to; meta: shapes only. ema: take the averaged weights of a file that holds both.
    """
    classifier = backbones.build(model, variant, meta=True)
    if source == PRETRAINED:
        refuse_pretrained(classifier)
        state = pretrained.state_dict(classifier.name)
    else:
        own = (classifier.name, classifier.variant)
        state = weight_files.state_dict(source, *own, device, ema)
    if any(key.startswith("backbone.") for key in state):
        raise RfbenchError(
            f"weights: {source} holds a detector; a backbone takes a classifier's weights, such as "
            "best.pth of train-cls. To continue a detection: --resume; to evaluate it: "
            "--eval-only."
        )
    theirs = {key.removeprefix("net."): value for key, value in bottom.state_dict().items()}
    head = classifier.module.state_dict().keys() - theirs.keys()
    kept = {key: value for key, value in state.items() if key not in head}
    if problem := weight_files.misfit(theirs, kept, ignored=(TRACKED,)):
        raise RfbenchError(f"weights: {source} does not fit {model}: {problem}")
    weight_files.check_finite(theirs, kept, source)
    return {f"net.{key}": state[key] for key in theirs if not key.endswith(TRACKED)}
