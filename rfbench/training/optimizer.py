"""The optimizer of a training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.schemas.cls import ClsOptim


def parameter_groups(model: nn.Module, optim: ClsOptim) -> list[dict[str, Any]]:
    """All parameters; biases and normalizations in a group without weight decay, if configured."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            # one dimension: biases, and scales and shifts of normalizations
            free = parameter.ndim <= 1 and not optim.norm_weight_decay
            (plain if free else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": optim.weight_decay}]
    return [*groups, {"params": plain, "weight_decay": 0.0}] if plain else groups


def _sgd(groups: list[dict[str, Any]], optim: ClsOptim) -> torch.optim.Optimizer:
    nesterov = optim.nesterov and optim.momentum > 0  # torch refuses it without momentum
    return torch.optim.SGD(groups, optim.peak, optim.momentum, nesterov=nesterov, fused=True)


def _adamw(groups: list[dict[str, Any]], optim: ClsOptim) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, optim.peak, optim.betas, fused=True)


# A new optimizer is one entry here and one word in ClsOptim.name.
OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], ClsOptim], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
}


def optimizer(model: nn.Module, optim: ClsOptim) -> torch.optim.Optimizer:
    """The optimizer of a model; its learning rate is set before every step."""
    return OPTIMIZERS[optim.name](parameter_groups(model, optim), optim)
