"""`rfbench rf effective`: the effective receptive field, by a unit's gradient over images."""

import dataclasses
from pathlib import Path

import click

from rfbench.cli import out, receptive_field
from rfbench.cli.options import (
    device_option,
    ema_option,
    end_options,
    figure_options,
    input_options,
    json_option,
    model_arg_option,
    output_options,
    override_option,
    unit_option,
    variant_option,
)


@click.command()
@click.argument("model", nargs=-1, required=True)
@variant_option
@model_arg_option
@click.option(
    "--weights",
    metavar="NAME|PATH",
    default="random",
    help="random (default), pretrained or a checkpoint.",
)
@ema_option
@click.option(
    "--images", metavar="NAME|DIR", default="noise", help="noise (default), digits or a folder."
)
@click.option("--count", type=click.IntRange(1), default=16, help="Number of images (default: 16).")
@click.option(
    "--draws",
    type=click.IntRange(1, 100_000),
    default=1,
    help="Draws of random weights (default: 1).",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Seed of weights and noise."
)
@click.option(
    "--of",
    metavar="WHAT",
    help="Gradient of what: abs (sum over channels of |output|, default), sum, relu or a channel.",
)
@click.option(
    "--convention",
    type=click.Choice(["rfbench", "replknet", "openerf"]),
    default="rfbench",
    help="replknet, openerf: unit, gradient and areas as those scripts define them.",
)
@click.option("--axes", help="Axes of the layer's output if unknown: NCHW, NHWC, NLC:1+14x14.")
@click.option("--from", "from_", metavar="INPUT", help="Which of several inputs, such as input.1.")
@end_options("The unit's layer", several=True)
@input_options
@device_option
@unit_option("The unit (default: the central one).")
@output_options("Folder (default: results/rf-effective-...).")
@figure_options
@override_option()
@json_option()
def command(
    model: tuple[str, ...],
    variant: tuple[str, ...],
    model_args: tuple[str, ...],
    weights: str,
    ema: bool,
    images: str,
    count: int,
    draws: int,
    seed: int,
    of: str | None,
    convention: str,
    axes: str | None,
    from_: str | None,
    to: tuple[str, ...],
    size: str | None,
    in_channels: int | None,
    inputs: tuple[str, ...],
    input_axes: str | None,
    device: str | None,
    list_layers: bool,
    dry_run: bool,
    unit: str | None,
    output: Path | None,
    overwrite: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Draw MODEL's effective receptive field (Luo et al., 2016).

    MODEL is a torchvision or timm name (attention too), FILE.py:function, package.module:function,
    a YAML file or the folder of a finished training, whose best.pth is taken (of a detector: the
    backbone and its pyramid, with the layers levels.p3, levels.p4, ...). The field is the mean
    |gradient| of a unit over images and draws of weights: of the sum over its channels of |output|,
    unless --of says otherwise. Networks of sequences (drawn as curves), of volumes (in sections)
    and of several inputs (a field each) see noise. The path counts are drawn beside it. Writes
    effective.png, effective.pdf, effective.npz and result.json; prints a table. Without --variant:
    the network as it is.

    Example: rfbench rf effective resnet50 --weights run/best.pth --images photos/ --count 50
    """
    from rfbench import files
    from rfbench.cli import trained
    from rfbench.errors import UsageError
    from rfbench.rf.core import subjects
    from rfbench.rf.questions.effective import effective as effective_run
    from rfbench.rf.questions.effective.sample import Sample
    from rfbench.rf.questions.effective.table import table
    from rfbench.runs.processes import device_of

    run = None
    if len(model) == 1 and trained.is_run(model[0]):
        if variant or model_args:
            raise UsageError(f"{model[0]}: a training has its own variant and arguments")
        chosen = weights if weights != "random" else None
        name, weights, record_of = trained.network_of(model[0], chosen, ema)
        model, run = (name,), (trained.label(record_of), record_of.variant)
    sample = Sample(
        weights,
        images=images,
        count=count,
        draws=draws,
        seed=seed,
        layers=tuple(dict.fromkeys(to)),
        of=of,
        convention=convention,
        axes=axes,
        run=run,
        device=device or "auto",
    )
    # both refused here, before anything is built
    _ = sample.definition, device_of(sample.device)
    own = None if run or weights in ("random", "pretrained") else weights
    config = receptive_field.load_config(
        model,
        override,
        variant=variant,
        model_args=model_args,
        weights=own,
        ema=ema and not run,
        from_=from_,
        to=to[0] if to else None,
        size=size,
        in_channels=in_channels,
        inputs=inputs,
        input_axes=input_axes,
        unit=unit,
    )
    if run and config.weights:
        raise UsageError(f"{run[0]}: a training has its own weights; leave out {config.weights}")
    if config.weights:  # also those of the configuration
        sample = dataclasses.replace(sample, weights=config.weights, ema=config.ema)
    if config.variants is None and not config.weights:
        config = config.model_copy(update={"variants": ["baseline"]})
    if receptive_field.print_only(subjects.subjects(config), config, list_layers, dry_run):
        return
    names = [run[0], run[1]] if run else [Path(name).name for name in subjects.models(config)]
    if config.ema and not config.weights:
        raise UsageError("--ema needs --weights FILE, or the folder of a training")
    folder = output or files.default_folder("rf-effective", *names)
    files.check_folder(folder, overwrite)
    record = effective_run.run(config, sample, folder)
    out.show_json(record) if as_json else out.show(table(record))
    out.note(f"wrote {', '.join(str(folder / name) for name in record['files'])}")
