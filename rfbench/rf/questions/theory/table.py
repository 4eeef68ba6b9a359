"""A report of theory in a few lines of text."""

from typing import Any

from rfbench.plotting.columns import columns
from rfbench.rf.core import randomness
from rfbench.rf.core.metric import of_channels, unit_of
from rfbench.spatial_graph.axis import NAMES, WORDS, names


def text(record: dict[str, Any]) -> str:
    """A record in a few lines."""
    size, units = _by(record["input_size"]), _by(record["map_size"])
    unit = unit_of(len(record["input_size"]))
    channels = of_channels(record["input_channels"])
    start = "" if record["from"] == "input" else f" from {record['from']}"
    head = f"{record['model']} / {record['variant']}{start} to {record['to']}, "
    lines = [f"{head}{units} units at {size} {unit}, {channels}: {_status(record)}"]
    lines += columns(_table(record), "  ")
    lines += [f"  {line}" for line in (*_notes(record), *_alignment(record))]
    if "layers" in record:
        lines += ["", *columns(_layers(record["layers"]), "  ")]
    return "\n".join(lines)


def short(axes: dict[str, dict[str, Any] | None]) -> str:
    """Only what arithmetic gives for every unit: figures by axis, None where there are none."""
    rows = [(name, *(_figures(f) if f else ["-"] * len(_KEYS))) for name, f in axes.items()]
    return "\n".join(columns([("axis", *_KEYS), *rows]))


def _status(record: dict[str, Any]) -> str:
    """'local'; 'local, global along x' where learned mixing runs along an axis."""
    mixed = [WORDS.get(a, a) for a in record.get("global_along", "")]
    if not mixed:
        return record["status"]
    rest = [WORDS.get(a, a) for a in names(len(record["unit"])) if a not in record["global_along"]]
    local = f"{record['status']} along {' and '.join(rest)}, " if rest else ""
    return f"{local}global along {' and '.join(mixed)}"


def _by(size: Any) -> str:
    return "x".join(map(str, size))


def _merged(record: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """The axes of a record by name, those with the same figures as one."""
    axes = _axes(record)
    first = next(iter(axes.values()), None)
    alike = len(axes) > 1 and all(axis == first for axis in axes.values())
    return {", ".join(axes): first} if alike else axes


def _axes(record: dict[str, Any]) -> dict[str, Any]:
    """The axes of a record by name, as it is printed."""
    return {WORDS.get(a, a): record[a] for a in NAMES if a in record}


def _table(record: dict[str, Any]) -> list[tuple[str, ...]]:
    unit, square = ",".join(map(str, record["unit"])), len({*record["unit"]}) == 1
    head = ("axis", "size", "stride", "padding", f"centre of unit {unit}", "its region")
    axes = _merged(record) if square else _axes(record)
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


def _box(box: dict[str, Any]) -> str:
    """'y 0 to 9, x 3 to 12'."""
    return ", ".join(f"{name} {_span(region)}" for name, region in _axes(box).items())


def _notes(record: dict[str, Any]) -> list[str]:
    lines = []
    if "irregular" in record:
        why, box = record["irregular"], record["irregular"]["region"]
        where = f"layer {why['layer']}" if why.get("layer") else _layer("")
        cause = f"{why.get('op', 'branches')} in {where}"
        zeros = f"Zeros stand between the rows of this map: {cause}."
        sees = f"sees {_box(box)} (by its paths, border included)" if box else "reads nothing"
        lines += [
            zeros if why["gaps"] else f"No common stride at this size: {cause}.",
            f"Unit {','.join(map(str, record['unit']))} {sees}.",
        ]
    elif any("phases" in axis for axis in _axes(record).values()):
        lines.append(
            "Units take turns: neighbours have different fields (resizing, zeros between rows). "
            "The stride is their mean distance."
        )
    if record["context"]:
        names, box = record["context"]["layers"], record["context"]["region"]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(
            f"Without the global context of {_layer(names[0])}{more}; with it: {_box(box)}."
        )
    if record.get("look_ahead") is not None:
        ahead, back = (_time(record[k], record["rate"]) for k in ("look_ahead", "look_back"))
        causal = (
            "Causal: nothing after a unit's position is read" if not record["look_ahead"] else ""
        )
        lines.append(f"{causal or f'Looks ahead {ahead}'}; looks back {back}.")
        if record["rate"]:
            size, stride = (_time(record["x"][k], record["rate"]) for k in ("size", "stride"))
            lines.append(f"At {record['rate']:g} Hz: field {size}, stride {stride}.")
    if record["resized_input"]:
        to = _by(record["resized_input"])
        lines.append(f"It resizes its input to {to} first; pixels are those of the input given.")
    if "pixel" in record:
        at, units = record["pixel"]["at"], record["pixel"]["units"]
        seen = f"units {_box(units)}" if units else "no unit"
        lines.append(f"Pixel {','.join(map(str, at))} is in the receptive field of {seen}.")
    return [*lines, *randomness.lines(record), *_sizes(record["depends_on_input_size"])]


def _time(samples: Any, rate: float | None) -> str:
    """'63 samples', with the time where the rate is known."""
    most = max(samples) if isinstance(samples, list | tuple) else samples
    text = f"{most:g} sample{'' if most == 1 else 's'}"
    return f"{text} ({1000 * most / rate:.4g} ms)" if rate else text


def _sizes(by_size: dict[str, Any] | None) -> list[str]:
    """What is said about other input sizes."""
    if by_size is None:
        return ["The same for every input size."]
    one = (
        by_size["same_at"] or [other["input_size"] for other in by_size["other_at"]] or [(0, 0)]
    )[0]
    unit = unit_of(len(one))
    if not by_size["other_at"]:
        at = ", ".join(_by(size) for size in by_size["same_at"])
        refused = "Known for this input size alone: the larger ones that were tried were refused."
        return [f"The same at {at} {unit}." if at else refused]
    lines = ["Depends on the input size; size, stride and padding"]
    for other in by_size["other_at"]:
        for name, axis in _merged(other).items():
            size, stride, padding, _ = _figures(axis)
            at = _by(other["input_size"])
            lines.append(f"  at {at} {unit} along {name}: {size}, {stride}, {padding}")
    return lines


def _alignment(record: dict[str, Any]) -> list[str]:
    if not record["misaligned"]:
        return ["Aligned: no branches disagree."]
    count = len(record["misaligned"])
    several = "s" if count > 1 else ""
    meant = " (meant: their branches end at one sample)" * record["misaligned_meant"]
    lines = [f"Misaligned: {count} addition{several} or concatenation{several}{meant}."]
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
