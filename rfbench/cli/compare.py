"""`rfbench compare`: the runs below some folders as tables, with statistical tests."""

from pathlib import Path

import click

from rfbench.cli import out
from rfbench.cli.options import split

FORMATS = ("table", "markdown", "latex", "csv", "json", "html")


@click.command()
@click.argument("results", nargs=-1, type=Path)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", help="Output format."
)
@click.option("--output", metavar="FILE", type=Path, help="Write to this file (default: stdout).")
@click.option(
    "--kind",
    type=click.Choice(["cls", "seg", "det"]),
    multiple=True,
    help="Only runs of this kind.",
)
@click.option("--metric", metavar="NAME", multiple=True, help="A metric to show; repeat for more.")
@click.option(
    "--rows",
    metavar="KEY,...",
    help="Compare the values of these keys of the configurations, such as model,prune, instead of "
    "variants.",
)
@click.option(
    "--baseline", metavar="ROW", help="Variant, or row, to compare with (default: baseline)."
)
@click.option("--sort", metavar="COLUMN", help="Sort by this column, best or smallest first.")
@click.option(
    "--look",
    is_flag=True,
    help="Import networks of your own that old records name, to measure and draw them: it runs "
    "their code.",
)
@click.option("--reference", type=click.Choice(["paper"]), help="Add the published figures.")
def command(
    results: tuple[Path, ...],
    form: str,
    output: Path | None,
    kind: tuple[str, ...],
    metric: tuple[str, ...],
    rows: str | None,
    baseline: str | None,
    sort: str | None,
    look: bool,
    reference: str | None,
) -> None:
    """Compare the runs in RESULTS (default: results/).

    RESULTS are folders of runs, or folders that hold them at any depth. Runs whose configurations
    differ only in seed, paths and device are averaged. Differences from the baseline are tested
    over the seeds. Nothing that a record names is imported: receptive fields, their maps
    and costs are those that each run has written into its record; of old records without them,
    networks of torchvision and timm are measured.
    """
    from rfbench.errors import UsageError
    from rfbench.files import write_text
    from rfbench.report import build, compare

    if output and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise UsageError(f"--output {output}: name a file in an existing folder.")
    wanted = build.Wanted(
        kinds=kind,
        metrics=metric,
        rows=tuple(split(rows, "--rows")),
        baseline=baseline,
        sort=sort,
        reference=reference is not None,
    )
    folder = output.parent if output else Path()
    text = compare.render(compare.compare(results, wanted, form == "html", look), form, folder)
    if output:
        write_text(output, text + "\n")
        out.note(f"wrote {output}")
    else:
        out.show(text)
