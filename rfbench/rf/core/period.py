"""The units of a map that take turns, as behind resizing."""

from dataclasses import dataclass

import numpy as np

from rfbench.spatial_graph.size import Size


@dataclass(frozen=True, eq=False)
class Period:
    """The units of one period of a map: (p_y, p_x) of them, from the unit `first` (y, x) on.

    centroids: (2, p_y, p_x), in source positions; NaN where no path leads. totals: (p_y, p_x), the
    number of paths from all positions, up to a common factor; an interpolation's taps weigh what
    they do there. With as many axes as the map has.
    """

    first: Size
    centroids: np.ndarray
    totals: np.ndarray
