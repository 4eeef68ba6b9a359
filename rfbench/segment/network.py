"""The network of a run: a network with scores of its own, or a classifier below a head."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import (
    arguments,
    backbones,
    classifier_weights,
    identity,
    integrity,
    pyramid,
    weight_files,
    weight_sets,
)
from rfbench.schemas.seg import SegConfig
from rfbench.segment.heads import Headed
from rfbench.training.device import autocast

logger = logging.getLogger(__name__)

FORMAT = weight_files.SEGMENTERS
STRIDE = "output_stride"  # an argument of many networks
OUT = "out"  # the key of the scores in a dict of outputs; the others are auxiliary
BELOW = "backbone."  # of a classifier's parameters below a head


def variant_of(config: SegConfig) -> Any:
    """The variant as `variants.get` takes it."""
    return config.variant if isinstance(config.variant, str) else config.variant.model_dump()


def build(config: SegConfig, classes: int, meta: bool = False) -> backbones.Backbone:
    """The network with random weights from the configuration's seed, for `classes` classes.

    The variant is applied to the classifier, before the head is added. Raises UsageError if the
    network has no map for the head.
    """
    torch.manual_seed(config.seed)
    backbone = _built(config, meta)
    if config.head == "own":
        backbones.set_map_classes(backbone, classes)
        return backbone
    if backbones.is_segmenter(backbone.name):
        raise UsageError(f"{config.model} has a head of its own: set head: own")
    height, width = backbone.input_size
    sizes = [*([config.data.crop] if config.data.crop else []), (height, width)]
    _check_stride(backbone, sizes)
    head = (classes, config.head, config.channels, config.features)
    whole = Headed(backbone.module, backbone.name, *head, sizes)
    return dataclasses.replace(backbone, module=whole.eval())


def _built(config: SegConfig, meta: bool) -> backbones.Backbone:
    """The network below the head; UsageError if it is the output stride that it cannot have."""
    try:
        return backbones.build(config.network, variant_of(config), meta=meta)
    except UsageError:
        raise
    except RfbenchError as error:
        bare, args = arguments.split(config.network)
        if STRIDE not in args:
            raise
        others = {key: value for key, value in args.items() if key != STRIDE}
        backbones.build(arguments.named(bare, others), meta=True)  # raises what is not the stride's
        raise UsageError(f"{bare} cannot have an {STRIDE} of {args[STRIDE]}") from error


def _check_stride(backbone: backbones.Backbone, sizes: Sequence[tuple[int, int]]) -> None:
    """Raise UsageError if the coarsest map is not of the output stride that was asked for.

    sizes: see `pyramid.find`.
    """
    asked = arguments.split(backbone.name)[1].get(STRIDE)
    if asked is None:
        return
    found = max(pyramid.find(backbone.module, backbone.name, sizes=sizes).levels)
    if found != asked:
        raise UsageError(
            f"{arguments.bare(backbone.name)} cannot have an {STRIDE} of {asked}: its coarsest map "
            f"would be of stride {found}"
        )


def name_of(config: SegConfig, backbone: backbones.Backbone) -> dict[str, str]:
    """What a checkpoint must agree in with the network: its weights might load into another."""
    return {"model": backbone.name, "variant": backbone.variant, "head": config.head}


def load(
    backbone: backbones.Backbone, config: SegConfig, path: str, classes: list[str]
) -> list[str] | None:
    """Load the segmenter in the file `path` strictly.

    classes: names of the data's. Returns the file's, in its order, if it tells them. Raises
    RfbenchError if it is of another model, variant, head or other classes, or does not fit.
    """
    content = integrity.read(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RfbenchError(f"{path} holds no segmenter: it is no checkpoint of train-seg.")
    own = name_of(config, backbone)
    held = {key: str(content.get(key)) for key in own}
    if not identity.same(held["model"], own["model"]) or {**held, "model": ""} != {
        **own,
        "model": "",
    }:
        raise RfbenchError(
            f"{path} holds {' / '.join(held.values())}; this run is {' / '.join(own.values())}. "
            "The weights might load but mean something else."
        )
    weight_files.note_of_code(content.get("code"), own["model"], path)
    names = weight_files.classes_in(content, path)
    if names is not None:
        weight_files.compare_classes(names, classes, path)
    state = weight_sets.tensors(weight_sets.chosen(content, path, config.ema), path)
    weight_files.load_strictly(backbone.module, state, path, backbone.name)
    return names


def load_start(backbone: backbones.Backbone, config: SegConfig, check: bool = False) -> None:
    """Load `weights` into the classifier below the head; see `classifier_weights.state_of`.

    check: only raise what loading would, and download nothing.
    """
    if not config.weights:
        if config.ema:
            raise UsageError("ema needs weights, a file that holds EMA weights")
        return
    below = backbone.module.get_submodule(BELOW.rstrip("."))
    own = (config.weights, config.network, backbone.variant)
    if check:
        return classifier_weights.check(below.state_dict(), *own, ema=config.ema)
    state = classifier_weights.state_of(below.state_dict(), *own, ema=config.ema)
    below.load_state_dict(state, strict=False)  # only the counts of batches are missing
    return None


def scores_of(
    model: nn.Module, config: SegConfig, classes: int
) -> Callable[[Tensor], dict[str, Tensor]]:
    """A forward pass, images (N, 3, H, W) to scores (N, C, h, w) by name, the main ones as "out".

    Raises RfbenchError for outputs of another kind or number of channels.
    """

    def forward(images: Tensor) -> dict[str, Tensor]:
        with autocast(config, images.device):
            output = model(images)
        found = outputs(output, config, classes)
        if strange := [one for one in found.values() if len(one) != len(images)]:
            raise RfbenchError(
                f"{config.model} returns {list(strange[0].shape)} of {len(images)} images."
            )
        return {name: one.float() for name, one in found.items()}

    return forward


def outputs(output: Any, config: SegConfig, classes: int) -> dict[str, Tensor]:
    """The scores in a network's output, checked; see `scores_of`."""
    if isinstance(output, Mapping):
        found = dict(output)
        if OUT not in found:
            keys = ", ".join(map(str, found))
            raise RfbenchError(
                f"{config.model} returns a dict of {keys}; its scores must be '{OUT}'."
            )
    else:
        found = {OUT: output}
    for name, scores in found.items():
        _check(scores, config.model, classes, "" if len(found) == 1 else f" '{name}'")
    return found


