"""Values of tensors that the forward pass computes from buffers alone: tables, fixed kernels.

And the zeros that it puts into weights, whatever these are: masks of ones and zeros.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rfbench.spatial_graph.layout import Scrambled
from rfbench.spatial_graph.operations import Op, Ref, Trace, mapped

FACTORIES = {"arange", "eye", "full", "linspace", "ones", "scalar_tensor", "zeros"}
FILLED = {"new_ones": 1, "new_zeros": 0, "ones_like": 1, "zeros_like": 0}  # whatever they are like

ZEROING = {
    "constant_pad_nd", "copy", "diag_embed", "eye", "index_put", "masked_fill", "new_zeros",
    "scatter", "select_scatter", "slice_scatter", "tril", "triu", "where", "zeros", "zeros_like",
}  # fmt: skip


class Constants:
    """Values by number of the tensor, computed when asked for."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._known: dict[int, Tensor | None] = {}
        self._written: dict[int, list[Op]] = defaultdict(list)
        for op in trace.ops:
            for i in op.written:
                self._written[i].append(op)
        self._makers = {ref.id: op for op in trace.ops for ref in op.made}

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
            return None if fixed.is_meta or ref.id in self._written else fixed
        op = self._makers.get(ref.id)
        if op is None or ref.id in self._written:
            return None
        filling = FILLED.get(op.name.split(".")[1])
        if filling is not None:
            return torch.full(self.trace.shapes[ref.id], float(filling))
        return _run(op, ref, self.values)

    # -- zeros ------------------------------------------------------------------------------------

    def nonzero(self, ref: Ref) -> Tensor | None:
        """Where a tensor made of weights is not zero, as bool; None: everywhere.

        By running what makes it on two draws of weights. Raises Scrambled where that fails or
        where the zeros depend on the weights.
        """
        if not self._has_zeros(ref, set()):
            return None
        masks = []
        for draw in (lambda form: torch.rand(form) + 0.5, torch.randn):
            torch_state = torch.random.get_rng_state()
            try:
                torch.manual_seed(0)
                value = self._drawn(ref, draw, {})
            except Exception as error:
                raise Scrambled(f"the zeros of its weights are not known: {error}") from error
            finally:
                torch.random.set_rng_state(torch_state)
            if value is None:
                raise Scrambled("the zeros of its weights are not known")
            masks.append(value != 0)
        if not torch.equal(*masks):
            raise Scrambled("which of its weights are zero depends on the weights")
        return None if masks[0].all() else masks[0]

    def _has_zeros(self, ref: Ref, seen: set[int]) -> bool:
        """Whether anything behind a tensor may have put zeros into it."""
        if ref.id in seen:
            return False
        seen.add(ref.id)
        if ref.id in self._written:
            return True
        fixed = self.trace.fixed.get(ref.id)
        if fixed is not None:
            return not fixed.is_meta and fixed.numel() > 1 and bool((fixed == 0).any())
        op = self._makers.get(ref.id)
        if op is None:
            return False
        return op.name.split(".")[1] in ZEROING or any(self._has_zeros(r, seen) for r in op.given)

    def _drawn(self, ref: Ref, draw: Callable, known: dict[int, Tensor | None]) -> Tensor | None:
        """A tensor's values for drawn weights."""
        if ref.id not in known:
            value = self.trace.fixed.get(ref.id)
            if value is None or value.is_meta:
                op = self._makers.get(ref.id)
                run = _run(op, ref, lambda r: self._drawn(r, draw, known)) if op else None
                value = run if op else draw(self.trace.shapes[ref.id])
            for op in self._written.get(ref.id, ()):
                value = self._written_to(op, value, lambda r: self._drawn(r, draw, known))
            known[ref.id] = value
        return known[ref.id]

    def _written_to(
        self, op: Op, value: Tensor | None, values: Callable[[Ref], Tensor | None]
    ) -> Tensor | None:
        """A tensor after a write to the whole of it; None where it is to a part."""
        target, *others = op.args
        if value is None or self.trace.shapes[target.id] != tuple(value.shape):
            return None
        args, kwargs = mapped(Ref, values, (tuple(others), op.kwargs))
        return op.func(value.clone(), *args, **kwargs)


def _run(op: Op, ref: Ref, values: Callable[[Ref], Tensor | None]) -> Tensor | None:
    """The result of an operation, on the CPU; None where an argument is not known."""
    if not isinstance(op.out, Ref) or ref in op.given:  # the operation hands its argument on
        return None
    known = {r.id: values(r) for r in op.given}
    made = op.name.split(".")[1] in FACTORIES
    if any(t is None for t in known.values()) or not (known or made):
        return None
    args, kwargs = mapped(Ref, lambda r: known[r.id], (op.args, op.kwargs))
    if made or "device" in kwargs:
        kwargs |= {"device": torch.device("cpu")}
    out: Any = op.func(*args, **kwargs)
    return out if isinstance(out, Tensor) and not out.is_meta else None
