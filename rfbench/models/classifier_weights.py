"""Weights of a classifier for the same network without its head, compared key by key.

Below a detector's or a segmenter's head every missing or unexpected key is an error.
"""

from collections.abc import Mapping

from torch import Tensor

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones, pretrained, weight_files, weight_names
from rfbench.models.weight_names import TRACKED

PRETRAINED = "pretrained"  # in place of a file: the library's own
# how the parameters of what stands above a classifier begin -> what it is, and its training
ABOVE = {
    "backbone.bottom_up.": ("detector", "detection"),
    "backbone.": ("segmenter", "segmentation"),
}


def refuse_pretrained(classifier: backbones.Backbone) -> None:
    """Raise UsageError if no library has weights of this network in this variant."""
    pretrained.check(classifier.name)
    if classifier.variant != "baseline":
        raise UsageError(
            "weights: the pretrained ones are of the baseline; this run is "
            f"{classifier.variant}. They would load but mean something else. Give a checkpoint of "
            "train-cls, or null."
        )


def state_of(
    own: Mapping[str, Tensor],
    source: str,
    model: str,
    variant: str,
    ema: bool = False,
) -> dict[str, Tensor]:
    """The parameters `own` of `model` in `variant` without its head, from a classifier's weights.

    source: a file, or "pretrained", the library's own, which are the baseline's. Raises UsageError
    or RfbenchError if they are of another model or variant, or if a parameter is missing, has
    another shape, or is unexpected and not part of the classifier's head. ema: take the
    averaged weights of a file that holds both. Counts of batches are left out.
    """
    classifier = backbones.build(model, variant, meta=True)
    whole = classifier.module.state_dict().keys()
    if source == PRETRAINED:
        refuse_pretrained(classifier)
        state = pretrained.state_dict(classifier.name)
    else:
        name = (classifier.name, classifier.variant)
        state = weight_files.state_dict(source, *name, whole, ema)
    for start, (kind, run) in ABOVE.items():
        if any(key.startswith(start) for key in state):
            raise RfbenchError(
                f"weights: {source} holds a {kind}; a backbone takes a classifier's weights, such "
                f"as best.pth of train-cls. To continue a {run}: --resume; to evaluate it: "
                "--eval-only."
            )
    head = whole - own.keys()
    kept = {key: value for key, value in state.items() if key not in head}
    if problem := weight_files.misfit(own, kept, ignored=(TRACKED,)):
        raise RfbenchError(f"weights: {source} does not fit {model}: {problem}")
    weight_files.check_finite(own, kept, source)
    return weight_names.kept(state, [key for key in own if not key.endswith(TRACKED)])


def check(
    own: Mapping[str, Tensor], source: str, model: str, variant: str, ema: bool = False
) -> None:
    """Raise what `state_of` would, without downloading anything."""
    if source == PRETRAINED:
        refuse_pretrained(backbones.build(model, variant, meta=True))
    else:
        state_of(own, source, model, variant, ema)
