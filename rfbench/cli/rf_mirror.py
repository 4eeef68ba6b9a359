"""`rfbench rf mirror`: what the map of a mirrored image is off by."""

from pathlib import Path

import click

from rfbench.cli import out, receptive_field
from rfbench.cli.options import (
    end_options,
    figure_options,
    input_options,
    json_option,
    model_arg_option,
    output_options,
    override_option,
    variant_option,
)


@click.command()
@click.argument("model")
@variant_option
@model_arg_option
@end_options()
@input_options
@output_options("Write one figure per network and a record to this folder.")
@figure_options
@override_option()
@json_option()
def command(
    model: str,
    variant: tuple[str, ...],
    model_args: tuple[str, ...],
    to: str | None,
    size: str | None,
    in_channels: int | None,
    inputs: tuple[str, ...],
    input_axes: str | None,
    list_layers: bool,
    dry_run: bool,
    output: Path | None,
    overwrite: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show by how much flip tests of MODEL are off.

    A flip test averages a map with that of the mirrored image, mirrored back.
    MODEL is a torchvision or timm name, FILE.py:function, package.module:function or a YAML file.
    How far the two are apart is computed from where units look, in px and in units of the map,
    at this --size.
    Then MODEL is run with random mirror-symmetric kernels on a random image and on its mirror
    images: how far both maps are apart, the whole number of units that brings them nearest, and
    whether the mirrored map is that of the image moved by so many px.

    Example: rfbench rf mirror timm:hrnet_w18_small --size 256x192
    """
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.mirror.mirror import mirror
    from rfbench.rf.questions.mirror.table import text

    config = receptive_field.load_with_baseline(
        [model],
        override,
        variant=variant,
        model_args=model_args,
        to=to,
        size=size,
        in_channels=in_channels,
        inputs=inputs,
        input_axes=input_axes,
    )
    networks = subjects.subjects(config)
    if receptive_field.print_only(networks, config, list_layers, dry_run):
        return
    if output is not None:
        from rfbench.files import check_folder

        check_folder(output, overwrite)
    shown = None if as_json else text
    results = receptive_field.measured_ends(config, networks, mirror, shown)
    if as_json:
        out.show_json([record for record, _ in results])
    if output is not None:
        from rfbench.rf.questions.mirror.figure import write

        files = write(results, output)
        out.note(f"wrote {', '.join(str(output / name) for name in files)}")
