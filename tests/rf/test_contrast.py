"""Path counts over their local mean: the mean is SciPy's, and a grid is what is left."""

import numpy as np
import pytest
from scipy.ndimage import convolve1d

from rfbench.rf.core import contrast


@pytest.mark.parametrize("size", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(40, 51), (7, 3)])
def test_the_mean_of_a_box_is_scipys(shape: tuple[int, int], axis: int, size: int) -> None:
    array = np.random.default_rng(0).random(shape)
    weights = np.ones(size + 1 - size % 2)
    if size % 2 == 0:
        weights[[0, -1]] = 0.5
    wanted = convolve1d(array, weights / size, axis)  # mirrored at its ends
    assert contrast._box(array, size, axis) == pytest.approx(wanted, rel=1e-12)


def test_a_grid_on_a_slope_is_what_is_left() -> None:
    y = np.linspace(1, 2, 64)[:, None] * np.ones(64)
    grid = 1 + 0.5 * (-1.0) ** np.arange(64)
    found = contrast.over_mean(y * grid, [2, 2], (32, 32), 20)
    assert found == pytest.approx(np.broadcast_to(grid[22:43], found.shape), rel=1e-3)
