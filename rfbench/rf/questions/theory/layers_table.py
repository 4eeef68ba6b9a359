"""The recursions over a list of layers as lines of text, every step written out."""

from collections.abc import Sequence
from typing import Any

from rfbench.plotting.columns import columns
from rfbench.rf.questions.theory.layers import Layer

Record = dict[str, Any]


def text(layers: Sequence[Layer], record: Record) -> str:
    """A record of `layers.report` in two tables."""
    at = f" at {_by(record['input_size'])} px: {_by(record['map_size'])} units"
    head = [
        ",".join(map(str, layers)) + (at if record["input_size"] else ""),
        f"  size {_span(record['size'])}, stride {record['stride']:g}"
        + (f", padding {record['padding']}" if record["padding"] is not None else "")
        + f", centre of unit u {record['center']:g} + {record['stride']:g} u",
    ]
    turns = len(record["phases"])
    if turns > 1:
        head.append(f"  {turns} units take turns: these are their sizes and their mean centre")
    head += ["", "Forward, from the input: r + (k - 1) d S, c + ((k - 1) d / 2 - p) S, then S s"]
    head += columns(_forward(layers, record["forward"]), "  ")
    head += ["", "Backward, from a unit of the output: r s + (k - 1) d + 1 - s, P s + p, S s"]
    head += columns(_backward(layers, record), "  ")
    return "\n".join(head)


def _forward(layers: Sequence[Layer], rows: list[Record]) -> list[tuple[str, ...]]:
    sized = rows[0]["map_size"] is not None
    lines = [("layer", "size r", "stride S", "centre c of unit 0", *["map"] * sized)]
    for i, row in enumerate(rows):
        figures = (_span(row["size"]), f"{row['stride']:g}", f"{row['center']:g}")
        if i and len(rows[i - 1]["phases"]) == 1 and not layers[i - 1].transposed:
            figures = _steps(layers[i - 1], rows[i - 1], figures)
        lines.append((row["layer"], *figures, *[_by(row["map_size"])] * sized))
    return lines


def _steps(layer: Layer, before: Record, figures: tuple[str, ...]) -> tuple[str, str, str]:
    """The three results with the sums that lead to them."""
    size, stride, center = figures
    wide, past = layer.extent - 1, f"{before['stride']:g}"
    move = f"{wide / 2 - layer.padding:+g}".replace("+", "+ ").replace("-", "- ")
    return (
        f"{before['size']} + {wide} x {past} = {size}",
        f"{past} x {layer.stride} = {stride}",
        f"{before['center']:g} {move} x {past} = {center}",
    )


def _backward(layers: Sequence[Layer], record: Record) -> list[tuple[str, ...]]:
    rows = record["backward"]
    lines: list[tuple[str, ...]]
    lines = [("layer", "size r", "stride S", "padding P", f"unit {record['unit']} reads")]
    for i, row in enumerate(rows):
        first, last = row["region"]
        figures = tuple("-" if row[key] is None else str(row[key]) for key in _KEYS)
        if i and row["size"] is not None:
            figures = _back_steps(layers[-i], rows[i - 1], figures)
        lines.append((row["layer"], *figures, f"{first} to {last}"))
    return lines


_KEYS = ("size", "stride", "padding")


def _back_steps(layer: Layer, before: Record, figures: tuple[str, ...]) -> tuple[str, ...]:
    size, stride, padding = figures
    s, more = layer.stride, layer.extent - layer.stride
    add = f"{'+' if more >= 0 else '-'} {abs(more)}"
    return (
        f"{before['size']} x {s} {add} = {size}",
        f"{before['stride']} x {s} = {stride}",
        f"{before['padding']} x {s} + {layer.padding} = {padding}",
    )


def _span(value: Any) -> str:
    return f"{value[0]} to {value[1]}" if isinstance(value, list) else f"{value:g}"


def _by(size: Sequence[int] | None) -> str:
    return "x".join(map(str, size or ()))
