"""`rfbench rf`: every receptive-field analysis."""

import click

from rfbench.cli import CommandGroup

COMMANDS = {"map": "visualize_rf"}


@click.group(cls=CommandGroup, modules=COMMANDS)
def command() -> None:
    """Receptive-field analyses (`rf map` is `visualize-rf`)."""
