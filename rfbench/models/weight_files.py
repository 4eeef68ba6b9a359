"""Files of weights: read without executing anything in them, and compared with their network.

A checkpoint of rfbench records its network and variant; other files (a state dict, a .safetensors
file) are compared by names and shapes only.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import arguments

FORMAT = "rfbench-checkpoint/1"
LIBRARIES = ("torchvision", "timm")  # libraries of networks that a checkpoint may name


def variant_of(path: str) -> str | None:
    """The variant that a checkpoint of rfbench records; None for any other weights."""
    content = read(path, "meta")
    if isinstance(content, dict) and str(content.get("format")).startswith(FORMAT.rstrip("1")):
        return str(content.get("variant"))
    return None


def state_dict(path: str, model: str, variant: str, device: str = "cpu") -> dict[str, Tensor]:
    """The parameters by name in the file `path`; RfbenchError if it records another network."""
    return _checked(read(path, device), path, model, variant)


def load(module: nn.Module, path: str, model: str, variant: str, device: str = "cpu") -> None:
    """Load the checkpoint `path` strictly into `module`, which is `model` in `variant`.

    Raises RfbenchError if the file records another network, or if keys or shapes differ.
    """
    state = state_dict(path, model, variant, device)
    try:
        tensors = {key: value.to(device) for key, value in state.items()}
        module.load_state_dict(tensors, assign=device == "meta")
    except RuntimeError as error:
        raise RfbenchError(
            f"{path} does not fit {model}: {misfit(module.state_dict(), state)}."
        ) from error


def read(path: str, device: str) -> Any:
    """The content of a checkpoint file, tensors and plain types; nothing in it is executed."""
    if not os.path.exists(path):
        raise UsageError(f"no such file: {path}")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder. Give a checkpoint in it, such as {path}/last.pth.")
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise RfbenchError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # readers raise anything on damaged bytes
        raise RfbenchError(
            f"{path} is not a checkpoint of tensors and plain types (nothing in it was run). "
            f"Save a model's state_dict() instead of the model."
        ) from error


def _checked(content: Any, path: str, model: str, variant: str) -> dict[str, Tensor]:
    """The parameters by name, after a check of the network and variant, if recorded."""
    kind = content.get("format") if isinstance(content, dict) else None
    if isinstance(kind, str) and kind.startswith(FORMAT.rstrip("1")):
        if kind != FORMAT:
            raise RfbenchError(f"{path} is of format {kind}; this version reads {FORMAT}.")
        held, name = str(content.get("model")), str(content.get("variant"))
        if (_identity(held), name) != (_identity(model), variant):
            if held.partition(":")[0] == model.partition(":")[0] in LIBRARIES:
                held, model = held.partition(":")[2], model.partition(":")[2]
            raise RfbenchError(
                f"{path} holds {held} / {name}; this run is {model} / {variant}. "
                f"The weights would load but mean something else."
            )
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = isinstance(content, dict) and all(isinstance(v, Tensor) for v in content.values())
    if not tensors or not all(isinstance(key, str) for key in content):
        raise RfbenchError(f"{path} holds no state dict (names and tensors).")
    while content and all(key.startswith("module.") for key in content):  # saved from a DDP module
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content


def _identity(model: str) -> tuple[str, str, dict[str, Any]]:
    """The parts of a name that must agree: not a timm tag of weights, nor the folder of a file."""
    bare, args = arguments.split(model)
    library, _, name = bare.rpartition(":")
    if library in LIBRARIES:
        return library, name.partition(".")[0], args
    return Path(library).name, name, args


def misfit(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor], ignored: tuple[str, ...] = ()
) -> str:
    """How the parameters `given` differ from `own`: counts and first names; "" if they do not.

    ignored: ends of names to be ignored.
    """
    own, given = ({k: v for k, v in s.items() if not k.endswith(ignored)} for s in (own, given))
    shapes = {key: (_shape(given[key]), _shape(own[key])) for key in own if key in given}
    names = {
        "missing": [key for key in own if key not in given],
        "unexpected": [key for key in given if key not in own],
        "of another shape": [f"{k}: {a} for {b}" for k, (a, b) in shapes.items() if a != b],
    }
    return ", ".join(
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})"
        for what, keys in names.items()
        if keys
    )


def _shape(value: object) -> list[int]:
    return list(getattr(value, "shape", ()))  # a state dict may also hold plain values
