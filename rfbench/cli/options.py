"""Options that several commands share, as decorators; each adds a typed parameter."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]


def together(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, in the order of the help."""

    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def override_option(help: str = "Set a key of the configuration.") -> Decorator:
    """`override: tuple[str, ...]`"""
    return click.option("-o", "--override", metavar="KEY=VALUE", multiple=True, help=help)


def json_option(help: str = "Print the record as JSON.") -> Decorator:
    """`as_json: bool`"""
    return click.option("--json", "as_json", is_flag=True, help=help)


def output_option(help: str) -> Decorator:
    """`output: Path | None`, a folder."""
    return click.option("--output", metavar="DIR", type=Path, help=help)


def overwrite_option(help: str = "Replace the folder's contents.") -> Decorator:
    """`overwrite: bool`"""
    return click.option("--overwrite", is_flag=True, help=help)


def output_options(help: str) -> Decorator:
    """`output: Path | None`, a folder, and `overwrite: bool`"""
    return together(output_option(help), overwrite_option())


resume_options = together(
    click.option("--resume", is_flag=True, help="Continue the run in the folder, if there is one."),
    overwrite_option("Replace the run in the folder."),
)
"""`resume: bool` and `overwrite: bool`; see `check_resume`."""


def dry_run_option(
    help: str = "Print the configuration and the changed layers, then exit.",
) -> Decorator:
    """`dry_run: bool`"""
    return click.option("--dry-run", is_flag=True, help=help)


variant_option = click.option(
    "--variant",
    metavar="NAME",
    multiple=True,
    help="A variant, such as 1x1+3x3, blur:3x3 or 3x3+maxpool:layers=layer2.*; repeat for more.",
)
"""`variant: tuple[str, ...]`"""

model_arg_option = click.option(
    "--model-arg",
    "model_args",
    metavar="KEY=VALUE",
    multiple=True,
    help="An argument of MODEL's function, such as output_stride=8; repeat for more.",
)
"""`model_args: tuple[str, ...]`"""

ema_option = click.option(
    "--ema", is_flag=True, help="Take the EMA weights of a file that holds them beside raw ones."
)
"""`ema: bool`"""

from_option = click.option(
    "--from", "from_", metavar="LAYER", help="Start at the output of this layer (default: input)."
)
"""`from_: str | None`"""


def end_options(end: str = "End at this layer", several: bool = False) -> Decorator:
    """`to: str | None`, `size: str | None`, `list_layers: bool` and `dry_run: bool`

    several: `to: tuple[str, ...]`.
    """
    last = f"{end} (default: the last feature map)" + ("; repeat for more." if several else ".")
    return together(
        click.option("--to", metavar="LAYER", multiple=several, help=last),
        click.option(
            "--size", metavar="N|HxW", help="Input size, also L or DxHxW (default: MODEL's)."
        ),
        click.option(
            "--list-layers", is_flag=True, help="Print the names of the layers, then exit."
        ),
        dry_run_option(),
    )


layer_options = together(from_option, end_options())
"""`from_: str | None`, `to: str | None`, `size: str | None`, `list_layers: bool` and
`dry_run: bool`"""


input_options = together(
    click.option(
        "--in-channels",
        metavar="C",
        type=int,
        help="Input channels (default: what MODEL expects).",
    ),
    click.option(
        "--input",
        "inputs",
        metavar="CxHxW",
        multiple=True,
        help="Shape of the input: CxL, CxHxW or CxDxHxW (or HxWxC, where MODEL takes that); "
        "repeat for several inputs, in their order. Those that are no maps: N, a vector; int or "
        "float, one number (a class, a time); Nxint, several.",
    ),
    click.option(
        "--input-axes",
        metavar="AXES",
        help="Axes of --input, such as NLC or NHWC (default: as MODEL's first convolution says).",
    ),
)
"""`in_channels: int | None`, `inputs: tuple[str, ...]` and `input_axes: str | None`"""


rate_option = click.option(
    "--rate",
    metavar="HZ",
    type=float,
    help="Samples (or frames) of the input a second: adds times in ms.",
)
"""`rate: float | None`"""


