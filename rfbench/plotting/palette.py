"""One palette for every figure: colours and markers of series, colour maps, marked positions."""

import itertools
from collections.abc import Iterable
from typing import Any

from matplotlib.patheffects import withStroke

from rfbench.models.variant import listed

# Okabe and Ito's colours, distinct under all common kinds of colour blindness; every figure uses
# them in this order: the first series is black, the second vermilion, ...
COLOURS = "#000000 #D55E00 #0072B2 #009E73 #CC79A7 #E69F00 #56B4E9 #999999".split()
BLACK, VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY, GREY = COLOURS
MARKS = "o s ^ D v P X *".split()  # of the same series, for print in black and white

MAPS, GREYS = "magma", "gray"  # colour maps: of path counts and fields, of their local contrast
EMPTY = "#d5dde8"  # behind a map, where there is no source
SHARE = 1e-3  # of a map's largest value; pixels below this are cropped from figures

MARK: dict[str, Any] = {
    "linestyle": "",
    "path_effects": [withStroke(linewidth=2.2, foreground="black")],
}
# position of a unit on a grid centred on the source
UNIT: dict[str, Any] = MARK | {"marker": "+", "color": "white", "markersize": 4.5}
# open, so that both are visible if they coincide
CENTROID: dict[str, Any] = MARK | {
    "marker": "o",
    "color": SKY,
    "markersize": 6.5,
    "fillstyle": "none",
}
# of either, where figures in the pixels around are to be read
FINE: dict[str, Any] = {
    "markersize": 4.2,
    "markeredgewidth": 0.8,
    "path_effects": [withStroke(linewidth=1.6, foreground="black")],
}


def colours(series: Iterable[str]) -> dict[str, str]:
    """A colour for each series: listed variants have a fixed one, others get the remaining ones."""
    names = list(dict.fromkeys(series))
    fixed = dict(zip(listed(), COLOURS, strict=False))
    used = {fixed[name] for name in names if name in fixed}
    spare = itertools.cycle([c for c in COLOURS if c not in used] or COLOURS[1:])
    return {name: fixed.get(name) or next(spare) for name in names}
