"""The metrics of runs: which are shown, their labels, and whether higher is better."""

from collections.abc import Sequence
from typing import Any

from rfbench.config import flat
from rfbench.errors import UsageError, suggest
from rfbench.report.paper import AP
from rfbench.report.runs import Run
from rfbench.report.stats import Direction

DEFAULT = {
    "cls": ("top1", "top5", "consistency"),
    "seg": ("mIoU", "foreground_mIoU", "boundary_mIoU", "pixel_accuracy", "jitter"),
    "det": tuple(f"{task}.{name}" for task in ("segm", "bbox") for name in AP),
}
# top5 of more than five classes, foreground of a set that names its background
SOMETIMES = ("top5", "consistency", "foreground_mIoU")
TASKS = {"bbox": "box", "segm": "mask"}
MORE = (
    *("top1", "top5", "train_top1", "consistency", "AP", "AR"),
    *("mIoU", "foreground_mIoU", "boundary_mIoU", "pixel_accuracy", "mean_accuracy"),
)
CLASSES = ("iou.", "boundary_iou.")  # of a segmentation, by class
LESS = ("loss", "jitter", "error")
# by the name without its task
MEANINGS = {
    "top1": "validation images whose class is the first guess, %",
    "top5": "validation images whose class is among the first five guesses, %",
    "consistency": "validation images with the same top-1 at two positions at most 1/8 of the "
    "image apart, % (Zhang, 2019)",
    "AP": "average precision over IoU thresholds of 0.50 to 0.95, %, as COCO defines it",
    "AP50": "average precision at an IoU of 0.50, %",
    "AP75": "average precision at an IoU of 0.75, %",
    "APs": "AP of small objects, below 32 x 32 px",
    "APm": "AP of medium objects, 32 x 32 to 96 x 96 px",
    "APl": "AP of large objects, above 96 x 96 px",
    "mIoU": "intersection over union of masks, the mean over classes, %",
    "foreground_mIoU": "mIoU of the classes without the background, %",
    "boundary_mIoU": "mIoU of the pixels near a mask's boundary, %",
    "pixel_accuracy": "pixels of the right class, %",
    "mean_accuracy": "pixels of the right class, the mean over classes, %",
    "loss": "validation loss",
    "jitter": "what changes when the image moves by 1 px: pixels in % (masks), or px (boxes)",
}
LARGEST = 1e100  # of a figure: squares and sums of what is larger overflow


def of(run: Run) -> dict[str, float | None]:
    """The metrics of a run by dotted name; None for one that is not a number."""
    figures: dict[str, float | None] = {}
    for key, value in flat(run.record.metrics).items():
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            figures[key] = figure(value)
    return figures


def figure(value: Any) -> float | None:
    """A number as it can be averaged; None for anything else, also what is far too large."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and -LARGEST <= value <= LARGEST else None


def select(runs: Sequence[Run], asked: Sequence[str]) -> list[str]:
    """The metrics to show for a group of runs: those asked for, or those of the paper.

    A name may omit its task: "AP" means that of boxes and of masks.
    """
    known = list(dict.fromkeys(key for run in runs for key in of(run)))
    kind = runs[0].record.kind
    if not asked:
        # top-1 and AP are always shown, the rest where it was measured
        masks = any(key.startswith("segm.") for key in known)
        told = {k for run in runs for k, v in flat(run.record.metrics).items() if v is not None}
        measured = [m for m in DEFAULT[kind] if m in told or m not in SOMETIMES]
        return [m for m in measured if masks or not m.startswith("segm.")]
    return list(dict.fromkeys(key for name in asked for key in known if fits(name, key)))


def check(known: Sequence[str], asked: Sequence[str]) -> None:
    """Raise UsageError for a metric that is not among `known`, naming the nearest."""
    for name in asked:
        if not any(fits(name, key) for key in known):
            choices = dict.fromkeys([*known, *(key.rpartition(".")[2] for key in known)])
            near = suggest(name, choices) or f" There are: {', '.join(dict.fromkeys(known))}."
            raise UsageError(f"no run has the metric '{name}'.{near}")


def fits(name: str, key: str) -> bool:
    """Whether a name means the metric `key`: 'segm.AP', 'mask AP' or only 'AP'."""
    return name in (key, label(key)) or key.endswith(f".{name}")


def label(metric: str) -> str:
    """'bbox.AP' as 'box AP'."""
    task, _, name = metric.partition(".")
    return f"{TASKS[task]} {name}" if task in TASKS and name else metric


def meaning(metric: str) -> str:
    """What a metric says, in a line; nothing for one's own."""
    return MEANINGS.get(metric.rpartition(".")[2], "")


def direction(metric: str) -> Direction:
    """1 if higher is better, -1 if lower is better, 0 if unknown."""
    name = metric.rpartition(".")[2]
    if metric.startswith((*TASKS, *CLASSES)) or name.startswith(MORE):
        return 1
    return -1 if name.endswith(LESS) else 0
