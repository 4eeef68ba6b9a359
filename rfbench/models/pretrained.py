"""The libraries' pretrained weights: the only thing that may be downloaded, on request."""

from torch import Tensor

from rfbench.errors import RfbenchError, UsageError, one_line
from rfbench.models import arguments
from rfbench.models.weight_files import LIBRARIES


def check(name: str) -> None:
    """Raise UsageError for a user's network, which has no pretrained weights; loads nothing."""
    if name.partition(":")[0] not in LIBRARIES:
        raise UsageError(
            f"{name} has no pretrained weights: only torchvision's and timm's networks have. "
            "Give a file instead."
        )


def state_dict(name: str) -> dict[str, Tensor]:
    """The library's weights: timm's, or the first that torchvision lists, as in papers.

    name: canonical, such as 'torchvision:resnet50'. Raises UsageError for a user's network,
    RfbenchError if they cannot be loaded.
    """
    check(name)
    (library, _, model), args = arguments.bare(name).partition(":"), arguments.split(name)[1]
    try:
        if library == "timm":
            import timm

            return timm.create_model(model, pretrained=True, **args).state_dict()
        from torchvision import models

        weights = next(iter(models.get_model_weights(model)))
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError, ValueError, StopIteration) as error:
        why = one_line(error) or "it has none"
        raise RfbenchError(
            f"the pretrained weights of {name} cannot be loaded: {why}. Give a file instead."
        ) from error
