"""`rfbench compare`: the runs below some folders, as the paper's tables, with what is noise."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

FORMATS = ("table", "markdown", "csv", "json", "html")


@click.command()
@click.argument("results", nargs=-1, type=Path)
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", help="What to make.")
@click.option("--output", metavar="FILE", type=Path, help="Write it there (default: stdout).")
@click.option("--kind", type=click.Choice(["cls", "det"]), multiple=True, help="Only these runs.")
@click.option("--metric", metavar="NAME", multiple=True, help="A figure to show; repeat for more.")
@click.option("--baseline", metavar="VARIANT", help="Compare with this (default: baseline).")
@click.option("--sort", metavar="COLUMN", help="Sort by it, better or less first.")
@click.option("--reference", type=click.Choice(["paper"]), help="Published rows beside ours.")
def command(results: tuple[Path, ...], form: str, output: Path | None, **options: Any) -> None:
    """Compare the runs below the folders RESULTS (default: results/).

    Only runs whose configurations differ in nothing but seed, paths and device are averaged.
    Differences to the baseline are tested over the seeds.
    """
    from rfbench.errors import UsageError
    from rfbench.files import write_text
    from rfbench.report import build, formats, runs

    if output and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise UsageError(f"--output {output}: is a folder, or in none; name a file.")
    places = list(results or [Path("results")])
    wanted = build.Wanted(
        kinds=options["kind"],
        metrics=options["metric"],
        baseline=options["baseline"],
        sort=options["sort"],
        reference=options["reference"] is not None,
    )
    # the paper's tables alone need no runs
    default = not results and wanted.reference and not places[0].exists()
    found = runs.Found() if default else runs.find(places)
    for problem in found.problems:
        note(problem)
    if found.maps:
        note(f"left out, being no runs: {found.maps} of receptive fields")
    report = build.build(found, wanted, functools.partial(look, picture=form == "html"), places)
    for problem in report.problems[len(found.problems) :]:
        note(problem)
    if form == "html":
        from rfbench.report import html

        text = html.page(report)
    else:
        text = formats.FORMATS[form](report)
    if output:
        write_text(output, text + "\n")
        note(f"wrote {output}")
    else:
        click.echo(text)


def note(text: str) -> None:
    """One line to stderr."""
    click.echo(" ".join(text.split()), err=True)


def look(
    model: str, names: Sequence[str], size: tuple[int, int] | None, picture: bool
) -> tuple[dict[str, Any], bytes | None]:
    """Cost and receptive field of variants of a model, and a picture of the latter."""
    found = {name: _look(model, name, size) for name in names}
    drawn = [maps for _, maps in found.values() if maps]
    networks = {name: network for name, (network, _) in found.items()}
    return networks, _picture(drawn) if picture and drawn else None


@functools.cache  # groups share models
def _look(model: str, name: str, size: tuple[int, int] | None) -> tuple[Any, Any]:
    """A `Network` and the map of its receptive field; what cannot be found out is told."""
    from rfbench.errors import RfbenchError
    from rfbench.report.model import Network
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.maps import maps as visualize
    from rfbench.schemas.rf import RfConfig

    config, found = RfConfig(model=model, variants=[name]), Network()
    try:
        (subject,) = subjects.subjects(config)
        found.size = size or subject.size
        found.macs = subject.network.cost(found.size).macs
        (drawn,) = visualize.draw(config, [subject])
    except RfbenchError as error:
        note(f"{model} / {name}: not looked at: {error}")
        return found, None
    found.figures = drawn.metrics
    return found, drawn


def _picture(drawn: Sequence[Any]) -> bytes:
    """PNG of the maps."""
    import io

    from rfbench.rf.questions.maps import figure as maps
    from rfbench.rf.questions.maps import maps as visualize
    from rfbench.schemas.rf import RfConfig

    panels = [
        maps.Panel(d.subject.title, d.counts, d.metrics, d.own, "at its own size") for d in drawn
    ]
    name = drawn[0].subject.backbone.name
    caption = visualize.caption(RfConfig(model=name), list(drawn))
    out = io.BytesIO()
    figure = maps.maps_figure(panels, name.rpartition(":")[2], caption)
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
