"""`rfbench train-cls`: train a classifier, the paper's recipe by default."""

import logging
from pathlib import Path

import click

from rfbench.cli import out, training
from rfbench.cli.options import check_images_option, check_resume, train_options

DEMO = """No configuration given: taking cls/digits, the embedded demo on scenes of MNIST
digits. For ImageNet: rfbench train-cls cls/resnet50 -o data.root=IMAGENET"""


@click.command()
@click.argument("config", required=False)
@train_options(
    network="network",
    output="Folder (default: results/cls-...).",
    override="Set a key of the configuration.",
)
@check_images_option
def command(
    config: str | None,
    override: tuple[str, ...],
    output: Path | None,
    resume: bool,
    overwrite: bool,
    device: str | None,
    dry_run: bool,
    eval_only: str | None,
    as_json: bool,
    check_images: bool,
) -> None:
    """Train the classifier of CONFIG, or the embedded demo.

    CONFIG is a YAML file, or a name that `rfbench configs` lists; for your own
    images cls/folder.yaml. Writes config.yaml, metrics.jsonl, last.pth, best.pth, curves.png and
    result.json. On several GPUs: torchrun --nproc_per_node=8 -m rfbench train-cls CONFIG. --resume
    continues an interrupted run; the result is identical.

    Example: rfbench train-cls cls/folder.yaml -o data.root=PATH --dry-run
    """
    training.wait_passively()
    from rfbench.classify import fit, plan
    from rfbench.classify.images import Images
    from rfbench.classify.table import table
    from rfbench.runs import folder as folders
    from rfbench.schemas.cls import ClsConfig
    from rfbench.training import unreadable

    log = logging.getLogger("rfbench")
    check_resume(resume, overwrite)
    if config is None and training.is_first() and not eval_only:
        log.info("%s", " ".join(DEMO.split()))
    settings = training.load_config(ClsConfig, config, "cls/digits.yaml", override, device)
    folder = output or fit.folder_of(settings)
    if check_images:
        unreadable.check(settings, Images, eval_only is not None)
    if dry_run:
        begun = resume and folders.begun(folder)
        text = plan.describe(settings, folder, check_weights=not begun)
        if training.is_first():
            out.show(text)
        return training.check_folder(folder, settings, resume, overwrite)
    if eval_only:
        result = plan.evaluate_checkpoint(settings, eval_only)
        return training.show_result(result, plan.line, as_json, folder)
    record, code = fit.fit(settings, folder, resume, overwrite)
    if record:
        files = [*record.get("files", ()), "result.json"]
        training.show_result(record, table, as_json, folder, files)
    if code:
        raise click.exceptions.Exit(code)
    return None
