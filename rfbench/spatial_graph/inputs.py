"""Which channels the input of a network has, where nobody says: by trying."""

from torch import nn

from rfbench.errors import RfbenchError, UsageError, one_line
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.reader import read
from rfbench.spatial_graph.trace import Trace, input_channels, trace_module

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
    first = next(iter(errors.values()))
    said = dict.fromkeys(one_line(e).partition(": ")[2] for e in errors.values())
    if len(errors) == 1 or len(said) == 1:
        return first
    tried = "; ".join(f"{c} x {size[0]}x{size[1]}: {one_line(e, 150)}" for c, e in errors.items())
    kind = UsageError if any(isinstance(e, UsageError) for e in errors.values()) else RfbenchError
    return kind(
        f"no input that was tried fits {type(module).__name__}: {tried}. Say which with "
        "--in-channels or --input (in Python: in_channels=, inputs=)"
    )
