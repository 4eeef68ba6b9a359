"""A report of theory in a few lines of text."""

from typing import Any

from rfbench.plotting.columns import columns


def text(record: dict[str, Any]) -> str:
    """A record in a few lines."""
    size, units = _by(record["input_size"]), _by(record["map_size"])
    start = "" if record["from"] == "input" else f" from {record['from']}"
    head = f"{record['model']} / {record['variant']}{start} to {record['to']}, "
    lines = [f"{head}{units} units at {size} px: {record['status']}"]
    lines += columns(_table(record), "  ")
    lines += [f"  {line}" for line in (*_notes(record), *_alignment(record))]
    if "layers" in record:
        lines += ["", *columns(_layers(record["layers"]), "  ")]
    return "\n".join(lines)


def _by(size: Any) -> str:
    return "x".join(map(str, size))


def _merged(record: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """The axes of a record by name, those with the same figures as one."""
    axes: dict[str, Any] = {a: record[a] for a in ("y", "x") if a in record}
    alike = len(axes) == 2 and axes["y"] == axes["x"]
    return {"y, x": axes["y"]} if alike else axes


def _table(record: dict[str, Any]) -> list[tuple[str, ...]]:
    (y, x), square = record["unit"], record["unit"][0] == record["unit"][1]
    head = ("axis", "size", "stride", "padding", f"centre of unit {y},{x}", "its region")
    axes = _merged(record) if square else {a: record[a] for a in ("y", "x")}
    return [head, *((name, *_figures(axis), _span(axis["region"])) for name, axis in axes.items())]


_KEYS = ("size", "stride", "padding", "centre of unit 0")


def _figures(axis: dict[str, Any]) -> tuple[str, ...]:
    return tuple(_number(axis[key]) for key in ("size", "stride", "padding", "center"))


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return _span(value) if isinstance(value, list | tuple) else f"{value:g}"


def _span(region: Any) -> str:
    return "-" if region is None else f"{region[0]} to {region[1]}"


def _notes(record: dict[str, Any]) -> list[str]:
    lines = []
    if "irregular" in record:
        why, box = record["irregular"], record["irregular"]["region"]
        where = f"layer {why['layer']}" if why.get("layer") else _layer("")
        lines += [
            f"No common stride at this size: {why.get('op', 'branches')} in {where}.",
            f"Unit {','.join(map(str, record['unit']))} sees y {_span(box['y'])}, "
            f"x {_span(box['x'])} (by its paths, border included).",
        ]
    elif any("phases" in record[a] for a in ("y", "x")):
        lines.append("Resized on the way: units take turns; the stride is their mean distance.")
    if record["context"]:
        names, box = record["context"]["layers"], record["context"]["region"]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(
            f"Without the global context of {_layer(names[0])}{more}; with it: "
            f"y {_span(box['y'])}, x {_span(box['x'])}."
        )
    if "pixel" in record:
        at, units = record["pixel"]["at"], record["pixel"]["units"]
        seen = f"units y {_span(units['y'])}, x {_span(units['x'])}" if units else "no unit"
        lines.append(f"Pixel {at[0]},{at[1]} is in the receptive field of {seen}.")
    return [*lines, *_sizes(record["depends_on_input_size"])]


def _sizes(by_size: dict[str, Any] | None) -> list[str]:
    """What is said about other input sizes."""
    if by_size is None:
        return ["The same for every input size."]
    if not by_size["other_at"]:
        at = ", ".join(_by(size) for size in by_size["same_at"])
        return [f"The same at {at} px." if at else "For this input size; others were refused."]
    lines = ["Depends on the input size; size, stride and padding"]
    for other in by_size["other_at"]:
        for name, axis in _merged(other).items():
            size, stride, padding, _ = _figures(axis)
            at = _by(other["input_size"])
            lines.append(f"  at {at} px along {name}: {size}, {stride}, {padding}")
    return lines


def _alignment(record: dict[str, Any]) -> list[str]:
    if not record["misaligned"]:
        return ["Aligned: no branches disagree."]
    count = len(record["misaligned"])
    several = "s" if count > 1 else ""
    lines = [f"Misaligned: {count} addition{several} or concatenation{several}."]
    for meeting in record["misaligned"]:
        for name, sides in _merged(meeting).items():
            lines.append(f"  {_layer(meeting['layer'])} ({meeting['op']}) along {name}:")
            rows = [
                (
                    _layer(side["layer"]),
                    *(f"{k} {v}" for k, v in zip(_KEYS, _figures(side), strict=True)),
                )
                for side in sides
            ]
            lines += columns(rows, "    ")
    return lines


def _layer(name: str) -> str:
    """A layer's name; what the network itself does outside its layers has none."""
    return name or "the network"


def _layers(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = [("layer", "map", "axis", *_KEYS)]
    for row in rows:
        for name, axis in _merged(row).items():
            lines.append((row["layer"], _by(row["map_size"]), name, *_figures(axis)))
    return lines
