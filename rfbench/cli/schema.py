"""`rfbench schema`: what a configuration file can contain, for editors."""

import click

from rfbench.cli import out


@click.command()
@click.argument("kind")
def command(kind: str) -> None:
    """Print the JSON schema of configurations, for editors.

    KIND is rf (a configuration of `visualize-rf`), cls (`train-cls`), seg (`train-seg`), det
    (`train-det`) or grid (`grid`). Save the output, and name the file in the first line of a
    configuration; that line is printed too, on stderr.

    Example: rfbench schema cls > cls.schema.json
    """
    from rfbench.config import schema_json
    from rfbench.errors import UsageError, suggest
    from rfbench.schemas.kinds import SCHEMAS

    if kind not in SCHEMAS:
        hint = suggest(kind, SCHEMAS) or f" Known: {', '.join(SCHEMAS)}."
        raise UsageError(f"unknown kind of configuration {kind!r}.{hint}")
    out.show_json(schema_json(SCHEMAS[kind]))
    out.note(f"# yaml-language-server: $schema={kind}.schema.json")
