"""`rfbench rf audit`: a lint for backbones."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from rfbench.cli import receptive_field
from rfbench.cli.options import (
    json_option,
    layer_options,
    numbers,
    output_options,
    override_option,
    variant_option,
)
from rfbench.plotting.columns import columns

MOST = 12  # steps in the text; --json has all
log = logging.getLogger("rfbench")


@click.command()
@click.argument("model", nargs=-1, required=True)
@variant_option
@layer_options
@click.option(
    "--sizes",
    metavar="A:B",
    help="Also report the shift at the input sizes from A to B, and the nearest without any.",
)
@click.option(
    "--fail-on", metavar="LIMITS", help="Exit with 1 if one is exceeded: 'shift>1,gridding>0.05'."
)
@output_options("Write one figure per network and a record to this folder.")
@override_option()
@json_option("Print the records as JSON, with every layer.")
@click.pass_context
def command(
    ctx: click.Context,
    model: tuple[str, ...],
    variant: tuple[str, ...],
    from_: str | None,
    to: str | None,
    size: str | None,
    list_layers: bool,
    dry_run: bool,
    sizes: str | None,
    fail_on: str | None,
    output: Path | None,
    overwrite: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check the receptive field of each MODEL: shift, gridding, misaligned branches, coverage.

    MODEL is a torchvision or timm name, FILE.py:function, package.module:function or a YAML file.
    Every finding is traced to layers: what remains after fixing only this layer. Then come the
    fixes: the paper's variants and one with all kernel sizes of MODEL, with what remains and what
    they cost. With --sizes also the nearest input size at which MODEL has no shift.

    --fail-on compares shift (px), gridding, misaligned, reached and seen (shares of the input)
    by >, >=, < or <=. Exit codes: 1 for a finding or a network that cannot be audited, 2 for bad
    usage; the other networks are audited in any case.

    Example: rfbench rf audit resnet50 mypkg.models:build --fail-on 'shift>1,misaligned>0'
    """
    from rfbench.rf.questions import subjects
    from rfbench.rf.questions.audit.limits import parse

    config = receptive_field.load_config(
        model, override, variant=variant, from_=from_, to=to, size=size
    )
    if config.variants is None:
        config = config.model_copy(update={"variants": ["baseline"]})
    limits, span = parse(fail_on), _range(sizes)
    found = subjects.subjects(config, log.info)
    if receptive_field.print_only(found, config, list_layers, dry_run):
        return
    if output is not None:
        from rfbench.files import check_folder

        check_folder(output, overwrite)
    records, code = _audit(config, span, as_json)
    for record in records:
        record["broken"] = [why for limit in limits if (why := limit.broken(record))]
        for why in record["broken"]:
            log.warning(f"{record['model']} / {record['variant']}: {why}")
            code = max(code, 1)
    if as_json:
        click.echo(json.dumps(records, indent=2))
    if output is not None and records:
        from rfbench.rf.questions.audit.figure import write

        files = write(records, output)
        click.echo(f"wrote {', '.join(str(output / name) for name in files)}", err=True)
    if code:
        ctx.exit(code)


def _range(text: str | None) -> range:
    """'192:320' as the sizes from the one to the other, both included."""
    from rfbench.errors import UsageError

    ends = numbers(text, ":", "--sizes", "A:B") or (1, 0)
    if text is not None and not 0 < ends[0] <= ends[1] <= 10_000:
        raise UsageError(f"--sizes {text}: expected A:B with 0 < A <= B <= 10000")
    return range(ends[0], ends[1] + 1)


def _audit(config: Any, sizes: range, quiet: bool) -> tuple[list[dict[str, Any]], int]:
    """The records of all networks, printed one by one, and the worst exit code of a failure."""
    from tqdm import tqdm

    from rfbench.errors import RfbenchError
    from rfbench.rf.questions.audit.audit import audit
    from rfbench.rf.questions.subjects import models, subjects

    def bar(values: Any) -> Iterable[int]:
        return tqdm(values, unit="size", leave=False, disable=None)

    records: list[dict[str, Any]] = []
    code = 0
    for model in models(config):
        for variant in config.variants:
            one = config.model_copy(update={"model": model, "variants": [variant]})
            try:
                for subject in subjects(one, log.info):
                    records.append(audit(one, subject, sizes, bar))
                    if not quiet:
                        click.echo("\n" * (len(records) > 1) + text(records[-1]))
            except RfbenchError as error:  # the other networks have findings of their own
                several = len(models(config)) > 1
                log.info(f"Error: {model}: {error}" if several else f"Error: {error}")
                code = max(code, error.exit_code)
    return records, code


