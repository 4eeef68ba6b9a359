"""`rfbench visualize-rf`: the maps of a network's receptive field, one panel a variant."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("model", nargs=-1, required=True)
@click.option("--weights", metavar="PATH", help="Checkpoint that must fit; named in the record.")
@click.option("--variant", metavar="NAME", multiple=True, help="A variant; repeat for more.")
@click.option("--from", "from_", metavar="LAYER", help="Start the map at this layer's output.")
@click.option("--to", metavar="LAYER", help="End it at this layer (default: the last map).")
@click.option("--unit", metavar="Y,X", help="Output unit, at --size (default: the central one).")
@click.option("--size", metavar="N|HxW", help="Your input size in px (default: the network's own).")
@click.option("--scale", type=click.Choice(["linear", "sqrt"]), help="Brightness of the map.")
@click.option(
    "--channels", type=click.Choice(["single", "real"]), help="Look at one channel, or at all."
)
@click.option("--pool", type=click.Choice(["count", "mean"]), help="Weight of a pooling's pixels.")
@click.option("--gates", type=click.Choice(["ignore", "count"]), help="Paths through gates (SE).")
@click.option("--engine", type=click.Choice(["graph", "autograd"]), help="How to count.")
@click.option("--exact", is_flag=True, help="Count in whole numbers of any size (small networks).")
@click.option("--by-layer", is_flag=True, help="Draw the shift layer by layer instead of maps.")
@click.option("--output", metavar="DIR", type=Path, help="Folder (default: results/rf-MODEL).")
@click.option("--overwrite", is_flag=True, help="Replace what the folder holds.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.option("--list-layers", is_flag=True, help="Print the layers for --from and --to; stop.")
@click.option("--dry-run", is_flag=True, help="Print configuration and changed layers; stop.")
@click.option(
    "-o", "--override", metavar="KEY=VALUE", multiple=True, help="Set a key of the configuration."
)
def command(model: tuple[str, ...], output: Path | None, **options: Any) -> None:
    """Draw the receptive field of MODEL: where it is, and whether it grids.

    MODEL is a torchvision or timm name, FILE.py:function, package.module:function or a YAML file;
    several names are drawn side by side. Writes maps.png, maps.pdf, maps.npz, config.yaml and
    result.json; prints a table. Without --variant: the paper's four, as far as they change MODEL.
    """
    from rfbench.config import load
    from rfbench.rf import visualize
    from rfbench.schemas import RfConfig

    config = load(RfConfig, *_settings(model, options))
    visualize.check(config)
    found = visualize.subjects(config, lambda text: click.echo(text, err=True))
    if options["list_layers"]:
        return _print_layers(visualize.list_layers(next(found)))
    if options["dry_run"]:
        return _print_plan(config, found)
    folder = visualize.choose_folder(config, output, options["overwrite"])
    record = visualize.run(config, list(found), folder)
    click.echo(json.dumps(record, indent=2, default=list) if options["as_json"] else table(record))
    click.echo(f"wrote {', '.join(str(folder / name) for name in record['files'])}", err=True)
    return None


def _settings(model: tuple[str, ...], options: dict[str, Any]) -> tuple[str | None, list[str]]:
    """The YAML file, if MODEL is one, and everything typed as overrides of the configuration."""
    from rfbench.errors import UsageError

    files = [name for name in model if name.endswith((".yaml", ".yml"))]
    if files and len(model) > 1:
        raise UsageError(f"{files[0]}: a configuration stands alone; it names its models itself")
    given = {
        "model": None if files else model[0] if len(model) == 1 else list(model),
        "variants": list(options["variant"]) or None,
        "from": options["from_"],
        "unit": _numbers(options["unit"], ",", "--unit", "Y,X"),
        "size": _numbers(options["size"], "x", "--size", "N or HxW"),
    }
    same = ("weights", "to", "scale", "channels", "pool", "gates", "engine", "exact", "by_layer")
    given |= {key: options[key] or None for key in same}
    overrides = [f"{key}={json.dumps(v)}" for key, v in given.items() if v is not None]
    return (files[0] if files else None), [*overrides, *options["override"]]


def _numbers(text: str | None, separator: str, option: str, form: str) -> Any:
    """'7,7' as [7, 7], '224' as 224."""
    from rfbench.errors import UsageError

    if text is None:
        return None
    parts = text.lower().split(separator)
    if not all(p.strip().lstrip("-").isdigit() for p in parts) or len(parts) > 2:
        raise UsageError(f"{option} {text}: expected {form}")
    numbers = [int(p) for p in parts]
    if option == "--unit" and len(numbers) != 2:
        raise UsageError(f"{option} {text}: expected {form}")
    return numbers[0] if len(numbers) == 1 else numbers


def _print_layers(rows: list[tuple[str, tuple[int, int], Any]]) -> None:
    width = max((len(name) for name, *_ in rows), default=0)
    for name, (h, w), stride in rows:
        step = "" if stride is None else f"  stride {stride[0]}"
        click.echo(f"{name:{width}}  {h}x{w}{step}")


def _print_plan(config: Any, found: Any) -> None:
    import yaml

    click.echo(yaml.safe_dump(config.model_dump(by_alias=True, mode="json"), sort_keys=False))
    for subject in found:
        names = subject.backbone.replaced
        click.echo(f"{subject.backbone.name} / {subject.backbone.variant}: {len(names)} changed")
        for name in names:
            click.echo(f"  {name}")


def table(record: dict[str, Any]) -> str:
    """The record's figures, a line a panel and input size."""
    if "panels" not in record:
        rows = record["shift_by_layer"]
        return "\n".join(f"{v}  {name}  {s:+.2f}" for v, row in rows.items() for name, s in row)
    head = (
        "model",
        "variant",
        "input",
        "shift y, x (px)",
        "gridding",
        "size",
        "stride",
        "misaligned",
    )
    lines = [head]
    for panel in record["panels"]:
        for m in filter(None, (panel["metrics"], panel["at_own_size"])):
            size = "x".join(map(str, m["input_size"])) + (" (cut)" if m["cut"] else "")
            lines.append(
                (
                    panel["model"],
                    panel["variant"],
                    size,
                    f"{m['shift'][0]:+.2f}, {m['shift'][1]:+.2f}",
                    f"{m['gridding']:.4f}",
                    "x".join(map(str, m["size"])),
                    "x".join(map(str, m["stride"])),
                    str(m["misaligned"]),
                )
            )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rows = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(row.rstrip() for row in rows)
