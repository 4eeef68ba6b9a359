"""Magnitude pruning while a network trains (Zhu and Gupta, 2017, "To prune, or not to prune").

The smallest weights of convolutions and linear layers become zero; what is zero stays zero. Biases
and normalizations are left alone.

torch.nn.utils.prune is not used for training: it renames `weight` to `weight_orig` and computes
`weight` anew in every pass, so that checkpoints would no longer load into the network, and it has
neither a schedule nor a state of its own to be resumed.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import UsageError, counted
from rfbench.runs import best
from rfbench.schemas.prune import PruneConfig
from rfbench.training.state import Epochs

logger = logging.getLogger(__name__)

KINDS = (nn.modules.conv._ConvNd, nn.Linear)
STANDARDIZED = "timm.layers.std_conv"  # they subtract the mean of a kernel: a zero would not be one


def sparsity_at(step: int, prune: PruneConfig) -> float:
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
        kind = isinstance(module, KINDS)
        if kind and own is not None:
            found.setdefault(id(own), (f"{name}.weight".lstrip("."), own))
    return dict(found.values())


def check(model: nn.Module, prune: PruneConfig | None, steps: int, label: str) -> None:
    """Raise UsageError where a run of `steps` steps cannot prune a network, called `label`."""
    if prune is None:
        return
    if prune.end > steps:
        raise UsageError(
            f"prune.end is step {prune.end}; the run has {counted(steps, 'step')}: lower it (and "
            "prune.begin), or train longer"
        )
    if any(type(module).__module__ == STANDARDIZED for module in model.modules()):
        raise UsageError(f"prune: {label} standardizes its weights, so that no zero stays one")
    if not weights(model):
        raise UsageError(f"prune: {label} has no convolution or linear layer whose weights can be")


class Pruning:
    """Which weights of a network are zero. pruned: True where they are, by name."""

    def __init__(self, model: nn.Module, prune: PruneConfig) -> None:
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


# --- in a run ------------------------------------------------------------------------------------


def start(run: Epochs) -> None:
    """Begin with nothing pruned, if the configuration asks for pruning."""
    if run.config.prune is not None:
        run.pruning = Pruning(run.network, run.config.prune)


def update(run: Epochs) -> None:
    """After the optimizer's step `run.step`, counted from 0."""
    if run.pruning is not None:
        run.pruning.after(run.step + 1, run.network)


def apply_to_averaged(run: Epochs) -> None:
    """After `ema.update`: an average would keep something of what is zero now."""
    if run.pruning is not None and run.ema is not None:
        run.pruning.apply(run.ema.module)


def judge(run: Epochs, metrics: dict[str, Any]) -> bool:
    """As `best.judge`, among evaluations of the network that is pruned as it is to end.

    Before, the newest is kept: networks with more weights are no rivals.
    """
    better = best.judge(run, metrics)
    if run.config.prune is None or run.evaluated >= run.config.prune.end:
        return better
    run.waited = 0
    return True
