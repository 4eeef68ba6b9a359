"""Which channels the input of a network has, where nobody says: by trying."""

from torch import nn

from rfbench.errors import RfbenchError, UsageError, one_line
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.reader import read
from rfbench.spatial_graph.trace import input_channels, trace_module
from rfbench.spatial_graph.tracer import Trace

Size = tuple[int, int]


def trace_as_fits(module: nn.Module, size: Size) -> Trace:
    """Trace a network on an input of (H, W) with as many channels as it takes.

    As many as the network says (timm's `default_cfg`); else 3, 1 and those of the first
    convolution are tried. One that lets the network run to its end comes before one that lets it
    run some way. Raises UsageError where several fit and give different graphs, and what the
    network said where none fits.
    """
    if isinstance(getattr(module, "default_cfg", None), dict):
        return trace_module(module, size)
    traces: dict[int, Trace] = {}
    errors: dict[int, RfbenchError] = {}
    for channels in dict.fromkeys((3, 1, input_channels(module))):
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
    first = min(errors.values(), key=lambda e: not isinstance(e, UsageError))
    said = {c: one_line(e, 400).partition(" x ")[2] for c, e in errors.items()}
    if len(errors) == 1 or "not measured yet" in str(first) or isinstance(first, UsageError):
        return first
    size_text = f"{size[0]}x{size[1]}"
    tried = "; ".join(f"{c} x {text}" for c, text in said.items())
    if len({text.removeprefix(size_text) for text in said.values()}) == 1:
        tried = f"{', '.join(map(str, said))} x {next(iter(said.values()))}"
    return RfbenchError(
        f"{type(module).__name__} fails on every input that was tried, {tried}. Say what it takes "
        "with --in-channels or --input (in Python: in_channels=, inputs=)"
    )
