"""Receptive fields, for Python and notebooks.

from rfbench import rf

print(rf.audit("resnet50"))            # what is wrong, which layers cause it, what fixes it
rf.visualize("resnet50")               # its maps, drawn in a notebook
graph = rf.record("resnet50")          # or an nn.Module of your own, with size=
print(rf.theory(graph)["y"])           # size, stride, padding, centre
counts, figures = rf.path_counts(graph)
"""

import importlib
from typing import Any

# imported when they are asked for: a command needs only a part
_MODULES = {
    "rfbench.rf.api": (
        *("audit", "effective", "mirror", "path_counts", "record", "theory", "tiles", "visualize"),
    ),
    "rfbench.plotting.look": ("styled",),
    "rfbench.spatial_graph": ("register_op",),
}
_FUNCTIONS = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_FUNCTIONS)  # what help() lists


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FUNCTIONS[name]), name)


def __dir__() -> list[str]:
    """The functions, also before they are imported, and nothing else."""
    return __all__
