"""What is left of a pruned network, for whoever asks after its receptive field.

The spatial graph knows no weights; `shown` tells it which are zero, as a mask in the forward pass.
"""

from collections.abc import Mapping

from torch import Tensor, count_nonzero, nn
from torch.nn.utils import parametrize

from rfbench.models.meta import meta_copy

CONVOLUTIONS = (nn.modules.conv._ConvNd,)


def nonzero(model: nn.Module) -> int:
    """The number of parameters that are not zero."""
    return sum(int(count_nonzero(p)) for p in model.parameters())


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
