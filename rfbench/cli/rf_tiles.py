"""`rfbench rf tiles`: tiled inference that equals the whole image."""

import functools
from pathlib import Path

import click

from rfbench.cli import out, receptive_field
from rfbench.cli.options import (
    end_options,
    figure_options,
    input_options,
    json_option,
    model_arg_option,
    numbers,
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
@click.option(
    "--tile", metavar="N|HxW", help="Size of a crop in px, its halo included (default: smallest)."
)
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
    tile: str | None,
    output: Path | None,
    overwrite: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show how to run MODEL on tiles with the same result.

    Tiles of an image then give what the whole image gives; both are run to show it.
    MODEL is a torchvision or timm name, FILE.py:function, package.module:function or a YAML file.
    Prints the halo (the px that a tile's units read beyond it), the alignment (where crops may
    start), the smallest crop, and how much of larger crops is used. Then runs MODEL with random
    weights in float64 on a random image and on crops of it: at the first, at a middle and at the
    last place along each axis. Where tiles cannot equal the whole image, MODEL is refused with the
    layer that looks at all of it: global context, attention, GroupNorm, InstanceNorm,
    align_corners, positions.

    Example: rfbench rf tiles mynets.py:unet --size 512 --tile 256
    """
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.tiles.table import text
    from rfbench.rf.questions.tiles.tiles import tiles

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
    crop = numbers(tile, "x", "--tile", "N or HxW", least=1)
    networks = subjects.subjects(config)
    if receptive_field.print_only(networks, config, list_layers, dry_run):
        return
    if output is not None:
        from rfbench.files import check_folder

        check_folder(output, overwrite)
    shown = None if as_json else text
    results = receptive_field.measured_ends(
        config, networks, functools.partial(tiles, tile=crop), shown
    )
    if as_json:
        out.show_json([record for record, _ in results])
    if output is not None:
        from rfbench.rf.questions.tiles.figure import write

        files = write(results, output)
        out.note(f"wrote {', '.join(str(output / name) for name in files)}")
