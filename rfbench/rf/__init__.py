"""Receptive fields; for notebooks: the functions of api.py."""

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


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FUNCTIONS[name]), name)


def __dir__() -> list[str]:
    """The functions, also before they are imported."""
    return sorted({*globals(), *_FUNCTIONS})
