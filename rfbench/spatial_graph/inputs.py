"""Which axes and channels the input of a network has, where nobody says: by trying."""

import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError, one_line
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.operations import Trace
from rfbench.spatial_graph.reader import read
from rfbench.spatial_graph.size import Shape, Size, by
from rfbench.spatial_graph.trace import convolutions, input_channels, trace_module

SIDES = {1: 16384, 2: 224, 3: 64}  # of an input where no size is given, by its number of axes


def size_as_fits(module: nn.Module, side: int | None = None, channels: int | None = None) -> Size:
    """The size of an input of as many axes as a network takes, all of them as long.

    As many as its first convolution has. Where others have more or fewer, the network is tried with
    each number in the order of the convolutions; the first that it runs with is taken. side: the
    length; as in SIDES when None. channels: of the input, where they are known. An exported program
    says its input itself.
    """
    if side is None and (own := exported_shape(module)) is not None:
        return own[1:]
    config = getattr(module, "default_cfg", None)
    axes = list(dict.fromkeys(axes for axes, _ in convolutions(module))) or [2]
    if isinstance(config, dict):  # timm's
        axes = [len(config["input_size"]) - 1]
    sizes = [(side or SIDES[n],) * n for n in axes]
    if axes == [1]:  # the layers of a 2-D network may all be 1-D: its rows are its channels
        sizes.append((side or SIDES[2],) * 2)
    for size in sizes[: len(sizes) if len(sizes) > 1 else 0]:
        if _runs(module, size, channels):
            return size
    return sizes[0]


def exported_shape(module: nn.Module) -> Shape | None:
    """(C, H, W) of the example that a torch.export program was made with; None: it is no such."""
    if not isinstance(module, torch.fx.GraphModule):
        return None
    given = (node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder")
    first = next(given, None)
    if not isinstance(first, Tensor) or not 3 <= first.dim() <= 5:
        return None
    sides = [n if isinstance(n, int) else n.node.hint for n in first.shape[1:]]  # or symbols
    return None if None in sides else tuple(map(int, sides))


def _runs(module: nn.Module, size: Size, channels: int | None) -> bool:
    """Whether a network runs to its end on an input."""
    try:
        trace = trace_module(module, size, channels) if channels else trace_as_fits(module, size)
    except RfbenchError:
        return False
    return trace.failure is None


def trace_as_fits(module: nn.Module, size: Size) -> Trace:
    """Trace a network on an input of `size` (along every axis) with as many channels as it takes.

    As many as the network says (timm's `default_cfg`, an exported program); else 3, 1 and those of
    the first convolution are tried. One that lets the network run to its end comes before one that
    lets it run some way. Raises UsageError where several fit and give different graphs, and what
    the network said where none fits.
    """
    if isinstance(getattr(module, "default_cfg", None), dict):
        return trace_module(module, size)
    if (own := exported_shape(module)) is not None and len(own) == len(size) + 1:
        return trace_module(module, size, own[0])
    traces: dict[int, Trace] = {}
    errors: dict[int, RfbenchError] = {}
    for channels in dict.fromkeys((3, 1, input_channels(module, len(size)))):
        try:
            traces[channels] = trace_module(module, size, channels)
        except RfbenchError as error:
            errors[channels] = error
    if not traces:
        raise _none_fits(module, size, errors)
    ended = {c: t for c, t in traces.items() if t.failure is None}
    fit = ended or traces
    if len(fit) > 1 and len({_shape(read(t)) for t in fit.values()}) > 1:
        some = ", ".join(map(str, sorted(fit)))
        raise UsageError(
            f"{type(module).__name__} takes inputs of {some} channels, and does not do the same "
            "with them: say how many with --in-channels (in Python: in_channels=)"
        )
    return next(iter(fit.values()))


def _shape(graph: SpatialGraph) -> tuple:
    """What two graphs must have in common to be one."""
    return tuple((n.kind, n.sources, n.size, repr(n.axes), n.layer) for n in graph.nodes)


def _none_fits(module: nn.Module, size: Size, errors: dict[int, RfbenchError]) -> RfbenchError:
    """Which inputs were tried, and what the network said of them."""
    # a size that is too small is said of the channels that fit
    if len({str(error) for error in errors.values()}) == 1:  # it says nothing of the input
        return next(iter(errors.values()))
    first = min(errors.values(), key=lambda e: not isinstance(e, UsageError))
    said = {c: one_line(e, 400).partition(" x ")[2] for c, e in errors.items()}
    if len(errors) == 1 or isinstance(first, UsageError):
        return first
    size_text = by(size)
    tried = "; ".join(f"{c} x {text}" for c, text in said.items())
    if len({text.removeprefix(size_text) for text in said.values()}) == 1:
        shapes = ", ".join(f"{c} x {size_text}" for c in said)
        tried = shapes + next(iter(said.values())).removeprefix(size_text)
    what = f"{type(module).__name__} fails on every input that was tried, {tried}"
    if "--input" in tried or "module around it" in tried:
        return RfbenchError(what)
    return RfbenchError(
        f"{what}. Say what it takes with --in-channels or --input "
        "(in Python: in_channels=, inputs=)"
    )
