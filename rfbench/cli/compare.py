"""`rfbench compare`: the runs below some folders as tables, with statistical tests."""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

FORMATS = ("table", "markdown", "csv", "json", "html")


@click.command()
@click.argument("results", nargs=-1, type=Path)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="table", help="Output format."
)
@click.option("--output", metavar="FILE", type=Path, help="Write to this file (default: stdout).")
@click.option(
    "--kind", type=click.Choice(["cls", "det"]), multiple=True, help="Only runs of this kind."
)
@click.option("--metric", metavar="NAME", multiple=True, help="A metric to show; repeat for more.")
@click.option("--baseline", metavar="VARIANT", help="Variant to compare with (default: baseline).")
@click.option("--sort", metavar="COLUMN", help="Sort by this column, best or smallest first.")
@click.option("--reference", type=click.Choice(["paper"]), help="Add the published figures.")
def command(
    results: tuple[Path, ...],
    form: str,
    output: Path | None,
    kind: tuple[str, ...],
    metric: tuple[str, ...],
    baseline: str | None,
    sort: str | None,
    reference: str | None,
) -> None:
    """Compare the runs in the folders RESULTS and below (default: results/).

    Runs whose configurations differ only in seed, paths and device are averaged. Differences from
    the baseline are tested over the seeds.
    """
    from rfbench.errors import UsageError
    from rfbench.files import write_text
    from rfbench.report import build, compare

    if output and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise UsageError(f"--output {output}: name a file in an existing folder.")
    wanted = build.Wanted(
        kinds=kind,
        metrics=metric,
        baseline=baseline,
        sort=sort,
        reference=reference is not None,
    )
    draw: Callable[[str, Sequence[str]], bytes] | None = None
    if form == "html":
        from rfbench.rf.questions.maps.png import png

        draw = png
    text = compare.render(compare.compare(results, wanted, draw), form)
    if output:
        write_text(output, text + "\n")
        click.echo(f"wrote {output}", err=True)
    else:
        click.echo(text)
