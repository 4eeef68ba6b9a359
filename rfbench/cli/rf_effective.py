"""`rfbench rf effective`: what a unit really sees, by its gradient over images."""

import json
from pathlib import Path
from typing import Any

import click

from rfbench.cli.rf_options import print_layers, print_plan, settings


@click.command()
@click.argument("model", nargs=-1, required=True)
@click.option("--variant", metavar="NAME", multiple=True, help="A variant; repeat for more.")
@click.option(
    "--weights", metavar="NAME|PATH", help="random (default), pretrained or a checkpoint."
)
@click.option("--images", metavar="NAME|DIR", default="noise", help="noise, digits or a folder.")
@click.option("--pictures", type=click.IntRange(1), default=16, help="How many of them.")
@click.option("--draws", type=click.IntRange(1), default=1, help="Draws of random weights.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of weights and noise.")
@click.option("--to", metavar="LAYER", help="The unit's layer (default: the last map).")
@click.option("--unit", metavar="Y,X", help="The unit (default: the central one).")
@click.option("--size", metavar="N|HxW", help="Input size in px (default: the network's own).")
@click.option(
    "--output", metavar="DIR", type=Path, help="Folder (default: results/rf-effective-...)."
)
@click.option("--overwrite", is_flag=True, help="Replace what the folder holds.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.option("--list-layers", is_flag=True, help="Print the layers for --to; stop.")
@click.option("--dry-run", is_flag=True, help="Print configuration and changed layers; stop.")
@click.option(
    "-o", "--override", metavar="KEY=VALUE", multiple=True, help="Set a key of the configuration."
)
def command(model: tuple[str, ...], output: Path | None, **options: Any) -> None:
    """Draw the effective receptive field of MODEL (Luo et al., 2016) beside its path counts.

    MODEL is a torchvision or timm name (attention too), FILE.py:function, package.module:function
    or a YAML file. The field is the mean |gradient| of a unit over pictures and draws of weights.
    Writes effective.png, effective.pdf, effective.npz and result.json; prints a table. Without
    --variant: the network as it is.

    Example: rfbench rf effective resnet50 --weights run/best.pth --images photos/ --pictures 50
    """
    from rfbench import files
    from rfbench.config import load
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.effective import effective as effective_run
    from rfbench.rf.questions.effective.table import table
    from rfbench.schemas.rf import RfConfig

    path = options.pop("weights") or "random"
    keys = ("images", "pictures", "draws", "seed")
    sample = effective_run.Sample(path, **{key: options.pop(key) for key in keys})
    own = path not in ("random", "pretrained")
    config = load(RfConfig, *settings(model, {**options, "weights": path if own else None}))
    if config.variants is None and not own:
        config = config.model_copy(update={"variants": ["baseline"]})

    if options["list_layers"]:
        return print_layers(subjects.list_layers(next(subjects.subjects(config))))
    if options["dry_run"]:
        return print_plan(config, subjects.subjects(config))
    names = (Path(name).name for name in subjects.models(config))
    folder = output or files.default_folder("rf-effective", *names)
    files.check_folder(folder, options["overwrite"])
    record = effective_run.run(config, sample, folder)
    click.echo(json.dumps(record, indent=2, default=list) if options["as_json"] else table(record))
    click.echo(f"wrote {', '.join(str(folder / name) for name in record['files'])}", err=True)
    return None
