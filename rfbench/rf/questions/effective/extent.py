"""Figures of an effective receptive field (Luo et al., 2016; area ratios as of RepLKNet, 2022)."""

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.optimize import curve_fit

from rfbench.rf.core.field import Field
from rfbench.rf.questions.effective.gradients import Gradients
from rfbench.spatial_graph.size import Size

# two standard deviations of a Gaussian hold 95.45 %: what lies below the rest counts as nothing
THRESHOLD = 1 - 0.9545
SHARES = (0.2, 0.5, 0.99)
RADII = (5, 10, 20, 30, 40, 60, 80)  # openerf's, px
FITTED = {1: 1024, 2: 128, 3: 24}  # a fit on more pixels a side takes long and says the same


Place = tuple[float, ...]  # along every axis, (y, x) of an image


@dataclass(frozen=True)
class Position:
    """Where the unit stands over the input.

    nominal: (y, x) in a grid centred on the image. center: of its theoretical field, or nominal.
    theoretical: size of that field along (y, x), None where there is none (attention).
    """

    nominal: Place
    center: Place
    theoretical: Size | None


def nominal(unit: Size, units: Size, size: Size) -> Place:
    """The unit's position if the map is a grid centred on the image with its cells H / h apart."""
    return tuple(
        (u - (n - 1) / 2) * (side / n) + (side - 1) / 2
        for u, n, side in zip(unit, units, size, strict=True)
    )


def position(seen: Gradients, field: tuple[Field, ...] | None) -> Position:
    """Where the unit of `seen` stands; `field`: the theoretical one of unit 0, by axis."""
    middle = nominal(seen.unit, seen.units, seen.magnitude.shape)
    if field is None:
        return Position(middle, middle, None)
    centers = tuple(f.center(u) for f, u in zip(field, seen.unit, strict=True))
    return Position(middle, centers, tuple(f.size for f in field))


def measure(seen: Gradients, position: Position, convention: str = "rfbench") -> dict[str, Any]:
    """All figures of a field, ready for JSON: lengths in px, pairs as (y, x).

    size: square root of the number of pixels above 1 - 0.9545 of the centre's value (Luo et al.; of
    samples the number, of voxels the cube root), the centre being that of the theoretical field;
    size_by_maximum: above that share of the largest. ratio: size over the theoretical size. areas:
    for each share of the sum the side of the smallest square around the unit's position that holds
    it (an interval, a cube), and its share of the image (convention: RepLKNet's, see `log_areas`;
    openerf's, see `circles`).
    """
    field = seen.magnitude
    middle = centroid(field)
    at = np.array(position.center)[:, None]
    center = float(map_coordinates(field, at, order=1, mode="nearest")[0])
    size = extent(field, center)
    theory = position.theoretical and math.prod(position.theoretical) ** (1 / field.ndim)
    return {
        "size": size,
        "size_by_maximum": extent(field, float(field.max())),
        "theoretical": list(position.theoretical) if position.theoretical else None,
        "ratio": size / theory if theory else None,
        "shift": [m - n for m, n in zip(middle, position.nominal, strict=True)],
        "centroid": list(middle),
        "gaussian": gaussian(field),
        "areas": log_areas(field) if convention == "replknet" else areas(field, position.nominal),
        **({"radial": circles(field)} if convention == "openerf" else {}),
        "positive": float((seen.signed > 0).mean()),
        "layer": seen.layer,
        "unit": list(seen.unit),
        "units": list(seen.units),
        "samples": seen.samples,
        "input_size": list(field.shape),
    }


def centroid(field: np.ndarray) -> Place:
    """The centroid along every axis, (y, x), in px."""
    return tuple(float(v @ np.arange(len(v)) / v.sum()) for v in _sums(field))


def _sums(field: np.ndarray) -> list[np.ndarray]:
    """The sums of a field along every axis over all others."""
    axes = range(field.ndim)
    return [field.sum(tuple(a for a in axes if a != k)) for k in axes]


def extent(field: np.ndarray, reference: float) -> float:
    """Luo et al.'s size in px: a square as large as all pixels above 1 - 0.9545 of `reference`."""
    return int((field > THRESHOLD * reference).sum()) ** (1 / field.ndim)


