"""The registry of operations: one dict, from a name to a handler, filled by one decorator.

A handler says what an operation does to positions (README.md has a worked example):

    @register_op("mylib::median3")
    def median3(b: Builder, x: Value, stride: int) -> Value:
        window = Window(3, stride, before=1, after=1)
        return slide(b, x, {2: window, 3: window}, "pool")

It gets the builder and the arguments of the traced call, as the operation's schema orders them. A
tensor that depends on the input is a Value, any other tensor (a weight, a buffer) a Constant; the
rest is as it was. The builder knows the call as well: `b.op`, `b.layer`, `b.func`, `b.out_shape`.

It returns a Value, a list of them for several results (None for one that does not depend on the
input), or `b.opaque(reach)` where positions are no longer known. It raises Scrambled for a form of
the operation that it does not cover; a result with another shape than the traced one is refused.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor

from rfbench.errors import UsageError
from rfbench.spatial_graph.layout import Scrambled, Value
from rfbench.spatial_graph.node import Opaque

Shape = tuple[int, ...]
Result = Value | Opaque | list[Value] | list[Value | None] | None
Handler = Callable[..., Result]
F = TypeVar("F", bound=Handler)

OPS: dict[str, Handler] = {}  # "aten::convolution" -> its handler


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the input.

    evaluate: computes its values, where they follow from buffers alone. find_zeros: where it is not
    zero, whatever the weights are.
    """

    shape: Shape
    evaluate: Callable[[], Tensor | None]
    find_zeros: Callable[[], Tensor | None] = lambda: None

    @property
    def values(self) -> Tensor | None:
        """The values; None where weights take part."""
        return self.evaluate()

    @cached_property
    def nonzero(self) -> Tensor | None:
        """Where masks of ones and zeros leave it, as bool; None: everywhere."""
        values = self.values
        if values is None:
            return self.find_zeros()
        return values != 0 if bool((values == 0).any()) else None

    @property
    def vanishes(self) -> bool:
        """Whether it is known to be zero everywhere."""
        try:
            nonzero = self.nonzero
        except Scrambled:  # they depend on the weights
            return False
        return nonzero is not None and not bool(nonzero.any())


def register_op(*names: str) -> Callable[[F], F]:
    """Make a function the handler of operations; `names`: "library::operation".

    A name counts for all overloads. It may be registered again by the same function (a notebook's
    cell run twice). Raises UsageError for a name that another function has, or that is no name.
    """

    def register(handler: F) -> F:
        for name in map(_checked, names):
            known = OPS.setdefault(name, handler)
            if _where(known) != _where(handler):
                raise UsageError(f"operation {name} is registered already, by {_where(known)}")
            OPS[name] = handler
        return handler

    return register


def _checked(name: str) -> str:
    """'library::operation'; 'library.operation', as torch prints it, means the same."""
    name = name.replace(".", "::", 1) if "::" not in name else name
    if not re.fullmatch(r"\w+::\w+", name):
        raise UsageError(f"'{name}' names no operation; write 'library::operation', no overload")
    return name


def _where(handler: Handler) -> str:
    return f"{handler.__module__}.{handler.__qualname__}"


def axes_of(op: str) -> int:
    """How many axes an operation has, by its name: 'aten.avg_pool3d.default' has 3."""
    found = re.search(r"(\d)d\b|(\d)d_", op)
    assert found is not None, op
    return int(found[1] or found[2])


def each_axis(v: int | Sequence[int], axes: int) -> list[int]:
    """An argument by axis, where one number, or a list of one, stands for all of them."""
    values = [v] if isinstance(v, int) else list(v)
    return values * axes if len(values) == 1 else values


def dependent(x: Any) -> Value | None:
    """An argument where it depends on the input, else None."""
    return x if isinstance(x, Value) else None


def is_number(x: Any, number: float) -> bool:
    """Whether an argument is this number, in the call itself."""
    return isinstance(x, int | float) and x == number
