"""The figure at a run's end: loss, mIoU and learning rate over the epochs."""

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
    loss, iou, lr = figure.subplots(1, 3)
    for axes in (loss, iou, lr):
        axes.set_prop_cycle(color=COLOURS)

    def curve(axes: Any, part: list[dict[str, Any]], key: str, name: str, **style: Any) -> None:
        points = [(line["step"] / per_epoch, line[key]) for line in part if line[key] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, **style)

    short = {"marker": "o", "ms": 3} if len(train) < 3 else {}  # one point makes no line
    dots = {"marker": "o", "ms": 3}
    curve(loss, train, "loss", "training", lw=0.9, **short)
    curve(loss, val, "loss", "validation", **dots)
    for key, name in (("mIoU", "all classes"), ("boundary_mIoU", "boundary")):
        curve(iou, val, key, name, **dots)
    curve(lr, train, "lr", "training", lw=0.9, **short)
    reached = f": {val[-1]['mIoU']:.2f}" if val and val[-1]["mIoU"] is not None else ""
    for axes, name in (
        (loss, "loss"),
        (iou, f"validation mIoU (%){reached}"),
        (lr, "learning rate"),
    ):
        axes.set(title=name, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (axes for axes in (loss, iou) if axes.lines):
        axes.legend(frameon=False)
    lr.set(ylim=(0, None))
    figure.suptitle(title, parse_math=False)
    with files.aside(path) as temporary:
        figure.savefig(temporary, dpi=150)
