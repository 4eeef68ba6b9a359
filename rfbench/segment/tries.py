"""Whether a network takes the images of a run: tried on blank ones before the first step."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from rfbench.errors import RfbenchError, one_line
from rfbench.models.colors import why_not
from rfbench.models.meta import meta_copy
from rfbench.schemas.seg import SegConfig
from rfbench.segment import network
from rfbench.segment.images import Images

MOST = 8  # sizes of validation images that are tried

Size = tuple[int, int]


def crop(model: nn.Module, config: SegConfig, data: Images) -> None:
    """Raise RfbenchError if the network does not return scores of the classes for a blank crop."""
    try:
        with _evaluating(model):
            scores = model(torch.zeros(1, 3, *data.crop))
            network.outputs(scores, config, len(data.set.classes))
    except (RuntimeError, ValueError, TypeError) as error:
        what = f"{by(data.crop)} px images: {why_not(model, data.crop, error)}"
        raise RfbenchError(f"{config.model} does not run on {what}") from error


def whole(model: nn.Module, config: SegConfig, data: Images) -> None:
    """Raise RfbenchError if the network takes crops but not validation images, which are whole.

    It is run without memory; only a size that fails so is tried in earnest.
    """
    try:
        copy = meta_copy(model)
        _run(copy, data.crop, "meta")
    except Exception:  # it does not run without memory, or not at all, which the first step says
        return
    for size in some([*data.val_sizes]):
        try:
            _run(copy, size, "meta")
        except Exception:
            _refuse(model, config, size, data.val_sizes[size])


def some(sizes: list[Size]) -> list[Size]:
    """A few sizes from the smallest to the largest, both among them."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    last = len(ordered) - 1
    places = [round(k * last / (MOST - 1)) for k in range(MOST)] if ordered else []
    return [ordered[place] for place in dict.fromkeys(places)]


def _refuse(model: nn.Module, config: SegConfig, size: Size, name: str) -> None:
    try:
        with _evaluating(model):
            _run(model, size, "cpu")
    except Exception as error:
        why = one_line(error).rstrip(".")
        raise RfbenchError(
            f"{config.model} does not run on {name} of {by(size)} px: {why}. "
            "Validation images are evaluated whole: the network must take their sizes"
        ) from error


def _run(model: nn.Module, size: Size, device: str) -> None:
    with torch.no_grad():
        model(torch.zeros(1, 3, *size, device=device))


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    model.eval()
    with torch.inference_mode():
        yield


def by(size: Size) -> str:
    """'640x480' of (480, 640)."""
    return f"{size[1]}x{size[0]}"
