"""`rfbench install-detectron2`: what `rfbench train-det` needs."""

from pathlib import Path

import click

from rfbench.cli import out


@click.command()
@click.option("--sdist", metavar="FILE", type=Path, help="The archive, instead of fetching it.")
@click.option("--wheel-dir", metavar="DIR", type=Path, help="Only write the wheel here.")
def command(sdist: Path | None, wheel_dir: Path | None) -> None:
    """Install Detectron2 0.6, which train-det needs.

    One that works is left as it is; otherwise it takes about a minute.

    pip fetches its Python files, with the archive's hash pinned; no compiler is needed and no
    setup.py is run. Deformable convolutions and rotated boxes need Detectron2's own source instead.
    """
    from rfbench import install_detectron2

    out.show(install_detectron2.ensure(sdist, wheel_dir, out.note))
