"""The `rfbench` command: its subcommands, and how a failure is told.

A subcommand is a short module of this package with a `command`. Such a module imports only click at
its top and everything heavy inside the command, so that `rfbench --help` answers at once.
"""

import importlib
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from rfbench import __version__
from rfbench.errors import RfbenchError, suggest

# name of the command -> module of this package
COMMANDS = {
    "train-cls": "train_cls",
    "train-det": "train_det",
    "compare": "compare",
    "visualize-rf": "visualize_rf",
    "rf": "rf",
    "schema": "schema",
}


class CommandGroup(click.Group):
    """A click group that imports a subcommand when it is needed and never shows a traceback.

    `modules` maps the name of a command to the module of `rfbench.cli` whose `command` it is.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules = dict(modules or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [*self.modules, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None when there is none."""
        if cmd_name not in self.modules:
            return super().get_command(ctx, cmd_name)
        return importlib.import_module(f"rfbench.cli.{self.modules[cmd_name]}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but an unknown name is answered with the nearest ones."""
        name = args[0]
        known = name.startswith("-") or self.get_command(ctx, name) is not None
        if not known and not ctx.resilient_parsing:  # resilient: a shell completes
            ctx.fail(f"No such command {name!r}.{suggest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; whatever it raises becomes one error and the exit code."""
        try:
            return super().invoke(ctx)
        # click's own, and a reader such as `head` that went away: click ends quietly on both
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except RfbenchError as error:
            _fail(str(error), error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(130) from None
        except OSError as error:  # a full disk, a forbidden folder: not a bug
            _fail(_one_line(error), 1)
        except Exception as error:
            what = f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")
            hint = "this is a bug; run with RFBENCH_TRACEBACK=1 for the traceback"
            _fail(f"internal error: {what} ({hint})", 1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _fail(message: str, code: int) -> NoReturn:
    """Print `message` (more lines: one problem each) and leave with `code`."""
    if os.environ.get("RFBENCH_TRACEBACK") == "1":
        click.echo(traceback.format_exc(), err=True)
    for line in message.splitlines():
        click.echo(f"Error: {line}", err=True)
    raise click.exceptions.Exit(code) from None


class _PlainLines(logging.Handler):
    """Messages of the package as plain lines on stderr, above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


@click.group(
    "rfbench",
    cls=CommandGroup,
    modules=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="rfbench")
def main() -> None:
    """Measure the shape of a CNN's receptive field, fix it, and benchmark the fix."""
    log = logging.getLogger("rfbench")
    if not any(isinstance(handler, _PlainLines) for handler in log.handlers):
        log.addHandler(_PlainLines())
        log.setLevel(logging.INFO)
