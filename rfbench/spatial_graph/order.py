"""Where an input has its channels: N x C x L, N x L x C, N x T x C x H x W."""

from collections.abc import Sequence

from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.hooks import channels_first
from rfbench.spatial_graph.operations import Trace
from rfbench.spatial_graph.reader import read
from rfbench.spatial_graph.size import Shape
from rfbench.spatial_graph.trace import trace_module

LETTERS = {1: "L", 2: "HW", 3: "THW"}  # of positions, by the number of axes
FORMS = "NCL, NLC, NCHW, NHWC, NCDHW, NDHWC or NTCHW"


def moved(shape: Shape, dim: int) -> Shape:
    """(C, ...) of the shape of an input without its batch."""
    return (shape[dim - 1], *shape[: dim - 1], *shape[dim:])


def said(axes: str, shapes: Sequence[Shape]) -> int:
    """The dimension of the channels that letters name: 2 of 'NLC'. UsageError for others."""
    letters = axes.upper()
    rest = letters.replace("N", "", 1).replace("C", "", 1)
    known = letters.startswith("N") and "C" in letters and len(set(letters)) == len(letters)
    if not known or rest not in ("L", "T", "HW", "DHW", "THW"):
        raise UsageError(f"--input-axes {axes}: expected {FORMS}")
    for shape in shapes:
        if len(shape) != len(rest) + 1:
            text = "x".join(map(str, shape))
            raise UsageError(f"--input-axes {axes} does not fit the input {text}")
    return letters.index("C")


def found(module: nn.Module, shapes: Sequence[Shape]) -> tuple[int, Trace]:
    """The dimension of an input's channels, and a trace with these first.

    The first convolution or recurrence tells: its channels are the input's. Dimension 1 is taken
    where it agrees, or where nothing tells of an image. Raises UsageError where it takes positions
    for channels and no other dimension fits, and where nothing tells of a sequence or a volume: a
    video may have its frames first.
    """
    trace = trace_module(module, (), inputs=shapes)
    graph = read(trace)
    first = shapes[0]
    video = len(first) == 4 and first[0] > 1  # or a volume: its first axis may be its frames
    if video and graph.channels_in == "input" and _agrees(module, shapes, 2) is not None:
        raise _untold(first)
    right = {"input"} if video else {"input", "one channel"}
    if graph.channels_in in right or (first[0] == 1 and graph.channels_in != "positions"):
        return 1, trace
    if graph.channels_in:
        for dim in [len(first), *range(2, len(first))]:
            if (other := _agrees(module, shapes, dim)) is not None:
                return dim, other
    if graph.channels_in == "positions":
        raise not_first(graph)
    if graph.channels_in in ("", "one channel") and len(first) in _AMBIGUOUS and min(first) > 1:
        raise _untold(first)
    return 1, trace


_AMBIGUOUS = {2: "NCL or NLC", 4: "NCDHW, NTCHW or NDHWC"}  # orders, by the axes of an input


def _untold(shape: Shape) -> UsageError:
    text = "x".join(map(str, shape))
    return UsageError(
        f"no convolution and no recurrence tells which axis of an input of {text} holds the "
        f"channels: say --input-axes {_AMBIGUOUS[len(shape)]} (in Python: input_axes=)"
    )


def _agrees(module: nn.Module, shapes: Sequence[Shape], dim: int) -> Trace | None:
    """A trace with the channels from dimension `dim`, if the first convolution's are these."""
    try:
        first = [moved(shape, dim) for shape in shapes]
        trace = trace_module(channels_first(module, dim), (), inputs=first)
    except (RfbenchError, IndexError):  # other inputs may have fewer dimensions
        return None
    return trace if read(trace).channels_in == "input" else None


def not_first(graph: SpatialGraph) -> UsageError:
    """The error for a network that takes positions of (N, C, ...) for its channels."""
    forms = {1: "NLC", 2: "NHWC", 3: "NTCHW or NDHWC"}[len(graph.size)]
    return UsageError(
        f"layer {graph.channels_by} takes positions of the input for its channels: the input is no "
        f"N x C x {' x '.join(LETTERS[len(graph.size)])}. Give its shape with --input and its "
        f"axes with --input-axes, such as {forms} (in Python: inputs=, input_axes=)"
    )


def text(dim: int, shape: Shape) -> str:
    """'N x L x C' of channels in dimension `dim` of an input whose shape has them first."""
    letters = [*LETTERS[len(shape) - 1]]
    if dim == len(shape) and len(letters) == 3:
        letters[0] = "D"
    letters.insert(dim - 1, "C")
    return " x ".join(["N", *letters])
