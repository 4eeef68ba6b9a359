"""The network of a run: built, initialized, fitted to the number of classes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import (
    arguments,
    backbones,
    pretrained,
    variants,
    weight_files,
    weight_names,
)
from rfbench.models.light_center import light_center
from rfbench.schemas.cls import ClsConfig
from rfbench.training.device import autocast

logger = logging.getLogger(__name__)

NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.instancenorm._InstanceNorm,
)

PRETRAINED = "pretrained"  # the value of `init.weights` for the library's own


def build(config: ClsConfig, classes: int, meta: bool = False) -> backbones.Backbone:
    """The network with random weights from the configuration's seed, with `classes` outputs.

    Raises UsageError if it is not a classifier.
    """
    torch.manual_seed(config.seed)
    variant: Any = config.variant
    if not isinstance(variant, str):
        variant = variant.model_dump()
    backbone = backbones.build(config.network, variant, meta=meta)
    set_classes(backbone.module, classes, config.model)
    if not meta or config.init.zero_gamma:  # without memory, only for what it refuses
        _set_gamma(backbone.module, config.init.zero_gamma, config.model)
    if config.init.light_center:  # of a network without memory too: it may have no such kernel
        light_center(backbone.module, config.model)
    return backbone


def set_classes(model: nn.Module, classes: int, label: str) -> None:
    """Give the classifier `classes` outputs, replacing the output layers if needed."""
    linear = [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1))
    ]
    if not linear:
        raise UsageError(f"{label} has no linear layer, so it is not a classifier.")
    outputs = _outputs(linear[-1][1])
    if outputs == classes:
        return
    # timm's, which knows the heads of all its families
    if callable(reset := getattr(model, "reset_classifier", None)):
        reset(classes)
        return
    for name, layer in linear:  # auxiliary heads too
        if _outputs(layer) == outputs:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _like(layer, classes))


def _outputs(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # type: ignore


def _like(layer: nn.Module, classes: int) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(
            layer.in_features, classes, layer.bias is not None, device=layer.weight.device
        )
    assert isinstance(layer, nn.Conv2d)
    return nn.Conv2d(layer.in_channels, classes, 1, device=layer.weight.device)


def _set_gamma(model: nn.Module, zero: bool, label: str) -> None:
    """Set the scale of the last normalization in every residual branch to 0 or 1."""
    if not zero:  # the libraries differ silently: timm starts them at 0, torchvision at 1
        for module in model.modules():
            if isinstance(module, NORMS) and module.weight is not None and not module.weight.any():
                nn.init.ones_(module.weight)
        return
    from torchvision.models.resnet import BasicBlock, Bottleneck

    blocks = 0
    for module in model.modules():
        if isinstance(module, Bottleneck | BasicBlock):
            last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
            nn.init.zeros_(last.weight)
        elif callable(start := getattr(module, "zero_init_last", None)):  # timm's blocks
            start()
        else:
            continue
        blocks += 1
    if not blocks:
        raise UsageError(f"init.zero_gamma: {label} has no residual block of a known kind.")


def load(
    backbone: backbones.Backbone, path: str, classes: Sequence[str], ema: bool = False
) -> list[str] | None:
    """Load the file `path` strictly; it must hold this network in this variant.

    classes: names of the data's. Returns the file's, in its order, if it tells them.
    """
    # not by `backbones.build`, which has not fitted the network to the number of classes yet
    own = (backbone.name, backbone.variant)
    return weight_files.load(backbone.module, path, *own, ema=ema, classes=classes)


def recorded_variant(config: ClsConfig) -> str | None:
    """The variant recorded in `init.weights`; None: the file records none."""
    source = config.init.weights or ""
    return "baseline" if source == PRETRAINED else weight_files.variant_of(source)


def held_variant(config: ClsConfig) -> str:
    """The variant of `init.weights`. Raises if it is not the run's, unless `init.fix`."""
    variant: Any = config.variant if isinstance(config.variant, str) else dict(config.variant)
    name = variants.get(variant).name
    # a file that records none: taken as baseline if it is to be fixed, else as the run's
    held = recorded_variant(config) or ("baseline" if config.init.fix else name)
    if held != name and not config.init.fix:
        raise UsageError(
            f"init.weights {config.init.weights} are of the variant {held}; this run is {name}. "
            "They would load but mean something else; -o init.fix=true changes the network "
            "on purpose."
        )
    return held


