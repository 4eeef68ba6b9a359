"""`rfbench visualize-rf`: the maps of a network's receptive field, one panel per variant."""

from pathlib import Path

import click

from rfbench.cli import out, receptive_field
from rfbench.cli.options import (
    ema_option,
    figure_options,
    input_options,
    json_option,
    layer_options,
    model_arg_option,
    output_options,
    override_option,
    rate_option,
    unit_option,
    variant_option,
)


@click.command()
@click.argument("model", nargs=-1, required=True)
@variant_option
@model_arg_option
@click.option("--weights", metavar="PATH", help="Checkpoint to load; it must fit.")
@ema_option
@layer_options
@input_options
@rate_option
@unit_option("Output unit, at --size (default: the central one).")
@click.option("--scale", type=click.Choice(["linear", "sqrt"]), help="Brightness of the map.")
@click.option(
    "--channels",
    type=click.Choice(["single", "real"]),
    help="Count one channel per layer, or all channels.",
)
@click.option(
    "--pool",
    type=click.Choice(["count", "mean"]),
    help="Weight of a pixel in an average pooling: 1, or 1/k^2.",
)
@click.option(
    "--gates", type=click.Choice(["ignore", "count"]), help="Paths through gates such as SE."
)
@click.option(
    "--engine",
    type=click.Choice(["graph", "autograd"]),
    help="Count on the spatial graph, or by autograd as a second opinion.",
)
@click.option("--exact", is_flag=True, help="Count in integers of any size (small networks).")
@click.option("--by-layer", is_flag=True, help="Plot the shift layer by layer instead of maps.")
@output_options("Folder (default: results/rf-MODEL).")
@figure_options
@override_option()
@json_option()
def command(
    model: tuple[str, ...],
    variant: tuple[str, ...],
    model_args: tuple[str, ...],
    weights: str | None,
    ema: bool,
    from_: str | None,
    to: str | None,
    size: str | None,
    in_channels: int | None,
    inputs: tuple[str, ...],
    input_axes: str | None,
    rate: float | None,
    list_layers: bool,
    dry_run: bool,
    unit: str | None,
    scale: str | None,
    channels: str | None,
    pool: str | None,
    gates: str | None,
    engine: str | None,
    exact: bool,
    by_layer: bool,
    output: Path | None,
    overwrite: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Draw MODEL's receptive field: its shift and gridding.

    MODEL is a torchvision or timm name, FILE.py:function, package.module:function or a YAML file;
    several names are drawn side by side. Fields in sequences are drawn as curves, in volumes as
    sections and projections. Writes maps.png, maps.pdf, maps.npz, config.yaml and result.json, and
    prints a table. Where resizing gives neighbouring units different fields it also writes
    phases.png, with the map of each, and checkerboard.png if positions are reached unevenly.
    Without --variant: baseline and those of the paper's other three that change MODEL.

    Example: rfbench visualize-rf resnet50 --width 3.3 --output figure
    """
    from rfbench import shipped
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.maps import maps as visualize
    from rfbench.rf.questions.maps.table import table

    config = receptive_field.load_config(
        model,
        override,
        variant=variant,
        model_args=model_args,
        weights=weights,
        ema=ema,
        from_=from_,
        to=to,
        size=size,
        in_channels=in_channels,
        inputs=inputs,
        input_axes=input_axes,
        rate=rate,
        unit=unit,
        scale=scale,
        channels=channels,
        pool=pool,
        gates=gates,
        engine=engine,
        exact=exact,
        by_layer=by_layer,
    )
    visualize.check(config)
    networks = subjects.subjects(config)
    source = next(filter(shipped.is_configuration, model), None)
    if receptive_field.print_only(networks, config, list_layers, dry_run):
        return
    folder = visualize.choose_folder(config, output, overwrite, source)
    record = visualize.run(config, list(networks), folder)
    out.show_json(record) if as_json else out.show(table(record))
    out.note(f"wrote {', '.join(str(folder / name) for name in record['files'])}")
