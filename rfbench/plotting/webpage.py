"""One self-contained HTML file: tables to sort and to search, pictures inside it; no network.

It knows nothing of what it shows.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
:root { --ink: #1b1f24; --faint: #667080; --line: #d9dee5; --soft: #f5f7f9; --link: #0b5cad; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem clamp(0.8rem, 3vw, 2.5rem) 3rem; max-width: 96rem;
  color: var(--ink); background: #fff; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 0.6rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.4rem; padding-top: 0.9rem;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.4rem 0 0.3rem; overflow-wrap: anywhere; }
nav ul { margin: 0.4rem 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: 0.2rem 1.2rem; }
a { color: var(--link); }
code { font: 0.9em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.search { position: sticky; top: 0; z-index: 3; background: #fff; padding: 0.5rem 0; }
.search input { font: inherit; width: min(24rem, 100%); padding: 0.3rem 0.6rem;
  border: 1px solid #aab3bf; border-radius: 4px; }
.search output { color: var(--faint); margin-left: 0.7rem; }
.wide { overflow-x: auto; margin: 0.5rem 0 1rem; border: 1px solid var(--line);
  border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.28rem 0.7rem; text-align: left; white-space: nowrap; }
thead th { background: var(--soft); border-bottom: 1px solid var(--line); padding: 0; }
th button { all: unset; box-sizing: border-box; cursor: pointer; display: block; width: 100%;
  padding: 0.35rem 0.7rem; font-weight: 600; font-size: 0.9em; }
th button:focus-visible { outline: 2px solid var(--link); outline-offset: -2px; }
th.n button { text-align: right; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
tbody tr + tr td { border-top: 1px solid #edf0f3; }
tbody tr:hover { background: var(--soft); }
td.n { text-align: right; }
td.good { color: #0a6b3d; font-weight: 600; }
td.bad { color: #a8321f; font-weight: 600; }
td.faint { color: var(--faint); }
tbody td:first-child { position: sticky; left: 0; background: #fff; }
figure { margin: 0.8rem 0 1.4rem; overflow-x: auto; }
figure img { max-width: max(100%, 40rem); height: auto; display: block; }
figcaption, .legend { color: var(--faint); font-size: 0.9em; max-width: 62rem; }
ul.notes { margin: 0.3rem 0 0.8rem; padding-left: 1.2rem; color: var(--faint); font-size: 0.92em; }
@media (max-width: 40rem) { th, td { padding: 0.25rem 0.5rem; }
  tbody td:first-child { position: static; } }
@media print { .search { display: none; } .wide { overflow: visible; } }
"""

SCRIPT = """
"use strict";
const units = {k: 1e3, M: 1e6, G: 1e9};
function value(cell) {
  const found = cell.textContent.match(/^[\\[×<]?([+-]?[\\d.]+(?:e[+-]?\\d+)?)\\s*([kMG]\\b)?/);
  return found ? parseFloat(found[1]) * (units[found[2]] || 1) : null;
}
function order(table, column, up) {
  const numbers = table.tHead.rows[0].cells[column].classList.contains("n");
  const keyed = [...table.tBodies[0].rows].map(row => {
    const cell = row.cells[column];
    return [numbers ? value(cell) : cell.textContent || null, row];
  });
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const less = numbers ? a - b : a.localeCompare(b, undefined, {numeric: true});
    return up ? less : -less;
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}
for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      order(table, column, up);
    });
  });
}
const box = document.querySelector(".search input");
box?.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0, all = 0;
  for (const row of document.querySelectorAll("tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
    all += 1;
    shown += !row.hidden;
  }
  document.querySelector(".search output").value = words.length ? `${shown} of ${all} rows` : "";
});
"""


def page(title: str, parts: Sequence[str], contents: Mapping[str, str] | None = None) -> str:
    """The whole file. parts: of HTML, in order; contents: titles by the id of their heading."""
    items = [f'<li><a href="#{k}">{escape(text)}</a></li>' for k, text in (contents or {}).items()]
    nav = f"<nav><ul>{''.join(items)}</ul></nav>" if len(items) > 1 else ""
    search = '<input type="search" placeholder="Search the tables" aria-label="Search the tables">'
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{nav}\n"
        f'<div class="search">{search}<output></output></div>\n{body}\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>"
    )


def heading(text: str, level: int, anchor: str = "") -> str:
    """A heading, which `page` may link to."""
    where = f' id="{anchor}"' if anchor else ""
    return f"<h{level}{where}>{escape(text)}</h{level}>"


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], marks: Mapping[str, str] | None = None
) -> str:
    """A table that a click on its head sorts. marks: a class for cells that hold a text."""
    numeric = [_is_numeric([row[i] for row in rows]) for i in range(len(head))]
    names = [f'<th{_class("n" * n)} scope="col"><button type="button">' for n in numeric]
    tops = [f"{n}{escape(text)}</button></th>" for n, text in zip(names, head, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for text, number in zip(row, numeric, strict=True):
            marked = [name for held, name in (marks or {}).items() if held in text]
            classes = " ".join(["n"] * number + marked[:1])
            cells.append(f"<td{_class(classes)}>{escape(text)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table>\n<thead><tr>{"".join(tops)}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _is_numeric(texts: Sequence[str]) -> bool:
    """Whether a column holds numbers: it is set to the right, and sorted by them."""
    told = [text for text in texts if text and text not in ("–", "not run")]
    return bool(told) and all(re.match(r"[\[×<]?[+-]?\d", text) for text in told)


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def picture(png: bytes, alt: str, caption: str = "", scale: float = 1.0) -> str:
    """A PNG inside the page, shown at `scale` of its own size where there is room."""
    width = round(int.from_bytes(png[16:20], "big") * scale)  # of the header chunk, IHDR
    data = base64.b64encode(png).decode()
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    image = f'<img src="data:image/png;base64,{data}" width="{width}" alt="{escape(alt)}">'
    return f"<figure>{image}{text}</figure>"


def notes(texts: Sequence[str]) -> str:
    """A list of short remarks; nothing where there are none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="notes">{items}</ul>' if items else ""


def paragraph(text: str, name: str = "") -> str:
    """A paragraph, of a class."""
    return f"<p{_class(name)}>{escape(text)}</p>"
