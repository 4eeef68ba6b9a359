"""`rfbench rf theory`: size, stride, padding and centre of receptive fields, by arithmetic."""

import json
from typing import Any

import click

from rfbench.cli.rf_options import numbers, print_layers, print_plan, settings


@click.command()
@click.argument("model")
@click.option("--variant", metavar="NAME", multiple=True, help="A variant; repeat for more.")
@click.option("--from", "from_", metavar="LAYER", help="Start at this layer's output.")
@click.option("--to", metavar="LAYER", help="End at this layer (default: the last map).")
@click.option("--size", metavar="N|HxW", help="Input size in px (default: the network's own).")
@click.option("--unit", metavar="Y,X", help="Whose centre and region (default: the central one).")
@click.option(
    "--pixel", metavar="Y,X", help="List the units whose receptive field contains this pixel."
)
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
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.theory.report import report
    from rfbench.rf.questions.theory.table import text
    from rfbench.schemas.rf import RfConfig

    config = load(RfConfig, *settings((model,), options))
    if config.variants is None:
        config = config.model_copy(update={"variants": ["baseline"]})
    at = numbers(pixel, ",", "--pixel", "Y,X")
    found = subjects.subjects(config)
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
