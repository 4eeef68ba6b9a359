"""What tiles need, as lines of text."""

from collections.abc import Sequence
from typing import Any

from rfbench.plotting.columns import columns


def text(record: dict[str, Any]) -> str:
    """A record of `tiles` in a few lines."""
    at, shown = by(record["input_size"]), record["shown"]
    halos = [f"{before} before, {after} after" for before, after in record["halo"]]
    rows = [
        ("halo y, x", f"{'; '.join(dict.fromkeys(halos))} (px that a tile's units read beyond it)"),
        ("alignment", f"crops start at multiples of {by(record['align'])} px"),
        ("smallest crop", f"{by(record['smallest'])} px"),
    ]
    lines = [f"{record['model']} / {record['variant']} to {record['to']} at {at} px"]
    lines += columns(rows, "  ")
    table = [("crop", "of which is used", "px computed for one")]
    table += [
        (by(c["crop"]), by(c["used"]), f"{c['pixels']:.2f}") for c in record["crops"]
    ]  # fmt: skip
    lines += columns(table, "  ")
    lines.append(
        f"  run with random weights in float64 on {by(shown['size'])} px, whole and in "
        f"{shown['run']} of {shown['tiles']} crops of {by(record['crop'])}:"
    )
    lines.append(f"  largest difference {shown['difference']:.1e} of the largest value")
    if shown["difference_without_halo"] is not None:
        lines[-1] += f"; {shown['difference_without_halo']:.1e} without the halo"
    return "\n".join(lines)


def by(size: Sequence[Any]) -> str:
    """'448x448'."""
    return "x".join(map(str, size))