def refuse_ema_of_nothing(config: ClsConfig) -> None:
    """Raise UsageError if averaged weights are asked for, and no file is named."""
    if config.init.ema and not config.init.weights:
        raise UsageError("init.ema needs init.weights, a file that holds EMA weights")


def warn_of_no_variant(config: ClsConfig) -> None:
    """Warn if `init.weights` do not record their variant."""
    if recorded_variant(config) is None:
        weight_files.warn_of_no_variant(config.init.weights or "", held_variant(config))


def load_start(
    backbone: backbones.Backbone, config: ClsConfig, classes: Sequence[str], device: str = "cpu"
) -> list[str] | None:
    """Load `init.weights` into a network, whatever variant it is of.

    classes: names of the data's. device: where the network is; on meta the weights are only
    checked. Returns the file's classes, in its order, if it tells them. Raises as `held_variant`.
    """
    held, source = held_variant(config), config.init.weights or ""
    if source == PRETRAINED:
        if device == "meta":  # nothing is downloaded for a check
            pretrained.check(backbone.name)
            return None
        state = pretrained.state_dict(backbone.name)
        own = backbone.module.state_dict()
        # for other classes, everything but the last layer is loaded
        same = [key for key, v in state.items() if key in own and v.shape == own[key].shape]
        fit = weight_names.kept(state, same)
        if arguments.split(backbone.name)[1]:  # other arguments may have made another network
            _refuse_misfits(backbone, fit)
        backbone.module.load_state_dict(fit, strict=False)
        return None
    ema = config.init.ema
    return weight_files.load(backbone.module, source, backbone.name, held, device, ema, classes)


def _refuse_misfits(backbone: backbones.Backbone, fit: Mapping[str, Tensor]) -> None:
    """Raise RfbenchError if weights leave other layers random than those with an output a class."""
    for key in (key for key in backbone.module.state_dict() if key not in fit):
        layer = backbone.module.get_submodule(key.rpartition(".")[0])
        heads = isinstance(layer, nn.Linear | nn.Conv2d)
        if not heads or getattr(layer, "kernel_size", (1, 1)) != (1, 1):
            raise RfbenchError(
                f"init.weights: the pretrained weights do not fit {backbone.name}: {key}."
            )


def scores_of(model: nn.Module, config: ClsConfig) -> Callable[[Tensor], Tensor]:
    """A forward pass, images (N, 3, H, W) to scores (N, C), in the configuration's precision."""

    def forward(images: Tensor) -> Tensor:
        with autocast(config, images.device):
            output = model(images)
        return checked_scores(output, config)

    return forward


def checked_scores(output: Any, config: ClsConfig) -> Tensor:
    """What a network returns in training. Raises RfbenchError if it is not scores (N, C)."""
    if isinstance(output, Tensor) and output.ndim == 2:
        return output
    if isinstance(output, Tensor):
        what = f"a tensor of shape {tuple(output.shape)}"
    else:
        what = f"{type(output).__name__} (of an auxiliary head?)"
    raise RfbenchError(
        f"{config.model} does not return one score per class in training, but {what}. "
        "Let it return the scores alone, in training as in evaluation."
    )


def check_in_training(model: nn.Module, config: ClsConfig, size: int) -> None:
    """The same without memory, before a run: of a network on meta, for images of `size` px."""
    try:
        with torch.no_grad():
            model.train()  # one of its own may return nothing
            output = model(torch.empty(2, 3, size, size, device="meta"))
    except Exception:  # its code may look at values, of which there are none here
        return
    checked_scores(output, config)
