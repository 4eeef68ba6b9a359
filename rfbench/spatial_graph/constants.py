"""Values of tensors that the forward pass computes from buffers alone: tables, fixed kernels."""

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from rfbench.spatial_graph.trace import Ref, Trace

FACTORIES = {"arange", "eye", "full", "linspace", "ones", "scalar_tensor", "zeros"}


class Constants:
    """Values by number of the tensor, computed when asked for."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._known: dict[int, Tensor | None] = {}
        self._written = {i for op in trace.ops for i in op.written}
        leaves = ((leaf, op) for op in trace.ops for leaf in tree_leaves(op.out))
        self._makers = {leaf.id: op for leaf, op in leaves if isinstance(leaf, Ref)}

    def values(self, ref: Ref) -> Tensor | None:
        """The values of a tensor; None where weights or the input take part."""
        if ref.id not in self._known:
            self._known[ref.id] = self._evaluate(ref)
        return self._known[ref.id]

    def _evaluate(self, ref: Ref) -> Tensor | None:
        if ref.id in self.trace.inputs:
            return None
        if ref.id in self.trace.fixed:
            fixed = self.trace.fixed[ref.id]
            return None if fixed.is_meta else fixed
        op = self._makers.get(ref.id)
        if op is None or not isinstance(op.out, Ref) or ref.id in self._written:
            return None
        inputs = [leaf for leaf in tree_leaves((op.args, op.kwargs)) if isinstance(leaf, Ref)]
        if ref in inputs:  # the operation hands its argument on
            return None
        known = {r.id: self.values(r) for r in inputs}
        made = op.name.split(".")[1] in FACTORIES
        if any(t is None for t in known.values()) or not (known or made):
            return None
        args, kwargs = tree_map_only(Ref, lambda r: known[r.id], (op.args, op.kwargs))
        if made or "device" in kwargs:
            kwargs |= {"device": torch.device("cpu")}
        out = op.func(*args, **kwargs)
        return out if isinstance(out, Tensor) and not out.is_meta else None
