"""Which of the sets of weights in a file is taken: the plain ones, or their moving average."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from rfbench.errors import RfbenchError
from rfbench.models.weight_names import ONCE

logger = logging.getLogger(__name__)

# keys of weights in a checkpoint, as various tools name them
PLAIN = ("state_dict", "model", "model_state_dict")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
EMA = "ema: true (init.ema of train-cls, --ema of rf commands)"
MANY = 10  # keys that a message lists


def chosen(content: Any, path: str, ema: bool) -> Any:
    """The part of a file that holds the weights: the plain ones or, with `ema`, the averaged."""
    if not isinstance(content, dict):
        return content
    plain = _plain(content, path)
    averaged = next((key for key in AVERAGED if isinstance(content.get(key), dict)), None)
    if ema:
        if averaged is None:
            raise RfbenchError(f"{path} holds no EMA weights; leave out {EMA}.")
        logger.info("%s: the EMA weights (%s) are taken.", path, averaged, extra=ONCE)
        return chosen(content[averaged], path, False)
    if averaged is not None:
        if plain is None:
            raise RfbenchError(f"{path} holds only EMA weights ({averaged}); {EMA} takes them.")
        logger.info(
            "%s holds raw weights (%s) and EMA weights (%s): the raw ones are taken (%s takes the "
            "others).",
            *(path, plain, averaged, EMA),
            extra=ONCE,
        )
    return content if plain is None else chosen(content[plain], path, False)


def _plain(content: Mapping[Any, Any], path: str) -> str | None:
    """The key of the weights that are no average; None: the content is the weights itself.

    RfbenchError if there are several. One of another name than tools use is said.
    """
    known = [key for key in PLAIN if isinstance(content.get(key), dict)]
    named = [key for key, value in content.items() if isinstance(key, str) and _is_state(value)]
    others = [key for key in named if key not in (*PLAIN, *AVERAGED)]
    found = [key for key in known if key in named] or known or others
    if len(found) > 1:
        raise RfbenchError(f"{path} holds several sets of weights ({_some(found)}). Keep one.")
    if found and found == others:
        logger.info("%s: the weights '%s' in it are taken.", path, found[0], extra=ONCE)
    return found[0] if found else None


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(torch.is_tensor, value.values()))


def tensors(content: Any, path: str) -> dict[str, Tensor]:
    """Tensors by name; RfbenchError if it is something else."""
    named = isinstance(content, dict) and all(isinstance(key, str) for key in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        held = f"; its keys: {_some(content)}" if named and content else ""
        raise RfbenchError(f"{path} holds no state dict (names and tensors){held}.")
    if quantised := [key for key, value in content.items() if value.is_quantized]:
        raise RfbenchError(f"{path} holds quantised weights: {', '.join(quantised[:3])}.")
    if empty := [key for key, value in content.items() if value.is_meta]:
        raise RfbenchError(f"{path} holds no values for {', '.join(empty[:3])} (meta tensors).")
    return content


def _some(keys: Iterable[object]) -> str:
    """The first of them, as text."""
    names = [str(key) for key in keys]
    return ", ".join(names[:MANY]) + ", ..." * (len(names) > MANY)
