"""For whom a figure is: its style and its width. No Matplotlib, so that commands start quickly.

Figures are laid out in inches at a paper's letters. `screen` enlarges all of them, letters
included, after the layout, so that a figure of the same width shows less at once.
"""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from rfbench.errors import UsageError

ENLARGED = {"paper": 1, "screen": 2}  # by style; whole, so that pixels remain whole dots
SLIDE = 13.33  # inches: a wide slide, what `screen` takes without a width
LEAST, READABLE = 0.6, 1.0  # inches of a panel: that are needed; that rows of panels keep
NARROWEST, WIDEST = 2.0, 40.0  # inches of a figure


@dataclass(frozen=True)
class Look:
    """style: a key of ENLARGED. width: of a figure in inches, None: what its panels need."""

    style: str = "paper"
    width: float | None = None

    @property
    def enlarged(self) -> int:
        """By how much the layout is enlarged when it is written."""
        return ENLARGED[self.style]

    @property
    def layout(self) -> float | None:
        """The width to lay out, in inches; None: what the panels need."""
        width = SLIDE if self.width is None and self.enlarged > 1 else self.width
        return None if width is None else width / self.enlarged


USUAL = Look()
_LOOK: ContextVar[Look] = ContextVar("look", default=USUAL)


@contextlib.contextmanager
def styled(style: str = "paper", width: float | None = None) -> Iterator[None]:
    """A context in which figures are drawn for a paper or a screen, `width` inches wide.

    Raises UsageError for another style, or a width outside 2 to 40 inches.
    """
    if style not in ENLARGED:
        raise UsageError(f"style {style!r}: there are {' and '.join(ENLARGED)}")
    if width is not None and not NARROWEST <= width <= WIDEST:
        raise UsageError(f"width {width:g}: must be {NARROWEST:g} to {WIDEST:g} inches")
    before = _LOOK.set(Look(style, width))
    try:
        yield
    finally:
        _LOOK.reset(before)


def current() -> Look:
    """The look of figures drawn now."""
    return _LOOK.get()


def page_width(natural: float) -> float:
    """The width of a page in inches: `natural`, unless another is asked for."""
    return current().layout or natural


def side(natural: float, beside: float, count: int = 1) -> float:
    """The width of each of `count` panels in inches: `natural`, unless the page's is asked for.

    beside: inches of the page that are no panel's. Raises UsageError if too little is left.
    """
    layout = current().layout
    if layout is None:
        return natural
    left = (layout - beside) / count
    if left < LEAST:
        need = math.ceil(10 * (beside + count * LEAST) * current().enlarged) / 10
        raise UsageError(f"the figure needs a width of {need:g} inches or more (--width)")
    return left


def columns(count: int, beside: float, gap: float, most: int = 4) -> int:
    """Panels a row, so that rows are even: up to `most`, fewer where panels would be too small.

    beside: inches of the page that are neither panels nor the gaps between them.
    """
    layout = current().layout
    if layout is not None:
        most = max(1, min(most, int((layout - beside + gap) / (READABLE + gap))))
    return math.ceil(count / math.ceil(count / most))
