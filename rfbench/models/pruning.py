"""Magnitude pruning while a network trains (Zhu and Gupta, 2017, "To prune, or not to prune").

The smallest weights of convolutions and linear layers become zero; what is zero stays zero. Biases
and normalizations are left alone. `shown` then tells the spatial graph of the zeros, so that
receptive fields are those of the taps that are left.

torch.nn.utils.prune is not used for training: it renames `weight` to `weight_orig` and computes
`weight` anew in every pass, so that checkpoints would no longer load into the network, and it has
neither a schedule nor a state of its own to be resumed.
"""

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rfbench.errors import UsageError, counted

logger = logging.getLogger(__name__)

CONVOLUTIONS = (nn.modules.conv._ConvNd,)
STANDARDIZED = "timm.layers.std_conv"  # they subtract the mean of a kernel: a zero would not be one


class Settings(Protocol):
    """What is to be pruned, and when; see `schemas.prune`."""

    @property
    def sparsity(self) -> float:
        """Share of the weights, from 0 to below 1."""

    @property
    def schedule(self) -> str:
        """constant or polynomial."""

    @property
    def scope(self) -> str:
        """layer or global."""

    @property
    def begin(self) -> int:
        """Steps done when the first weights become zero."""

    @property
    def end(self) -> int:
        """Steps done when the last do."""

    @property
    def every(self) -> int:
        """Steps between two choices."""


def sparsity_at(step: int, prune: Settings) -> float:
    """The share of zeros after `step` steps.

    polynomial: s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3 with s_i = 0, their equation 1, at the
    steps t_0, t_0 + every, ... and at `end` itself, which `every` need not hit.
    """
    if step < prune.begin:
        return 0.0
    if prune.schedule == "constant" or step >= prune.end:
        return prune.sparsity
    chosen = step - (step - prune.begin) % prune.every
    left = 1 - (chosen - prune.begin) / (prune.end - prune.begin)
    return prune.sparsity * (1 - left**3)


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that may be pruned, by their name in the state dict; shared ones once."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for name, module in model.named_modules():
        own = module._parameters.get("weight")
        kind = isinstance(module, (*CONVOLUTIONS, nn.Linear))
        if kind and own is not None:
            found.setdefault(id(own), (f"{name}.weight".lstrip("."), own))
    return dict(found.values())


def check(model: nn.Module, prune: Settings | None, steps: int, label: str) -> None:
    """Raise UsageError where a run of `steps` steps cannot prune a network, called `label`."""
    if prune is None:
        return
    if prune.end > steps:
        raise UsageError(f"prune.end is step {prune.end}; the run has {counted(steps, 'step')}")
    if any(type(module).__module__ == STANDARDIZED for module in model.modules()):
        raise UsageError(f"prune: {label} standardizes its weights, so that no zero stays one")
    if not weights(model):
        raise UsageError(f"prune: {label} has no convolution or linear layer whose weights can be")


class Pruning:
    """Which weights of a network are zero. pruned: True where they are, by name."""

    def __init__(self, model: nn.Module, prune: Settings) -> None:
        self.prune = prune
        self.pruned = {
            name: torch.zeros_like(weight, dtype=torch.bool)
            for name, weight in weights(model).items()
        }

    @torch.no_grad()
    def after(self, step: int, model: nn.Module) -> None:
        """Choose anew if that is due after `step` steps, and set to zero what is pruned."""
        share = sparsity_at(step, self.prune)
        if share > sparsity_at(step - 1, self.prune):
            own = weights(model)
            if self.prune.scope == "global":
                self._choose(own, share)
            else:
                for name in own:
                    self._choose({name: own[name]}, share)
        self.apply(model)

    def _choose(self, own: Mapping[str, Tensor], share: float) -> None:
        """Prune the smallest of some weights together; of equal ones the first."""
        scores = torch.cat(
            [w.abs().masked_fill(self.pruned[name], -1).flatten() for name, w in own.items()]
        )
        count = int(share * scores.numel() + 1e-6)  # rounded down: no layer ends without a weight
        chosen = torch.zeros_like(scores, dtype=torch.bool)
        chosen[scores.sort(stable=True).indices[:count]] = True
        parts = chosen.split([w.numel() for w in own.values()])
        for (name, weight), part in zip(own.items(), parts, strict=True):
            if part.all() and not self.pruned[name].all():
                logger.warning("prune: all weights of %s are zero now", name)
            self.pruned[name] = part.view(weight.shape)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> None:
        """Set the pruned weights of a network to zero; also of one with averaged weights."""
        for name, weight in weights(model).items():
            weight.masked_fill_(self.pruned[name], 0)

    def state_dict(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        return self.pruned

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse. Raises ValueError where it is of another network."""
        for name, own in self.pruned.items():
            held = state.get(name)
            fits = isinstance(held, Tensor) and held.dtype == torch.bool
            if not fits or held.shape != own.shape:  # type: ignore[union-attr]
                raise ValueError(f"it does not say which weights of {name} are pruned")
            self.pruned[name] = held.to(own.device)  # type: ignore[union-attr]
        if more := [name for name in state if name not in self.pruned]:
            raise ValueError(f"it has pruned weights of {more[0]}, which there is not")


def is_final(step: int, prune: Settings | None) -> bool:
    """Whether a network after `step` steps has the sparsity that it is to end with."""
    return prune is None or step >= prune.end


def nonzero(model: nn.Module) -> int:
    """The number of parameters that are not zero."""
    return sum(int(torch.count_nonzero(p)) for p in model.parameters())


# --- for the spatial graph -----------------------------------------------------------------------


class Kept(nn.Module):
    """A weight times a buffer of ones and zeros, which the spatial graph reads."""

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, weight: Tensor) -> Tensor:
        """A weight to one of the same shape."""
        return weight * self.kept


def shown(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy without memory whose kernels are zero where those of a state dict are.

    Of windows: a 1x1 kernel has no taps to lose. The network itself where no kernel has zeros.
    """
    zeros = {name: kept for name, kept in kept_taps(model, state).items() if not kept.all()}
    if not zeros:
        return model
    from rfbench.models.meta import meta_copy

    copied = meta_copy(model)
    for name, kept in zeros.items():
        parametrize.register_parametrization(
            copied.get_submodule(name), "weight", Kept(kept.float()), unsafe=True
        )
    return copied


def kept_taps(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By convolution larger than 1x1: where its weight in a state dict is not zero."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, CONVOLUTIONS) and max(module.kernel_size) > 1:
            weight = state.get(f"{name}.weight".lstrip("."))
            if isinstance(weight, Tensor) and not weight.is_meta:
                found[name] = (weight != 0).cpu()
    return found
