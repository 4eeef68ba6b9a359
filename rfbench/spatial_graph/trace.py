"""Trace the operations of one forward pass, on the meta device, without touching a weight.

The pass runs on a skeleton of the module: the same Python objects with every tensor replaced by a
meta tensor. Functionalisation (torch.func.functionalize) turns in-place operations and writes to
views into plain ones, so the trace is a pure data flow.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from rfbench.errors import RfbenchError, UsageError
from rfbench.spatial_graph.skeleton import skeleton
from rfbench.spatial_graph.structure import named_tensors
from rfbench.spatial_graph.watch import Watch


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

    inputs, outputs: numbers of tensors; outputs by name: 'output', or 'output.aux', 'output.0'.
    shapes: the shape of every tensor by number. layers: module path -> number of its output, in
    order of execution; '#2' marks a second call of the same module, '.0' or '.aux' one of several
    outputs. fixed: by number, the values of registered buffers (BlurPool's kernel) and of tensors
    that the forward pass makes. recurrent: names of LSTM, GRU and RNN layers. size: (H, W) of the
    first input. forward: all operations, timm's classifiers included; None where one refused the
    size. failure: why the pass ended before its output. sized: the number of operations before the
    network's code first learnt a size; None: it never did. feature_maps: whether the outputs are
    the maps of a backbone, from first to last (timm's features_only).
    """

    size: tuple[int, int]
    inputs: list[int] = field(default_factory=list)
    outputs: dict[str, int] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    forward: list[Op] | None = None
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    fixed: dict[int, Tensor] = field(default_factory=dict)
    recurrent: set[str] = field(default_factory=set)
    failure: RfbenchError | None = None
    sized: int | None = None
    feature_maps: bool = False


@dataclass(frozen=True)
class _Trunk:
    """Where timm's `forward_features` ended: operations, layers and outputs so far."""

    ops: int
    layers: int
    outputs: dict[str, int]


