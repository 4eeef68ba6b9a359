"""A network as a graph of windows over positions: traced once, then only read. See README.md."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfbench.spatial_graph.axis import Expand, Full, Index, Window
    from rfbench.spatial_graph.builder import Builder
    from rfbench.spatial_graph.graph import SpatialGraph
    from rfbench.spatial_graph.layout import Scrambled, Value
    from rfbench.spatial_graph.node import Opaque, Reach
    from rfbench.spatial_graph.ops.registry import Constant, register_op
    from rfbench.spatial_graph.ops.slide import slide
    from rfbench.spatial_graph.reader import spatial_graph, unsupported_ops

__all__ = [
    "Builder",
    "Constant",
    "Expand",
    "Full",
    "Index",
    "Opaque",
    "Reach",
    "Scrambled",
    "SpatialGraph",
    "Value",
    "Window",
    "register_op",
    "slide",
    "spatial_graph",
    "unsupported_ops",
]

_MODULES = {
    "axis": ("Expand", "Full", "Index", "Window"),
    "builder": ("Builder",),
    "graph": ("SpatialGraph",),
    "node": ("Opaque", "Reach"),
    "reader": ("spatial_graph", "unsupported_ops"),
    "layout": ("Scrambled", "Value"),
    "ops.registry": ("Constant", "register_op"),
    "ops.slide": ("slide",),
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: only some modules need torch."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
