"""`rfbench rf audit`: a lint for backbones."""

import functools
import json
from pathlib import Path
from typing import Any

import click

from rfbench.cli.rf_options import numbers, print_layers, print_plan, settings


@click.command()
@click.argument("model", nargs=-1, required=True)
@click.option("--variant", metavar="NAME", multiple=True, help="A variant; repeat for more.")
@click.option("--from", "from_", metavar="LAYER", help="Start at this layer's output.")
@click.option("--to", metavar="LAYER", help="End at this layer (default: the last map).")
@click.option("--size", metavar="N|HxW", help="Input size in px (default: the network's own).")
@click.option("--sizes", metavar="A:B", help="Shift at all sizes from A to B; a symmetric one.")
@click.option("--fail-on", metavar="TEXT", help="Exit with 1 where e.g. 'shift>1,gridding>0.05'.")
@click.option("--output", metavar="DIR", type=Path, help="Write a picture a network, a record.")
@click.option("--overwrite", is_flag=True, help="Replace what the folder holds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all figures, every layer.")
@click.option("--list-layers", is_flag=True, help="Print the layers for --from and --to; stop.")
@click.option("--dry-run", is_flag=True, help="Print configuration and changed layers; stop.")
@click.option(
    "-o", "--override", metavar="KEY=VALUE", multiple=True, help="Set a key of the configuration."
)
@click.pass_context
def command(
    ctx: click.Context, model: tuple[str, ...], output: Path | None, **options: Any
) -> None:
    """Check the receptive fields of each MODEL: shift, gridding, misaligned branches, coverage.

    MODEL is a torchvision or timm name, FILE.py:function, package.module:function or a YAML file.
    Every finding is traced to layers, by what remains when one alone is cured; then come the cures:
    the paper's variants and that of all kernel sizes there are, with what they leave and cost; with
    --sizes, the nearest input size that is symmetric as it is. --fail-on judges shift (px),
    gridding, misaligned, reached and seen (shares of the input) by >, >=, < and <=. Exit codes: 1
    for a finding or a network that cannot be audited, 2 for bad usage; the other networks are
    audited all the same.

    Example: rfbench rf audit resnet50 mypkg.models:build --fail-on 'shift>1,misaligned>0'
    """
    from tqdm import tqdm

    from rfbench.config import load
    from rfbench.errors import RfbenchError
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.audit.audit import audits
    from rfbench.rf.questions.audit.limits import parse
    from rfbench.rf.questions.audit.table import text
    from rfbench.schemas.rf import RfConfig

    config = load(RfConfig, *settings(model, options))
    if config.variants is None:
        config = config.model_copy(update={"variants": ["baseline"]})
    limits, sizes = parse(options["fail_on"]), _range(options["sizes"])
    if options["list_layers"]:
        return print_layers(subjects.list_layers(next(subjects.subjects(config))))
    if options["dry_run"]:
        return print_plan(config, subjects.subjects(config))
    if output is not None:
        from rfbench.files import check_folder

        check_folder(output, options["overwrite"])
    records, code = [], 0
    several = len(subjects.models(config)) > 1
    bar = functools.partial(tqdm, unit="size", leave=False, disable=None)
    for name, record in audits(config, sizes, bar):
        if isinstance(record, RfbenchError):
            _note(f"Error: {name}: {record}" if several else f"Error: {record}")
            code = max(code, record.exit_code)
            continue
        records.append(record)
        if not options["as_json"]:
            click.echo("\n" * (len(records) > 1) + text(record))
    for record in records:
        record["broken"] = [why for limit in limits if (why := limit.broken(record))]
        for why in record["broken"]:
            _note(f"{record['model']} / {record['variant']}: {why}")
            code = max(code, 1)
    if options["as_json"]:
        click.echo(json.dumps(records, indent=2))
    if output is not None and records:
        from rfbench.rf.questions.audit.figure import write

        files = write(records, output)
        _note(f"wrote {', '.join(str(output / name) for name in files)}")
    return ctx.exit(code) if code else None


def _note(text: str) -> None:
    click.echo(text, err=True)


def _range(text: str | None) -> range:
    """'192:320' as the sizes from the one to the other, both included."""
    from rfbench.errors import UsageError

    ends = numbers(text, ":", "--sizes", "A:B") or (1, 0)
    if text is not None and not 0 < ends[0] <= ends[1] <= 10_000:
        raise UsageError(f"--sizes {text}: expected A:B with 0 < A <= B <= 10000")
    return range(ends[0], ends[1] + 1)
