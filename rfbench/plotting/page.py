"""A figure laid out from its top left corner on whole dots; wrapped text; complete files.

Uses Matplotlib's objects, never pyplot: no shared state, and the same data give the same bytes.
Lengths are in inches; the text of a two-column paper is 7 wide.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from rfbench import files
from rfbench.plotting import look

DPI = 200  # of the PNG; panels and pixels are whole dots wherever possible
LARGE, TEXT, SMALL = 8.5, 6.5, 6.0  # points
KEY = 0.42  # inches of a legend's column beside its words
SPARE = 1.04  # hinting makes letters in a PNG slightly wider than their outlines


class Page:
    """A figure laid out from its top left corner, on whole dots."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure((dots(width), dots(height)), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.width, self.height = self.figure.get_size_inches()

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes with their top left corner at (x, y), y downwards."""
        x, y, width, height = (dots(v) for v in (x, y, width, height))
        low = (self.height - y - height) / self.height
        axes = self.figure.add_axes((x / self.width, low, width / self.width, height / self.height))
        axes.tick_params(labelsize=SMALL, length=2, width=0.5, pad=1.5)
        for spine in axes.spines.values():
            spine.set_linewidth(0.5)
        return axes

    def lines(self, x: float, y: float, lines: Sequence[str], size: float, **style: Any) -> None:
        """Lines of text from (x, y) downwards."""
        for i, words in enumerate(lines):
            at = (x / self.width, 1 - (y + i * line(size)) / self.height)
            self.figure.text(*at, words, fontsize=size, va="top", parse_math=False, **style)

    def legend(self, handles: Sequence[Any], y: float, columns: int) -> None:
        """A legend, centred at the height y; `key_columns` tells how many columns fit."""
        at = (0.5, 1 - y / self.height)
        anchor: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": at, "borderaxespad": 0}
        anchor |= {"ncols": columns, "fontsize": TEXT, "frameon": False}
        literal(self.figure.legend(handles=handles, **anchor))


def key_columns(labels: Sequence[str], width: float) -> int:
    """How many columns of a legend with these labels fit into `width` inches; at least one."""
    each = max(text_width(label, TEXT) for label in labels) + KEY
    return max(1, min(len(labels), int(width / each)))


def literal(legend: Any) -> None:
    """Show a legend's texts, which hold names from outside, as they are: `$` begins no formula."""
    for text in legend.get_texts():
        text.set_parse_math(False)


def dots(length: float) -> float:
    """The nearest length that is a whole number of dots."""
    return round(length * DPI) / DPI


def line(size: float) -> float:
    """The height of a line of text of `size` points."""
    return 1.3 * size / 72


def text_width(text: str, size: float) -> float:
    """The width of a text of `size` points."""
    font = FontProperties(size=size)
    return float(TextToPath().get_text_width_height_descent(text, font, False)[0]) / 72 * SPARE


def wrap(text: str, width: float, size: float) -> list[str]:
    """Lines no wider than `width`; line breaks are kept, no-break spaces break if they must."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        lines.append("")
        for word in _words(paragraph, width, size):
            longer = f"{lines[-1]} {word}".strip(" ")
            if lines[-1] and text_width(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return lines


def _words(text: str, width: float, size: float) -> Iterator[str]:
    for word in text.split(" "):
        yield from [word] if text_width(word, size) <= width else word.split("\u00a0")


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write `stem`.png and `stem`.pdf; each is written completely or not at all.

    The same figure gives the same bytes. For a screen there is no PDF.
    """
    enlarged = look.current().enlarged
    formats = [kind for kind in formats if enlarged == 1 or kind == "png"]
    pdf = {"CreationDate": None, "Producer": None, "Creator": None}
    kinds: dict[str, dict[str, Any]] = {
        "png": {
            "dpi": enlarged * DPI,
            "metadata": {"Software": None},
            "pil_kwargs": {"dpi": (DPI, DPI)},  # its width in inches is the one asked for
        },
        "pdf": {"dpi": 3 * DPI, "metadata": pdf},
    }
    paths = []
    for kind, how in ((kind, kinds[kind]) for kind in formats):
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        native = _as_it_is(figure) if kind == "pdf" else contextlib.nullcontext()
        fonts = matplotlib.rc_context({"pdf.fonttype": 42})  # publishers refuse Type 3 fonts
        out = io.BytesIO()  # a writer of PDF does not tell what it could not write
        with files.naming(paths[-1]), fonts, native:
            figure.savefig(out, format=kind, **how)
        files.write_bytes(paths[-1], out.getvalue())
    return paths


@contextlib.contextmanager
def _as_it_is(figure: Figure) -> Iterator[None]:
    """Images go into a PDF with the pixels that they have, for the printer to enlarge.

    Resampled for the page they would take ten times the space.
    """
    images = [(image, image.get_interpolation()) for ax in figure.axes for image in ax.images]
    for image, _ in images:
        image.set_interpolation("none")
    yield
    for image, before in images:
        image.set_interpolation(before)
