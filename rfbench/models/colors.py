"""Why a network does not run on images of three channels, which is what all trainings read."""

import torch
from torch import nn

from rfbench.errors import one_line
from rfbench.models.meta import meta_copy

OTHERS = (1, 2, 4, *range(5, 17))  # channels that are tried


def why_not(model: nn.Module, size: tuple[int, int], error: Exception) -> str:
    """What `error`, of a pass of 3 x H x W images, means: the network's channels, or its text."""
    if (channels := _taken(model, size)) is None:
        return one_line(error)
    return (
        f"it takes images of {channels} channel{'s' * (channels > 1)}, and all images are read as "
        "red, green and blue (grey ones as three alike): build it with 3 (model_args.in_chans of "
        "timm's)"
    )


def _taken(model: nn.Module, size: tuple[int, int]) -> int | None:
    """The number of channels with which a network runs where it does not with 3."""
    try:
        copy = meta_copy(model)
    except Exception:  # a network of one's own; its first error is the one to tell
        return None
    for channels in OTHERS:
        try:
            with torch.no_grad():
                copy(torch.empty(2, channels, *size, device="meta"))
        except Exception:
            continue
        return channels
    return None
