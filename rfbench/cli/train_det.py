"""`rfbench train-det`: train a detector with Detectron2, on any backbone."""

import logging
import os
from pathlib import Path

import click

from rfbench.cli import out, training
from rfbench.cli.options import check_resume, train_options

DEMO = """No configuration given: taking det/digits, the embedded demo on scenes of MNIST
digits. For COCO: rfbench train-det det/retinanet_R_50_FPN_1x"""
log = logging.getLogger("rfbench")


@click.command()
@click.argument("config", required=False)
@train_options(
    network="detector",
    output="Folder (default: results/det-...).",
    override="Set a key of the configuration; opts.SOLVER.MAX_ITER=100 sets one of Detectron2's.",
)
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
    visualize: int | None,
    as_json: bool,
) -> None:
    """Train the detector of CONFIG, or the embedded demo.

    CONFIG is a YAML file, or a name that `rfbench configs` lists; for your own
    boxes det/coco_own.yaml. It names a stock configuration of Detectron2 and lists what differs
    from it. Writes config.yaml, metrics.jsonl, last.pth, best.pth, inference/ (predictions) and
    result.json. On several GPUs: torchrun --nproc_per_node=8 -m rfbench train-det CONFIG. --resume
    continues an interrupted run without repeating an image.

    Example: rfbench train-det det/coco_own.yaml -o data.root=PATH --dry-run
    """
    training.wait_passively()
    from rfbench.schemas.det import DetConfig

    check_resume(resume, overwrite)
    if config is None and training.is_first():
        log.info("%s", " ".join(DEMO.split()))
    if visualize is not None:
        override = (*override, f"visualize={visualize}")
    settings = training.load_config(DetConfig, config, "det/digits.yaml", override, device)
    from rfbench.classify.fit import folder_of as classifier_folder
    from rfbench.cli.classifier_first import describe_classifier, is_trained, train_classifier
    from rfbench.detect import config as configs
    from rfbench.detect import fit, plan
    from rfbench.detect.run import FORMAT
    from rfbench.detect.table import table
    from rfbench.runs import folder as folders
    from rfbench.training.classifier import classifier_of

    folder = output or fit.folder_of(settings)
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
    if dry_run:
        text = plan.describe(settings, folder, check_weights=not begun and not train_first)
        if classifier and not begun:
            text += f"\n{describe_classifier(classifier, bool(train_first))}"
        if training.is_first():
            out.show(text)
        return training.check_folder(folder, settings, resume, overwrite, FORMAT)
    if train_first:  # what would stop the detector is told before its classifier is trained
        world = int(os.environ.get("WORLD_SIZE", "1"))
        configs.resolve(settings, 1, folder, "cuda", world)  # whatever the device: `opts`
        training.check_folder(folder, settings, resume, overwrite, FORMAT)
        train_classifier(train_first)
    record, code = fit.fit(settings, folder, resume, overwrite)
    if record:
        files = [*record.get("files", ()), "result.json"]
        training.show_result(record, table, as_json, folder, files)
    if code:
        raise click.exceptions.Exit(code)
    return None