def _check(scores: Any, model: str, classes: int, which: str) -> None:
    if not isinstance(scores, Tensor):
        raise RfbenchError(f"{model} returns {type(scores).__name__}{which}, not a map of scores.")
    if scores.ndim != 4:
        raise RfbenchError(
            f"{model} returns {list(scores.shape)}{which}, not a map of scores (N, C, H, W). Of a "
            "classifier: head: fcn, or fpn, stands above it."
        )
    if not scores.is_floating_point() or not scores.numel():
        kind = str(scores.dtype).removeprefix("torch.")
        raise RfbenchError(
            f"{model} returns{which} {kind} {list(scores.shape)}, not a map of real scores."
        )
    if scores.shape[1] != classes:
        raise RfbenchError(
            f"{model} returns{which} {scores.shape[1]} channels; the data has {classes} classes. "
            f"If its function takes their number as NAME: -o model_args.NAME={classes}."
        )


def weights_of_classes(config: SegConfig, names: Sequence[str]) -> Tensor | None:
    """`loss.class_weights` in the order of the classes; None: all are 1. UsageError for others."""
    given = config.loss.class_weights
    if unknown := [name for name in given if name not in names]:
        raise UsageError(
            f"loss.class_weights: no class '{unknown[0]}'. There are: {', '.join(names)}."
        )
    if not given:
        return None
    weights = torch.tensor([given.get(name, 1.0) for name in names])
    if not weights.any() or not weights.isfinite().all():
        wrong = "are all 0, so nothing would be learnt" if not weights.any() else "are too large"
        raise UsageError(f"loss.class_weights {wrong}.")
    return weights
