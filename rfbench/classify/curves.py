"""The figure at a run's end: loss, accuracy and learning rate over the epochs."""

from pathlib import Path
from typing import Any

from rfbench import files


def draw(lines: list[dict[str, Any]], title: str, per_epoch: int, path: Path) -> None:
    """Draw the lines of metrics.jsonl into `path`, a PNG. per_epoch: steps per epoch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from rfbench.plotting.palette import COLOURS

    train = [line for line in lines if line["split"] == "train"]
    val = [line for line in lines if line["split"] == "val"]
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, top1, lr = figure.subplots(1, 3)
    for axes in (loss, top1, lr):
        axes.set_prop_cycle(color=COLOURS)

    def epochs(part: list[dict[str, Any]]) -> list[float]:
        return [line["step"] / per_epoch for line in part]

    short = {"marker": "o", "ms": 3} if len(train) < 3 else {}  # one point makes no line
    # in the title: beside the last point it would cover the curve
    reached = f": validation {val[-1]['top1']:.2f}" if val else ""
    for axes, key, name in ((loss, "loss", "loss"), (top1, "top1", f"top-1 (%){reached}")):
        axes.plot(epochs(train), [line[key] for line in train], lw=0.9, label="training", **short)
        axes.plot(epochs(val), [line[key] for line in val], "o-", ms=3, label="validation")
        axes.set(title=name, xlabel="epoch")
        axes.legend(frameon=False)
    lr.plot(epochs(train), [line["lr"] for line in train], lw=0.9, **short)
    lr.set(title="learning rate", xlabel="epoch", ylim=(0, None))
    for axes in (loss, top1, lr):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, parse_math=False)
    with files.aside(path) as temporary:
        figure.savefig(temporary, dpi=150)
