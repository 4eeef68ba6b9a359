"""What a layer of a whole network returns, in the network's own forward pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError, one_line, suggest
from rfbench.spatial_graph.generator import left_at_the_end
from rfbench.spatial_graph.trace import trunk


class _Reached(BaseException):
    """Ends a forward pass: what follows the layer is not needed, and may fail."""


def output_of(
    module: nn.Module, images: Sequence[Tensor], name: str, features: bool = False
) -> Any:
    """What a layer returns for images (N, C, H, W) of each input.

    name: a module path, '#2' for its second call; '' or 'output' for the network's own output;
    with keys behind it, such as 'output.aux' or 'encoder.0', a part of what was returned. features:
    that output is timm's `forward_features`. Raises UsageError where the network fails before, or
    never calls the layer.
    """
    path, call, keys = split_name(module, name)
    left, held = [call], []

    def keep(output: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            held.append(output)
            raise _Reached

    inner, hook = trunk(module), None
    if path:
        child = module.get_submodule(path)
        if isinstance(child, torch.jit.ScriptModule):  # which takes no hooks
            raise UsageError(f"layer '{name}' is a scripted module: choose one around it")
        hook = child.register_forward_hook(lambda _m, _a, output: keep(output))
    elif features:
        vars(module)["forward_features"] = lambda *a, **k: keep(inner(*a, **k))
    try:
        with left_at_the_end():
            returned = module(*images)
        if path or features:
            raise UsageError(f"layer '{name}' is not reached in a forward pass")
        held.append(returned)
    except _Reached:
        pass
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        if isinstance(error, RfbenchError):
            raise
        what = one_line(error)
        if "required positional argument" in what:
            what += ". Give the shape of each input with --input"
        shape = " and ".join("x".join(map(str, x.shape[1:])) for x in images)
        raise UsageError(f"the network fails on an input of {shape}: {what}") from error
    finally:
        if hook:
            hook.remove()
        elif features:
            del vars(module)["forward_features"]
    return _part(held[0], keys, name)


def split_name(module: nn.Module, name: str) -> tuple[str, int, list[str]]:
    """(module path, number of its call, keys of a part of its output) of a layer's name.

    The path is '' for the network's output. Raises UsageError for a name of no layer.
    """
    modules = dict(module.named_modules())
    words = name.split(".") if name else []
    for n in range(len(words), 0, -1):
        path, _, call = ".".join(words[:n]).partition("#")
        if path in modules and (not call or call.isdecimal()):
            # 'encoder.output.0' where 'encoder.0' is a module of its own
            keys = words[n + 1 :] if words[n : n + 1] == ["output"] else words[n:]
            return path, int(call or 1), keys
    if words and words[0] != "output":
        names = [known for known in modules if known]
        raise UsageError(f"no layer '{name}'.{suggest(name, names)} --list-layers shows all.")
    return "", 1, words[1:]


def _part(value: Any, keys: list[str], name: str) -> Any:
    """The part of an output below keys: of dicts, indices, and fields of objects."""
    for i in range(len(keys), 0, -1):  # keys may have dots
        key = ".".join(keys[:i])
        if isinstance(value, Mapping):
            found = [v for k, v in value.items() if str(k) == key]
        elif isinstance(value, list | tuple) and not hasattr(value, "_fields"):
            found = [value[int(key)]] if key.isdecimal() and int(key) < len(value) else []
        else:
            found = [getattr(value, key)] if hasattr(value, key) else []
        if found:
            return _part(found[0], keys[i:], name)
    if keys:
        raise UsageError(f"no output '{name}': there is no {'.'.join(keys)} in what is returned")
    return value
