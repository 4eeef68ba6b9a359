"""One palette for every figure: colours and marks of series, colour maps, how places are marked."""

from typing import Any

from matplotlib.patheffects import withStroke

# Okabe and Ito's colours, which all common kinds of colour blindness tell apart: the first series
# is black, the second vermilion, ...; every figure takes them in this order
COLOURS = "#000000 #D55E00 #0072B2 #009E73 #CC79A7 #E69F00 #56B4E9 #999999".split()
BLACK, VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY, GREY = COLOURS
MARKS = "o s ^ D v P X *".split()  # of the same series, for print without colours

MAPS, GREYS = "magma", "gray"  # colour maps: of path counts and fields, of their local contrast
EMPTY = "#d5dde8"  # behind a map, where there is no source
SHARE = 1e-3  # of a map's largest value: pixels that have less are not worth room in a figure

MARK: dict[str, Any] = {
    "linestyle": "",
    "path_effects": [withStroke(linewidth=2.2, foreground="black")],
}
# where a unit stands in a grid centred on the source
UNIT: dict[str, Any] = MARK | {"marker": "+", "color": "white", "markersize": 4.5}
# open, so that both are seen where they coincide
CENTROID: dict[str, Any] = MARK | {
    "marker": "o",
    "color": SKY,
    "markersize": 6.5,
    "fillstyle": "none",
}
