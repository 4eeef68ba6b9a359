"""`rfbench rf theory`: size, stride, padding and center of receptive fields, by arithmetic."""

import json

import click

from rfbench.cli import receptive_field
from rfbench.cli.options import (
    input_options,
    json_option,
    layer_options,
    model_arg_option,
    numbers,
    override_option,
    unit_option,
    variant_option,
)


@click.command()
@click.argument("model")
@variant_option
@model_arg_option
@layer_options
@input_options
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
    model_args: tuple[str, ...],
    from_: str | None,
    to: str | None,
    size: str | None,
    in_channels: int | None,
    inputs: tuple[str, ...],
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
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.theory.report import report
    from rfbench.rf.questions.theory.table import text

    config = receptive_field.load_config(
        [model],
        override,
        variant=variant,
        model_args=model_args,
        from_=from_,
        to=to,
        size=size,
        in_channels=in_channels,
        inputs=inputs,
        unit=unit,
    )
    if config.variants is None:
        config = config.model_copy(update={"variants": ["baseline"]})
    at = numbers(pixel, ",", "--pixel", "Y,X")
    found = subjects.subjects(config)
    if receptive_field.print_only(found, config, list_layers, dry_run):
        return
    records = []
    for subject in found:
        for end, start in subjects.ends(subject, config.to, config.from_):
            one = config.model_copy(update={"to": end, "from_": start})
            records.append(report(one, subject, per_layer, tuple(at) if at else None))
            if not as_json:
                click.echo("\n" * (len(records) > 1) + text(records[-1]))
    if as_json:
        click.echo(json.dumps(records, indent=2))
