"""Maps along one axis, carried back by hand."""

from fractions import Fraction

import numpy as np
import pytest

from rfbench.spatial_graph.axis import WIDE, Window


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