class _Tracer(TorchDispatchMode):
    """Writes every operation on tensors into the trace, with the layer that called it."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.stack: list[str] = []
        self.calls: Counter[str] = Counter()  # of modules so far
        self.trunk: _Trunk | None = None
        self.watch = Watch(self.sized)
        self.weights: set[int] = set()  # the memory of those that are not on meta: scripted layers
        self._sharing: dict[int, list[int]] = defaultdict(list)  # numbers by their memory
        self._ids: dict[int, int] = {}
        self.alive: list[Tensor] = []  # an id() is only unique while its tensor lives

    def sized(self) -> None:
        """The network's code may have learnt a size."""
        if self.trace.sized is None:
            self.trace.sized = len(self.trace.ops)

    def named(self, value: Any, name: str) -> dict[str, int]:
        """The numbers of the tensors that a module returned, by name."""
        outer, self.watch.inside = self.watch.inside, True
        try:
            with torch._C.DisableTorchFunction():
                return {k: self.number(_inner(t)) for k, t in named_tensors(value, name).items()}
        finally:
            self.watch.inside = outer

    def restart(self) -> None:
        """Forget the operations and layers so far."""
        held = (self.trace.ops, self.trace.layers, self.trace.outputs, self.calls, self.stack)
        for kept in held:
            kept.clear()
        self.trunk, self.trace.sized = None, None

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
        if not self.watch.inside:  # scripted code, whose control flow nobody sees
            self.sized()
        with torch._C.DisableTorchFunction():
            return self._record(func, args, kwargs or {})

    def _record(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        out = _run(func, args, kwargs)
        layer = self.stack[-1] if self.stack else ""
        op = Op(func, self._refs(args), self._refs(kwargs), self._refs(out), layer)
        if func._schema.is_mutable and torch.Tag.inplace_view not in func.tags:
            op.written = self._written(func, args, kwargs)
        self.trace.ops.append(op)
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

    The first convolution may stand behind a space-to-depth: `inputs.choose_channels` tries.
    """
    if isinstance(config := getattr(module, "default_cfg", None), dict):
        return config["input_size"][0]
    convs = (m for m in module.modules() if isinstance(m, nn.Conv2d))
    return next((c.in_channels for c in convs), 3)


Shape = tuple[int, int, int]  # (C, H, W) of an input, without the batch


def trace_module(
    module: nn.Module,
    size: tuple[int, int],
    channels: int | None = None,
    inputs: Sequence[Shape] | None = None,
) -> Trace:
    """Trace one forward pass of `module` on an input of 1 x channels x H x W.

    size: (H, W) in pixels. channels: of the input; as `input_channels` says when None. inputs: the
    shapes of several inputs, in place of both.

    A pass that fails behind a layer is traced as far as it went; `Trace.failure` says why. Raises
    UsageError where the input does not fit the network, RfbenchError where it fails at once.
    """
    copied, buffers = skeleton(module)
    shapes = list(inputs or [(channels or input_channels(module), *size)])
    trace = Trace(shapes[0][1:], feature_maps=hasattr(module, "feature_info"))
    tracer = _Tracer(trace)
    tracer.weights = {_memory(p) for p in copied.parameters() if not p.is_meta}
    _watch(copied, tracer)
    trace.recurrent = {n for n, m in copied.named_modules() if isinstance(m, nn.RNNBase)}
    dtype = next((p.dtype for p in copied.parameters() if p.is_floating_point()), torch.float32)

    try:
        with torch.no_grad(), tracer:
            images = [torch.empty((1, *shape), dtype=dtype, device="meta") for shape in shapes]
            with tracer.watch:
                _functional(_forward(copied, tracer), tracer)(*images)
        trace.forward = trace.ops
    except Exception as error:
        if tracer.trunk is None:  # else the classifier insists on another size than the map
            trace.failure = _explain(module, shapes, tracer, error)
            if not trace.layers:
                raise trace.failure from error
    if tracer.trunk is not None and _is_classifier(trace, tracer.trunk):
        _cut(trace, tracer.trunk)
    alive = tracer.alive
    trace.fixed |= {i: buffers[id(t)] for i, t in enumerate(alive) if id(t) in buffers}
    return trace


def _forward(module: nn.Module, tracer: _Tracer) -> Callable[..., None]:
    """A forward pass that notes its inputs, its outputs, and where timm's features end."""
    trace, run = tracer.trace, trunk(module)

    def features(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        own = list(tracer.named(x, "").values()) == trace.inputs  # the image itself, not a stem's
        out = run(x, *args, **kwargs)
        if own and tracer.trunk is None:
            held = tracer.named(out, "output")
            tracer.trunk = _Trunk(len(trace.ops), len(trace.layers), held)
        return out

    def forward(*images: Tensor) -> None:
        trace.inputs = list(tracer.named(images, "").values())
        trace.sized = None  # so far, only torch's own code ran
        if run is not module and not isinstance(module, torch.jit.ScriptModule):
            vars(module)["forward_features"] = features  # also where it is a submodule
        trace.outputs = tracer.named(module(*images), "output")

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


def _is_classifier(trace: Trace, end: _Trunk) -> bool:
    """Whether what follows timm's features makes vectors of them, or failed to."""
    if not trace.outputs:
        return True
    seen = set(end.outputs.values())
    for op in trace.ops[end.ops :]:
        leaves = tree_leaves((op.args, op.kwargs))
        if any(isinstance(leaf, Ref) and leaf.id in seen for leaf in leaves):
            seen |= {leaf.id for leaf in tree_leaves(op.out) if isinstance(leaf, Ref)}
    vectors = all(len(trace.shapes[i]) <= 2 for i in trace.outputs.values())
    return vectors and not seen.isdisjoint(trace.outputs.values())


def _cut(trace: Trace, end: _Trunk) -> None:
    """Leave out what follows timm's features."""
    trace.ops = trace.ops[: end.ops]
    trace.layers = dict(list(trace.layers.items())[: end.layers])
    trace.outputs = end.outputs


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
            n = tracer.calls[name]
            label = name if n == 1 else f"{name}#{n}"
            for own, number in tracer.named(out, label).items():
                # the first output of `enc` is `enc.0`, unless that is a module of its own
                taken = own != label and own in modules
                key = f"{label}.output{own.removeprefix(label)}" if taken else own
                tracer.trace.layers[key] = number

        return hook

    modules = dict(module.named_modules())
    for name, child in module.named_modules():
        if name and not isinstance(child, torch.jit.ScriptModule):  # which takes no hooks
            child.register_forward_pre_hook(enter(name), prepend=True)
            child.register_forward_hook(leave(name))


def _explain(
    module: nn.Module, shapes: Sequence[Shape], tracer: _Tracer, error: Exception
) -> RfbenchError:
    """One line for an error inside the network: what, where, what to do."""
    where = f" in layer {tracer.stack[-1]}" if tracer.stack else ""
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    given = " and ".join(f"{c} x {h}x{w}" for c, h, w in shapes)
    what = f"{type(module).__name__} fails on an input of {given}{where}: {reason}"
    if any(word in reason.lower() for word in _SIZE_WORDS):
        return UsageError(f"{what}. Choose another --size.")
    if "meta" in reason or "data-dependent" in reason:
        what += ". Its control flow depends on values; a trace has shapes only"
    if "required positional argument" in reason:
        what += ". Give the shape of each input with --input (in Python: inputs=)"
    return RfbenchError(what)


_SIZE_WORDS = ("too small", "kernel size", "input size", "match model", "height", "padding size")
