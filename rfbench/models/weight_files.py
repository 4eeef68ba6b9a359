"""Files of weights: read without running anything of them, compared with what they are for.

A checkpoint of rfbench says which network in which variant it holds; other files (a state dict, a
.safetensors file) are compared by their names and shapes alone.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError

FORMAT = "rfbench-checkpoint/1"
LIBRARIES = ("torchvision", "timm")  # whose names may stand in a checkpoint


def variant_of(path: str) -> str | None:
    """The variant that a checkpoint of rfbench says it is of; None for any other weights."""
    content = read(path, "meta")
    if isinstance(content, dict) and str(content.get("format")).startswith(FORMAT.rstrip("1")):
        return str(content.get("variant"))
    return None


def state_dict(path: str, model: str, variant: str, device: str = "cpu") -> dict[str, Tensor]:
    """The parameters by name in the checkpoint `path`, which may not say that it is of others."""
    return _checked(read(path, device), path, model, variant)


def load(module: nn.Module, path: str, model: str, variant: str, device: str = "cpu") -> None:
    """Load the checkpoint `path` strictly into `module`, which is `model` in `variant`.

    Raises RfbenchError where the file says that it is of others, or keys or shapes differ.
    """
    state = state_dict(path, model, variant, device)
    try:
        found = {key: value.to(device) for key, value in state.items()}
        module.load_state_dict(found, assign=device == "meta")
    except RuntimeError as error:
        raise RfbenchError(
            f"{path} does not fit {model}: {misfit(module.state_dict(), state)}."
        ) from error


def read(path: str, device: str) -> Any:
    """What a checkpoint file holds: tensors and plain types, nothing of it ever executed."""
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
    except Exception as error:  # of pickle, zipfile, safetensors, torch: whatever the bytes cause
        raise RfbenchError(
            f"{path} is not a checkpoint of tensors and plain types (nothing in it was run). "
            f"Save a model's state_dict() instead of the model."
        ) from error


def _checked(content: Any, path: str, model: str, variant: str) -> dict[str, Tensor]:
    """The parameters by name, after comparing what they are of, where the file says so."""
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
    while content and all(key.startswith("module.") for key in content):  # saved from within DDP
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content


def _identity(model: str) -> tuple[str, str]:
    """What must agree: a timm tag names weights, not a network; a file may have been moved."""
    library, _, name = model.rpartition(":")
    return (library, name.partition(".")[0]) if library in LIBRARIES else (Path(library).name, name)


def misfit(own: Mapping[str, Any], given: Mapping[str, Tensor]) -> str:
    """How `given` differs from the state dict `own`, with counts and the first names; '': it fits.

    '2 missing (a, b), 1 of another shape (c: [3] for [4])'.
    """
    wanted = {key: list(getattr(value, "shape", ())) for key, value in own.items()}
    shapes = {key: list(value.shape) for key, value in given.items()}
    common = [key for key in wanted if key in shapes]
    differences = {
        "missing": [key for key in wanted if key not in shapes],
        "unexpected": [key for key in shapes if key not in wanted],
        "of another shape": [
            f"{key}: {shapes[key]} for {wanted[key]}"
            for key in common
            if shapes[key] != wanted[key]
        ],
    }
    return ", ".join(
        f"{len(keys)} {what} ({', '.join([*keys[:3], '...'][: len(keys)])})"
        for what, keys in differences.items()
        if keys
    )
