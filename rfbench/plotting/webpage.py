"""One self-contained HTML file: tables to sort and search, embedded images; no network.

Independent of the content. Its HTML, CSS and JavaScript are the files in assets/.
"""

import base64
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

# a text, or a text and the CSS class of its cell: good, bad, faint
Cell = str | tuple[str, str]

ENVIRONMENT = Environment(
    loader=PackageLoader("rfbench.plotting", "assets"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)


def page(
    title: str,
    parts: Sequence[str],
    contents: Mapping[str, str] | None = None,
    style: str = "",
    script: str = "",
    data: Any = None,
) -> str:
    """The whole file.

    parts: HTML, in order. contents: titles by the id of their heading. style, script: additional
    CSS and JavaScript; a script can read `data`, a JSON value, as `data`.
    """
    own = [asset("rfbench.plotting", name) for name in ("page.css", "page.js")]
    return ENVIRONMENT.get_template("page.html").render(
        title=title,
        parts=[Markup(part) for part in parts if part],
        contents=contents or {},
        styles=[Markup(text) for text in (own[0], style) if text],
        scripts=[Markup(text) for text in (own[1], script) if text],
        data=data,
    )


def asset(package: str, name: str) -> str:
    """The text of a file in the folder assets/ of a package."""
    return (resources.files(package) / "assets" / name).read_text("utf-8")


def fill(template: str, **values: Any) -> Markup:
    """HTML from a jinja2 template; values are escaped."""
    return Markup(ENVIRONMENT.from_string(template).render(**values))


def _part(name: str, *values: Any) -> Markup:
    macro: Any = getattr(ENVIRONMENT.get_template("parts.html").module, name)
    return Markup(macro(*values))


def heading(text: str, level: int, anchor: str = "") -> Markup:
    """A heading, which `page` may link to."""
    return _part("heading", text, level, anchor)


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], numeric: Sequence[bool]) -> Markup:
    """A table that is sorted by a click on its head. numeric: which columns hold numbers."""
    columns = list(zip(head, numeric, strict=True))
    cells = [[_classed(c, n) for c, n in zip(row, numeric, strict=True)] for row in rows]
    return _part("table", columns, cells)


def _classed(cell: Cell, number: bool) -> tuple[str, str]:
    """A cell's text, and its classes."""
    text, tone = (cell, "") if isinstance(cell, str) else cell
    return text, " ".join(["n"] * number + [tone] * bool(tone))


def image(png: bytes, alt: str, caption: str = "", scale: float = 1.0) -> Markup:
    """An embedded PNG, shown at `scale` of its size, or smaller on a narrow screen."""
    width = round(int.from_bytes(png[16:20], "big") * scale)  # of the header chunk, IHDR
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return _part("image", source, width, alt, caption)


def notes(texts: Sequence[str]) -> Markup:
    """A list of short remarks; nothing if there are none."""
    return _part("notes", texts)


def paragraph(text: str, name: str = "") -> Markup:
    """A paragraph of CSS class `name`."""
    return _part("paragraph", text, name)
