"""`rfbench train-seg`: train a network for semantic segmentation."""

import logging
from pathlib import Path

import click

from rfbench.cli import out, training
from rfbench.cli.options import check_images_option, check_resume, train_options

DEMO = """No configuration given: taking seg/digits, the embedded demo on scenes of MNIST
digits. For Pascal VOC: rfbench train-seg seg/voc -o data.root=VOCdevkit"""
log = logging.getLogger("rfbench")


@click.command()
@click.argument("config", required=False)
@train_options(
    network="network",
    output="Folder (default: results/seg-...).",
    override="Set a key of the configuration.",
)
@check_images_option
@click.option(
    "--visualize", metavar="N", type=click.IntRange(0), help="Draw predictions on N images."
)
def command(
    config: str | None,
    override: tuple[str, ...],
    output: Path | None,
    resume: bool,
    overwrite: bool,
    device: str | None,
    dry_run: bool,
    eval_only: str | None,
    check_images: bool,
    visualize: int | None,
    as_json: bool,
) -> None:
    """Train the segmenter of CONFIG, or the embedded demo.

    CONFIG is a YAML file, or a name that `rfbench configs` lists; for your own
    images seg/folder.yaml. Its model is a network with scores of its own, or any classifier below a
    head. Writes config.yaml, metrics.jsonl, last.pth, best.pth, curves.png, predictions/ and
    result.json. On several GPUs: torchrun --nproc_per_node=8 -m rfbench train-seg CONFIG.
    --resume continues an interrupted run; the result is identical.

    Example: rfbench train-seg seg/folder.yaml -o data.root=PATH --dry-run
    """
    training.wait_passively()
    from rfbench.runs import folder as folders
    from rfbench.schemas.seg import SegConfig

    check_resume(resume, overwrite)
    if config is None and training.is_first() and not eval_only:
        log.info("%s", " ".join(DEMO.split()))
    if visualize is not None:
        override = (*override, f"visualize={visualize}")
    settings = training.load_config(SegConfig, config, "seg/digits.yaml", override, device)
    from rfbench.classify.fit import folder_of as classifier_folder
    from rfbench.cli.classifier_first import describe_classifier, is_trained, train_classifier
    from rfbench.segment import fit, plan
    from rfbench.segment.images import Images
    from rfbench.segment.network import FORMAT
    from rfbench.segment.table import table
    from rfbench.training import unreadable
    from rfbench.training.classifier import classifier_of

    folder = output or fit.folder_of(settings)
    if check_images:
        unreadable.check(settings, Images, eval_only is not None)
    if eval_only:
        folder = output or Path(f"{folder}-eval")
        result = plan.evaluate_checkpoint(settings, eval_only, folder)
        return training.show_result(result, plan.line, as_json, folder, result["files"])
    begun = resume and folders.begun(folder)  # then its own weights are used
    classifier = classifier_of(settings, classifier_folder)
    if classifier:
        settings = classifier.used_by(settings)
    wanted = classifier if classifier and not begun else None
    train_first = wanted if wanted and not is_trained(wanted, settings.device) else None
    if dry_run or train_first:  # what would stop the run is told before its classifier is trained
        text = plan.describe(settings, folder, check_weights=not begun and not train_first)
        if classifier and not begun:
            text += f"\n{describe_classifier(classifier, bool(train_first))}"
        if dry_run and training.is_first():
            out.show(text)
        training.check_folder(folder, settings, resume, overwrite, FORMAT)
        if dry_run:
            return None
    if train_first:
        train_classifier(train_first)
    record, code = fit.fit(settings, folder, resume, overwrite)
    if record:
        files = [*record.get("files", ()), "result.json"]
        training.show_result(record, table, as_json, folder, files)
    if code:
        raise click.exceptions.Exit(code)
    return None
