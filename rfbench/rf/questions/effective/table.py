"""Effective fields as lines of text."""

from typing import Any

from rfbench.plotting.columns import columns


def table(record: dict[str, Any]) -> str:
    """The record's figures, a line a field."""
    head = ("model", "variant", "layer", "size (px)", "of theory", "shift y, x (px)", "sigma y, x")
    lines = [(*head, "R2", "area of 20 %", "50 %", "99 %")]
    for field in record["fields"]:
        ratio, bell = field["ratio"], field["gaussian"]
        lines.append(
            (
                field["model"],
                field["variant"],
                field["layer"],
                f"{field['size']:.1f}",
                "-" if ratio is None else f"{ratio:.0%}",
                f"{field['shift'][0]:+.1f}, {field['shift'][1]:+.1f}",
                f"{bell['sigma'][0]:.1f}, {bell['sigma'][1]:.1f}" if bell else "-",
                f"{bell['r2']:.2f}" if bell else "-",
                *(f"{area['share']:.1%}" for area in field["areas"].values()),
            )
        )
    return "\n".join(columns(lines))
