"""A comparison as LaTeX, for papers: tables of the booktabs package."""

from rfbench.report.formats import wrap
from rfbench.report.model import Report
from rfbench.report.sheets import Sheet, legend, settings_line, sheets

HEAD = r"""% \usepackage{booktabs, amssymb}"""
ESCAPES = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "✓": r"\checkmark{}",
    "Δ": r"$\Delta$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
}


def latex(report: Report) -> str:
    """Every table as a `table` with its caption; what the figures mean, as comments at the end."""
    parts = [HEAD]
    for group in report.groups:
        for block in group.blocks:
            setting = settings_line(block)
            caption = f"{group.title}, {setting}" if setting else group.title
            notes = "".join(f"% {line}\n" for note in block.notes for line in wrap(note, "- "))
            parts += [f"{notes}{_table(sheet, caption)}" for sheet in sheets(group, block)]
    parts.append("\n".join(f"% {line}" for text in legend(report) for line in wrap(text, "")))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Text from outside as LaTeX that prints it and nothing else; other signs are kept."""
    # a minus between figures is one, in a name a hyphen
    signed = text[:1] in "+-" and text[1:2].isdigit()
    safe = "".join(ESCAPES.get(char, char) for char in text)
    return f"${safe[0]}${safe[1:]}" if signed else safe


def _table(sheet: Sheet, caption: str) -> str:
    columns = "".join("r" if numeric else "l" for numeric in sheet.numeric)
    rows = [" & ".join(map(escaped, cells)) + r" \\" for cells in (sheet.head, *sheet.texts)]
    body = "\n".join(f"  {row}" for row in rows[1:])
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{escaped(caption)}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n  \\toprule\n  {rows[0]}\n  \\midrule\n{body}\n"
        "  \\bottomrule\n\\end{tabular}\n\\end{table}"
    )
