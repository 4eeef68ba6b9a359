"""`rfbench rf theory`: size, stride, padding and center of receptive fields, by arithmetic."""

import json
from typing import Any

import click

from rfbench.cli import receptive_field
from rfbench.cli.options import (
    json_option,
    layer_options,
    numbers,
    override_option,
    unit_option,
    variant_option,
)
from rfbench.plotting.columns import columns


@click.command()
@click.argument("model")
@variant_option
@layer_options
@unit_option("Unit whose center and region are printed (default: the central one).")
@click.option(
    "--pixel",
    metavar="Y,X",
    help="List the units whose receptive field contains this pixel of the input, or of --from.",
)
@click.option("--per-layer", is_flag=True, help="Add a table of all layers in between.")
@override_option()
@json_option("Print the records as JSON, with every layer's name.")
def command(
    model: str,
    variant: tuple[str, ...],
    from_: str | None,
    to: str | None,
    size: str | None,
    list_layers: bool,
    dry_run: bool,
    unit: str | None,
    pixel: str | None,
    per_layer: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print the theoretical receptive field of MODEL (Araujo et al., 2019).

    MODEL is a torchvision or timm name, FILE.py:function, package.module:function or a YAML file.
    Prints, along y and x, the size r, effective stride S, effective padding P and the center
    -P + u S + (r - 1) / 2 of a unit u; the additions and concatenations whose branches disagree in
    stride or center; and what depends on the input size. Networks with gates are measured with and
    without their global context.

    Example: rfbench rf theory resnet50 --variant 3x3 --unit 0,0
    """
    from rfbench.rf.questions import subjects
    from rfbench.rf.questions.theory.report import report

    config = receptive_field.load_config(
        [model], override, variant=variant, from_=from_, to=to, size=size, unit=unit
    )
    if config.variants is None:
        config = config.model_copy(update={"variants": ["baseline"]})
    at = numbers(pixel, ",", "--pixel", "Y,X")
    found = subjects.subjects(config, receptive_field.log.info)
    if receptive_field.print_only(found, config, list_layers, dry_run):
        return
    records = []
    for subject in found:
        records.append(report(config, subject, per_layer, tuple(at) if at else None))
        if not as_json:
            click.echo("\n" * (len(records) > 1) + text(records[-1]))
    if as_json:
        click.echo(json.dumps(records, indent=2))


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
            f"Unit {','.join(map(str, record['unit']))} hears y {_span(box['y'])}, "
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
        heard = f"units y {_span(units['y'])}, x {_span(units['x'])}" if units else "no unit"
        lines.append(f"Pixel {at[0]},{at[1]} is heard by {heard}.")
    return [*lines, *_sizes(record["depends_on_input_size"])]


def _sizes(found: dict[str, Any] | None) -> list[str]:
    """What is said about other input sizes."""
    if found is None:
        return ["The same for every input size."]
    if not found["other_at"]:
        at = ", ".join(_by(size) for size in found["same_at"])
        return [f"The same at {at} px." if at else "For this input size; others were refused."]
    lines = ["Depends on the input size; size, stride and padding"]
    for other in found["other_at"]:
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
