"""`rfbench train-cls`: train a classifier, the paper's recipe by default."""

import json
import os
from pathlib import Path
from typing import Any

import click

DEMO = """No configuration given: training the embedded demo, configs/cls/digits.yaml, on scenes of
MNIST digits. The real thing: rfbench train-cls configs/cls/resnet50.yaml -o data.root=IMAGENET"""


@click.command()
@click.argument("config", required=False)
@click.option(
    "-o", "--override", metavar="KEY=VALUE", multiple=True, help="Set a key of the configuration."
)
@click.option("--output", metavar="DIR", type=Path, help="Folder (default: results/cls-...).")
@click.option("--resume", is_flag=True, help="Go on with the run in the folder, if there is one.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder.")
@click.option("--device", metavar="NAME", help="auto, cpu or cuda.")
@click.option("--dry-run", is_flag=True, help="Check configuration, network and data; stop.")
@click.option(
    "--eval-only", metavar="CHECKPOINT", help="Evaluate this checkpoint instead of training."
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(config: str | None, override: tuple[str, ...], **options: Any) -> None:
    """Train a classifier as the YAML file CONFIG says; without one, the embedded demo.

    Writes config.yaml, metrics.jsonl, last.pth, best.pth, curves.png and result.json. On several
    GPUs: torchrun --nproc_per_node=8 -m rfbench train-cls CONFIG. A run that was stopped or killed
    goes on with --resume, as if it had never been.
    """
    # OpenMP threads that spin while they wait can make small machines ten times slower; torch reads
    # this when it is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rfbench.classify import fit, plan
    from rfbench.errors import UsageError
    from rfbench.runs import checkpoint
    from rfbench.schemas.cls import ClsConfig

    if options["resume"] and options["overwrite"]:
        raise UsageError("--resume goes on with a run, --overwrite deletes it: give one of them")
    first = os.environ.get("RANK", "0") == "0"
    if config is None and first and not options["eval_only"]:
        click.echo(DEMO, err=True)
    overrides = [*override, *device_override(options["device"])]
    settings = load_settings(ClsConfig, config, "cls/digits.yaml", overrides, first)
    folder = options["output"] or fit.folder_of(settings)
    if options["dry_run"]:
        going_on = options["resume"] and checkpoint.begun(folder)
        text = plan.describe(settings, folder, check_weights=not going_on)
        checkpoint.look(folder, settings, going_on, lambda _: None)
        checkpoint.check(folder, options["resume"], options["overwrite"])
        return click.echo(text) if first else None
    if options["eval_only"]:
        found = plan.evaluate_checkpoint(settings, options["eval_only"])
        if first:
            click.echo(json.dumps(found, indent=2) if options["as_json"] else plan.line(found))
        return None
    record, code = fit.fit(settings, folder, options["resume"], options["overwrite"], note)
    if record and first:
        show(record, folder, None if options["as_json"] else table(record))
    if code:
        raise click.exceptions.Exit(code)
    return None


def show(record: dict[str, Any], folder: Path, text: str | None) -> None:
    """A finished run: the text, or else its record as JSON, and on stderr the files."""
    click.echo(json.dumps(record, indent=2, default=list) if text is None else text)
    files = [*record["files"], "result.json"]
    click.echo(f"wrote {', '.join(str(folder / name) for name in files)}", err=True)


def load_settings(
    schema: Any, config: str | None, demo: str, overrides: list[str], first: bool
) -> Any:
    """The configuration, or the embedded demo's; its errors are told by one process only."""
    from rfbench.config import load, shipped
    from rfbench.errors import UsageError

    try:
        return load(schema, config or shipped(demo), overrides)
    except UsageError:
        if first:
            raise
        raise UsageError("") from None


def device_override(name: str | None) -> list[str]:
    return [f"device={json.dumps(name)}"] if name else []


def note(text: str) -> None:
    """To stderr, above the bar if one is shown."""
    from tqdm import tqdm

    with tqdm.external_write_mode():
        click.echo(text, err=True)


def table(record: dict[str, Any]) -> str:
    """The record's figures in a few lines."""
    from rfbench.errors import counted

    last, best, batch = record["metrics"], record["best"], record["batch"]
    name = f"{record['model'].rpartition(':')[2]} / {record['variant']}"
    epochs = counted(record["epochs"], "epoch")
    head = f"{name} on {record['dataset']}, {epochs}, seed {record['seed']}"
    return "\n".join(
        [
            head,
            *_cure(record.get("cure"), last),
            f"  top-1 {last['top1']:.2f} %, top-5 {last['top5']:.2f} % after the last epoch "
            f"(best: {best['top1']:.2f} % after epoch {best['epoch'] + 1})",
            f"  {record['seconds']:.0f} s, {record['images_per_s']:.0f} images/s on "
            f"{record['device']}, {batch['per_batchnorm']} pictures a BatchNorm",
        ]
    )


def _cure(stages: dict[str, Any] | None, last: dict[str, Any]) -> list[str]:
    """One line for each thing done to a network that was trained in another variant."""
    if not stages:
        return []
    rows = {
        f"before ({stages['from']})": stages["before"],
        "after the change": stages["changed"],
        "after BatchNorm's new estimate": stages["norms"],
        "after fine-tuning": last,
    }
    return [f"  top-1 {row['top1']:6.2f} %  {what}" for what, row in rows.items()]
