"""Receptive fields side by side, as HTML with SVG: one scale for all, fit for light and dark.

As the figure of `visualize-rf`: above the map, below its middle over the local mean. Lengths are px
of the page, unless a name says that they are px of the input.
"""

import base64
import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from PIL import Image

from rfbench.plotting import webpage
from rfbench.plotting.palette import EMPTY, GREYS, MAPS
from rfbench.report.model import Field
from rfbench.rf.core.path_map import DEFAULT
from rfbench.rf.core.recorded_map import MIDDLE, Part, RecordedMap

SIDE = 240  # of a panel, about: pixels of the input are whole pixels of the page
SMALL = 20  # input px: of such maps the middle is the whole
STEPS = 8  # greys that a scale is to have at least on either side of 0
TICKS = {"0": 0.0, "0.1": 0.1, "0.25": 0.25, "0.5": 0.5, "1": 1.0}  # of paths / most paths
ROOM = {"left": 38, "top": 4, "below": 20, "right": 8}  # around a panel


@dataclass(frozen=True)
class Scale:
    """What all panels have in common. width: input px across; zoom: the same of the second row,
    None: there is none; contrast: of the second row, 1 - contrast is black, 1 + contrast white.
    """

    side: int
    width: int
    zoom: int | None
    contrast: float


def figure(fields: Sequence[Field], unmapped: Sequence[str] = ()) -> Markup:
    """The maps of some networks, at least one, with legend and caption. unmapped: rows without."""
    scale = scale_of([field.map for field in fields])
    panels = [
        {"title": f.title, "words": f.words, "views": [v for v in _views(f, scale) if v]}
        for f in fields
    ]
    percent = 100 * scale.contrast
    most = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    grey = {f"−{most}": 0.0, "0": 0.5, f"+{most}": 1.0}
    bars = [("paths / most paths", _bar(_magma()), [(k, v**0.5) for k, v in TICKS.items()])]
    if scale.zoom:
        bars.append(("paths above local mean, %", _bar(_greys(1.0, 1.0)), [*grey.items()]))
    return webpage.fill(
        webpage.asset("rfbench.report", "fields.html"),
        panels=panels,
        bars=bars,
        room=ROOM,
        side=scale.side,
        wide=scale.side + ROOM["left"] + ROOM["right"],
        high=scale.side + ROOM["top"] + ROOM["below"],
        rows=3 + bool(scale.zoom),
        empty=EMPTY,
        zoom=scale.zoom,
        note=_note(fields, scale),
        unmapped=", ".join(dict.fromkeys(unmapped)),
    )


def scale_of(maps: Sequence[RecordedMap]) -> Scale:
    """The scale that shows all of some maps.

    Of the sides near `SIDE` that show a pixel of the input as a whole number of the page's, the one
    that leaves least empty.
    """
    need = 2 * max(m.whole.reach for m in maps)
    need *= 1.0 if need <= SMALL else 1.03
    pixel = min(m.whole.pixel for m in maps)
    cells = range(math.ceil(need / pixel), math.ceil(1.1 * need / pixel) + 2)
    zooms = _zooms(maps, need)
    choices = [
        (_cost(k * n, n * pixel / need, zoom, zooms), k * n, n * pixel, zoom)
        for n in cells
        for k in range(1, max(2, math.ceil(1.5 * SIDE / n)))
        for zoom in (*(z for z in zooms if k * n % z == 0), None)
    ]
    _, side, width, zoom = min(choices, key=lambda choice: choice[0])
    held = [m for m in maps if m.middle]
    contrast = max([0.0, *(max(m.contrast, STEPS * m.span / 127) for m in held)])
    return Scale(side, width, zoom, min(1.0, contrast))


def _zooms(maps: Sequence[RecordedMap], need: float) -> dict[int, float]:
    """Widths of the second row, input px, and how far each is from the one that is wanted.

    Few enough pixels to be told apart, enough for the way from the unit's position to the centroid.
    """
    wanted = min(MIDDLE, 2 * max(14.0, *(abs(o) + 5 for m in maps for o in m.offset)))
    zooms = {z: abs(z - wanted) / wanted for z in range(20, MIDDLE + 1, 2)}
    show = any(m.middle for m in maps)
    return {z: cost for z, cost in zooms.items() if show and max(z, SMALL) < need}


def _cost(side: int, spare: float, zoom: int | None, zooms: dict[int, float]) -> float:
    """How far a layout is from the one that is wanted; a second row is not left out lightly."""
    row = zooms[zoom] if zoom else 10.0 * bool(zooms)
    return abs(side - SIDE) / SIDE + 2 * (spare - 1) + row


