"""What a layer of a whole network returns, in the network's own forward pass."""

from typing import Any

from torch import Tensor, nn

from rfbench.errors import UsageError
from rfbench.spatial_graph.trace import trunk


class _Reached(BaseException):
    """Ends a forward pass: what follows the layer is not needed, and may fail."""


def output_of(module: nn.Module, images: Tensor, layer: str) -> Any:
    """What a layer returns for images (N, C, H, W).

    layer: its module path, '#2' for its second call; '' for the network's own output, or its
    features where these are what is traced (timm's `forward_features`). Raises UsageError where the
    network fails before, or never calls it.
    """
    path, _, call = layer.partition("#")
    left, held = [int(call or 1)], []

    def keep(output: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            held.append(output)
            raise _Reached

    inner = trunk(module)
    hook = None
    if path:
        child = module.get_submodule(path)
        hook = child.register_forward_hook(lambda _m, _a, output: keep(output))
    elif inner is not module:
        vars(module)["forward_features"] = lambda *a, **k: keep(inner(*a, **k))
    try:
        held.append(module(images))
    except _Reached:
        pass
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        what = " ".join(str(error).split())[:200]
        shape = "x".join(str(n) for n in images.shape[1:])
        raise UsageError(f"the network fails on an input of {shape}: {what}") from error
    finally:
        if hook:
            hook.remove()
        elif inner is not module:
            del vars(module)["forward_features"]
    if left[0] > 0 and (hook or inner is not module):
        raise UsageError(f"layer '{layer}' is not reached in a forward pass")
    return held[0]
