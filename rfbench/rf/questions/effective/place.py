"""The layer that is looked at, and where its units stand: from the trace, or as the user says."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.questions.effective.layout import FORMS, Layout, of_axes, of_tokens, of_value
from rfbench.rf.questions.effective.outputs import output_of, split_name
from rfbench.rf.questions.effective.tokens import tokens
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Witness
from rfbench.spatial_graph.reader import Reader
from rfbench.spatial_graph.trace import trace_module


@dataclass(frozen=True)
class Place:
    """A layer's map.

    name: as in the trace, '' for the network's output. note: what was chosen. features: whether the
    output is timm's features, ahead of its classifier.
    """

    name: str
    layout: Layout
    note: str = ""
    features: bool = False

    @property
    def label(self) -> str:
        """The layer, in words."""
        return self.name or "the output"


class Places:
    """The layouts of a network's layers on one image of each input."""

    def __init__(self, module: nn.Module, images: Sequence[Tensor]) -> None:
        self.module, self.images = module, images
        trace = trace_module(module, (), inputs=[tuple(image.shape[1:]) for image in images])
        self.reader = Reader(trace)
        self.graph: SpatialGraph = self.reader.run()
        self.outputs = trace.outputs
        self.numbers = {**self.outputs, **trace.layers}
        # what timm's classifiers do is no part of what is traced
        self.features = trace.forward is None or len(trace.forward) > len(trace.ops)
        self.tokens = tokens(self.reader)

    def layout(self, number: int | None) -> Layout | None:
        """Where units stand in a traced tensor; None where that is not known."""
        if number is None:
            return None
        value = self.reader.values.get(number)
        if isinstance(value, Value) and len(value.dims) >= 3:
            # a map of one unit has channels only; queries have channels of channels
            if not value.spatial and sum(n > 1 for n in value.shape) > 1:
                return None
            return of_value(value, self.graph.map_size(value))
        if held := self.tokens.get(number):
            return of_tokens(self.reader.trace.shapes[number], *held)
        return None

    def last(self, before: str | None = None) -> str | None:
        """The last layer with a map of several units (before a layer); None: there is none."""
        names = list(self.numbers)
        for name in reversed(names[: names.index(before)] if before in names else names):
            number = self.numbers[name]
            laid = self.layout(number)
            if laid is not None and prod(laid.units) > 1:
                return name
        return None

    def default(self) -> Place:
        """The last map as theory names it; behind attention that of the tokens at the end."""
        graph = self.graph
        graph.check_end()  # raises where there is no telling
        if graph.target:
            return self.named(graph.target)
        if len(self.outputs) > 1:
            names = ", ".join(self.outputs)
            raise UsageError(f"the network has several outputs: choose one with --to, {names}")
        # 'output', or 'output.out' of a dict with one tensor
        name, number = next(iter(self.outputs.items()), ("", None))
        laid = self.layout(number)
        if laid is not None and prod(laid.units) > 1:
            return self._outermost(name)
        last = self.last()
        shape = () if number is None else self.reader.trace.shapes[number]
        if last is not None and len(shape) == 2:  # logits, as behind any classifier's last map
            what = f"the network returns {_by(shape)}, no map: this is its last, {last}"
            return self._outermost(last, what)
        near = f"Its last map is that of {last}: --to {last}" if last else "No layer has one"
        if len(shape) >= 3 and all(image.dim() == 4 for image in self.images):
            near += f". Or say the output's own axes: --to {name} --axes {FORMS}"
        raise UsageError(
            f"the network's output has no known map of units ({self._why(number)}). {near}"
        )

    def named(self, name: str) -> Place:
        """A layer that the user names, or refused with the reason."""
        laid = self.layout(self.numbers.get(name))
        if laid is not None:
            return Place(name, laid, features=self.features and name in self.outputs)
        number, last = self.numbers.get(name), self.last(before=name)
        if number is None:
            what = _returned(output_of(self.module, self.images, name))
            raise UsageError(f"layer '{name}' returns {what}: choose a layer inside of it")
        shape = self.reader.trace.shapes[number]
        if number not in self.reader.values:
            raise UsageError(f"layer '{name}' does not depend on the input")
        if len(shape) < 3:
            near = f" The last map is that of {last}." if last else ""
            raise UsageError(f"layer '{name}' returns {_by(shape)}, no map of units.{near}")
        near = f" (the last that is known: {last})" if last else ""
        raise UsageError(
            f"layer '{name}' returns {_by(shape)}, and which of its axes are rows and columns is "
            f"not known: {self._why(number)}. Choose an earlier layer with --to{near}, or say the "
            f"axes with --axes: {FORMS}"
        )

    def _outermost(self, name: str, note: str = "") -> Place:
        """Of the layers that return the same map the outermost; an output's own name is last."""
        number = self.numbers[name]
        names = [n for n, other in self.numbers.items() if other == number]
        laid = self.layout(number)
        assert laid is not None
        return Place(names[-1], laid, note, self.features and names[-1] in self.outputs)

    def _why(self, number: int | None) -> str:
        witness: Witness = self.graph.witness(
            None if number is None else self.reader.values.get(number)
        )
        return str(witness) if witness.op else "the trace has no rows and columns in it"


def locate(
    module: nn.Module, images: Sequence[Tensor], layer: str | None = None, axes: str | None = None
) -> Place:
    """The layer (the last map when None) and where its units stand, for an image of each input.

    axes: what the user says of the layer's output, such as NHWC; needed only where the trace does
    not tell. Raises UsageError where there is no such layer, or no map in it.
    """
    if layer is not None:
        split_name(module, layer)  # refused here where there is none
    if axes is not None and any(image.dim() != 4 for image in images):
        raise UsageError("--axes is for images; of sequences and volumes the trace tells the axes")
    if axes is not None and layer is None:
        raise UsageError("--axes says the axes of one layer: name it with --to")
    try:
        places = Places(module, images)
    except UsageError:
        raise
    except RfbenchError as error:
        if layer is None or axes is None:
            output_of(module, images, layer or "")  # one that fails on images too says so itself
            raise RfbenchError(
                f"{error}. Name a layer with --to, and its axes with --axes"
            ) from None
        places = None
    if axes is None or layer is None:
        assert places is not None
        return places.default() if layer is None else places.named(layer)
    said = of_axes(axes, _tensor(output_of(module, images, layer), layer))
    traced = places and places.layout(places.numbers.get(layer))
    if traced and not traced.same_as(said):
        h, w = traced.units
        raise UsageError(f"--axes {axes}: the trace says otherwise, {h}x{w} units in {layer}")
    return Place(layer, said)


def _tensor(output: object, layer: str) -> tuple[int, ...]:
    if not isinstance(output, Tensor):
        raise UsageError(f"layer '{layer}' returns {_returned(output)}: choose a layer inside")
    return tuple(output.shape)


def _returned(output: object) -> str:
    """What a layer returned that is no tensor, in words."""
    if isinstance(output, dict):
        return f"a dict of {', '.join(map(str, output))}"
    held = sum(isinstance(leaf, Tensor) for leaf in tree_leaves(output))
    if isinstance(output, list | tuple):
        return f"a {type(output).__name__} of {held} tensors"
    return f"a {type(output).__name__}, no tensor that the trace knows"


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
