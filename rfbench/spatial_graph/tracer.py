"""The mode that writes a pass down, operation by operation."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rfbench.errors import RfbenchError
from rfbench.spatial_graph import direct, results
from rfbench.spatial_graph.constants import LIKE, Constants, is_like
from rfbench.spatial_graph.draw import Draw
from rfbench.spatial_graph.draws import HIGHEST, LOWEST, TRIES, draws
from rfbench.spatial_graph.kept import Kept
from rfbench.spatial_graph.operations import ATOMS, Op, Ref, Trace, mapped, name_of
from rfbench.spatial_graph.overlap import memory, overlap
from rfbench.spatial_graph.skeleton import Buffers
from rfbench.spatial_graph.structure import named_tensors
from rfbench.spatial_graph.watch import Watch, check_batch
from rfbench.spatial_graph.writing import kinds, traits_of, twin_of

_CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten._convolution)


@dataclass(frozen=True)
class Trunk:
    """Where timm's `forward_features` ended: operations, layers and outputs so far."""

    ops: int
    layers: int
    outputs: dict[str, int]


class NotPure(BaseException):
    """A pass has to be made under functionalisation. No Exception, which networks might catch."""


class Tracer(TorchDispatchMode):
    """Writes every operation on tensors into the trace, with the layer that called it.

    pure: whether an in-place operation on a tensor that shares its memory with no other is written
    down as the operation that makes a new tensor, which it then stands for. mutated: by name, what
    wrote in place to anything else; the trace is of use only if functionalisation does not take
    the network. draw: which of several traces this is, of a network that draws at random.
    """

    def __init__(self, trace: Trace, pure: bool = False, draw: int = 0) -> None:
        super().__init__()
        self.trace = trace
        self.pure = pure
        self.draw = draw
        self.mutated = ""
        self.stack: list[str] = []
        self.calls: Counter[str] = Counter()  # of modules so far
        self.trunk: Trunk | None = None
        self.parts: dict[str, nn.Module] = {}  # the modules by name
        self.kept: Kept | None = None  # what they held before the pass
        self.watch = Watch(self.sized, self.values, self.direct)
        self.buffers: Buffers = {}  # values of the registered ones
        self.weights: set[int] = set()  # the memory of those that are not on meta: scripted layers
        self.refused: RfbenchError | None = None  # why scripted code was stopped
        self.failed: tuple[str, Exception] | None = None  # the last operation that did
        self.returned = ""  # what the network did, in words
        self._sharing: dict[int, list[int]] = defaultdict(list)  # numbers by their memory
        self._ids: dict[int, int] = {}
        self._refs: list[Ref] = []
        self._made: set[int] = set()  # numbers of inputs and results
        self._drawn: dict[int, Tensor | None] = {}  # values of random tensors by number
        self.alive: list[Tensor] = []  # an id() is only unique while its tensor lives

    def sized(self) -> None:
        """The network's code may have learnt a size."""
        if self.trace.sized is None:
            self.trace.sized = len(self.trace.ops)

    def values(self, tensor: Tensor) -> Tensor | None:
        """Those of a tensor on meta that are known without weights and the input."""
        tensor = inner(tensor)
        number = self._ids.get(id(tensor))
        if number in self.trace.random:
            return self._drawn_values(tensor, number)
        number = number if tensor.is_meta else None
        _, known = self.buffers.get(id(tensor), (None, None))
        if number is not None:
            with torch._C._DisableTorchDispatch():  # what is made here is no part of the pass
                known = Constants(self.trace).values(Ref(number))
        return None if known is None or known.is_meta else known

    def _drawn_values(self, tensor: Tensor, number: int) -> Tensor | None:
        """Those of a random tensor, in this draw; the network's code reads them as numbers."""
        self.chooses(self.trace.random[number], len(self.trace.ops))
        extreme = self.draw in (LOWEST, HIGHEST)
        if not (tensor.is_meta or extreme):
            return tensor
        constants = Constants(self.trace)
        tried: list[tuple[float, int, Tensor, dict[int, Tensor | None]]] = []
        for _ in range(TRIES if extreme else 1):
            known = dict(self._drawn)
            if (value := constants.drawn(Ref(number), known)) is None:
                return None if tensor.is_meta else tensor
            tried.append((float(value.sum()), len(tried), value, known))
        _, _, value, self._drawn = (max if self.draw == HIGHEST else min)(tried)
        return value

    def chooses(self, source: Draw, step: int = 0) -> None:
        """The network's code has read a number that was drawn, after some operations."""
        self.trace.chosen.setdefault(source, step)

    def named(self, value: Any, name: str) -> dict[str, int]:
        """The numbers of the tensors that a module returned, by name."""
        if type(value) is Tensor and (known := self._ids.get(id(value))) is not None:
            return {name: known}
        outer, self.watch.inside = self.watch.inside, True
        try:
            with torch._C.DisableTorchFunction():
                tensors = {name: value} if type(value) is Tensor else named_tensors(value, name)
                plain = {k: t for k, t in tensors.items() if not _is_batched(t)}
                return {k: self.number(inner(t)) for k, t in plain.items()}
        finally:
            self.watch.inside = outer

    @property
    def written(self) -> set[int]:
        """The tensors whose memory was written to, by id()."""
        return {id(self.alive[i]) for op in self.trace.ops for i in op.written}

    def restart(self) -> None:
        """Forget the operations and layers so far."""
        trace = self.trace
        held: list[Any] = [trace.ops, trace.layers, trace.outputs, self.calls, self.stack]
        for kept in held:
            kept.clear()
        self.trunk, self.trace.sized = None, None
        self.trace.random.clear()

    def number(self, tensor: Tensor) -> int:
        number = self._ids.get(id(tensor))
        return self._new(tensor) if number is None else number

    def _new(self, tensor: Tensor) -> int:
        """The next number, from now on that of a tensor."""
        number = self._ids[id(tensor)] = len(self.alive)
        self.trace.shapes[number] = tuple(tensor.shape)
        at = memory(tensor)
        if not tensor.is_meta and at not in self.weights:
            self.trace.fixed[number] = tensor
        elif id(tensor) in self.buffers:
            _, self.trace.fixed[number] = self.buffers[id(tensor)]
        self._sharing[at].append(number)
        self.alive.append(tensor)
        self._refs.append(Ref(number))
        return number

    def _given(self, tensor: Tensor) -> Ref:
        """An argument. One that no operation made may share memory with a result (x.data)."""
        number = self._ids.get(id(tensor))
        if number is None:
            if not self._made.isdisjoint(self._sharing[memory(tensor)]):
                self._note_mutation("an alias")
            number = self._new(tensor)
        return self._refs[number]

    def _made_now(self, tensor: Tensor) -> Ref:
        """A result."""
        number = self.number(tensor)
        self._made.add(number)
        return self._refs[number]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if not self.watch.inside:  # scripted code, whose control flow nobody sees
            self.sized()
            if func.overloadpacket in _CONVOLUTIONS:
                self._check_batch(args)
        with torch._C.DisableTorchFunction():
            return self._record(func, args, kwargs or {})

    def direct(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Tensor | None:
        """What a call returns whose operation and result are known; None: it has to be made."""
        if not self.pure or (call := direct.operation(func, args, kwargs)) is None:
            return None
        op, given = call
        with torch._C._DisableTorchDispatch():  # what is made here is no part of the pass
            writes = traits_of(op).writes
            out = results.known(twin_of(op) if writes else op, given, {})
            if out is not None and writes:
                twin = self._twin(op, given, {})
                return twin and self._replace(twin, given, {})
            if out is not None:
                self._note(op, given, {}, out)
        return out if out is None or type(out) is Tensor else out[0]

    def _record(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        written: tuple[int, ...] = ()
        if func is torch.ops.aten.index.Tensor:
            args = args[0], [place for table in args[1] for place in self._places(table)]
        traits = traits_of(func)
        if traits.views_in_place and func is not torch.ops.aten.as_strided_.default:
            return self._review(func, args, kwargs)
        if traits.mutable:
            if self.pure and (twin := self._twin(func, args, kwargs)):
                return self._replace(twin, args, kwargs)
            self._note_write(func)
        try:
            out = _run(func, args, kwargs)
        except Exception as error:
            self.failed = name_of(func), error
            raise
        if traits.writes:
            written = self._written(func, args, kwargs)
        self._note(func, args, kwargs, out, written)
        return out

    def _places(self, table: Tensor | None) -> tuple[Tensor | None, ...]:
        """A table of positions; in place of a mask whose values are known, those that it keeps."""
        mask = table is not None and table.is_meta and table.dtype is torch.bool
        known = self.values(table) if table is not None and mask else None
        if known is None:
            return (table,)
        with torch._C._DisableTorchDispatch():  # no part of the pass
            return known.nonzero(as_tuple=True)

    def _note(
        self, func: Any, args: tuple, kwargs: dict, out: Any, written: tuple[int, ...] = ()
    ) -> None:
        """Write an operation down."""
        given = self._all_given(args, kwargs)
        made = self._made_now(out) if type(out) is Tensor else mapped(Tensor, self._made_now, out)
        self._append(Op(func, *given, made, self.layer, written))

    def _append(self, op: Op) -> None:
        """Add an operation to the trace, and follow what is drawn at random."""
        self.trace.ops.append(op)
        known = self.trace.random
        source = Draw(op.name, op.layer) if draws(op) else None
        if known and source is None and not is_like(op):
            source = next((known[r.id] for r in op.given if r.id in known), None)
        if source is not None:
            known |= dict.fromkeys([*op.written, *(r.id for r in op.made)], source)
            if not op.made:
                self.chooses(source, len(self.trace.ops))

    @property
    def layer(self) -> str:
        """The layer that is running."""
        return self.stack[-1] if self.stack else ""

    def _all_given(self, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Arguments, with every tensor as a Ref."""
        noted = []
        for part in args:
            kind = type(part)
            if kind is Tensor or kind is nn.Parameter:
                part = self._given(part)
            elif kind not in ATOMS:
                part = mapped(Tensor, self._given, part)
            noted.append(part)
        return tuple(noted), mapped(Tensor, self._given, kwargs) if kwargs else {}

    def _note_write(self, func: Any) -> None:
        if func is not torch.ops.aten.as_strided_.default:  # functionalisation has it as it is
            self._note_mutation(name_of(func))

    def _note_mutation(self, what: str) -> None:
        """Also stops a pass that was to do without functionalisation: it is of no use."""
        self.mutated = self.mutated or what
        if self.pure:
            raise NotPure

    def _twin(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The operation that returns what this one writes; None where others may see the write."""
        twin, x = twin_of(func), args[0] if args else None
        if twin is None or not isinstance(x, Tensor) or not x.is_meta or not self._is_own(x):
            return None
        out = _run(twin, args, kwargs)
        return twin if out.shape == x.shape and out.dtype == x.dtype else None

    def _is_own(self, tensor: Tensor) -> bool:
        """Whether an operation has made it, and nothing else shares its memory."""
        number = self.number(tensor)
        return number in self._made and self._sharing[memory(tensor)] == [number]

    def _replace(self, twin: Any, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        """Write an in-place operation down as the one that makes a new tensor."""
        given = self._all_given(args, kwargs)
        x: Tensor = args[0]
        self._sharing[memory(x)].clear()
        number = self._new(x)
        self._made.add(number)
        self._append(Op(twin, *given, self._refs[number], self.layer))
        return x

    def _review(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        """Write a view in place (squeeze_) down as one, which the tensor from now on stands for."""
        given = self._all_given(args, kwargs)
        func(*args, **kwargs)
        packet = getattr(torch.ops.aten, str(func).split(".")[1].removesuffix("_"))
        every = [getattr(packet, name) for name in packet.overloads()]
        twin = next(f for f in every if kinds(f) == kinds(func))
        number = self._new(args[0])
        self._made.add(number)
        self._append(Op(twin, *given, self._refs[number], self.layer))
        return args[0]

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
        """Every tensor so far that shares memory with what the operation writes to.

        Parts of one tensor that do not overlap, such as the gates of an LSTM cell, do not.
        """
        schema = func._schema.arguments
        given = dict(zip((s.name for s in schema), args, strict=False)) | kwargs
        marked = [given.get(s.name) for s in schema if s.alias_info and s.alias_info.is_write]
        targets = [t for t in tree_leaves(marked) if isinstance(t, Tensor)]
        for target in targets:
            self.number(target)  # a buffer that nothing has read yet
        near = [(t, i) for t in targets for i in self._sharing[memory(t)]]
        for target, i in near:
            held = self.alive[i]
            self.trace.places[i] = memory(target), held.stride(), int(held.storage_offset())
        return tuple(i for t, i in near if overlap(t, self.alive[i]))


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """One operation; tensors that the network made without a device join those on meta.

    So do those that are written to, which torch would leave where they are; and nothing leaves it.
    """
    if func.overloadpacket is torch.ops.aten._convolution:  # torch 2.11 has none on meta
        func, args = torch.ops.aten.convolution.default, args[:9]
    if func is torch.ops.aten._to_copy.default and args[0].is_meta:
        kwargs = kwargs | {"device": args[0].device}
    out = results.known(func, args, kwargs)
    if out is not None:
        return out
    try:
        out = func(*args, **kwargs)
    except RuntimeError as error:
        if not any(word in str(error) for word in ("device", "copy out of meta tensor")):
            raise
        args, kwargs = mapped(Tensor, lambda t: t.to("meta"), (args, kwargs))
        return func(*args, **kwargs)
    if isinstance(out, Tensor) and not out.is_meta and func.overloadpacket.__name__ not in LIKE:
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        return out.to("meta") if any(t.is_meta for t in given) else out
    return out


def _is_batched(tensor: Tensor) -> bool:
    """Whether it is one of many, inside of torch.vmap."""
    return torch._C._functorch.is_batchedtensor(tensor)


def inner(tensor: Tensor) -> Tensor:
    """The plain tensor behind functionalisation's wrapper, after pending writes."""
    if torch._is_functional_tensor(tensor):
        torch._sync(tensor)
        tensor = torch._from_functional_tensor(tensor)
    return tensor
