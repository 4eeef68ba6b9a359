"""`rfbench rf zoo`: a row and a map for every architecture of torchvision and timm."""

import os
from pathlib import Path

import click

from rfbench.cli import out, training
from rfbench.cli.options import json_option, output_option, overwrite_option

FEW = 20  # up to this many models a table is printed


@click.command()
@click.option(
    "--library",
    multiple=True,
    type=click.Choice(["torchvision", "timm"]),
    default=["torchvision", "timm"],
    help="Library to measure (default: both).",
)
@click.option("--pattern", default="*", help="Shell pattern of the names to measure.")
@click.option("--jobs", type=click.IntRange(1), help="Processes (default: one per core).")
@output_option("Folder (default: results/zoo).")
@overwrite_option("Measure again what the folder holds.")
@click.option(
    "--markdown", metavar="FILE", type=Path, help="Write a summary by family, with a figure."
)
@json_option("Print all rows as JSON.")
def command(
    library: tuple[str, ...],
    pattern: str,
    jobs: int | None,
    output: Path | None,
    overwrite: bool,
    markdown: Path | None,
    as_json: bool,
) -> None:
    """Measure the fields of torchvision's and timm's models.

    Writes index.html (search, sort, filter, compare maps), zoo.csv, zoo.json and maps/ for the
    models asked for. rows.jsonl keeps all rows ever measured into the folder, so the same command
    continues an interrupted run. Prints a table if there are at most 20 models.

    Example: rfbench rf zoo --pattern 'resnet*' --output results/resnets
    """
    training.wait_passively()
    from tqdm import tqdm

    from rfbench import files
    from rfbench.json_text import dumps
    from rfbench.rf.questions.zoo import page as zoo_page
    from rfbench.rf.questions.zoo import summary, zoo
    from rfbench.rf.questions.zoo.table import table

    output = output or Path("results/zoo")
    wanted = zoo.names(library, pattern)
    zoo.check_folder(output)
    zoo.open_folder(output, overwrite)
    known = len(zoo.read(output).keys() & set(wanted))
    with tqdm(total=len(wanted), initial=known, unit="model", disable=None) as bar:
        rows = zoo.run(wanted, output, jobs or os.cpu_count() or 1, bar.update)
    drawings = {name: zoo.drawings(output, name) for name in wanted}
    files.write_text(output / "index.html", zoo_page.page(rows, drawings))
    files.write_text(output / "zoo.csv", summary.table(rows))
    files.write_text(output / "zoo.json", dumps(rows, 1) + "\n")
    if markdown:
        summary.save_summary(rows, markdown)
    if as_json:
        return out.show_json(rows, 1)
    if len(rows) <= FEW:
        out.show(table(rows) + "\n")
    for status, count in zoo.summary(rows).items():
        out.show(f"{count:5}  {status}")
    return out.note(f"wrote {output}/index.html, {output}/zoo.csv, {output}/zoo.json")
