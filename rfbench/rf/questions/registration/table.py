"""The registration of a detector's levels as lines of text."""

from typing import Any

from rfbench.plotting.columns import columns


def table(variants: dict[str, list[dict[str, Any]]]) -> list[str]:
    """A line a variant and level, in px."""
    head = (
        "variant",
        "level",
        "stride",
        "field at u S",
        "minus anchors",
        "minus RoIAlign",
        "level itself",
    )
    lines = [head]
    for variant, rows in variants.items():
        for row in rows:
            whole = row["output"]
            spread = f" ({whole['least']:+.2f} to {whole['most']:+.2f})"
            lines.append(
                (
                    variant,
                    row["level"],
                    str(row["stride"]),
                    f"{row['field']:+.2f}",
                    _number(row.get("field_minus_anchors")),
                    _number(row.get("field_minus_roi_align")),
                    f"{whole['mean']:+.2f}" + spread * (whole["most"] - whole["least"] > 0.005),
                )
            )
    return columns(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:+.2f}"