def _views(field: Field, scale: Scale) -> list[dict[str, Any] | None]:
    """What is drawn of a field: its whole, and its middle."""
    held = field.map
    label = f"{field.title}: path counts; {field.words}; {_where(held.offset)}"
    part = scale.zoom and scale.zoom * scale.side / scale.width
    whole = _view(held.whole, _magma(), scale.width, scale, held.offset, label)
    views: list[dict[str, Any] | None] = [{**whole, "part": part, "ground": "#000"}]
    if scale.zoom is None:
        return views
    if held.middle is None:
        return [*views, None]
    label = f"{field.title}: the middle of its map, paths over their local mean"
    greys = _greys(held.span, scale.contrast)
    middle = _view(held.middle, greys, scale.zoom, scale, held.offset, label)
    return [*views, {**middle, "part": None, "ground": EMPTY}]


def _view(
    part: Part,
    colours: np.ndarray,
    width: int,
    scale: Scale,
    offset: tuple[float, float],
    label: str,
) -> dict[str, Any]:
    """A map in a square `width` input px wide around the unit's position."""
    factor = scale.side / width
    height, across = (n * part.pixel * factor for n in part.values.shape)
    y, x = (scale.side / 2 + at * factor for at in part.at)
    ends = 0.44 * width  # a label farther out would meet the next panel's
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10], integer=True).tick_values(-ends, ends)
    dy, dx = (o * factor for o in offset)
    far = math.hypot(dy, dx)
    return {
        "label": label,
        "source": _png(part.values, colours),
        "box": [round(v, 3) for v in (x, y, across, height)],
        "ticks": [
            (round(scale.side / 2 + t * factor, 2), f"{t:g}".replace("-", "−"))
            for t in ticks
            if abs(t) <= ends
        ],
        "centroid": (round(scale.side / 2 + dx, 2), round(scale.side / 2 + dy, 2)),
        # of the arrow: where it points, and how long it is between the two marks
        "arrow": (round(math.degrees(math.atan2(dy, dx)), 1), round(far - 7, 1))
        if far > 0.12 * scale.side
        else None,
    }


def _where(offset: tuple[float, float]) -> str:
    """Where a centroid is, in words."""
    sides = [("above", "below"), ("left of", "right of")]
    parts = [
        f"{abs(o):.1f} px {names[o > 0]}"
        for o, names in zip(offset, sides, strict=True)
        if abs(o) >= 0.05
    ]
    return f"the centroid is {' and '.join(parts) or 'at'} the unit's position"


@functools.cache
def _magma() -> np.ndarray:
    """(256, 3) uint8: of 255 times the square root of a share of paths."""
    return _colours(MAPS)


def _colours(name: str) -> np.ndarray:
    return matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]


def _greys(span: float, contrast: float) -> np.ndarray:
    """(256, 3) uint8: of a middle with that span."""
    apart = (np.arange(256) - 128) / 127 * span
    shades = np.clip(np.rint(127.5 + 127.5 * apart / contrast), 0, 255).astype(int)
    colours = _colours(GREYS)[shades]
    colours[0] = list(bytes.fromhex(EMPTY[1:]))
    return colours


def _bar(colours: np.ndarray) -> str:
    return _png(np.arange(1, 256, dtype=np.uint8)[None], colours)


def _png(values: np.ndarray, colours: np.ndarray) -> str:
    """The address of a PNG: written anew, whatever a record's own held."""
    image = Image.fromarray(values)
    image.putpalette(colours.astype(np.uint8).tobytes())
    out = io.BytesIO()
    image.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _note(fields: Sequence[Field], scale: Scale) -> str:
    """How to read the figure."""
    out = (
        "Maps: square root of the number of paths from each input pixel to the central unit of the "
        "last map, 1 where most, on an input that cuts nothing off."
    )
    if scale.zoom:
        out += " Below: their middle, paths over the mean within S × S px (S: effective stride)."
    out += (
        " Offsets: input pixels from the unit's position in a grid centred on the input; along an "
        "axis without a stride, from the middle of its field. Shift: centroid minus that position."
    )
    for pixel in sorted({f.map.whole.pixel for f in fields} - {1}):
        names = ", ".join(f.title for f in fields if f.map.whole.pixel == pixel)
        out += f" A point of the map of {names} is the mean of {pixel} × {pixel} px."
    return f"{out} {DEFAULT}, norms=identity."
