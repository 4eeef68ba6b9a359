"""Values of tensors that the forward pass computes from buffers alone: tables, fixed kernels.

And the zeros that it puts into weights, whatever these are: masks of ones and zeros.
"""

import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rfbench.spatial_graph.layout import Scrambled
from rfbench.spatial_graph.operations import Op, Ref, Trace, mapped

FACTORIES = {"arange", "eye", "full", "linspace", "ones", "scalar_tensor", "zeros"}
FILLED = {"new_ones": 1, "new_zeros": 0, "ones_like": 1, "zeros_like": 0}  # whatever they are like
GIVEN = {"full_like", "new_full"}  # the number is the last argument

ZEROING = {
    "constant_pad_nd", "copy", "diag_embed", "eye", "full", "full_like", "index_put", "masked_fill",
    "new_full", "new_zeros",
    "scatter", "select_scatter", "slice_scatter", "tril", "triu", "where", "zeros", "zeros_like",
}  # fmt: skip


class Constants:
    """Values by number of the tensor, computed when asked for."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._known: dict[int, Tensor | None] = {}
        self.until = len(trace.ops)  # the operation that asks: what is written later does not count
        self._written: dict[int, list[tuple[int, Op]]] = defaultdict(list)
        for number, op in enumerate(trace.ops):
            for i in op.written:
                self._written[i].append((number, op))
        self._makers: dict[int, tuple[int, Op]] = {}
        for number, op in enumerate(trace.ops):
            for ref in op.made:
                self._makers.setdefault(ref.id, (number, op))  # the first: others write to it

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
        _, op = self._makers.get(ref.id, (0, None))
        if op is None or ref.id in self._written:
            return None
        name = op.name.split(".")[1]
        if name in FILLED:
            return torch.full(self.trace.shapes[ref.id], float(FILLED[name]))
        if name in GIVEN:
            return torch.full(self.trace.shapes[ref.id], op.args[-1])
        return _run(op, ref, self.values)

    # -- zeros ------------------------------------------------------------------------------------

    def nonzero(self, ref: Ref) -> Tensor | None:
        """Where a tensor made of weights is not zero, as bool; None: everywhere.

        By running what makes it on two draws of weights. Raises Scrambled where that fails or
        where the zeros depend on the weights.
        """
        if not self._has_zeros(ref, set(), self.until):
            return None
        masks = []
        for draw in (lambda form: torch.rand(form) + 0.5, torch.randn):
            torch_state = torch.random.get_rng_state()
            try:
                torch.manual_seed(0)
                value = self._drawn(ref, draw, {}, self.until)
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

    def _writes(self, ref: Ref, until: int) -> list[tuple[int, Op]]:
        """What was written to a tensor before an operation."""
        return [(number, op) for number, op in self._written.get(ref.id, ()) if number < until]

    def _has_zeros(self, ref: Ref, seen: set[int], until: int) -> bool:
        """Whether anything behind a tensor may have put zeros into it, before an operation."""
        if ref.id in seen:
            return False
        seen.add(ref.id)
        if self._writes(ref, until):
            return True
        fixed = self.trace.fixed.get(ref.id)
        if fixed is not None:
            return not fixed.is_meta and fixed.numel() > 1 and bool((fixed == 0).any())
        made, op = self._makers.get(ref.id, (0, None))
        if op is None:
            return False
        zeroing = op.name.split(".")[1] in ZEROING
        return zeroing or any(self._has_zeros(r, seen, made) for r in op.given)

    def _drawn(
        self, ref: Ref, draw: Callable, known: dict[tuple, Any], until: int
    ) -> Tensor | None:
        """A tensor's values before an operation, for drawn weights."""
        writes = self._writes(ref, until)
        key = ref.id, len(writes)
        if key not in known:
            value = self.trace.fixed.get(ref.id)
            if value is None or value.is_meta:
                made, op = self._makers.get(ref.id, (0, None))
                run = _run(op, ref, lambda r: self._drawn(r, draw, known, made)) if op else None
                value = run if op else draw(self.trace.shapes[ref.id])
            for number, op in writes:
                now = functools.partial(self._drawn, draw=draw, known=known, until=number)
                value = self._written_to(op, value, now)
            known[key] = value
        return known[key]

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
    if ref in op.given or ref not in op.made:  # the operation hands its argument on
        return None
    known = {r.id: values(r) for r in op.given}
    made = op.name.split(".")[1] in FACTORIES
    if any(t is None for t in known.values()) or not (known or made):
        return None
    args, kwargs = mapped(Ref, lambda r: known[r.id], (op.args, op.kwargs))
    if made or "device" in kwargs:
        kwargs |= {"device": torch.device("cpu")}
    out: Any = op.func(*args, **kwargs)
    if not isinstance(op.out, Ref):  # torch.split
        out = list(out)[op.made.index(ref)] if len(out) == len(op.made) else None
    return out if isinstance(out, Tensor) and not out.is_meta else None
