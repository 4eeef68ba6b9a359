"""Maps along one axis, carried back by hand."""

from fractions import Fraction

import numpy as np
import pytest

from rfbench.rf.core.forward import _table
from rfbench.spatial_graph.axis import BLOCK, WIDE, Axis, Dense, Expand, Full, Index, Window


@pytest.mark.parametrize("kernel", [3, WIDE - 1, WIDE, WIDE + 1, 2 * WIDE, 301])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 3), (5, 2)])
@pytest.mark.parametrize("dtype", [float, object])
def test_windows_of_any_width(kernel: int, stride: int, dilation: int, dtype: type) -> None:
    window = Window(kernel, stride, before=kernel // 2, after=kernel // 2, dilation=dilation)
    grad = np.random.default_rng(0).integers(0, 9, (2, 37)).astype(dtype)
    first, n = 3, 2000
    want = np.zeros((2, n), int)
    for row, output in np.ndindex(grad.shape):
        for tap in range(kernel):
            at = (first + output) * stride - kernel // 2 + tap * dilation
            if 0 <= at < n:
                want[row, at] += int(grad[row, output])
    found, at = window.adjoint((grad, first), 1, n, mean=False)
    assert found.dtype == grad.dtype
    assert (found == want[:, at : at + found.shape[1]]).all()
    assert not want[:, :at].any() and not want[:, at + found.shape[1] :].any()


def test_small_counts_beside_large_ones_keep_their_digits() -> None:
    grad = np.array([[2.0**60, 1, 1, 1]])
    found, at = Window(3 * WIDE).adjoint((grad, 0), 1, 1000, mean=False)
    assert at == 0 and found[0, -1] == 1 and found[0, -3] == 3
    exact = grad.astype(int).astype(object) + Fraction(1, 3)
    assert Window(3 * WIDE).adjoint((exact, 0), 1, 1000, mean=False)[0][0, -1] == Fraction(4, 3)


@pytest.mark.parametrize("dtype", [float, object])
@pytest.mark.parametrize("mean", [False, True])
def test_an_index_of_many_outputs_is_carried_back_block_by_block(mean: bool, dtype: type) -> None:
    rng = np.random.default_rng(0)
    m, n = 2 * BLOCK + 300, 900
    at = np.minimum(np.arange(m)[:, None] * n // m + np.arange(2), n - 1)
    at[BLOCK : 2 * BLOCK] = -1  # a block that reads nothing
    at[-1, 0] = 0  # and an output that reads far from its neighbours
    weights = rng.integers(1, 9, at.shape) / 8
    grad = rng.integers(0, 9, (2, m - 5)).astype(dtype)
    want = np.zeros((2, n))
    for output, tap in np.ndindex(m - 5, 2):
        if at[3 + output, tap] >= 0:
            weight = weights[3 + output, tap] if mean else 1
            want[:, at[3 + output, tap]] += grad[:, output].astype(float) * weight
    found, low = Index(at, weights).adjoint((grad, 3), 1, n, mean)
    whole = np.zeros((2, n))
    whole[:, low : low + found.shape[1]] = found
    assert found.dtype == grad.dtype
    assert (whole == want).all()


AXES = (
    Window(5, 3, 2, 2),
    Window(3, 2, 1, 1, ceil=True, divide="kernel"),
    Window(3, 2, 1, 1, divide="valid"),
    Window(2, 2, divide="taps"),
    Window(3, 2, 1, 1, taps=(Fraction(1, 4), Fraction(1, 2), Fraction(1, 4))),
    Window(2, 5, dilation=3, taps=(Fraction(0), Fraction(1))),
    Index(
        np.array([[0, 0], [3, -1], [-1, -1], [9, 2]]), np.array([[1, 2], [3, 4], [5, 6], [7, 8]])
    ),
    Full("n"),
    Expand(7, 0),
    Dense(4),
)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_the_table_of_an_axis_is_the_adjoint_of_each_output(axis: Axis, mean: bool) -> None:
    n, m = 10, axis.out_size(10)
    want = np.zeros((m, n))
    for output in range(m):
        back, at = axis.adjoint((np.ones((1, 1)), output), 1, n, mean)
        want[output, at : at + back.shape[1]] = back
    assert _table(axis, n, mean).toarray() == pytest.approx(want, abs=1e-15)


def test_the_table_of_a_sequence_does_not_grow_with_its_square() -> None:
    n = 1 << 20  # dense, 8 TiB
    assert _table(Window(1, 64), n, False).nnz == n // 64
