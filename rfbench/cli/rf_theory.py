"""`rfbench rf theory`: size, stride, padding and centre of receptive fields, by arithmetic."""

import json
from typing import Any

import click

from rfbench.cli.rf_options import numbers, print_layers, print_plan, settings
from rfbench.plotting.columns import columns


@click.command()
@click.argument("model")
@click.option("--variant", metavar="NAME", multiple=True, help="A variant; repeat for more.")
@click.option("--from", "from_", metavar="LAYER", help="Start at this layer's output.")
@click.option("--to", metavar="LAYER", help="End at this layer (default: the last map).")
@click.option("--size", metavar="N|HxW", help="Input size in px (default: the network's own).")
@click.option("--unit", metavar="Y,X", help="Whose centre and region (default: the central one).")
@click.option("--pixel", metavar="Y,X", help="Tell which units hear this pixel of the source.")
@click.option("--per-layer", is_flag=True, help="Add a table of all layers on the way.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all figures, every layer named.")
@click.option("--list-layers", is_flag=True, help="Print the layers for --from and --to; stop.")
@click.option("--dry-run", is_flag=True, help="Print configuration and changed layers; stop.")
@click.option(
    "-o", "--override", metavar="KEY=VALUE", multiple=True, help="Set a key of the configuration."
)
def command(model: str, pixel: str | None, per_layer: bool, **options: Any) -> None:
    """Print the theoretical receptive field of MODEL (Araujo et al., 2019): no map, no picture.

    MODEL is a torchvision or timm name, FILE.py:function, package.module:function or a YAML file.
    Size r, effective stride S, effective padding P and the centre -P + u S + (r - 1) / 2 of a unit
    u, along y and x; additions and concatenations whose branches disagree in S or centre, with the
    numbers of both; what depends on the input size; gated networks with and without the global
    context.

    Example: rfbench rf theory resnet50 --variant 3x3 --unit 0,0
    """
    from rfbench.config import load
    from rfbench.rf.questions import subjects
    from rfbench.rf.questions.theory.report import report
    from rfbench.schemas.rf import RfConfig

    config = load(RfConfig, *settings((model,), options))
    if config.variants is None:
        config = config.model_copy(update={"variants": ["baseline"]})
    at = numbers(pixel, ",", "--pixel", "Y,X")
    found = subjects.subjects(config, lambda text: click.echo(text, err=True))
    if options["list_layers"]:
        return print_layers(subjects.list_layers(next(found)))
    if options["dry_run"]:
        return print_plan(config, found)
    records = []
    for subject in found:
        records.append(report(config, subject, per_layer, tuple(at) if at else None))
        if not options["as_json"]:
            click.echo("\n" * (len(records) > 1) + text(records[-1]))
    if options["as_json"]:
        click.echo(json.dumps(records, indent=2))
    return None


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
