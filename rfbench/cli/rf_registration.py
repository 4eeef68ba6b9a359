"""`rfbench rf registration`: where a detector expects its features to be, and where they are."""

from pathlib import Path

import click

from rfbench.cli import out
from rfbench.cli.options import json_option, output_options, override_option, variant_option


@click.command()
@click.argument("config")
@variant_option
@output_options("Write a figure and the record to this folder.")
@override_option()
@json_option()
def command(
    config: str,
    variant: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    override: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare, level by level, where a detector's receptive fields are with where it expects them.

    CONFIG is a configuration of train-det, or one of Detectron2 with an FPN: a file, or a name of
    its model zoo. Anchors are at (u + OFFSET) S, RoIAlign reads at (u + 0.5) S; the path counts of
    the backbone's feature map show where unit u actually looks. Without --variant: the baseline and
    the variant that CONFIG sets, or the paper's four if it sets none. Needs Detectron2.

    Example: rfbench rf registration configs/det/mask_rcnn_R_50_FPN_1x.yaml --output results/reg
    """
    from tqdm import tqdm

    from rfbench import files
    from rfbench.detect import levels
    from rfbench.plotting.page import save
    from rfbench.rf.questions.registration import registration
    from rfbench.rf.questions.registration.table import table
    from rfbench.runs import records

    if output:
        files.check_folder(output, overwrite)
    levels_of = {}
    detectors = levels.read(config, list(variant), list(override))
    for detector in tqdm(detectors, unit="variant", disable=None):
        levels_of[detector.variant] = registration.measure(
            detector.module, detector.levels, detector.offset
        )
    first = detectors[0]
    if output:
        records.open_folder(output)
        drawn = registration.figure(levels_of, f"Registration of {first.title}", first.offset)
        names = [path.name for path in save(drawn, output / "registration")]
        content = {"config": config, "offset": first.offset, "variants": levels_of, "files": names}
        records.write_record(output, "rf", content)
    if as_json:
        return out.show_json({"offset": first.offset, "variants": levels_of})
    out.show(f"{first.title}: anchors at (u + {first.offset:g}) S")
    out.show("\n".join(table(levels_of)))
    if output:
        out.note(f"wrote {', '.join(str(output / name) for name in names)}")
    return None
