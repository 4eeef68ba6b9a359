"""What tiles need, as lines of text."""

from collections.abc import Sequence
from typing import Any

from rfbench.plotting.columns import columns
from rfbench.rf.core.metric import unit_of
from rfbench.spatial_graph.axis import names


def text(record: dict[str, Any]) -> str:
    """A record of `tiles` in a few lines."""
    at, shown = by(record["input_size"]), record["shown"]
    unit = unit_of(len(record["halo"]))
    axes = ", ".join(names(len(record["halo"])))
    halos = [f"{before} before, {after} after" for before, after in record["halo"]]
    rows = [
        (
            f"halo {axes}",
            f"{'; '.join(dict.fromkeys(halos))} ({unit} that a tile's units read beyond it)",
        ),
        ("alignment", f"crops start at multiples of {by(record['align'])} {unit}"),
        ("smallest crop", f"{by(record['smallest'])} {unit}"),
    ]
    lines = [f"{record['model']} / {record['variant']} to {record['to']} at {at} {unit}"]
    lines += columns(rows, "  ")
    table = [("crop", "of which is used", f"{unit} computed for one")]
    table += [
        (by(c["crop"]), by(c["used"]), f"{c['pixels']:.2f}") for c in record["crops"]
    ]  # fmt: skip
    lines += columns(table, "  ")
    lines.append(
        f"  run with random weights in float64 on {by(shown['size'])} {unit}, whole and in "
        f"{shown['run']} of {shown['tiles']} crops of {by(record['crop'])}:"
    )
    lines.append(f"  largest difference {shown['difference']:.1e} of the largest value")
    if shown["difference_without_halo"] is not None:
        lines[-1] += f"; {shown['difference_without_halo']:.1e} without the halo"
    return "\n".join(lines)


def by(size: Sequence[Any]) -> str:
    """'448x448'."""
    return "x".join(map(str, size))


def title(record: dict[str, Any]) -> str:
    """What is drawn of crops with their halo, in words."""
    used = next(c["used"] for c in record["crops"] if c["crop"] == record["crop"])
    unit = unit_of(len(record["halo"]))
    return f"crop {by(record['crop'])}, of which {by(used)} {unit} are used"


def side_by_side(record: dict[str, Any]) -> str:
    """What is drawn of crops without a halo, in words."""
    shown, unit = record["shown"], unit_of(len(record["halo"]))
    size = shown["size_without_halo"]
    part = "" if size == shown["size"] else f", the first {by(size)} {unit}"
    return f"crops side by side, no halo{part}"


def caption(record: dict[str, Any]) -> str:
    """What a figure shows, in words."""
    shown, unit = record["shown"], unit_of(len(record["halo"]))
    each = [f"{a} {unit} before and {b} {unit} after" for a, b in record["halo"]]
    return (
        f"Units of a tile read {'; '.join(dict.fromkeys(each))} it; crops start at multiples of "
        f"{by(record['align'])} {unit}, and the smallest is {by(record['smallest'])} {unit}. Run "
        f"whole and in {shown['run']} of {shown['tiles']} crops with random weights in float64, "
        f"the outputs differ by {shown['difference']:.1e} of the largest value."
    )