def figure_options(function: Function) -> Function:
    """Figures of this command are drawn as --style and --width say; it gets no parameter."""

    @functools.wraps(function)
    def drawn(*args: Any, style: str, width: float | None, **given: Any) -> Any:
        from rfbench.plotting.look import styled

        with styled(style, width):
            return function(*args, **given)

    add = together(
        click.option(
            "--style",
            type=click.Choice(["paper", "screen"]),
            default="paper",
            help="Figures for a paper, or with letters twice as large for slides (PNG only).",
        ),
        click.option(
            "--width",
            metavar="INCHES",
            type=float,
            help="Width of the figures; letters keep their size.",
        ),
    )
    return add(drawn)


def unit_option(help: str = "Output unit (default: the central one).") -> Decorator:
    """`unit: str | None`"""
    return click.option("--unit", metavar="Y,X", help=help)


def device_option(command: Any) -> Any:
    """`device: str | None`"""
    return click.option("--device", metavar="NAME", help="auto (default), cpu or cuda.")(command)


def train_options(network: str, output: str, override: str) -> Decorator:
    """The options of all trainings: `override`, `output`, `resume`, `overwrite`, `device`,
    `dry_run`, `eval_only` and `as_json`. network: what is trained, for the help.
    """
    return together(
        override_option(override),
        output_option(output),
        resume_options,
        device_option,
        dry_run_option(f"Check configuration, {network} and data, then exit."),
        click.option(
            "--eval-only",
            metavar="CHECKPOINT",
            help="Evaluate this checkpoint instead of training.",
        ),
        json_option(),
    )


def check_images_option(command: Any) -> Any:
    """--check-images, of the trainings that read an image when its turn comes."""
    help = "Read every image first, and name the unreadable ones."
    return click.option("--check-images", is_flag=True, help=help)(command)


def check_resume(resume: bool, overwrite: bool) -> None:
    """Raise UsageError if both are given."""
    from rfbench.errors import UsageError

    if resume and overwrite:
        raise UsageError("--resume continues a run, --overwrite replaces it: give one of them")


def numbers(
    text: str | None, separator: str, option: str, form: str, least: int | None = None
) -> Any:
    """'7,7' as [7, 7], '224' as 224.

    form: what is expected, in words. 'N ...' takes one to three numbers, 'CxHxW' one to four (an
    input has up to three axes), 'I/N' two, 'Y,X' one to three.
    """
    from rfbench.errors import UsageError, one_line

    if text is None:
        return None
    parts = text.lower().split(separator)
    fewest, most = {"C": (1, 4), "I": (2, 2)}.get(form[0], (1, 3))
    digits = [part.strip().lstrip("-") for part in parts]
    if not all(d.isascii() and d.isdigit() for d in digits) or not fewest <= len(parts) <= most:
        raise UsageError(f"{option} {one_line(text)}: expected {form}")
    if max(map(len, digits)) > 9:
        raise UsageError(f"{option} {one_line(text)}: is too large")
    values = [int(p) for p in parts]
    if least is not None and min(values) < least:
        raise UsageError(f"{option} {text}: must be {least} or more")
    return values[0] if len(values) == 1 and form.startswith("N") else values


def input_form(text: str) -> list[int | str]:
    """'3x224x224' as [3, 224, 224], '77xint' as [77, 'int'], 'int' as ['int']."""
    sides, times, kind = text.lower().rpartition("x")
    if kind not in ("float", "int", "bool") or "x" in sides or (times and not sides):
        sides, times, kind = text, "x", ""
    form = "CxHxW (or CxL, CxDxHxW); of what is no map N, int, float, bool or Nxint"
    return [
        *(numbers(sides, "x", "--input", form, least=1) if times else []),
        *([kind] if kind else []),
    ]


def split(text: str | None, option: str) -> Sequence[str]:
    """'a,b' as ['a', 'b'], [] if the option is not given; UsageError for '' and ','."""
    from rfbench.errors import UsageError

    if text is None:
        return []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"{option}: names nothing; leave it out, or give names, such as a,b")
    return parts
