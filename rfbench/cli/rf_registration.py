"""`rfbench rf registration`: where a detector expects its features to be, and where they are."""

from pathlib import Path
from typing import Any

import click

from rfbench.cli import out
from rfbench.cli.options import (
    figure_options,
    json_option,
    output_options,
    override_option,
    variant_option,
)


@click.command()
@click.argument("config")
@variant_option
@click.option(
    "--objects",
    metavar="JSON",
    type=Path,
    help="Annotations in COCO's format: sizes of objects beside each level's field.",
)
@click.option(
    "--size",
    metavar="N",
    help="Shorter side in px to which images with --objects are resized (default: CONFIG's).",
)
@output_options("Write a figure and the record to this folder.")
@figure_options
@override_option()
@json_option()
def command(
    config: str,
    variant: tuple[str, ...],
    objects: Path | None,
    size: str | None,
    output: Path | None,
    overwrite: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare a detector's fields with where it expects them.

    Level by level: where receptive fields are, and where anchors and RoIAlign are. CONFIG is a
    configuration of train-det, or one of Detectron2 with an FPN: a file, or a name of its model
    zoo. Anchors are at (u + OFFSET) S, RoIAlign reads at (u + 0.5) S; the path counts of the
    backbone's feature map show where unit u actually looks. Without --variant: the baseline and the
    variant that CONFIG sets, or the paper's four if it sets none. Needs Detectron2.

    With --objects: quantiles of the sizes of a set's boxes, in images resized as CONFIG resizes
    test images, and by level the shares that are smaller than its stride and larger than its field.

    Example: rfbench rf registration det/mask_rcnn_R_50_FPN_1x --output results/reg
    """
    from tqdm import tqdm

    from rfbench.errors import UsageError

    if ":" in config and not Path(config).exists():  # before Detectron2 is asked for
        raise UsageError(
            f"{config}: no configuration of a detector. Where a network of your own looks, output "
            f"by output: `rfbench rf audit {config} --to LAYER`; as a detector's backbone it is a "
            f"key: -o model={config}."
        )
    from rfbench import files
    from rfbench.detect import levels
    from rfbench.plotting.page import save
    from rfbench.rf.questions.registration import objects as sizes
    from rfbench.rf.questions.registration import registration
    from rfbench.rf.questions.registration.table import table
    from rfbench.runs import records

    if output:
        files.check_folder(output, overwrite)
    if size is not None and (objects is None or not size.isdigit()):
        raise UsageError(f"--size {size}: expected the shorter side in px, with --objects")
    detectors = levels.read(config, list(variant), list(override))
    first = detectors[0]
    if objects:
        resize = first.resize if size is None else (int(size), first.resize[1])
        held = sizes.read(objects, resize)
    levels_of = {}
    for detector in tqdm(detectors, unit="variant", disable=None):
        levels_of[detector.variant] = registration.measure(
            detector.module, detector.levels, detector.offset
        )
    told: dict[str, Any] = {"objects": sizes.figures(held, levels_of)} if objects else {}
    if output:
        records.open_folder(output)
        drawn = registration.figure(levels_of, f"Registration of {first.title}", first.offset)
        names = [path.name for path in save(drawn, output / "registration")]
        if objects:
            pair = sizes.figure(held, told["objects"], f"Objects of {objects.name} and fields")
            names += [path.name for path in save(pair, output / "objects")]
        content = {"config": config, "offset": first.offset, "variants": levels_of, "files": names}
        content |= told
        records.write_record(output, "rf", content)
    if as_json:
        return out.show_json({"offset": first.offset, "variants": levels_of, **told})
    out.show(f"{first.title}: anchors at (u + {first.offset:g}) S; px of the image")
    out.show("\n".join(table(levels_of)))
    if objects:
        out.show("\n".join(["", *sizes.table(told["objects"])]))
    if output:
        out.note(f"wrote {', '.join(str(output / name) for name in names)}")
    return None
