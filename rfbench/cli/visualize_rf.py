"""`rfbench visualize-rf`: the maps of a network's receptive field, one panel a variant."""

import json
from pathlib import Path
from typing import Any

import click

from rfbench.cli.rf_options import print_layers, print_plan, settings


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
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.maps import maps as visualize
    from rfbench.rf.questions.maps.table import table
    from rfbench.schemas.rf import RfConfig

    config = load(RfConfig, *settings(model, options))
    visualize.check(config)
    found = subjects.subjects(config)
    if options["list_layers"]:
        return print_layers(subjects.list_layers(next(found)))
    if options["dry_run"]:
        return print_plan(config, found)
    folder = visualize.choose_folder(config, output, options["overwrite"])
    record = visualize.run(config, list(found), folder)
    click.echo(json.dumps(record, indent=2, default=list) if options["as_json"] else table(record))
    click.echo(f"wrote {', '.join(str(folder / name) for name in record['files'])}", err=True)
    return None
