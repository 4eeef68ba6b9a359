"""What a traced pass is as data, and the mode that writes it down, operation by operation."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from rfbench.errors import RfbenchError
from rfbench.spatial_graph.structure import named_tensors
from rfbench.spatial_graph.watch import Watch, check_batch


@dataclass(frozen=True)
class Ref:
    """A tensor among the arguments or results of an operation: its number in the trace."""

    id: int


def plain_name(op: str) -> str:
    """An operation without namespace and overload: 'aten.add_.Tensor' and 'mylib.add' are 'add'."""
    return op.partition(".")[2].partition(".")[0].strip("_") or op


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
    that the forward pass makes. recurrent: names of LSTM, GRU and RNN layers. size: of the first
    input, along every axis. forward: all operations, timm's classifiers included; None where one
    refused the size. failure: why the pass ended before its output. sized: the number of operations
    before the network's code first learnt a size; None: it never did. feature_maps: whether the
    outputs are the maps of a backbone, from first to last (timm's features_only).
    """

    size: tuple[int, ...]
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


_CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten._convolution)


@dataclass(frozen=True)
class Trunk:
    """Where timm's `forward_features` ended: operations, layers and outputs so far."""

    ops: int
    layers: int
    outputs: dict[str, int]


class Tracer(TorchDispatchMode):
    """Writes every operation on tensors into the trace, with the layer that called it."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace
        self.stack: list[str] = []
        self.calls: Counter[str] = Counter()  # of modules so far
        self.trunk: Trunk | None = None
        self.watch = Watch(self.sized)
        self.weights: set[int] = set()  # the memory of those that are not on meta: scripted layers
        self.refused: RfbenchError | None = None  # why scripted code was stopped
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
                return {k: self.number(inner(t)) for k, t in named_tensors(value, name).items()}
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
            if not tensor.is_meta and memory(tensor) not in self.weights:
                self.trace.fixed[len(self.alive)] = tensor
            self._sharing[memory(tensor)].append(len(self.alive))
            self.alive.append(tensor)
        return self._ids[id(tensor)]

    def _refs(self, tree: Any) -> Any:
        return tree_map_only(Tensor, lambda t: Ref(self.number(t)), tree)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if not self.watch.inside:  # scripted code, whose control flow nobody sees
            self.sized()
            if func.overloadpacket in _CONVOLUTIONS:
                self._check_batch(args)
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

    def _check_batch(self, args: tuple) -> None:
        """Refuse what scripted code convolves without a batch, as `Watch` does in Python code."""
        last = self.trace.ops[-1] if self.trace.ops else None
        if last is None or last.name != "aten.unsqueeze.default" or last.args[1] != 0:
            return
        if last.out == Ref(self.number(args[0])):
            shape = self.trace.shapes[last.args[0].id]
            try:
                check_batch(args[1].dim() - 2, shape, self.watch.shape)
            except RfbenchError as error:  # of which the interpreter would tell nothing
                self.refused = error
                raise

    def _written(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[int, ...]:
        """Every tensor so far that shares memory with one the operation writes to."""
        schema = func._schema.arguments
        given = dict(zip((s.name for s in schema), args, strict=False)) | kwargs
        marked = [given.get(s.name) for s in schema if s.alias_info and s.alias_info.is_write]
        targets = [t for t in tree_leaves(marked) if isinstance(t, Tensor)]
        return tuple(i for t in targets for i in self._sharing[memory(t)])


def memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One operation; tensors that the network made without a device join those on meta."""
    if func.overloadpacket is torch.ops.aten._convolution:  # torch 2.11 has none on meta
        func, args = torch.ops.aten.convolution.default, args[:9]
    try:
        return func(*args, **kwargs)
    except RuntimeError as error:
        if "device" not in str(error):
            raise
        args, kwargs = tree_map_only(Tensor, lambda t: t.to("meta"), (args, kwargs))
        return func(*args, **kwargs)


def inner(tensor: Tensor) -> Tensor:
    """The plain tensor behind functionalisation's wrapper, after pending writes."""
    if torch._is_functional_tensor(tensor):
        torch._sync(tensor)
        tensor = torch._from_functional_tensor(tensor)
    return tensor
