"""The folder of a training in place of a model's name."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rfbench.runs.records import TrainingRecord

# kind of a record -> the function that builds its network with weights
BUILDERS = {
    "cls": "rfbench.classify.trained:classifier",
    "seg": "rfbench.segment.trained:segmenter",
    "det": "rfbench.detect.trained:pyramid",
}


def is_run(model: str) -> bool:
    """Whether a model's name is the folder of a training; UsageError for one that has not ended."""
    from rfbench.errors import UsageError

    if Path(model).is_dir() and not Path(model, "result.json").is_file():
        raise UsageError(f"{model} has no result.json: it is not the folder of a finished training")
    return Path(model).is_dir()


def network_of(
    folder: str, checkpoint: str | None, ema: bool = False
) -> tuple[str, str, "TrainingRecord"]:
    """(name of the network for `backbones.build`, path of the weights, record) of a training.

    checkpoint: a file of the folder; None: best.pth, else last.pth. ema: take its averaged
    weights. Raises UsageError for others.
    """
    from rfbench.errors import UsageError
    from rfbench.models import arguments
    from rfbench.runs import records
    from rfbench.runs.checkpoint import BEST, LAST

    record = records.read_training(Path(folder, records.RECORD))
    names = [checkpoint] if checkpoint else [BEST, LAST]
    found = [Path(name).name for name in names if Path(folder, Path(name).name).is_file()]
    if not found or record.kind not in BUILDERS:
        raise UsageError(f"{folder}: no {' or '.join(names)} of a training")
    args: dict[str, object] = {"run": str(Path(folder).resolve()), "checkpoint": found[0]}
    if ema:
        if record.kind == "det":
            raise UsageError(
                f"{folder}: a detection keeps no EMA weights; --ema is for other trainings"
            )
        args["ema"] = True
    return arguments.named(BUILDERS[record.kind], args), str(Path(folder, found[0])), record


def label(record: "TrainingRecord") -> str:
    """What the network of a training is called: 'retinanet_R_50_FPN_1x on torchvision:resnet50'."""
    detector = getattr(record, "detector", None)
    return f"{Path(detector).stem} on {record.model}" if detector else record.model
