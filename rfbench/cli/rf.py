"""`rfbench rf`: every receptive-field analysis."""

import click

from rfbench.cli import CommandGroup

COMMANDS = {
    "map": "visualize_rf",
    "theory": "rf_theory",
    "effective": "rf_effective",
    "audit": "rf_audit",
    "registration": "rf_registration",
    "tiles": "rf_tiles",
    "mirror": "rf_mirror",
    "zoo": "rf_zoo",
}


@click.group(cls=CommandGroup, modules=COMMANDS)
def command() -> None:
    """Receptive-field analyses (`rf map` is `visualize-rf`)."""
