"""`rfbench rf theory`: size, stride, padding and centre of receptive fields, by arithmetic."""

from typing import Any

import click

from rfbench.cli import out, receptive_field
from rfbench.cli.options import (
    input_options,
    json_option,
    layer_options,
    model_arg_option,
    numbers,
    override_option,
    rate_option,
    unit_option,
    variant_option,
)


@click.command()
@click.argument("model", required=False)
@variant_option
@model_arg_option
@layer_options
@input_options
@rate_option
@unit_option("Unit whose centre and region are printed (default: the central one).")
@click.option(
    "--pixel",
    metavar="Y,X",
    help="List the units whose receptive field contains this pixel of the input, or of --from.",
)
@click.option(
    "--layers",
    metavar="LAYERS",
    help="Layers in place of MODEL, such as 7s2p3,3s2p1,3d2p2: both recursions, step by step.",
)
@click.option("--per-layer", is_flag=True, help="Add a table of all layers in between.")
@override_option()
@json_option("Print the records as JSON, with every layer's name.")
def command(
    model: str | None,
    variant: tuple[str, ...],
    model_args: tuple[str, ...],
    from_: str | None,
    to: str | None,
    size: str | None,
    in_channels: int | None,
    inputs: tuple[str, ...],
    input_axes: str | None,
    rate: float | None,
    list_layers: bool,
    dry_run: bool,
    unit: str | None,
    pixel: str | None,
    layers: str | None,
    per_layer: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print MODEL's theoretical field (Araujo et al., 2019).

    MODEL is a torchvision or timm name, FILE.py:function, package.module:function or a YAML file.
    Prints, along y and x, the size r, effective stride S, effective padding P and the centre
    -P + u S + (r - 1) / 2 of a unit u; the additions and concatenations whose branches disagree in
    stride or centre; and what depends on the input size. Networks with gates are measured with and
    without their global context. Figures are those of evaluation: in training, the statistics of
    BatchNorm make every field the whole image.

    --layers needs no MODEL. A layer is its kernel and, where they are not 1, 0 and 1, stride s,
    padding p and dilation d; t marks a transposed convolution, o its output padding. With --size
    come the sizes of the maps.

    Example: rfbench rf theory resnet50 --variant 3x3 --unit 0,0

    Example: rfbench rf theory --layers 7s2p3,3s2p1,3d2p2 --size 224
    """
    if layers is not None:
        return _of_layers(layers, numbers(size, "x", "--size", "N or HxW", least=1), as_json)
    if model is None:
        raise click.UsageError("Missing argument 'MODEL', or --layers.")
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.theory.report import report
    from rfbench.rf.questions.theory.table import text

    config = receptive_field.load_with_baseline(
        [model],
        override,
        variant=variant,
        model_args=model_args,
        from_=from_,
        to=to,
        size=size,
        in_channels=in_channels,
        inputs=inputs,
        input_axes=input_axes,
        rate=rate,
        unit=unit,
    )
    at = numbers(pixel, ",", "--pixel", "Y,X")
    networks = subjects.subjects(config)
    if receptive_field.print_only(networks, config, list_layers, dry_run):
        return
    records = []
    for subject in networks:

        def of_end(end: Any, start: Any, subject: Any = subject) -> Any:
            one = config.model_copy(update={"to": end, "from_": start})
            return report(one, subject, per_layer, tuple(at) if at else None)

        ends = subjects.ends(subject, config.to, config.from_)
        for record in subjects.measured(ends, of_end):
            records.append(record)
            if not as_json:
                out.show("\n" * (len(records) > 1) + text(records[-1]))
    if as_json:
        out.show_json(records)
    return None


def _of_layers(layers: str, size: int | list[int] | None, as_json: bool) -> None:
    """Print both recursions over a list of layers."""
    from rfbench.errors import UsageError
    from rfbench.rf.questions.theory.layers import parse, report
    from rfbench.rf.questions.theory.layers_table import text

    with_layers = ("layers", "size", "as_json")
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in with_layers and context.params.get(name):
            told = parameter.opts[-1] if parameter.param_type_name == "option" else "MODEL"
            raise UsageError(f"--layers is a network of its own: {told} does not go with it")
    sizes = [] if size is None else [size] if isinstance(size, int) else size
    parsed = parse(layers)
    record = report(parsed, sizes)
    out.show_json(record) if as_json else out.show(text(parsed, record))
