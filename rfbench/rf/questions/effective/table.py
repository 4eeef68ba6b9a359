"""Effective fields as lines of text."""

from typing import Any

from rfbench.plotting.columns import columns


def table(record: dict[str, Any]) -> str:
    """The record's figures, a line a field, and what was measured."""
    shares = [f"area of {share}" for share in record["fields"][0]["areas"]]
    head = ("model", "variant", "layer", "unit", "size (px)", "of theory", "shift y, x (px)")
    lines: list[tuple[str, ...]] = [(*head, "sigma y, x", "R2", *shares)]
    for field in record["fields"]:
        ratio, bell = field["ratio"], field["gaussian"]
        areas = field["areas"].values()
        lines.append(
            (
                field["model"],
                field["variant"],
                field["layer"] or "(output)",
                "{},{} of {}x{}".format(*field["unit"], *field["units"]),
                f"{field['size']:.1f}",
                _reach(field) if ratio is None else f"{ratio:.0%}",
                f"{field['shift'][0]:+.1f}, {field['shift'][1]:+.1f}",
                f"{bell['sigma'][0]:.1f}, {bell['sigma'][1]:.1f}" if bell else "-",
                f"{bell['r2']:.2f}" if bell else "-",
                *("-" if area is None else f"{area['share']:.1%}" for area in areas),
            )
        )
    return "\n".join([*columns(lines), f"the mean {record['fields'][0]['definition']}"])


def _reach(field: dict[str, Any]) -> str:
    """Why there is no theoretical size: attention; '-' where units have none in common."""
    return field["reach"] if field["reach"].startswith(("global", "windowed")) else "-"
