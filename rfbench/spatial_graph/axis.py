"""Linear maps along one spatial axis, and their adjoints: what every spatial operation is made of.

A map takes n input positions to m output positions. `adjoint` carries path counts of a range of
outputs back to the inputs. All of them work on float64 and on Python integers alike.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

BLOCK = 1024  # outputs of an Index that are carried back at a time
Span = tuple[np.ndarray, int]  # an array, and the position of its first entry along the axis


def _along(axis: int, where: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (where,)


def _column(values: np.ndarray, axis: int, axes: int) -> np.ndarray:
    return values.reshape((1,) * axis + (-1,) + (1,) * (axes - axis - 1))


def _product(table: np.ndarray, g: np.ndarray, axis: int) -> np.ndarray:
    """The sum over an axis of table[i, k] * g[..., i, ...], with k in the place of i."""
    if axis == g.ndim - 1:
        return g @ table
    if axis == g.ndim - 2:
        return table.T @ g
    flat = table.T @ g.reshape(*g.shape[: axis + 1], -1)
    return flat.reshape(*g.shape[:axis], -1, *g.shape[axis + 1 :])


@dataclass(frozen=True)
class Window:
    """A sliding window of `kernel` taps: input = output * stride - before + tap * dilation.

    taps: the weights of a fixed kernel, such as BlurPool's; None means ones.
    divide: what an average divides by under pool=mean: '' nothing, 'kernel' the window with the
    padding under it, 'valid' the positions inside the input, 'taps' the number of taps.
    """

    kernel: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    ceil: bool = False
    taps: tuple[Fraction, ...] | None = None
    divide: str = ""

    @property
    def extent(self) -> int:
        """Positions from the first tap to the last: dilation * (kernel - 1) + 1."""
        return self.dilation * (self.kernel - 1) + 1

    def out_size(self, n: int) -> int:
        """Outputs on n inputs, as torch counts them."""
        room = n + self.before + self.after - self.extent
        if not self.ceil:
            return room // self.stride + 1
        size = -(-room // self.stride) + 1
        # torch: the last window must start inside the input or the padding before it
        return size - ((size - 1) * self.stride >= n + self.before)

    def divisors(self, n: int, first: int, count: int) -> np.ndarray:
        """The divisor of outputs first ... first + count - 1 under pool=mean."""
        if self.divide == "taps":
            return np.full(count, self.kernel)
        start = np.arange(first, first + count) * self.stride - self.before
        if self.divide == "valid":
            return np.minimum(start + self.extent, n) - np.maximum(start, 0)
        return np.minimum(start + self.extent, n + self.after) - start

    def adjoint(self, grad: Span, axis: int, n: int, mean: bool) -> Span:
        """Path counts of the outputs in `grad`, carried back to the n inputs."""
        g, first = grad
        count = g.shape[axis]
        if self.divide and mean:
            exact = g.dtype == object
            by = self.divisors(n, first, count)
            ones = [Fraction(1, int(b)) for b in by] if exact else 1.0 / by
            g = g * _column(np.array(ones, dtype=g.dtype), axis, g.ndim)
        at = first * self.stride - self.before
        if self.kernel > 1 or self.stride > 1 or self.taps:
            g = self._spread(g, axis, mean)
        lo, hi = max(0, -at), min(g.shape[axis], n - at)
        return g[_along(axis, slice(lo, max(lo, hi)))], at + lo

    def _spread(self, g: np.ndarray, axis: int, mean: bool) -> np.ndarray:
        """What each position of the windows gets from their outputs."""
        shape, count = list(g.shape), g.shape[axis]
        shape[axis] = (count - 1) * self.stride + self.extent
        out = np.zeros(shape, g.dtype)
        if self.taps is None and self.kernel >= WIDE:
            out[_along(axis, slice(0, (count - 1) * self.stride + 1, self.stride))] = g
            return _running(out, axis, self.kernel, self.dilation)
        for tap, weight in enumerate(self.tap_weights(mean)):
            lo = tap * self.dilation
            hi = lo + (count - 1) * self.stride + 1
            part = out[_along(axis, slice(lo, hi, self.stride))]
            part += g if weight == 1 else g * _number(weight, g.dtype)
        return out

    def weight_table(self, n: int) -> np.ndarray | None:
        """The weights of `matrix` under pool=mean; None where all are 1."""
        if not self.divide:
            return None
        share = 1 / self.divisors(n, 0, self.out_size(n))
        return np.repeat(share[:, None], self.kernel, axis=1)

    def tap_weights(self, mean: bool) -> tuple[Fraction, ...]:
        """Those of a fixed kernel, the least of them 1 under pool=count; ones of a learned one."""
        if self.taps is None:
            return (Fraction(1),) * self.kernel
        least = min(t for t in self.taps if t)
        return self.taps if mean else tuple(t / least for t in self.taps)

    def matrix(self, n: int) -> np.ndarray:
        """Input position of every output and tap, -1 where it is padding; (outputs, taps)."""
        outputs = np.arange(self.out_size(n))[:, None] * self.stride - self.before
        at = outputs + np.arange(self.kernel)[None, :] * self.dilation
        return np.where((at >= 0) & (at < n), at, -1)


WIDE = 64  # taps from which sums of sums are faster than one addition a tap


def _running(values: np.ndarray, axis: int, kernel: int, dilation: int) -> np.ndarray:
    """The sum of every entry and the kernel - 1 before it, `dilation` apart.

    From sums of 1, 2, 4, ... entries, in 2 log2(kernel) additions. Nothing is subtracted: small
    counts beside large ones keep all their digits, as they would not by a cumulative sum.
    """
    total, taken, block = np.zeros_like(values), 0, 1
    while True:
        if kernel & block:
            _moved(total, values, axis, taken * dilation)
            taken += block
        if 2 * block > kernel:
            return total
        values = _moved(values.copy(), values, axis, block * dilation)
        block *= 2


def _moved(into: np.ndarray, values: np.ndarray, axis: int, by: int) -> np.ndarray:
    """Add `values`, moved onwards along an axis, to `into`; what falls off the end is lost."""
    n = values.shape[axis]
    into[_along(axis, slice(by, None))] += values[_along(axis, slice(0, max(0, n - by)))]
    return into


def _number(weight: Fraction, dtype: np.dtype) -> Fraction | int | float:
    if dtype.kind != "O":
        return float(weight)
    return weight.numerator if weight.denominator == 1 else weight


@dataclass(frozen=True, eq=False)
class Index:
    """Any other map: `at[output, tap]` is an input position, -1 for none.

    Resizing, flipping, rolling, reflecting, transposed convolution, uneven adaptive pooling.
    weights: used under pool=mean (interpolation, averages); counts are ones. inner: the window
    that the map is everywhere but at the border (reflecting), which theory goes by. period: of a
    resizing, (p, q): output o + p reads what o reads, moved by q inputs; (0, 0): none does. phases:
    of a transposed convolution, the first and last inputs of outputs 0 ... p - 1 if there were no
    border (None: it has none); output o + p reads what o reads, moved by one input.
    """

    at: np.ndarray
    weights: np.ndarray | None = None
    inner: Window | None = None
    period: tuple[int, int] | None = None
    phases: tuple[tuple[int, int] | None, ...] | None = None

    def out_size(self, n: int) -> int:
        """Outputs; fixed, an Index belongs to one input size."""
        return len(self.at)

    def adjoint(self, grad: Span, axis: int, n: int, mean: bool) -> Span:
        """Path counts of the outputs in `grad`, carried back to the n inputs."""
        g, first = grad
        rows = slice(first, first + g.shape[axis])
        at = self.at[rows]
        inside = at >= 0
        if not inside.any():
            return g[_along(axis, slice(0, 0))], 0
        low, high = int(at[inside].min()), int(at[inside].max())
        if len(at) > BLOCK:  # one table for all would grow with the square of a sequence
            shape = (*g.shape[:axis], high - low + 1, *g.shape[axis + 1 :])
            total = np.zeros(shape, g.dtype)
            for start in range(0, len(at), BLOCK):
                block = g[_along(axis, slice(start, start + BLOCK))]
                part, begin = self.adjoint((block, first + start), axis, n, mean)
                begin -= low if part.shape[axis] else begin
                total[_along(axis, slice(begin, begin + part.shape[axis]))] += part
            return total, low
        table = np.zeros((len(at), high - low + 1), g.dtype)
        weight = self._weights(rows, g.dtype)[inside] if mean and self.weights is not None else 1
        output, _ = np.nonzero(inside)
        np.add.at(table, (output, at[inside] - low), weight)
        return _product(table, g, axis), low

    def _weights(self, rows: slice, dtype: np.dtype) -> np.ndarray:
        """The weights of some outputs; for exact counts the simple fractions they stand for."""
        assert self.weights is not None
        part = self.weights[rows]
        if dtype.kind != "O":
            return part
        exact = np.array([Fraction(float(w)).limit_denominator(10**6) for w in part.flat], object)
        return exact.reshape(part.shape)

    def matrix(self, n: int) -> np.ndarray:
        """Input position of every output and tap, -1 for none; (outputs, taps)."""
        return self.at

    def weight_table(self, n: int) -> np.ndarray | None:
        """The weights of `matrix` under pool=mean; None where all are 1."""
        return self.weights


@dataclass(frozen=True)
class Full:
    """Every input position to a single output: global pooling. divide: under pool=mean, by n."""

    divide: str = ""

    def out_size(self, n: int) -> int:
        """One."""
        return 1

    def adjoint(self, grad: Span, axis: int, n: int, mean: bool) -> Span:
        """Each of the n inputs gets what the output had."""
        g, _ = grad
        if mean and self.divide:
            g = g * Fraction(1, n) if g.dtype == object else g / n
        return np.repeat(g, n, axis), 0

    def matrix(self, n: int) -> np.ndarray:
        """Input position of every output and tap; (1, n)."""
        return np.arange(n)[None, :]

    def weight_table(self, n: int) -> np.ndarray | None:
        """The weights of `matrix` under pool=mean; None where all are 1."""
        return np.full((1, n), 1 / n) if self.divide else None


@dataclass(frozen=True)
class Expand:
    """A single input position to every output: what a global context does.

    like: the node whose size is taken, so that the map can be resized.
    """

    size: int
    like: int

    def out_size(self, n: int) -> int:
        """The size of `like`."""
        return self.size

    def adjoint(self, grad: Span, axis: int, n: int, mean: bool) -> Span:
        """The input gets the sum over the outputs."""
        return grad[0].sum(axis=axis, keepdims=True), 0

    def matrix(self, n: int) -> np.ndarray:
        """Input position of every output and tap; (size, 1)."""
        return np.zeros((self.size, 1), int)

    def weight_table(self, n: int) -> np.ndarray | None:
        """The weights of `matrix` under pool=mean; None where all are 1."""
        return None


@dataclass(frozen=True)
class Dense:
    """Every input position to every output, by a learned matrix: a linear layer over an axis."""

    size: int

    def out_size(self, n: int) -> int:
        """The rows of the matrix."""
        return self.size

    def adjoint(self, grad: Span, axis: int, n: int, mean: bool) -> Span:
        """Each of the n inputs gets the sum over the outputs."""
        return np.repeat(grad[0].sum(axis=axis, keepdims=True), n, axis), 0

    def matrix(self, n: int) -> np.ndarray:
        """Input position of every output and tap; (size, n)."""
        return np.tile(np.arange(n), (self.size, 1))

    def weight_table(self, n: int) -> np.ndarray | None:
        """The weights of `matrix` under pool=mean; None where all are 1."""
        return None


Axis = Window | Index | Full | Expand | Dense
SAME = Window()
NAMES = "zyx"  # of axes, for records: depth, rows, columns; a map of k axes has the last k
WORDS = {"z": "depth"}  # names of axes as they are printed, where these are others


def names(axes: int) -> str:
    """The names of so many axes, a letter each: 'x', 'yx', 'zyx'."""
    return NAMES[-axes:]


def from_matrix(at: np.ndarray, n: int, weights: np.ndarray | None = None) -> Axis:
    """The simplest map with the input positions `at` (outputs, taps) on n inputs."""
    if at.shape[0] == 1 and np.array_equal(at[0], np.arange(n)):
        return Full("valid" if weights is not None else "")
    if weights is None and (at >= 0).all():
        stride = int(at[1, 0] - at[0, 0]) if len(at) > 1 else 1
        dilation = int(at[0, 1] - at[0, 0]) if at.shape[1] > 1 else 1
        first = int(at[0, 0])
        tidy = first + np.add.outer(np.arange(len(at)) * stride, np.arange(at.shape[1]) * dilation)
        if stride > 0 and dilation > 0 and np.array_equal(tidy, at):
            after = int(at[-1, -1]) + 1 - n
            return Window(at.shape[1], stride, -first, after, dilation)
    return Index(at, weights, _padding(at, n) if weights is None else None)


def _padding(at: np.ndarray, n: int) -> Window | None:
    """The window of a map that has all inputs in their order, and anything around them.

    Such as a circular padding, narrower than the map: a wider one is copies side by side.
    """
    m = len(at)
    if at.shape[1] > 1 or not 1 < n < m:
        return None
    for before in range(max(0, m - 2 * n + 1), min(n, m - n + 1)):
        if at[before, 0] == 0 and np.array_equal(at[before : before + n, 0], np.arange(n)):
            return Window(1, 1, before, m - n - before)
    return None
