"""`rfbench visualize-rf`: the maps of a network's receptive field, one panel a variant."""

from typing import Any

import click


@click.command()
@click.argument("model")
@click.option("--weights", metavar="PATH", help="Checkpoint to load (default: none).")
@click.option("--variant", metavar="NAME", multiple=True, help="A variant; repeat for more.")
@click.option("--from", "from_", metavar="LAYER", help="Start the map behind this layer.")
@click.option("--to", metavar="LAYER", help="End it at this layer (default: the last map).")
@click.option("--unit", metavar="Y,X", help="Output unit to look at (default: the middle one).")
@click.option("--size", metavar="N|HxW", help="Input size in px (default: large enough).")
@click.option("--scale", type=click.Choice(["linear", "sqrt"]), help="Brightness of the map.")
@click.option("--channels", type=click.Choice(["single", "real"]), help="Channels a path may take.")
@click.option("--pool", type=click.Choice(["count", "mean"]), help="Weight of a pool's taps.")
@click.option("--gates", type=click.Choice(["ignore", "count"]), help="Paths through gates (SE).")
@click.option("--engine", type=click.Choice(["graph", "autograd"]), help="How to compute the map.")
@click.option("--exact", is_flag=True, help="Count paths in whole numbers of any size.")
@click.option("--output", metavar="DIR", help="Folder for the figure and the numbers.")
@click.option("--overwrite", is_flag=True, help="Replace what the folder holds.")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option("--list-layers", is_flag=True, help="Print the names --from and --to take; stop.")
@click.option("--dry-run", is_flag=True, help="Print what would be done; stop.")
@click.option(
    "-o", "--override", metavar="KEY=VALUE", multiple=True, help="Set a key of the configuration."
)
def command(**options: Any) -> None:
    """Draw the receptive field of MODEL.

    MODEL is a torchvision or timm name, a YAML file or FILE.py:function.
    """
    raise NotImplementedError
