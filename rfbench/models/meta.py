"""Networks without memory: every parameter and buffer is on the meta device."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rfbench.copies import copied, evaluating, held_tensors
from rfbench.errors import UsageError

Model = TypeVar("Model", bound=nn.Module)


def meta_copy(module: Model) -> Model:
    """A copy without memory: every parameter and buffer on the meta device."""
    tensors = [*module.parameters(), *module.buffers()]
    tensors += [t for t in held_tensors(module.modules()) if not t.is_leaf]
    memo: dict[int, Any] = {id(t): t.detach().to("meta", copy=True) for t in tensors}
    memo |= {id(p): nn.Parameter(memo[id(p)], requires_grad=False) for p in module.parameters()}
    return evaluating(copied(module, memo))


class _EmptyOnMeta(TorchFunctionMode):
    """Only torch.empty, from which layers get their parameters, allocates nothing.

    What fills such a parameter with numbers is left out: it would take the longest of all.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            return func(*args, **{**kwargs, "device": "meta"})
        filled = args[0] if args else kwargs.get("tensor")
        if isinstance(filled, Tensor) and filled.is_meta and _fills(func, args, kwargs):
            return filled
        return func(*args, **kwargs)


def _fills(func: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a call writes numbers into its first argument, and does nothing else."""
    if getattr(func, "__module__", "") == "torch.nn.init":
        return func.__name__.endswith("_")
    others = [*args[1:], *kwargs.values()]
    named = getattr(func, "__name__", "") in _FILLING
    return named and not any(isinstance(part, Tensor) for part in others)


_FILLING = {
    "add_", "clamp_", "div_", "erfinv_", "fill_", "mul_", "normal_", "sub_", "uniform_", "zero_",
}  # fmt: skip


def _apart(module: Model) -> Model:
    """A copy around the same tensors: a function may return a network that it keeps."""
    parts = list(module.modules())
    memo: dict[int, Any] = {id(t): t for t in held_tensors(parts)}
    memo |= {id(m): m for m in parts if isinstance(m, torch.jit.ScriptModule)}
    return copied(module, memo)


def build_on_meta(make: Callable[[], nn.Module], own: bool = False) -> nn.Module:
    """Build with every parameter and buffer on the meta device, except fixed kernels.

    own: one's own network, which may have masks and tables: all its buffers have their values.
    """
    # RegNet computes its widths with tensors, which fails with everything on meta; hybrid ViTs run
    # on zeros, which fails with only torch.empty on meta; what fails in both ways is allocated
    for context in (_EmptyOnMeta(), torch.device("meta"), contextlib.nullcontext()):
        try:
            with context:
                module = make()
        except Exception as error:
            if isinstance(error, UsageError) or isinstance(context, contextlib.nullcontext):
                raise
            continue
        if not any(_lost_values(m, own) for m in module.modules()):
            break
    if own:
        module = _apart(module)
    named = [(m, key, b) for m in module.modules() for key, b in m._buffers.items()]
    with contextlib.suppress(AssertionError):  # a script that was loaded keeps its weights
        module.to("meta")
    for owner, key, buffer in named:
        if buffer is None or key in STATISTICS:
            continue
        if not buffer.is_meta:
            owner._buffers[key] = buffer if own or _is_kernel(buffer) else owner._buffers[key]
        elif _is_kernel(buffer) and _can_be_made_again(owner):
            owner._buffers[key] = torch.empty_like(buffer, device="cpu")
            owner.init_non_persistent_buffers()  # type: ignore[operator]
    return module


def _can_be_made_again(owner: nn.Module) -> bool:
    """Whether it computes its buffers when asked: timm's protocol."""
    return hasattr(owner, "init_non_persistent_buffers")


STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}  # of norms: no path depends on


def _lost_values(owner: nn.Module, every: bool) -> bool:
    """Whether a fixed kernel of a module, or any mask or table, is on the meta device."""
    buffers = [b for key, b in owner._buffers.items() if b is not None and key not in STATISTICS]
    kept = {key: value for key, value in vars(owner).items() if key not in _REGISTRIES}
    others = [t for t in tree_leaves(kept) if isinstance(t, Tensor) and not t.requires_grad]
    held = [*buffers, *others] if every else [b for b in buffers if _is_kernel(b)]
    lost = any(t.is_meta for t in held)
    return lost and not _can_be_made_again(owner)


_REGISTRIES = {"_parameters", "_buffers", "_modules"}


def _is_kernel(buffer: Tensor) -> bool:
    """Whether it can be the weight of a fixed 2-D convolution, or its mask: (C_out, C_in, h, w)."""
    if buffer.ndim != 4:
        return False
    outputs, inputs, *window = buffer.shape
    return max(window) > 1 and (outputs > 1 or inputs == 1)  # (1, C, H, W) is an image or a table
