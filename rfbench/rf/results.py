"""What the functions for notebooks return: values that show what they say.

A `Report` is a dict that prints as its command's table and draws its figure. Notebooks display
both; in scripts and tests it is the dict that it always was.
"""

import base64
import html
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rfbench.errors import RfbenchError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]
INCHES = 7.0  # the most that a figure is wide in a notebook


class Report(dict[str, Any]):
    """A record, with its table as text and its figure."""

    def __init__(
        self,
        record: Record,
        text: Callable[[Record], str],
        draw: Callable[[Record], "Figure"] | None = None,
    ) -> None:
        """text: the table of the record; draw: its figure, None if there is none."""
        super().__init__(record)
        self._text, self._draw = text, draw

    def __repr__(self) -> str:
        return self._text(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Report, (self.to_dict(), self._text, self._draw)

    def _repr_html_(self) -> str:
        image = "" if self._draw is None else f"<p>{_inline(self.plot())}</p>"
        return f"{image}<pre>{html.escape(repr(self))}</pre>"

    def plot(self) -> "Figure":
        """The figure; `savefig` writes it. Raises RfbenchError where there is none."""
        if self._draw is None:
            raise RfbenchError("this report has no figure")
        return self._draw(self.to_dict())

    def to_dict(self) -> Record:
        """The record as a plain dict."""
        return dict(self)


class Measured(NamedTuple):
    """A map and its figures: `counts, figures = rf.path_counts(graph)`.

    map: path counts (H, W), or what `effective` found. figures: a `Report`.
    """

    map: Any
    figures: Report

    def __repr__(self) -> str:
        shape = getattr(self.map, "magnitude", self.map).shape
        return f"map of {'x'.join(map(str, shape))} px\n{self.figures!r}"

    def _repr_html_(self) -> str:
        return self.figures._repr_html_()

    def plot(self, ax: Any = None) -> Any:
        """The figure; or the map alone, drawn into the Matplotlib axes `ax`, which are returned.

        In `ax`, offsets are px from the unit's place; + is that place, the ring the map's centroid.
        Raises RfbenchError for `ax` and a map that is no image's.
        """
        return self.figures.plot() if ax is None else _into(ax, self)

    def to_dict(self) -> Record:
        """The figures as a plain dict."""
        return self.figures.to_dict()


def _into(axes: Any, found: Measured) -> Any:
    """Draw a map of two axes into axes of the caller's own figure."""
    from rfbench.plotting import palette
    from rfbench.rf.core.contrast import offset

    values = np.asarray(getattr(found.map, "magnitude", found.map), dtype=float)
    if values.ndim != 2:
        raise RfbenchError("only maps of images are drawn into given axes; plot() draws the others")
    off = offset(found.figures)
    y, x = (c - o for c, o in zip(found.figures["centroid"], off, strict=True))
    height, width = values.shape
    extent = (-0.5 - x, width - 0.5 - x, height - 0.5 - y, -0.5 - y)
    axes.imshow(np.sqrt(values / values.max()), cmap=palette.MAPS, extent=extent, vmin=0, vmax=1)
    axes.plot(0, 0, **palette.UNIT)
    axes.plot(off[1], off[0], **palette.CENTROID)
    axes.set(xlabel="offset, px", ylabel="offset, px")
    return axes


def _inline(figure: "Figure") -> str:
    """A figure as an HTML image with its data inside, in its own size up to INCHES wide."""
    held = io.BytesIO()
    width = min(INCHES, round(float(figure.get_size_inches()[0]), 2))
    figure.savefig(held, format="png", dpi=200)
    data = base64.b64encode(held.getvalue()).decode()
    style = f"max-width: 100%; width: {width}in"
    return f'<img alt="The figure" style="{style}" src="data:image/png;base64,{data}">'
