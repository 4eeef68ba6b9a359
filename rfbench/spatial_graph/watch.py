"""What Python code does around the operations: circular padding, reading sizes, 1-D and 3-D calls.

A network whose code never learns the size of a tensor does the same operations at every size. So a
trace notes when its code first did.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rfbench.errors import RfbenchError


class Watch(TorchFunctionMode):
    """Sees every call of torch's functions in Python code, attributes of tensors included.

    sized: called where code may have learnt a size. inside: whether such a call is running.
    """

    def __init__(self, sized: Callable[[], None]) -> None:
        super().__init__()
        self.sized = sized
        self.inside = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        outer, self.inside = self.inside, True
        try:
            if name in ("conv1d", "conv3d", "conv_transpose1d", "conv_transpose3d"):
                _check_axes(name, args)
            if func is nn.functional.pad and "circular" in (*args, *kwargs.values()):
                return _pad_circular(*(*args, *kwargs.values())[:2])
            out = func(*args, **kwargs)
        finally:
            self.inside = outer
        if _tells_size(name, out):
            self.sized()
        return out


def _name(func: Any) -> str:
    """'relu'; 'shape' for the getter of an attribute."""
    name = getattr(func, "__name__", "")
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


# these return something else than tensors that does not depend on a size
_HARMLESS = {
    "__hash__", "__setitem__", "device", "dim", "dtype", "element_size", "get_device", "grad",
    "grad_fn", "is_complex", "is_cpu", "is_cuda", "is_floating_point", "is_inference", "is_leaf",
    "is_meta", "is_mkldnn", "is_mps", "is_nested", "is_quantized", "is_signed", "is_sparse",
    "is_xla", "itemsize", "layout", "names", "ndim", "ndimension", "requires_grad", "result_type",
}  # fmt: skip
# these return as many tensors as there are positions
_AS_MANY = {
    "__iter__", "broadcast_tensors", "chunk", "dsplit", "hsplit", "nonzero", "split",
    "split_with_sizes", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split", "vsplit", "where",
}  # fmt: skip


def _tells_size(name: str, out: Any) -> bool:
    if out is None or isinstance(out, Tensor) or name in _HARMLESS:
        return False
    fixed = isinstance(out, tuple | list) and all(isinstance(t, Tensor | None) for t in out)
    return not fixed or name in _AS_MANY


def _check_axes(name: str, args: tuple) -> None:
    """Raise where N x C x H x W is about to be taken for one volume or sequence without N."""
    if args and isinstance(args[0], Tensor) and args[0].dim() == 4:
        raise RfbenchError(
            f"{name} takes {'sequences' if name[-2] == '1' else 'volumes'}: networks of 1-D and "
            "3-D inputs are not measured yet"
        )


def _pad_circular(x: Tensor, amounts: Any) -> Tensor:
    """As a choice of positions: torch's own writes to views out of our sight."""
    for i in range(0, len(amounts), 2):
        n, (before, after) = x.shape[-1 - i // 2], amounts[i : i + 2]
        x = x.index_select(-1 - i // 2, torch.arange(-before, n + after, device="cpu") % n)
    return x
