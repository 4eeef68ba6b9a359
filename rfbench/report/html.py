"""A comparison as one HTML file: tables, plots, receptive fields."""

from rfbench.plotting import webpage
from rfbench.report import plots
from rfbench.report.model import Block, Group, Report
from rfbench.report.sheets import legend, settings_line, sheets

CAPTIONS = {
    "figures": "",
    "tests": "Tests behind the signs: means and differences with 95 % intervals, p values, and the "
    "minimum detectable effect.",
    "networks": "Cost of the networks, and the shape of their receptive fields.",
}


def page(report: Report) -> str:
    """The whole file; see `webpage`."""
    parts: list[str] = []
    anchors = {f"g{i}": group.title for i, group in enumerate(report.groups)}
    for anchor, group in zip(anchors, report.groups, strict=True):
        parts.append(webpage.heading(group.title, 2, anchor))
        for block in group.blocks:
            parts += _block(group, block, report.baseline)
        if group.image:
            name = f"Receptive fields of {group.model}"
            parts += [webpage.heading("Receptive fields", 3)]
            parts += [webpage.image(group.image, name, scale=0.62)]
    parts += [webpage.heading("How to read this", 2), webpage.notes(legend(report))]
    if report.problems:
        parts += [webpage.heading("Skipped", 2), webpage.notes(report.problems)]
    return webpage.page("rfbench compare", parts, anchors)


def _block(group: Group, block: Block, baseline: str) -> list[str]:
    parts: list[str] = [webpage.heading(settings_line(block), 3)] if block.keys else []
    for sheet in sheets(group, block):
        if CAPTIONS[sheet.name]:
            parts.append(webpage.paragraph(CAPTIONS[sheet.name], "legend"))
        parts.append(webpage.table(sheet.head, sheet.rows, sheet.numeric))
    parts.append(webpage.notes(block.notes))
    if png := plots.differences(group, block, baseline):
        text = f"Differences from {baseline}: bars are means, dots seeds, lines 95 % intervals."
        if any(row.source == "paper" for row in block.rows):
            text += " Open diamonds: the paper."
        parts.append(webpage.image(png, f"Differences from {baseline}", text, 0.62))
    if png := plots.curves(group, block):
        text = "Means over seeds; the bands show their range."
        parts.append(webpage.image(png, "Training curves", text, 0.62))
    return parts
