"""`rfbench rf audit`: a lint for backbones."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rfbench.cli import out, receptive_field
from rfbench.cli.options import (
    figure_options,
    input_options,
    json_option,
    layer_options,
    model_arg_option,
    output_options,
    override_option,
    variant_option,
)

if TYPE_CHECKING:
    from rfbench.rf.questions.audit.audit import Trained

log = logging.getLogger("rfbench")


@click.command()
@click.argument("model", nargs=-1, required=True)
@variant_option
@model_arg_option
@click.option(
    "--weights", metavar="PATH", help="Checkpoint that must fit: kernels are read where not zero."
)
@layer_options
@input_options
@click.option(
    "--sizes",
    metavar="A:B",
    help="Also report the shift on inputs of A to B px a side, or A:BxC:D, and the nearest "
    "without any.",
)
@click.option(
    "--fail-on", metavar="LIMITS", help="Exit with 1 if one is exceeded: 'shift>1,read<0.9'."
)
@output_options("Write one figure per network and a record to this folder.")
@figure_options
@override_option()
@json_option("Print the records as JSON, with every layer.")
@click.pass_context
def command(
    ctx: click.Context,
    model: tuple[str, ...],
    variant: tuple[str, ...],
    model_args: tuple[str, ...],
    weights: str | None,
    from_: str | None,
    to: str | None,
    size: str | None,
    in_channels: int | None,
    inputs: tuple[str, ...],
    input_axes: str | None,
    list_layers: bool,
    dry_run: bool,
    sizes: str | None,
    fail_on: str | None,
    output: Path | None,
    overwrite: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check MODEL: shift, gridding, holes, misaligned branches.

    MODEL is a torchvision or timm name, FILE.py:function, package.module:function, a YAML file or
    the folder of a finished training, whose best.pth is taken (of a detector: the backbone and its
    pyramid; choose a level with --to levels.p3). For pruned weights it says what they leave of the
    field and of the directions of each kernel.

    shift: how far the field's centroid is from the unit's own position, in px down and right.
    gridding: how unevenly pixels are used in a pattern that repeats (0: evenly). read: the share of
    the field's box that is read; less than 100 % means holes. misaligned: additions and
    concatenations whose branches look at different positions.

    Every finding is traced to layers: what remains after fixing only this layer. Then come the
    fixes: the paper's variants and one with all kernel sizes of MODEL, with what remains and what
    they cost. --sizes adds the nearest input size at which MODEL has no shift; every size is
    judged by itself, and one that MODEL refuses is named.

    --fail-on compares a metric of the table by >, >=, < or <=: shift (px), gridding, misaligned
    and so on; an unknown name lists them all. All but the shares of the input that are reached and
    seen are judged on an input so large that the border cuts nothing off. Exit codes: 1 for a
    finding or a network that cannot be audited, 2 for bad usage; the other networks are audited in
    any case.

    Example: rfbench rf audit resnet50 mypkg.models:build --fail-on 'shift>1,misaligned>0'
    """
    from rfbench.cli import trained
    from rfbench.errors import RfbenchError, UsageError
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.audit.audit import audits
    from rfbench.rf.questions.audit.limits import parse
    from rfbench.rf.questions.audit.table import text

    held = None
    if len(model) == 1 and trained.is_run(model[0]):
        if variant or model_args or weights:
            raise UsageError(f"{model[0]}: a training has its own variant, arguments and weights")
        model, held = trained_of(model[0])
    config = receptive_field.load_with_baseline(
        model,
        override,
        variant=variant,
        model_args=model_args,
        weights=weights,
        from_=from_,
        to=to,
        size=size,
        in_channels=in_channels,
        inputs=inputs,
        input_axes=input_axes,
    )
    limits, span = parse(fail_on), _range(sizes)
    if limits and (list_layers or dry_run):
        raise UsageError("--fail-on judges an audit; --list-layers and --dry-run make none")
    if receptive_field.print_only(subjects.subjects(config), config, list_layers, dry_run):
        return
    if output is not None:
        from rfbench.files import check_folder

        check_folder(output, overwrite)
    results, code = [], 0
    several = len(subjects.models(config)) > 1
    for name, record in audits(config, span, held):
        if isinstance(record, RfbenchError):  # the other networks have findings of their own
            log.error(f"Error: {name}: {record}" if several else f"Error: {record}")
            code = max(code, record.exit_code)
            continue
        results.append(record)
        if not as_json:
            out.show("\n" * (len(results) > 1) + text(record))
    if limits and not results and not code:
        raise RfbenchError("nothing was audited, so --fail-on cannot pass")
    for record in results:
        record["broken"] = [why for limit in limits if (why := limit.broken(record))]
        for why in record["broken"]:
            log.warning(f"{record['model']} / {record['variant']}: {why}")
            code = max(code, 1)
    if as_json:
        out.show_json(results)
    if output is not None and results:
        from rfbench.rf.questions.audit.figure import write

        files = write(results, output)
        out.note(f"wrote {', '.join(str(output / name) for name in files)}")
    if code:
        ctx.exit(code)


def trained_of(folder: str) -> tuple[tuple[str, ...], "Trained"]:
    """The network of a training for `backbones.build`, and what an audit says of it."""
    from rfbench.cli import trained
    from rfbench.models import backbones
    from rfbench.rf.questions.audit.audit import Trained

    name, _, record = trained.network_of(folder, None)
    state = backbones.build(name).module.state_dict()
    return (name,), Trained(trained.label(record), record.variant, state)


def _range(text: str | None) -> list[int | tuple[int, ...]]:
    """'192:320' as the numbers from the one to the other, both included: px along each axis.

    '480:544x960:1088' as all heights with all widths; of other axes alike.
    """
    from itertools import product
    from math import prod

    from rfbench.errors import UsageError

    if text is None:
        return []
    sides = []
    for part in text.lower().split("x"):
        ends = [int(n) if n.strip().isdigit() else 0 for n in part.split(":")]
        if len(ends) != 2 or not 0 < ends[0] <= ends[1] <= 10_000:
            raise UsageError(f"--sizes {text}: expected A:B with 0 < A <= B <= 10000")
        sides.append(range(ends[0], ends[1] + 1))
    if len(sides) > 3 or prod(map(len, sides)) > 10_000:
        raise UsageError(f"--sizes {text}: expected A:B, or A:BxC:D of at most 10000 sizes")
    return [*sides[0]] if len(sides) == 1 else [*product(*sides)]
