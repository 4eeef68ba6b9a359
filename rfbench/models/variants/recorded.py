"""One pass of a network on the meta device: which layer reads what another has made.

Leaf layers (convolutions, max pools, norms, activations) are one call each, everything else is a
call a function. Only for placing pools; receptive fields are measured by the spatial graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rfbench.errors import RfbenchError, one_line
from rfbench.models.meta import meta_copy

# of an input where none is given, by the number of axes
SIZES = {1: (16384,), 2: (224, 224), 3: (64, 128, 128)}
ACTIVATIONS = "relu elu gelu silu swish mish tanh sigmoid softplus gammaact".split()
NORMS = ("norm",)
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
THROUGH = ("dropout", "contiguous", "alpha_dropout", "feature_dropout")  # at evaluation


@dataclass(frozen=True)
class Example:
    """What a network is run on.

    size: px along each axis of its only input; as in SIZES when None. inputs: examples of all its
    inputs, in place of that; only shapes and types of tensors count.
    """

    size: Sequence[int] | None = None
    inputs: Sequence[Any] | None = None


@dataclass
class Call:
    """A call of a layer or of a function. path: of the layer, else of that whose code calls it.

    kind: conv, pool, norm, activation or other. reads: the numbers of the calls whose outputs it
    takes. given, made: the first tensor that it takes and returns. weights: of one output number.
    """

    path: str
    kind: str
    name: str
    whole: bool
    reads: list[int]
    given: Tensor | None = None
    made: Tensor | None = None
    weights: int = 0
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Recording:
    """The calls of a pass, in order; the last one reads what the network returns."""

    calls: list[Call]
    opaque: bool  # has parts whose reading is not seen

    def of(self, path: str) -> list[int]:
        """The numbers of the calls of a leaf layer."""
        return [i for i, call in enumerate(self.calls) if call.whole and call.path == path]

    def returned(self) -> list[tuple[int, ...]]:
        """The shapes of the tensors that the network returns, as far as calls have made them."""
        made = [self.calls[i].made for i in self.calls[-1].reads]
        return [tuple(out.shape) for out in made if out is not None]

    def readers(self, number: int) -> list[int]:
        """The numbers of the calls that take what a call has made."""
        return [i for i, call in enumerate(self.calls) for read in call.reads if read == number]


def record(model: nn.Module, label: str, why: str, example: Example) -> Recording:
    """Run a copy of `model` in evaluation mode.

    why: what the pass is for, in the error. Raises RfbenchError if the model does not run.
    """
    axes, size = _axes(model), example.size
    own = tuple(size) if size is not None and len(size) == axes else SIZES[axes]
    tried = (
        [example.inputs]
        if example.inputs
        else [[torch.empty(1, channels, *own, device="meta")] for channels in _channels(model)]
    )
    first: Exception | None = None
    for inputs in tried:
        try:
            return _run(meta_copy(model), inputs)
        except Exception as error:
            first = first or error
    told = f"{type(first).__name__}: {one_line(first)}"
    what = "its inputs" if example.inputs else f"{'x'.join(map(str, own))} px"
    raise RfbenchError(f"{label} is run on {what} to see {why}, and that failed: {told}")


def _axes(model: nn.Module) -> int:
    for module in model.modules():
        for axes, kind in enumerate(CONVS, 1):
            if isinstance(module, kind):
                return axes
    return 2


def _channels(model: nn.Module) -> list[int]:
    """Channels of the input: of the first convolution, else of images."""
    convs = (m.in_channels for m in model.modules() if isinstance(m, CONVS))
    return list(dict.fromkeys([*([first] if (first := next(convs, 0)) else []), 3, 1]))


def kind_of(module: nn.Module) -> str:
    """The kind of a leaf layer; '' for anything else."""
    if isinstance(module, CONVS) or any(c.__name__ == "CondConv2d" for c in type(module).__mro__):
        return "conv"
    if isinstance(module, POOLS):
        return "pool"
    if any(True for _ in module.children()) or isinstance(module, torch.jit.ScriptModule):
        return ""
    return _named(type(module).__name__)


def _named(name: str) -> str:
    low = name.lower()
    if any(word in low for word in NORMS):
        return "norm"
    return "activation" if any(word in low for word in ACTIVATIONS) else ""


def _run(skeleton: nn.Module, inputs: Sequence[Any]) -> Recording:
    weight = next((p for p in skeleton.parameters() if p.is_floating_point()), torch.empty(0))
    seen = _Seen()
    for path, module in skeleton.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # takes no hooks
            seen.opaque = True
            continue
        module.register_forward_pre_hook(seen.enter(path, kind_of(module)), with_kwargs=True)
        module.register_forward_hook(seen.leave(path, kind_of(module)), with_kwargs=True)
    given = [_on_meta(x, weight.dtype) if isinstance(x, Tensor) else x for x in inputs]
    with torch.no_grad(), seen:
        output = skeleton(*given)
    seen.note(Call("", "other", "return", True, []), output, ())
    return Recording(seen.calls, seen.opaque)


def _on_meta(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An input without values, in the precision of the weights."""
    return torch.empty(x.shape, dtype=dtype if x.is_floating_point() else x.dtype, device="meta")


class _Seen(TorchFunctionMode):
    """Notes calls while the network runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.made: dict[int, int] = {}  # id of a tensor -> number of the call that made it
        self.kept: list[Any] = []  # so that no id is used twice
        self.paths: list[str] = []
        self.inside = 0  # of leaf layers
        self.opaque = False

    def enter(self, path: str, kind: str) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            self.paths.append(path)
            self.inside += bool(kind)
            self.kept.append((args, kwargs))

        return hook

    def leave(self, path: str, kind: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self.paths.pop()
            self.inside -= bool(kind)
            if kind and not self.inside:
                call = Call(path, kind, type(module).__name__, True, [], args=args, kwargs=kwargs)
                if kind == "conv" and isinstance(module.weight, Tensor):
                    call.weights = module.weight.shape[1:].numel()
                self.note(call, (args, kwargs), output)

        return hook

    def note(self, call: Call, given: Any, made: Any) -> None:
        """Add a call to the list."""
        self.kept.append((given, made))
        inputs = [t for t in tree_leaves(given) if isinstance(t, Tensor)]
        outputs = [t for t in tree_leaves(made) if isinstance(t, Tensor)]
        call.reads = list(dict.fromkeys(self.made[id(t)] for t in inputs if id(t) in self.made))
        call.given, call.made = next(iter(inputs), None), next(iter(outputs), None)
        self.made |= {id(t): len(self.calls) for t in outputs}
        self.calls.append(call)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.inside or not any(isinstance(t, Tensor) for t in tree_leaves(result)):
            return result
        name = getattr(func, "__name__", "")
        if name.rstrip("_") in THROUGH and any(result is t for t in args):
            return result
        path = self.paths[-1] if self.paths else ""
        call = Call(path, _named(name) or "other", name, False, [], args=args, kwargs=kwargs)
        self.note(call, (args, kwargs), result)
        return result
