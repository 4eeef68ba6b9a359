"""Receptive fields; for notebooks: the functions of api.py."""

from typing import Any

FUNCTIONS = (
    *("audit", "effective", "mirror", "path_counts", "record", "theory", "tiles", "visualize"),
)


def __getattr__(name: str) -> Any:
    """The functions, imported when they are asked for: a command needs only a part."""
    if name in FUNCTIONS:
        from rfbench.rf import api

        return getattr(api, name)
    if name == "register_op":
        from rfbench.spatial_graph import register_op

        return register_op
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The functions, also before they are imported."""
    return sorted({*globals(), *FUNCTIONS, "register_op"})
