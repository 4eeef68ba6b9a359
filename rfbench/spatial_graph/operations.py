"""A traced pass as data: operations, whose arguments and results are numbered tensors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from rfbench.errors import RfbenchError
from rfbench.spatial_graph.draw import Draw


@dataclass(unsafe_hash=True, slots=True)  # never changed; not frozen, as a Node
class Ref:
    """A tensor among the arguments or results of an operation: its number in the trace."""

    id: int


def refs(tree: Any) -> list[Ref]:
    """The tensors among arguments or results, in their order."""
    found: list[Ref] = []
    _gather(tree, found)
    return found


def _gather(tree: Any, found: list[Ref]) -> None:
    kind = type(tree)
    if kind is Ref:
        found.append(tree)
    elif kind is tuple or kind is list:
        for part in tree:
            if type(part) not in ATOMS:
                _gather(part, found)
    elif kind is dict:
        for part in tree.values():
            if type(part) not in ATOMS:
                _gather(part, found)


ATOMS = {int, float, bool, str, type(None), torch.dtype, torch.device}  # most arguments


def mapped(kind: type, change: Callable[[Any], Any], tree: Any) -> Any:
    """Arguments or results with every item of a class changed.

    An operation has no other containers than lists and tuples, its keywords are a dict.
    """
    form = type(tree)
    if form is tuple or form is list:
        return form([p if type(p) in ATOMS else mapped(kind, change, p) for p in tree])
    if isinstance(tree, kind):
        return change(tree)
    if form is dict:
        return {key: mapped(kind, change, part) for key, part in tree.items()}
    return tree


def plain_name(op: str) -> str:
    """An operation without namespace and overload: 'aten.add_.Tensor' and 'mylib.add' are 'add'."""
    return op.partition(".")[2].partition(".")[0].strip("_") or op


@cache
def name_of(func: Any) -> str:
    """'aten.add.Tensor'."""
    return str(func)


@dataclass
class Op:
    """One operation: its overload, arguments with every tensor as a Ref, results, layer.

    written: the tensors whose memory it writes to, views included; functionalisation leaves these
    only inside of composite operations (circular padding). given, made: the tensors among its
    arguments and its results.
    """

    func: Any
    args: tuple
    kwargs: dict[str, Any]
    out: Any
    layer: str
    written: tuple[int, ...] = ()
    given: list[Ref] = field(init=False, repr=False, compare=False)
    made: list[Ref] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.given = refs((self.args, self.kwargs) if self.kwargs else self.args)
        self.made = [self.out] if type(self.out) is Ref else refs(self.out)

    @property
    def name(self) -> str:
        """'aten.add.Tensor'."""
        return name_of(self.func)


@dataclass
class Trace:
    """A forward pass as a list of operations.

    inputs, outputs: numbers of tensors by name: 'input.0', 'output', 'output.aux', 'output.0'.
    shapes: the shape of every tensor by number. layers: module path -> number of its output, in
    order of execution; '#2' marks a second call of the same module, '.0' or '.aux' one of several
    outputs. fixed: by number, the values of registered buffers (BlurPool's kernel) and of tensors
    that the forward pass makes. places: of tensors that share memory which is written to, by
    number: which memory, the strides there and where it begins. recurrent: by name of LSTM, GRU and
    RNN layers, whether the batch is first and whether they run both ways. size: of the first input,
    along every axis. forward: all operations, timm's classifiers included; None where one refused
    the size. failure: why the pass ended before its output. sized: the number of operations before
    the network's code first learnt a size; None: it never did. feature_maps: whether the outputs
    are the maps of a backbone, from first to last (timm's features_only). random: by number, of
    tensors that were drawn at random or made of such, what drew. chosen: what drew the numbers that
    the network's code has read, with how many operations there were before. kept: what the pass has
    left changed for the next one, such as a counter. others: traces with other draws of what was
    chosen, and of later passes.
    """

    size: tuple[int, ...]
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    forward: list[Op] | None = None
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    fixed: dict[int, Tensor] = field(default_factory=dict)
    places: dict[int, tuple[int, tuple[int, ...], int]] = field(default_factory=dict)
    recurrent: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    failure: RfbenchError | None = None
    sized: int | None = None
    feature_maps: bool = False
    random: dict[int, Draw] = field(default_factory=dict)
    chosen: dict[Draw, int] = field(default_factory=dict)
    kept: Draw | None = None
    others: Callable[[], list["Trace"]] = list
