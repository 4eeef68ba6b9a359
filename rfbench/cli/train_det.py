"""`rfbench train-det`: train a detector by Detectron2, on a backbone of one's own."""

import json
import os
from pathlib import Path
from typing import Any

import click

DEMO = """No configuration given: training the embedded demo, configs/det/digits.yaml, on scenes of
MNIST digits. The real thing: rfbench train-det configs/det/retinanet_R_50_FPN_1x.yaml"""


@click.command()
@click.argument("config", required=False)
@click.option(
    "-o",
    "--override",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a key of the configuration; opts.SOLVER.MAX_ITER=100 is Detectron2's own.",
)
@click.option("--output", metavar="DIR", type=Path, help="Folder (default: results/det-...).")
@click.option("--resume", is_flag=True, help="Go on with the run in the folder, if there is one.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the folder.")
@click.option("--device", metavar="NAME", help="auto, cpu or cuda.")
@click.option("--dry-run", is_flag=True, help="Check configuration, detector and data; stop.")
@click.option(
    "--eval-only", metavar="CHECKPOINT", help="Evaluate this checkpoint instead of training."
)
@click.option(
    "--visualize", metavar="N", type=click.IntRange(0), help="Draw predictions on N pictures."
)
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
def command(config: str | None, override: tuple[str, ...], **options: Any) -> None:
    """Train a detector as the YAML file CONFIG says; without one, the embedded demo.

    CONFIG names a stock configuration of Detectron2 and what differs from it. Writes config.yaml,
    metrics.jsonl, last.pth, inference/ (predictions) and result.json. On several GPUs: torchrun
    --nproc_per_node=8 -m rfbench train-det CONFIG. A run that was stopped or killed goes on with
    --resume and repeats no picture.
    """
    # OpenMP threads that spin while they wait can make small machines ten times slower; torch reads
    # this when it is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from rfbench.cli.train_cls import device_override, load_settings, note, show
    from rfbench.errors import UsageError
    from rfbench.schemas.det import DetConfig

    if options["resume"] and options["overwrite"]:
        raise UsageError("--resume goes on with a run, --overwrite deletes it: give one of them")
    first = os.environ.get("RANK", "0") == "0"
    if config is None and first:
        click.echo(DEMO, err=True)
    if options["visualize"] is not None:
        override = (*override, f"visualize={options['visualize']}")
    overrides = [*override, *device_override(options["device"])]
    settings = load_settings(DetConfig, config, "det/digits.yaml", overrides, first)
    from rfbench.detect import fit, plan
    from rfbench.detect.run import FORMAT
    from rfbench.runs import checkpoint

    folder = options["output"] or fit.folder_of(settings)
    going_on = options["resume"] and checkpoint.begun(folder)
    if options["dry_run"]:
        text = described(settings, folder, going_on, note if first else lambda _: None)
        checkpoint.look(folder, settings, going_on, lambda _: None, FORMAT)
        checkpoint.check(folder, options["resume"], options["overwrite"])
        return click.echo(text) if first else None
    if options["eval_only"]:
        folder = options["output"] or Path(f"{folder}-eval")
        found = plan.evaluate_checkpoint(settings, options["eval_only"], folder, note)
        if first:
            click.echo(json.dumps(found, indent=2) if options["as_json"] else plan.line(found))
            click.echo(
                f"wrote {', '.join(str(folder / name) for name in found['files'])}", err=True
            )
        return None
    settings = with_classifier(settings, going_on, note)
    record, code = fit.fit(settings, folder, options["resume"], options["overwrite"], note)
    if record and first:
        show(record, folder, None if options["as_json"] else table(record))
    if code:
        raise click.exceptions.Exit(code)
    return None


def classifier_of(settings: Any) -> tuple[Any, Path, str] | None:
    """Of `weights: FILE.yaml` the configuration of that classification, its folder, and the file.

    It is of the detector's variant and seed. None for weights that are a checkpoint.
    """
    from rfbench.classify import fit
    from rfbench.config import load, shipped
    from rfbench.schemas.cls import ClsConfig

    source = settings.weights or ""
    if not source.endswith((".yaml", ".yml")):
        return None
    variant = settings.model_dump(mode="json")["variant"]
    overrides = [f"variant={json.dumps(variant)}", f"seed={settings.seed}"]
    path = source if Path(source).exists() else shipped(source)
    config = load(ClsConfig, path, [*overrides, f"device={settings.device}"])
    return config, fit.folder_of(config), path


def trained(config: Any, folder: Path) -> bool:
    """Whether the classification has come to its end; UsageError where another one has, there."""
    from rfbench.runs import checkpoint

    best = folder / checkpoint.BEST
    remedy = f"Take it as it is by -o weights={best}, or move {folder} away."
    return checkpoint.finished(folder, config, remedy) is not None


def with_weights_of(settings: Any, folder: Path) -> Any:
    """The settings with `weights: FILE.yaml` replaced by the checkpoint in that run's folder."""
    from rfbench.runs import checkpoint

    return settings.model_copy(update={"weights": str(folder / checkpoint.BEST)})


def with_classifier(settings: Any, going_on: bool, note: Any) -> Any:
    """The settings as of `with_weights_of`; the classifier is trained first if it is not there.

    going_on: the run has begun, and needs no classifier any more.
    Raises UsageError where another configuration has been trained in its folder.
    """
    from rfbench.classify import fit
    from rfbench.runs import records

    found = classifier_of(settings)
    if not found:
        return settings
    config, folder, path = found
    if not going_on and not trained(config, folder):
        if os.environ.get("RANK", "0") == "0":
            note(f"training the classifier {path} first, into {folder}")
        _, code = fit.fit(config, folder, resume=True, overwrite=False, note=note)
        if code or not (folder / records.RECORD).exists():
            raise click.exceptions.Exit(code)
    return with_weights_of(settings, folder)


def described(settings: Any, folder: Path, going_on: bool, note: Any) -> str:
    """What the run would be, with the classifier that would be trained first.

    going_on: the run has begun, and needs no weights but its own.
    """
    from rfbench.classify import plan as classification
    from rfbench.detect import plan
    from rfbench.runs import checkpoint

    found = classifier_of(settings)
    if going_on or not found:
        return plan.describe(settings, folder, note, check_weights=not going_on)
    config, source, path = found
    settings = with_weights_of(settings, source)
    ready = trained(config, source)
    text = plan.describe(settings, folder, note, check_weights=ready)
    if ready:
        return f"{text}\nthe classifier {path} is finished, in {source}"
    classification.describe(config, source)  # for what it raises
    checkpoint.check(source, resume=True, overwrite=False)
    return f"{text}\nwould train the classifier {path} first, into {source}"


def table(record: dict[str, Any]) -> str:
    """The record's figures in a few lines."""
    from rfbench.detect import evaluate

    name = f"{record['model'].rpartition(':')[2]} / {record['variant']}"
    head = f"{Path(record['detector']).stem}, {name} on {record['dataset']}, seed {record['seed']}"
    scaled = record["scaled"]
    lines = [
        head + (f", scaled from {scaled['from']} to {scaled['to']} GPUs" if scaled else ""),
        *(f"  {text}" for text in evaluate.shown(record["metrics"]).split("; ")),
        f"  {evaluate.placed(record['metrics'])}",
        f"  {record['steps']} iterations of {record['batch']['global']} pictures in "
        f"{record['seconds']:.0f} s, {record['images_per_s'] or 0:.1f} images/s on "
        f"{record['device']}, evaluated by {record['eval']}",
    ]
    return "\n".join(lines)
