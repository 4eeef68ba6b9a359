"""The `rfbench` command: its subcommands, and how failures are reported.

A subcommand is a short module of this package with a `command`. It imports only click at the top
and everything heavy inside the command, so that `rfbench --help` is fast.
"""

import importlib
import importlib.metadata
import itertools
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from rfbench import __version__
from rfbench.cli import out
from rfbench.errors import (
    FailedElsewhere,
    RfbenchError,
    UsageError,
    one_line,
    printable,
    suggest,
)

# name of the command -> module of this package
COMMANDS = {
    "train-cls": "train_cls",
    "train-seg": "train_seg",
    "train-det": "train_det",
    "grid": "grid",
    "compare": "compare",
    "visualize-rf": "visualize_rf",
    "rf": "rf",
    "configs": "configs",
    "schema": "schema",
    "install-detectron2": "install_detectron2",
}


class CommandGroup(click.Group):
    """A click group that imports a subcommand when needed and never shows a traceback.

    `modules` maps the name of a command to the module of `rfbench.cli` whose `command` it is.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules = dict(modules or {})

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As in click; a --help or --version that cannot be written is one line, too."""
        out.open_streams()
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            click.echo(f"Error: cannot write /dev/stdout: {error.strerror or error}", err=True)
            sys.exit(1)
        finally:
            out.drop_unwritten()

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """As in click, which says 'Aborted!' of Ctrl-C while a subcommand is imported."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt:
            raise _interrupted() from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return [*self.modules, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None if there is none."""
        if cmd_name not in self.modules:
            return super().get_command(ctx, cmd_name)
        command: click.Command = importlib.import_module(
            f"rfbench.cli.{self.modules[cmd_name]}"
        ).command
        if not isinstance(command, click.Group):
            command.callback = out.apart(command.callback)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in click, but the error for an unknown name suggests the nearest ones."""
        name = args[0]
        if any("\0" in text for text in args):
            ctx.fail("an argument holds a NUL byte")
        for before, text in itertools.pairwise(args):  # --eval-only "$UNSET" would train
            empty = not text or (text.startswith("--") and text.endswith("="))
            if empty and not ctx.resilient_parsing:
                what = text or f"{before} ''"
                ctx.fail(f"an argument is empty: {what}; is a variable of the shell not set?")
        known = name.startswith("-") or self.get_command(ctx, name) is not None
        if not known and not ctx.resilient_parsing:  # resilient: a shell completes
            hint = self._in_a_group(ctx, name) or suggest(name, self.list_commands(ctx))
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def _in_a_group(self, ctx: click.Context, name: str) -> str:
        """What is said of a command that a group below has, such as `audit` of `rf`."""
        for group in self.list_commands(ctx):
            found = self.get_command(ctx, group)
            if isinstance(found, click.Group) and name in found.list_commands(ctx):
                return f" Did you mean: {group} {name}?"
        return ""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; any exception becomes an error message and an exit code."""
        try:
            return super().invoke(ctx)
        # click's own, and a closed pipe as by `head`: click handles both
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except FailedElsewhere as error:  # printed by the process that failed
            raise click.exceptions.Exit(error.exit_code) from None
        except RfbenchError as error:
            _fail(error.args, error.exit_code)
        except KeyboardInterrupt:
            raise _interrupted() from None
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name not in _requirements():
                _fail_internally(error)
            what = f"rfbench needs {name}, which is not installed in {sys.prefix}"
            _fail([f"{what}: `pip install {name}`, or install rfbench with pip"], 1)
        except ImportError as error:  # a library's own file does not load
            name = next((n for n in sorted(_requirements()) if _is_of(error, n)), "")
            if not name:
                _fail_internally(error)
            what = f"{name} cannot be loaded from {sys.prefix}: {one_line(error, 1000)}"
            _fail([f"{what}. Memory may be short, or its installation damaged"], 1)
        except OSError as error:  # such as a full disk or missing permission: not a bug
            _fail([one_line(error, 1000)], 1)
        except Exception as error:
            if not _is_short_of_memory(error):
                _fail_internally(error)
            what = f"there is too little memory: {one_line(error, 300)}".rstrip(". :")
            _fail([f"{what}. A smaller input or batch needs less, and so does an earlier layer"], 1)


def _is_short_of_memory(error: Exception) -> bool:
    """Whether memory was asked for that there is not: by NumPy, by torch for a CPU or a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _interrupted() -> click.exceptions.Exit:
    click.echo("Interrupted.", err=True)
    return click.exceptions.Exit(130)


def _requirements() -> set[str]:
    """The modules of other projects that rfbench is installed with, by pip's names for them."""
    modules = {"pyyaml": "yaml", "pillow": "PIL"}
    names = [re.split(r"[^\w.-]", text)[0] for text in importlib.metadata.requires("rfbench") or []]
    return {modules.get(name.lower(), name) for name in names}


def _is_of(error: BaseException, module: str) -> bool:
    """Whether an error was raised while a module was being imported."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == module for frame, _ in frames)


def _fail_internally(error: Exception) -> NoReturn:
    """The end that no user should see."""
    what = f"{type(error).__name__}: {one_line(error, 1000)}".removesuffix(": ")
    hint = "this is a bug; run with RFBENCH_TRACEBACK=1 for the traceback"
    _fail([f"internal error: {what} ({hint})"], 1)


def _fail(problems: Sequence[object], code: int) -> NoReturn:
    """Print the problems, a line each, and exit with `code`."""
    if os.environ.get("RFBENCH_TRACEBACK") == "1":
        click.echo(traceback.format_exc(), err=True)
    for problem in problems:
        click.echo(f"Error: {printable(str(problem))}", err=True)
    raise click.exceptions.Exit(code) from None


@click.group(
    "rfbench",
    cls=CommandGroup,
    modules=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="rfbench")
def main() -> None:
    """Measure the shape of a CNN's receptive field, fix it, and benchmark the fix.

    Start with `rfbench rf audit resnet50`, with the demo `rfbench train-cls`, or with the list
    `rfbench configs`.
    """
    from rfbench.runs import logs

    logs.to_stderr()
    try:
        os.getcwd()
    except OSError:  # the libraries below torch would end the process, or fail somewhere else
        raise UsageError("the working directory has been deleted: change to another") from None
