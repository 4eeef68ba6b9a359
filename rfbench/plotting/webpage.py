"""One self-contained HTML file: tables to sort and filter, charts, embedded images; no network.

Independent of the content. Its HTML, CSS and JavaScript are the files in assets/.
"""

import base64
import functools
import hashlib
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

# a text, or a text and the CSS class of its cell: good, bad, faint; HTML as Markup
Cell = str | tuple[str, str]
# what stands first when a column is sorted: the largest, the least, what is nearest to 0, or words
# in their natural order
Best = Literal["high", "low", "zero", "name"]
SCRIPTS = ("page.js", "chart.js")
BETWEEN = re.compile(r"(?<=[:=,_/])(?=\w)|(?<=\.)(?=[A-Za-z])")  # the parts of a name

ENVIRONMENT = Environment(
    loader=PackageLoader("rfbench.plotting", "assets"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)


@dataclass(frozen=True)
class Column:
    """A column of a table. meaning: shown where the reader points; best: first when sorted."""

    name: str
    best: Best = "name"
    meaning: str = ""
    group: str = ""  # of neighbours under one heading

    @property
    def is_number(self) -> bool:
        """Whether its cells are numbers: to the right, and sorted as such."""
        return self.best != "name"


def page(
    title: str,
    parts: Sequence[str],
    contents: Mapping[str, str] | None = None,
    lead: Sequence[str] = (),
    tools: str = "",
    noun: str = "rows",
    style: str = "",
    script: str = "",
    data: Any = None,
) -> str:
    """The whole file.

    lead: HTML above the filters: what the page says in short. parts: HTML, in order. contents:
    titles by the id of their heading. tools: more filters beside the search; noun: what they count.
    style, script: additional CSS and JavaScript; a script can read `data`, a JSON value.
    """
    scripts = [asset("rfbench.plotting", name) for name in SCRIPTS] + [script] * bool(script)
    return ENVIRONMENT.get_template("page.html").render(
        title=title,
        lead=[Markup(part) for part in lead if part],
        parts=[Markup(part) for part in parts if part],
        contents=contents or {},
        tools=Markup(tools),
        noun=noun,
        styles=[Markup(text) for text in (asset("rfbench.plotting", "page.css"), style) if text],
        scripts=[Markup(text) for text in scripts],
        allowed=" ".join(map(_digest, scripts)),
        data=data,
    )


def _digest(script: str) -> str:
    """How a content security policy names a script that may run."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


@functools.cache
def asset(package: str, name: str) -> str:
    """The text of a file in the folder assets/ of a package."""
    return (resources.files(package) / "assets" / name).read_text("utf-8")


def fill(template: str, **values: Any) -> Markup:
    """HTML from a jinja2 template; values are escaped."""
    return Markup(_compiled(template).render(**values))


@functools.cache  # a page fills some of its templates for every row
def _compiled(template: str) -> Template:
    return ENVIRONMENT.from_string(template)


def _part(name: str, *values: Any) -> Markup:
    macro: Any = getattr(ENVIRONMENT.get_template("parts.html").module, name)
    return Markup(macro(*values))


def heading(text: str, level: int, anchor: str = "") -> Markup:
    """A heading, which `page` may link to."""
    return _part("heading", text, level, anchor)


def table(
    label: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    keys: Sequence[str] = (),
    texts: Sequence[str] = (),
    foot: Sequence[Cell] = (),
) -> Markup:
    """A table that is sorted by a click on its head; its first column names the rows.

    label: what it is called where it is not seen. keys: of the rows; rows of one key are filtered
    together. texts: what a search of each row looks through, in the table that has them; the rows
    with a text are those that are counted. foot: a last row, which stays where it is.
    """
    held = [
        (
            keys[i] if keys else "",
            texts[i] if texts else "",
            [
                _classed(cell if j else _breakable(cell), column)
                for j, (cell, column) in enumerate(zip(row, columns, strict=True))
            ],
        )
        for i, row in enumerate(rows)
    ]
    groups: list[tuple[str, int]] = []
    for column in columns if any(column.group for column in columns) else []:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    return _part("table", label, columns, groups, held, foot)


def _classed(cell: Cell, column: Column) -> tuple[str, str]:
    """A cell's text, and its classes."""
    text, tone = (cell, "") if isinstance(cell, str) else cell
    return text, " ".join(["n"] * column.is_number + [tone] * bool(tone))


def _breakable(cell: Cell) -> Cell:
    """A name that a narrow screen breaks between its parts, rather than within one."""
    if isinstance(cell, tuple | Markup):
        return cell
    parts = [piece for piece in BETWEEN.split(cell) if piece]
    return Markup("<wbr>").join(parts)


def section(parts: Sequence[str], name: str = "") -> Markup:
    """Parts that are hidden together when none of their rows is shown."""
    return _part("section", [Markup(part) for part in parts if part], name)


def details(title: str, parts: Sequence[str]) -> Markup:
    """Parts that a click on the title unfolds."""
    return _part("details", title, [Markup(part) for part in parts if part])


def term(text: str, meaning: str) -> Markup:
    """A word that explains itself where the reader points, or comes with the keyboard."""
    return _part("term", text, meaning)


def link(path: Path, folder: Path, text: str) -> Markup:
    """A link to a file or folder, relative to the `folder` that holds the page."""
    relative = os.path.relpath(path.absolute(), folder.absolute())
    # of bytes: a name need not be UTF-8
    return _part("link", f"./{urllib.parse.quote(os.fsencode(relative))}", text)


def jump(anchor: str, text: str) -> Markup:
    """A link to a heading of the page."""
    return _part("link", f"#{anchor}", _breakable(text))


def image(png: bytes, alt: str, caption: str = "", scale: float = 1.0) -> Markup:
    """An embedded PNG, shown at `scale` of its size, or smaller on a narrow screen."""
    width = round(int.from_bytes(png[16:20], "big") * scale)  # of the header chunk, IHDR
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return _part("image", source, width, alt, caption)


def notes(texts: Sequence[str]) -> Markup:
    """A list of short remarks; nothing if there are none."""
    return _part("notes", texts)


def glossary(columns: Sequence[Column]) -> Markup:
    """What every column means, for readers without a pointer, and on paper."""
    return _part("glossary", {c.name: c.meaning for c in columns if c.meaning})


def paragraph(text: str, name: str = "") -> Markup:
    """A paragraph of CSS class `name`."""
    return _part("paragraph", text, name)


def written(versions: Mapping[str, str], git: Mapping[str, Any] | None, device: str = "") -> Markup:
    """When, by which versions and commit, and where this page was written."""
    now = datetime.now(timezone.utc)
    parts = [f"Written {now:%Y-%m-%d %H:%M} UTC"]
    parts += [", ".join(f"{name} {version}" for name, version in versions.items())]
    parts += [f"commit {commit(git)}"] * bool(git) + [device] * bool(device)
    return paragraph(" · ".join(parts), "legend")


def commit(git: Mapping[str, Any] | None) -> str:
    """'1a2b3c4d', or '1a2b3c4d + changes'; nothing outside of a checkout."""
    if not git:
        return ""
    return f"{str(git.get('commit'))[:8]}{' + changes' if git.get('changed') else ''}"