def text(record: dict[str, Any]) -> str:
    """A record in a few lines."""
    own, at = record["at_own_size"], _by(record["input_size"])
    start = "" if record["from"] == "input" else f" from {record['from']}"
    cut = f"   (at {at} px, cut by the border: {_pair(own['shift'])})" if own["cut"] else ""
    grid = record["gridding_by_period"]
    periods = ", ".join(f"{period}: {_cv(cv)}" for period, cv in grid.items())
    steps = f"   (by period {periods})" if len(grid) > 1 else ""
    where = ", ".join(record["misaligned_layers"])
    cover = record["coverage"]
    rows = [
        ("shift y, x", f"{_pair(record['shift'])} px{cut}"),
        ("gridding", f"{_cv(record['gridding'])}{steps}"),
        ("misaligned", f"{record['misaligned']}" + (f"   ({where})" if where else "")),
        (
            "coverage",
            f"{cover['reached']:.1%} of the input; the central unit's box {cover['seen']:.1%}",
        ),
    ]
    name = f"{record['model']} / {record['variant']}{start} to {record['to']}"
    lines = [f"{name} at {at} px: {record['status']}", *columns(rows, "  ")]
    lines += columns(_causes(record), "  ") if record["steps"] else []
    if hidden := len(record["steps"]) - MOST:
        lines += [f"    and {hidden} more that do less (--json)"] if hidden > 0 else []
    return "\n".join([*lines, *_cures(record), *_sizes(record)])


def _by(size: Any) -> str:
    return "x".join(map(str, size))


def _pair(shift: Any) -> str:
    return ", ".join(f"{round(s, 2) + 0.0:+.2f}" for s in shift)


def _cv(value: float) -> str:
    return f"{value:.4f}"


def _left(row: dict[str, Any]) -> tuple[str, str, str]:
    return _pair(row["shift"]), _cv(row["gridding"]), str(row["misaligned"])


def _causes(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """What remains when one layer is cured, when a level is, when all are."""
    from rfbench.rf.questions.audit.audit import effect

    shown = sorted(record["steps"], key=lambda row: -effect(row, record))[:MOST]
    named = [(f"{r['layer']} ({r['what']})".strip(), r) for r in record["steps"] if r in shown]
    named += [
        (f"the {len(r['layers'])} that reach stride {r['stride']:g}", r) for r in record["together"]
    ]
    named.append(("all of them", record["all"]))
    reach = any("reached" in row for _, row in named)
    head = ("cured alone, what remains", "shift y, x", "gridding", "misaligned")
    lines: list[tuple[str, ...]] = [(*head, "coverage") if reach else head]
    for name, row in named:
        cells = (f"  {name}", *_left(row))
        more = (f"{row['reached']:.1%}" if "reached" in row else "",) if reach else ()
        lines.append((*cells, *more))
    return lines


def _cures(record: dict[str, Any]) -> list[str]:
    """The variants' table, and the line to type."""
    from rfbench.rf.questions.audit.audit import faultless

    if "cures" not in record:
        return []
    if faultless(record) and all("refused" in row for row in record["cures"]):
        return ["  nothing to cure: centred, without a grid, all branches aligned"]
    head = ("variant", "layers", "shift y, x", "gridding", "misaligned", "MACs", "activations")
    rows: list[tuple[str, ...]] = [head]
    for row in (r for r in record["cures"] if "refused" not in r):
        cells = (row["variant"], str(len(row["layers"])), *_left(row))
        more = (f"{row[f'{key}_more']:+.1%}" if key in row else "-" for key in _COSTS)
        rows.append((*cells, *more))
    lines = columns(rows, "  ") if len(rows) > 1 else []
    lines += [f"  {_shown(row['refused'])}" for row in record["cures"] if "refused" in row]
    if record["best"]:
        lines.append(f'  best: rfbench.fix(model, "{record["best"]}")')
    return lines


_COSTS = ("macs", "activations")


def _shown(text: str) -> str:
    """A sentence on one line: some name every layer."""
    return shorten(text, 120, placeholder=" ... (--json)")


def _sizes(record: dict[str, Any]) -> list[str]:
    if "sizes" not in record:
        return []
    found, rows = record["sizes"]["symmetric"], record["sizes"]["shift"]
    ends = f"{rows[0][0]} to {rows[-1][0]} px"
    if found is None:
        return [f"  no size from {ends} is symmetric"]
    return [f"  free of shift as it is: {found}x{found} px, the nearest of {ends}"]
