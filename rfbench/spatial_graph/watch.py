"""What Python code does around the operations: circular padding, reading sizes, forgotten batches.

A network whose code never learns the size of a tensor does the same operations at every size. So a
trace notes when its code first did.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rfbench.errors import UsageError


class Watch(TorchFunctionMode):
    """Sees every call of torch's functions in Python code, attributes of tensors included.

    sized: called where code may have learnt a size. known: the values of a tensor where neither
    weights nor the input take part, else None. direct: what a call returns that need not be made,
    else None. inside: whether such a call is running. shape: of the first input, with its batch.
    """

    def __init__(
        self,
        sized: Callable[[], None],
        known: Callable[[Tensor], Tensor | None],
        direct: Callable[[Any, tuple, dict[str, Any]], Any],
    ) -> None:
        super().__init__()
        self.sized, self.known, self.direct = sized, known, direct
        self.inside = False
        self.shape: tuple[int, ...] = ()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (out := self.direct(func, args, kwargs)) is not None:
            return out
        name = _name(func)
        outer, self.inside = self.inside, True
        try:
            if name in _BATCHED:
                x = args[0] if args else kwargs.get("input")
                if isinstance(x, Tensor):
                    check_batch(_BATCHED[name], tuple(x.shape), self.shape)
            if name == "__getitem__" and isinstance(args[1], str):
                raise UsageError(
                    f"its code asks the image for '{args[1]}', as a dict has it: give a module "
                    "around it whose forward(x) calls it with one"
                )
            if func is nn.functional.pad and "circular" in (*args, *kwargs.values()):
                return _pad_circular(*(*args, *kwargs.values())[:2])
            if func is nn.functional.local_response_norm:  # norms are identities
                return (args[0] if args else kwargs["input"]).clone()
            if name in _FROM_NUMBERS and (made := _with_values(func, args, kwargs)) is not None:
                return made
            if name in _NUMBERS and (known := self.known(args[0])) is not None:
                self.sized()  # it may be that of a size
                return getattr(known, name)()
            if name == "take_along_dim":  # whose table may not be on another device
                return _taken(*args, **kwargs)
            out = func(*args, **kwargs)
            if name == "type" and isinstance(out, str):  # torch has no tensor type of meta
                out = out.replace("torch.meta.", "torch.")
        finally:
            self.inside = outer
        if _tells_size(name, out):
            self.sized()
        return out


def _name(func: Any) -> str:
    """'relu'; 'shape' for the getter of an attribute."""
    name = getattr(func, "__name__", "")
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name


_FROM_NUMBERS = {"as_tensor", "asarray", "new_tensor", "tensor"}
_NUMBERS = {"__bool__", "__float__", "__index__", "__int__", "item", "tolist"}


def _with_values(func: Any, args: tuple, kwargs: dict[str, Any]) -> Tensor | None:
    """A tensor made of numbers that goes to meta by way of the CPU, so that they are seen."""
    given = [*args[-1:], *(kwargs[key] for key in ("data", "obj") if key in kwargs)][-1:]
    if any(isinstance(part, Tensor) for part in tree_leaves(given)):
        return None
    made = func(*args, **kwargs)
    if not made.is_meta:
        return made
    return func(*args, **kwargs | {"device": "cpu"}).to(made.device)


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


# convolutions that take a tensor without a batch as well, with their numbers of axes
_BATCHED = {f"{name}{n}d": n for name in ("conv", "conv_transpose") for n in (1, 2, 3)}
_THINGS = {1: "sequence", 2: "image", 3: "volume"}


def check_batch(axes: int, shape: tuple[int, ...], given: tuple[int, ...]) -> None:
    """Raise where a tensor with a batch is about to be taken for one without.

    torch would run N x C x H x W as a volume of N channels, and with a batch of one nobody notices.
    shape: of what is convolved along so many axes. given: of the network's input.
    """
    if len(shape) != axes + 1 or shape[0] != 1:
        return
    thing, text = _THINGS[axes], " x ".join(map(str, shape))
    what = f"a convolution of {thing}s gets {text}, which torch takes for one {thing} without a"
    what = f"{what} batch, its batch for channels"
    if len(given) == axes + 1:
        wanted = f"Give {_layout(axes)}: {axes} numbers with --size (in Python: size=, inputs=)"
        what = f"{what}. {wanted}"
    raise UsageError(what)


def _layout(axes: int) -> str:
    return " x ".join(["N", "C", *{1: "L", 2: "HW", 3: "DHW"}.get(axes, "")])


def _taken(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        input, indices, dim = input.flatten(), indices.flatten(), 0
    form = torch.broadcast_shapes(
        *((*t.shape[: dim % t.dim()], 1, *t.shape[dim % t.dim() + 1 :]) for t in (input, indices))
    )
    sides = [list(form), list(form)]
    for side, t in zip(sides, (input, indices), strict=True):
        side[dim] = t.shape[dim]
    return input.expand(sides[0]).gather(dim, indices.expand(sides[1]))


def _pad_circular(x: Tensor, amounts: Any) -> Tensor:
    """As a choice of positions: torch's own writes to views out of our sight.

    Raises RuntimeError for what torch does not pad so: other axes, or more than once around.
    """
    axes = len(amounts) // 2
    if axes not in (x.dim() - 2, x.dim() - 1) or axes > 3:
        raise RuntimeError(f"circular padding of {axes} axes is none of a {x.dim()}-D tensor")
    for i in range(0, len(amounts), 2):
        n, (before, after) = x.shape[-1 - i // 2], amounts[i : i + 2]
        kept = torch.arange(n, device="cpu")[max(-before, 0) : n + min(after, 0)]  # crops first
        m = len(kept)
        if max(before, after) > m or not m:
            raise RuntimeError(f"circular padding by {before} and {after} is too much for {n}")
        around = torch.arange(-max(before, 0), m + max(after, 0), device="cpu") % m
        x = x.index_select(-1 - i // 2, kept[around])
    return x
