"""Trace the operations of one forward pass, on the meta device, without touching a weight.

The pass runs on a skeleton of the module: the same Python objects with every tensor replaced by a
meta tensor. Functionalisation (torch.func.functionalize) turns in-place operations and writes to
views into plain ones, so the trace is a pure data flow.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from rfbench.errors import RfbenchError, UsageError
from rfbench.spatial_graph.skeleton import skeleton


@dataclass(frozen=True)
class Ref:
    """A tensor among the arguments or results of an operation: its number in the trace."""

    id: int


@dataclass
class Op:
    """One operation: its overload, arguments with every tensor as a Ref, results, layer.

    written: the tensors whose memory it writes to, views included; functionalisation leaves these
    only inside of composite operations (circular padding).
    """

    func: Any
    args: tuple
    kwargs: dict[str, Any]
    out: Any
    layer: str
    written: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """'aten.add.Tensor'."""
        return str(self.func)


@dataclass
class Trace:
    """A forward pass as a list of operations.

    shapes: the shape of every tensor by number. layers: module path -> number of its output, in
    order of execution; '#2' marks a second call of the same module. fixed: by number, the values of
    registered buffers (BlurPool's kernel) and of tensors that the forward pass makes. recurrent:
    names of LSTM, GRU and RNN layers. size: (H, W) of the input. forward: all operations, timm's
    classifiers included; None where these refused the size.
    """

    size: tuple[int, int]
    input: int = 0
    output: int | None = None
    ops: list[Op] = field(default_factory=list)
    forward: list[Op] | None = None
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    fixed: dict[int, Tensor] = field(default_factory=dict)
    recurrent: set[str] = field(default_factory=set)


class _Tracer(TorchDispatchMode):
    """Writes every operation on tensors into the trace, with the layer that called it."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.stack: list[str] = []
        self.head: list[Op] = []  # behind the output
        self.calls: Counter[str] = Counter()  # of modules so far
        self.weights: set[int] = set()  # the memory of those that are not on meta: scripted layers
        self._sharing: dict[int, list[int]] = defaultdict(list)  # numbers by their memory
        self._ids: dict[int, int] = {}
        self.alive: list[Tensor] = []  # an id() is only unique while its tensor lives

    def restart(self) -> None:
        """Forget the operations and layers so far."""
        for held in (self.trace.ops, self.trace.layers, self.head, self.calls, self.stack):
            held.clear()

    def number(self, tensor: Tensor) -> int:
        if id(tensor) not in self._ids:
            self._ids[id(tensor)] = len(self.alive)
            self.trace.shapes[len(self.alive)] = tuple(tensor.shape)
            if not tensor.is_meta and _memory(tensor) not in self.weights:
                self.trace.fixed[len(self.alive)] = tensor
            self._sharing[_memory(tensor)].append(len(self.alive))
            self.alive.append(tensor)
        return self._ids[id(tensor)]

    def _refs(self, tree: Any) -> Any:
        return tree_map_only(Tensor, lambda t: Ref(self.number(t)), tree)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = _run(func, args, kwargs or {})
        layer = self.stack[-1] if self.stack else ""
        op = Op(func, self._refs(args), self._refs(kwargs or {}), self._refs(out), layer)
        if func._schema.is_mutable and torch.Tag.inplace_view not in func.tags:
            op.written = self._written(func, args, kwargs or {})
        (self.trace.ops if self.trace.output is None else self.head).append(op)
        return out

    def _written(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[int, ...]:
        """Every tensor so far that shares memory with one the operation writes to."""
        schema = func._schema.arguments
        given = dict(zip((s.name for s in schema), args, strict=False)) | kwargs
        marked = [given.get(s.name) for s in schema if s.alias_info and s.alias_info.is_write]
        targets = [t for t in tree_leaves(marked) if isinstance(t, Tensor)]
        return tuple(i for t in targets for i in self._sharing[_memory(t)])


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One operation; tensors that the network made without a device join those on meta."""
    try:
        return func(*args, **kwargs)
    except RuntimeError as error:
        if "device" not in str(error):
            raise
        args, kwargs = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs))
        return func(*args, **kwargs)


def trunk(module: nn.Module) -> Callable[[Tensor], Any]:
    """What is run: `forward_features` where the module has one (timm: without the classifier)."""
    features = getattr(module, "forward_features", None)
    return features if callable(features) else module


def input_channels(module: nn.Module) -> int:
    """Channels of the input: as timm's networks say, else those of the first convolution, else 3.

    The first convolution may stand behind a space-to-depth, so that it is not always right.
    """
    if isinstance(config := getattr(module, "default_cfg", None), dict):
        return config["input_size"][0]
    convs = (m for m in module.modules() if isinstance(m, nn.Conv2d))
    return next((c.in_channels for c in convs), 3)


def trace_module(module: nn.Module, size: tuple[int, int], channels: int | None = None) -> Trace:
    """Trace one forward pass of `module` on an input of 1 x channels x H x W.

    size: (H, W) in pixels. channels: of the input; as `input_channels` says when None.

    Raises UsageError where the input does not fit the network, RfbenchError where the network
    itself fails.
    """
    copied, buffers = skeleton(module)
    trace = Trace(size)
    tracer = _Tracer(trace)
    tracer.weights = {_memory(p) for p in copied.parameters() if not p.is_meta}
    _watch(copied, tracer)
    trace.recurrent = {n for n, m in copied.named_modules() if isinstance(m, nn.RNNBase)}
    shape = (1, channels or input_channels(module), *size)
    dtype = next((p.dtype for p in copied.parameters() if p.is_floating_point()), torch.float32)

    try:
        with torch.no_grad(), tracer, _CircularPadding():
            x = torch.empty(shape, dtype=dtype, device="meta")
            _functional(_forward(copied, tracer), tracer)(x)
    except RfbenchError:
        raise
    except Exception as error:
        if trace.output is None:  # else the classifier insists on another size than the map
            raise _explain(module, shape, tracer, error) from error
    alive = tracer.alive
    trace.fixed |= {i: buffers[id(t)] for i, t in enumerate(alive) if id(t) in buffers}
    return trace


def _forward(module: nn.Module, tracer: _Tracer) -> Callable[[Tensor], None]:
    """A forward pass that notes where the input and the features are."""
    trace, run = tracer.trace, trunk(module)

    def features(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = run(x, *args, **kwargs)
        tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        trace.output = tracer.number(_inner(tensors[0])) if tensors else None
        return out

    def forward(x: Tensor) -> None:
        trace.input = tracer.number(_inner(x))
        if run is module:
            features(x)
        else:
            vars(module)["forward_features"] = features  # also where it is a submodule
            module(x)
        trace.forward = trace.ops + tracer.head
        if trace.output is None:  # the features are not a part of it
            trace.ops = []
            trace.layers.clear()
            tracer.calls.clear()
            features(x)

    return forward


def _functional(forward: Callable[..., None], tracer: _Tracer) -> Callable[..., None]:
    """A pass under functionalisation; without it where that is refused.

    It does not take an autograd.Function without setup_context, nor a write to a weight. Without
    it, whatever a write to a view reaches is opaque (Op.written).
    """

    def run(*images: Tensor) -> None:
        try:
            torch.func.functionalize(forward)(*images)
        except RuntimeError as error:
            if not any(word in str(error) for word in _REFUSED):
                raise
            tracer.restart()
            forward(*images)

    return run


_REFUSED = ("setup_context", "custom_function_call", "mutating a non-functional tensor")


class _CircularPadding(TorchFunctionMode):
    """Circular padding as a choice of positions: torch's own writes to views out of our sight."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not nn.functional.pad or "circular" not in (*args, *kwargs.values()):
            return func(*args, **kwargs)
        x, amounts = (*args, *kwargs.values())[:2]
        for i in range(0, len(amounts), 2):
            n, (before, after) = x.shape[-1 - i // 2], amounts[i : i + 2]
            x = x.index_select(-1 - i // 2, torch.arange(-before, n + after, device="cpu") % n)
        return x


def _inner(tensor: Tensor) -> Tensor:
    """The plain tensor behind functionalisation's wrapper, after pending writes."""
    if torch._is_functional_tensor(tensor):
        torch._sync(tensor)
        tensor = torch._from_functional_tensor(tensor)
    return tensor


def _watch(module: nn.Module, tracer: _Tracer) -> None:
    """Tell the tracer which layer is running, and what each returned."""

    def enter(name: str) -> Callable:
        def hook(*_: Any) -> None:
            tracer.stack.append(name)

        return hook

    def leave(name: str) -> Callable:
        def hook(_module: nn.Module, _args: Any, out: Any) -> None:
            tracer.stack.pop()
            tracer.calls[name] += 1
            if isinstance(out, Tensor) and tracer.trace.output is None:
                n = tracer.calls[name]
                label = name if n == 1 else f"{name}#{n}"
                tracer.trace.layers[label] = tracer.number(_inner(out))

        return hook

    for name, child in module.named_modules():
        if name and not isinstance(child, torch.jit.ScriptModule):  # which takes no hooks
            child.register_forward_pre_hook(enter(name), prepend=True)
            child.register_forward_hook(leave(name))


def _explain(
    module: nn.Module, shape: tuple[int, ...], tracer: _Tracer, error: Exception
) -> RfbenchError:
    """One line for an error inside the network: what, where, what to do."""
    where = f" in layer {tracer.stack[-1]}" if tracer.stack else ""
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    size = f"{shape[2]}x{shape[3]}"
    what = f"{type(module).__name__} fails on an input of {shape[1]} x {size}{where}: {reason}"
    if any(word in reason.lower() for word in _SIZE_WORDS):
        return UsageError(f"{what}. Choose another --size.")
    if "meta" in reason:
        what += ". Its control flow depends on values; a trace has shapes only"
    return RfbenchError(what)


_SIZE_WORDS = ("too small", "kernel size", "input size", "match model", "height", "padding size")