def log_areas(field: np.ndarray) -> dict[str, dict[str, float] | None]:
    """Side and share of the squares around the image's centre as RepLKNet's script has them.

    It takes log10(x + 1) of the field first, which depends on the field's scale and widens it, and
    more than the share in question, of squares from 3 px up to the image's height; None: there is
    no such square.
    """
    values, (h, w) = np.log10(field + 1), field.shape
    held = _held(values, (h // 2, w // 2))
    squares: dict[str, dict[str, float] | None] = {}
    for share in (0.2, 0.3, 0.5, 0.99):
        i = max(1, int(np.argmax(held > share)))
        side = 2 * i + 1
        enough = i < h // 2 and bool((held > share).any())
        squares[f"{share:.0%}"] = {"side": side, "share": side**2 / (h * w)} if enough else None
    return squares


def circles(field: np.ndarray) -> dict[str, float]:
    """The share of the sum in circles around pixel n // 2, by radius in px, as openerf has it."""
    h, w = field.shape
    distance = np.hypot(np.arange(h)[:, None] - h // 2, np.arange(w) - w // 2)
    return {str(r): float(field[distance <= r].sum() / field.sum()) for r in RADII}


def _held(field: np.ndarray, center: Size) -> np.ndarray:
    """The share of the sum in the squares of side 2 i + 1 around a pixel (intervals, cubes)."""
    # sums of all squares at once: of every pixel the distance to the centre decides
    each = [np.abs(np.arange(n) - c) for n, c in zip(field.shape, center, strict=True)]
    distance = reduce(np.maximum.outer, each)
    return np.cumsum(np.bincount(distance.ravel(), field.ravel())) / field.sum()


def areas(field: np.ndarray, center: Place) -> dict[str, dict[str, float]]:
    """Side and share of the image of the smallest squares that hold 20, 50 and 99 % of the sum.

    Around the pixel at the unit's position; RepLKNet's script has the image's own.
    """
    held = _held(field, tuple(round(c) for c in center))
    squares = {}
    for share in SHARES:
        side = 2 * int(np.searchsorted(held, share - 1e-12)) + 1
        squares[f"{share:.0%}"] = {"side": side, "share": min(1.0, side**field.ndim / field.size)}
    return squares


def gaussian(field: np.ndarray) -> dict[str, Any] | None:
    """A Gaussian fitted by least squares: centre, sigma (y, x) in px, r2; along every axis.

    r2 is the share of the field's variance that it explains: low for a gridded field. None where
    no fit was found.
    """
    block = max(1, math.ceil(max(field.shape) / FITTED[field.ndim]))
    values = _blocks(field, block)
    values = values / values.max()
    places = [block * np.arange(n) + (block - 1) / 2 for n in values.shape]
    axes = len(places)
    start = centroid(values)
    spread = [
        max(0.5, math.sqrt(float(v @ (np.arange(len(v)) - m) ** 2 / v.sum())))
        for v, m in zip(_sums(values), start, strict=True)
    ]
    first = [1.0, *(block * m + (block - 1) / 2 for m in start), *(block * s for s in spread)]

    def bell(_: Any, height: float, *form: float) -> np.ndarray:
        each = zip(places, form[:axes], form[axes:], strict=True)
        return (
            height
            * reduce(
                np.multiply.outer, [np.exp(-(((at - m) / s) ** 2) / 2) for at, m, s in each]
            ).ravel()
        )

    try:
        best = curve_fit(bell, None, values.ravel(), first, maxfev=2000)[0]
    except RuntimeError:  # scipy: not found within maxfev
        return None
    left = values.ravel() - bell(None, *best)
    form = [float(v) for v in best[1:]]
    r2 = 1 - float((left**2).sum() / ((values - values.mean()) ** 2).sum())
    return {"center": form[:axes], "sigma": [abs(s) for s in form[axes:]], "r2": r2}


def _blocks(field: np.ndarray, block: int) -> np.ndarray:
    """Means over blocks of pixels; what is left over at the lower right border is cut off."""
    whole = [n // block for n in field.shape]
    inside = field[tuple(slice(n * block) for n in whole)]
    parts = inside.reshape([n for k in whole for n in (k, block)])
    return parts.mean(tuple(range(1, 2 * field.ndim, 2)))
