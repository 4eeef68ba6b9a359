"""Values of tensors that the forward pass computes from buffers alone: tables, fixed kernels.

And the zeros that it puts into weights, whatever these are: masks of ones and zeros.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rfbench.spatial_graph.layout import Scrambled
from rfbench.spatial_graph.operations import Op, Ref, Trace, mapped

FACTORIES = {"arange", "eye", "full", "linspace", "ones", "scalar_tensor", "zeros"}
FILLED = {"new_ones": 1, "new_zeros": 0, "ones_like": 1, "zeros_like": 0}  # whatever they are like
GIVEN = {"full_like", "new_full"}  # the number is the last argument
LIKE = {
    "empty_like", "full_like", "new_empty", "new_empty_strided", "new_full", "new_ones",
    "new_zeros", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like",
}  # of the first argument they take the shape  # fmt: skip

MOST = 256  # draws of a random mask

ZEROING = {
    "constant_pad_nd", "copy", "diag_embed", "eye", "full", "full_like", "index_put", "masked_fill",
    "new_full", "new_zeros",
    "scatter", "select_scatter", "slice_scatter", "tril", "triu", "where", "zeros", "zeros_like",
}  # fmt: skip


def is_like(op: Op) -> bool:
    """Whether an operation takes the shape of its argument, and none of its values."""
    return op.name.split(".")[1] in LIKE


class Constants:
    """Values by number of the tensor, computed when asked for."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.inputs = {*trace.inputs.values()}
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
        known = self._unwritten(ref)
        return self._rewritten(ref) if known is None and self._written else known

    def _unwritten(self, ref: Ref) -> Tensor | None:
        """The values where nothing behind them is ever written to."""
        if ref.id not in self._known:
            self._known[ref.id] = self._evaluate(ref)
        return self._known[ref.id]

    def _rewritten(self, ref: Ref) -> Tensor | None:
        """The values where a buffer behind them is written to at some time, such as a counter."""
        ops, needed = self._behind(ref)
        fixed = {i for i, t in self.trace.fixed.items() if not t.is_meta}
        begun = needed - {r.id for op in ops for r in op.made if r not in op.given}
        if not begun <= fixed or not needed.isdisjoint(self.trace.random):
            return None
        try:
            return self._replayed(ref, _positive)
        except Exception:  # a form of an operation that does not run on the CPU
            return None

    def _evaluate(self, ref: Ref) -> Tensor | None:
        if ref.id in self.inputs or ref.id in self.trace.random:
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
        return _run(op, ref, self._unwritten)

    def drawn(self, ref: Ref, known: dict[int, Tensor | None]) -> Tensor | None:
        """A draw of the values of a random tensor; None where weights or the input take part.

        known: of other random tensors, in the same draw.
        """
        if ref.id not in self.trace.random:
            return self.values(ref)
        if ref.id not in known:
            _, op = self._makers[ref.id]
            known[ref.id] = _run(op, ref, lambda r: self.drawn(r, known), self.trace.shapes)
        return known[ref.id]

    # -- zeros ------------------------------------------------------------------------------------

    def nonzero(self, ref: Ref) -> Tensor | None:
        """Where a tensor made of weights is not zero, as bool; None: everywhere.

        By running what makes it on two draws of weights. Raises Scrambled where that fails or
        where the zeros depend on the weights.
        """
        if not self._has_zeros(ref, set(), self.until):
            return None
        if ref.id in self.trace.random:
            return self._ever_nonzero(ref)
        masks = [self._mask(ref, draw) for draw in (_positive, torch.randn)]
        if not torch.equal(*masks):
            raise Scrambled("which of its weights are zero depends on the weights")
        return None if masks[0].all() else masks[0]

    def _ever_nonzero(self, ref: Ref) -> Tensor | None:
        """Where a tensor that is drawn at random can be other than zero; None: everywhere."""
        found, since = self._mask(ref, _positive), 0
        for seed in range(1, MOST):
            if found.all():
                return None
            more = found | self._mask(ref, _positive, seed)
            since = seed if not torch.equal(more, found) else since
            found = more
        if 2 * since > MOST:
            source = self.trace.random[ref.id]
            raise Scrambled(f"which of its values are zero is drawn at random, by {source}")
        return found

    def _mask(self, ref: Ref, draw: Callable, seed: int = 0) -> Tensor:
        """Where a tensor is not zero, for drawn weights."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                value = self._replayed(ref, draw)
            except Exception as error:
                raise Scrambled(f"the zeros of its weights are not known: {error}") from error
        if value is None:
            raise Scrambled("the zeros of its weights are not known")
        return value != 0

    def _fixed(self, ref: Ref) -> Tensor | None:
        """The values that a tensor has in every pass."""
        return None if ref.id in self.trace.random else self.trace.fixed.get(ref.id)

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
        fixed = self._fixed(ref)
        if fixed is not None:
            return not fixed.is_meta and fixed.numel() > 1 and bool((fixed == 0).any())
        made, op = self._makers.get(ref.id, (0, None))
        if op is None:
            return False
        name = op.name.split(".")[1]
        zeroing = name in ZEROING or (name == "mul" and any(map(self._is_zero, op.args)))
        return zeroing or any(self._has_zeros(r, seen, made) for r in op.given)

    def _is_zero(self, factor: Any) -> bool:
        """Whether a factor is the number 0, or a buffer of one zero."""
        fixed = self._fixed(factor) if isinstance(factor, Ref) else None
        if fixed is None:
            return isinstance(factor, int | float) and factor == 0
        return not fixed.is_meta and fixed.numel() == 1 and float(fixed) == 0

    def _replayed(self, ref: Ref, draw: Callable) -> Tensor | None:
        """A tensor's values for drawn weights, by running all that makes it and writes to it.

        On the CPU, where views share their memory as they did. None where the input takes part.
        """
        ops, needed = self._behind(ref)
        if not needed.isdisjoint(self.inputs):
            return None
        made = {r.id for op in ops for r in op.made if r not in op.given}
        known = self._begin(needed - made, draw)

        def value(ref: Ref) -> Tensor:
            return known[ref.id]

        for op in ops:
            for r in op.given:
                known.setdefault(r.id, torch.zeros(self.trace.shapes[r.id]))  # only its shape
            args, kwargs = mapped(Ref, value, (op.args, op.kwargs))
            if not op.given or "device" in kwargs:
                kwargs |= {"device": torch.device("cpu")}
            out = op.func(*args, **kwargs)
            outs = [out] if isinstance(out, Tensor) else list(out)
            known |= {r.id: t for r, t in zip(op.made, outs, strict=True)}
        return known[ref.id]

    def _begin(self, numbers: set[int], draw: Callable) -> dict[int, Tensor]:
        """The tensors that no operation makes; those that share memory (x.data) do so here."""
        known: dict[int, Tensor] = {}
        shared: dict[int, Tensor] = {}
        for i in sorted(numbers):
            fixed, shape = self._fixed(Ref(i)), self.trace.shapes[i]
            value = draw(shape) if fixed is None or fixed.is_meta else fixed.clone()
            if place := self.trace.places.get(i):
                key, stride, offset = place
                last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
                if key not in shared:
                    shared[key] = value.new_zeros(last + 1)
                    shared[key].as_strided(shape, stride, offset).copy_(value)
                value = shared[key].as_strided(shape, stride, offset)
            known[i] = value
        return known

    def _behind(self, ref: Ref) -> tuple[list[Op], set[int]]:
        """The operations that a tensor comes from, in their order, and the tensors they need."""
        needed, ops = {ref.id}, []
        for op in reversed(self.trace.ops[: self.until]):
            own = {r.id for r in op.made} | {*op.written}
            if not needed.isdisjoint(own):
                ops.append(op)
                needed |= own if is_like(op) else own | {r.id for r in op.given}
        return ops[::-1], needed


def _positive(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape) + 0.5


def _run(
    op: Op,
    ref: Ref,
    values: Callable[[Ref], Tensor | None],
    shapes: Mapping[int, tuple[int, ...]] | None = None,
) -> Tensor | None:
    """The result of an operation, on the CPU; None where an argument is not known.

    shapes: of all tensors, where operations may draw their results at random.
    """
    if ref in op.given or ref not in op.made:  # the operation hands its argument on
        return None
    if shapes and is_like(op):
        known: dict[int, Tensor | None] = {r.id: torch.zeros(shapes[r.id]) for r in op.given}
    else:
        known = {r.id: values(r) for r in op.given}
    made = op.name.split(".")[1] in FACTORIES or (bool(shapes) and not op.given)
    if any(t is None for t in known.values()) or not (known or made):
        return None
    args, kwargs = mapped(Ref, lambda r: known[r.id], (op.args, op.kwargs))
    if made or "device" in kwargs:
        kwargs |= {"device": torch.device("cpu")}
    out: Any = op.func(*args, **kwargs)
    if not isinstance(op.out, Ref):  # torch.split
        out = list(out)[op.made.index(ref)] if len(out) == len(op.made) else None
    return out if isinstance(out, Tensor) and not out.is_meta else None
