"""`rfbench rf zoo`: a row and a map for every architecture there is."""

import json
import os
from pathlib import Path

import click

FEW = 20  # models whose figures are printed


@click.command()
@click.option(
    "--library",
    multiple=True,
    type=click.Choice(["torchvision", "timm"]),
    default=["torchvision", "timm"],
    help="Where to look (default: both).",
)
@click.option("--pattern", default="*", help="Names to take, as a shell pattern.")
@click.option("--jobs", type=click.IntRange(1), help="Processes (default: one a core).")
@click.option("--output", metavar="DIR", type=Path, default="results/zoo", help="Folder.")
@click.option("--overwrite", is_flag=True, help="Measure anew what the folder holds.")
@click.option(
    "--markdown", metavar="FILE", type=Path, help="Write a summary by families, with a picture."
)
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON.")
def command(
    library: tuple[str, ...],
    pattern: str,
    jobs: int | None,
    output: Path,
    overwrite: bool,
    markdown: Path | None,
    as_json: bool,
) -> None:
    """Measure every architecture of torchvision and timm: where its field is, and whether it grids.

    Writes index.html (search, sort, filter, compare maps), zoo.csv, zoo.json and maps/. These show
    the models asked for; rows.jsonl keeps the rows of all that were ever measured into the folder.
    So a run that was stopped goes on where it was. Prints a table of up to 20 models.

    Example: rfbench rf zoo --pattern 'resnet*' --output results/resnets
    """
    # each process has one thread, and those that spin while they wait starve the others
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tqdm import tqdm

    from rfbench import files
    from rfbench.rf.questions.zoo import page as zoo_page
    from rfbench.rf.questions.zoo import zoo
    from rfbench.rf.questions.zoo.table import table

    wanted = zoo.names(library, pattern)
    zoo.check_folder(output)
    output.mkdir(parents=True, exist_ok=True)
    if overwrite:
        (output / zoo.ROWS).unlink(missing_ok=True)
    known = sum(name in zoo.read(output) for name in wanted)
    with tqdm(total=len(wanted), initial=known, unit="model", disable=None) as bar:
        rows = zoo.run(wanted, output, jobs or os.cpu_count() or 1, bar.update)
    files.write_text(output / "index.html", zoo_page.page(rows, zoo.pictures(output, rows)))
    files.write_text(output / "zoo.csv", zoo_page.table(rows))
    files.write_text(output / "zoo.json", json.dumps(rows, indent=1) + "\n")
    if markdown:
        zoo_page.save_summary(rows, markdown)
    if as_json:
        return click.echo(json.dumps(rows, indent=1))
    if len(rows) <= FEW:
        click.echo(table(rows) + "\n")
    for status, count in zoo.summary(rows).items():
        click.echo(f"{count:5}  {status}")
    return click.echo(f"wrote {output}/index.html, zoo.csv, zoo.json", err=True)
