"""What each operation does to the positions of a map: handlers, in files by what they do.

Importing a file registers its handlers; registry.py says what a handler is.
"""

from functools import cache
from typing import Any

import torch

from rfbench.spatial_graph.ops import (  # noqa: F401
    convolution,
    folding,
    indexing,
    join,
    masks,
    mixing,
    padding,
    pointwise,
    pooling,
    reduce,
    resize,
    sampling,
    views,
    writes,
)
from rfbench.spatial_graph.ops.registry import OPS, Handler


def lookup(func: Any, in_place: bool = False) -> Handler | None:
    """The handler of an operation (an OpOverload); None for one that is not known.

    in_place: whether it writes to its argument, like relu_, which has the handler of relu. An
    operation without a handler that torch tags as pointwise has that of all pointwise ones.
    """
    name, is_pointwise = _schema(func)
    handler = OPS.get(name.removesuffix("_") if in_place else name)
    return pointwise.pointwise if handler is None and is_pointwise else handler


@cache
def _schema(func: Any) -> tuple[str, bool]:
    """Its name, and whether torch tags it as pointwise."""
    return func._schema.name, torch.Tag.pointwise in func.tags
