"""`rfbench rf audit`: a lint for backbones."""

import json
from collections.abc import Iterable
from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from rfbench.cli.rf_options import numbers, print_layers, print_plan, settings
from rfbench.plotting.columns import columns

MOST = 12  # steps in the text; --json has all


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
    from rfbench.config import load
    from rfbench.rf.questions import subjects
    from rfbench.rf.questions.audit.limits import parse
    from rfbench.schemas.rf import RfConfig

    config = load(RfConfig, *settings(model, options))
    if config.variants is None:
        config = config.model_copy(update={"variants": ["baseline"]})
    limits, sizes = parse(options["fail_on"]), _range(options["sizes"])
    found = subjects.subjects(config, _note)
    if options["list_layers"]:
        return print_layers(subjects.list_layers(next(found)))
    if options["dry_run"]:
        return print_plan(config, found)
    if output is not None:
        from rfbench.files import check_folder

        check_folder(output, options["overwrite"])
    records, code = _audit(config, sizes, options["as_json"])
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
                for subject in subjects(one, _note):
                    records.append(audit(one, subject, sizes, bar))
                    if not quiet:
                        click.echo("\n" * (len(records) > 1) + text(records[-1]))
            except RfbenchError as error:  # the other networks have findings of their own
                several = len(models(config)) > 1
                _note(f"Error: {model}: {error}" if several else f"Error: {error}")
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
