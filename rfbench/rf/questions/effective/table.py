"""Effective fields as lines of text."""

from typing import Any

from rfbench.plotting.columns import columns
from rfbench.rf.core import randomness
from rfbench.rf.core.metric import axes_text, unit_of


def table(record: dict[str, Any]) -> str:
    """The record's figures, a line a field, and what was measured."""
    shares = [f"area of {share}" for share in record["fields"][0]["areas"]]
    axes = len(record["fields"][0]["shift"])
    names, unit = axes_text(axes), unit_of(axes)
    head = ("model", "variant", "layer", "unit", f"size ({unit})", "of theory")
    along = f" {names}" if axes > 1 else ""
    lines: list[tuple[str, ...]] = [
        (*head, f"shift{along} ({unit})", f"sigma{along}", "R2", *shares)
    ]
    for field in record["fields"]:
        ratio, bell = field["ratio"], field["gaussian"]
        areas = field["areas"].values()
        lines.append(
            (
                field["model"],
                field["variant"],
                (field["layer"] or "(output)")
                + (f" from {field['from']}" if "from" in field else ""),
                f"{','.join(map(str, field['unit']))} of {'x'.join(map(str, field['units']))}",
                f"{field['size']:.1f}",
                _reach(field) if ratio is None else f"{ratio:.0%}",
                ", ".join(f"{s:+.1f}" for s in field["shift"]),
                ", ".join(f"{s:.1f}" for s in bell["sigma"]) if bell else "-",
                f"{bell['r2']:.2f}" if bell else "-",
                *("-" if area is None else f"{area['share']:.1%}" for area in areas),
            )
        )
    each = "Every pass has a draw of its own"
    said = [line for field in record["fields"] for line in randomness.lines(field, each)]
    what = f"the mean {record['fields'][0]['definition']}"
    return "\n".join([*columns(lines), what, *dict.fromkeys(said)])


def _layer(field: dict[str, Any]) -> str:
    """The unit's layer, and of several inputs the one that it is seen from."""
    source = f" from {field['from']}" if "from" in field else ""
    return (field["layer"] or "(output)") + source


def _reach(field: dict[str, Any]) -> str:
    """Why there is no theoretical size: attention; '-' where units have none in common."""
    return field["reach"] if field["reach"].startswith(("global", "windowed")) else "-"
