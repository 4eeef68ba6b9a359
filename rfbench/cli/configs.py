"""`rfbench configs`: the configurations that come with rfbench."""

import itertools
import re
import textwrap
from pathlib import Path

import click

from rfbench.cli import out

LONGEST = 90  # characters of a description


@click.command()
@click.argument("name", required=False)
@click.option("--output", metavar="FILE", type=Path, help="Write NAME to this new file.")
def command(name: str | None, output: Path | None) -> None:
    """List rfbench's configurations, or print one, NAME.

    Commands take them by name from any folder, and so does `base:` in a configuration of your own.

    Example: rfbench train-cls cls/resnet50 -o data.root=IMAGENET

    Example: rfbench configs cls/folder --output mine.yaml
    """
    from rfbench import files, shipped
    from rfbench.errors import UsageError, suggest

    held = shipped.files()
    if name is None:
        if output:
            raise UsageError("--output needs the NAME of a configuration")
        width = max(map(len, held))
        return out.show("\n".join(f"{key:{width}}  {_about(path)}" for key, path in held.items()))
    path = shipped.find(name)
    if path is None:
        hint = suggest(name.removeprefix("configs/"), held) or " `rfbench configs` lists them."
        raise UsageError(f"no configuration {name!r} comes with rfbench.{hint}")
    text = path.read_text("utf-8")
    if output is None:
        return out.show(text.removesuffix("\n"))
    if output.exists():
        raise UsageError(f"{output} exists; name a new file")
    files.write_text(output, text)
    return out.note(f"wrote {output}")


def _about(path: Path) -> str:
    """The first sentence of the comment at the top, which follows the command, shortened."""
    top = itertools.takewhile(
        lambda line: line.startswith("#"), path.read_text("utf-8").splitlines()
    )
    words = [line for line in top if line.startswith("# ")][1:]
    text = " ".join(line.removeprefix("# ") for line in words)
    sentence = re.split(r"\. (?!\()", text)[0]  # "et al. (2016)" goes on
    return textwrap.shorten(sentence.removesuffix("."), LONGEST, placeholder=" ...")
