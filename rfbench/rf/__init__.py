"""Receptive fields; for notebooks: record, theory, path_counts, effective and audit, of api.py."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The functions, imported when they are asked for: a command needs only a part."""
    if name in ("record", "theory", "path_counts", "effective", "audit"):
        from rfbench.rf import api

        return getattr(api, name)
    if name == "register_op":
        from rfbench.spatial_graph import register_op

        return register_op
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
