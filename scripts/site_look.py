"""What stylesheets cannot tell by themselves is marked in the pages' HTML; a hook of mkdocs.yml.

Options and columns of figures are marked for assets/site.css, and a figure is a link to its file,
which a phone can enlarge.
"""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

# `--option`, which a browser would break after its dashes
OPTION = re.compile(r"<code>(?=--[\w-]+</code>)")
IMAGE = re.compile(r'(?<!">)<img [^>]*?src="(?!data:)([^"]+)"[^>]*>')
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
ROW = re.compile(r"<tr>.*?</tr>", re.DOTALL)
CELL = re.compile(r"<(t[dh])>(.*?)</\1>", re.DOTALL)
# 83.72, +4.26 ▲, 4.75 M, ×1.05, [82.78, 84.67], 2.9e-05, 100.0%
FIGURE = re.compile(
    r"[+\-−×±]?\d[\d.,]*(?:e-?\d+)?(?: ?[kMG%]| px| s)?(?: [▲▼≈?])?|\[[^\]]*\]|–|-|not run|≈|✓"
)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark options, columns of figures, and images."""
    html = OPTION.sub('<code class="option">', html)
    html = TABLE.sub(lambda table: _with_figures(table[0]), html)
    return IMAGE.sub(lambda image: f'<a class="image" href="{image[1]}">{image[0]}</a>', html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Name the search for screen readers, which the theme leaves out."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"', 1)


def _with_figures(table: str) -> str:
    """The table, the cells of its columns of figures marked: those that hold nothing else."""
    rows = [[cell[2].strip() for cell in CELL.finditer(row)] for row in ROW.findall(table)]
    columns = [[text for text in column if text] for column in zip(*rows[1:], strict=False)]
    marked = {i for i, held in enumerate(columns) if held and all(map(FIGURE.fullmatch, held))}

    def row(found: re.Match) -> str:
        number = iter(range(len(columns) + 1))
        return CELL.sub(
            lambda cell: (
                f'<{cell[1]} class="figure">{cell[2]}</{cell[1]}>'
                if next(number, None) in marked
                else cell[0]
            ),
            found[0],
        )

    return ROW.sub(row, table)
