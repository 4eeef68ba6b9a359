"""A segmentation record as the text that `train-seg` prints."""

from typing import Any

from rfbench.errors import counted
from rfbench.runs.progress import speed
from rfbench.segment.evaluate import shown

ACROSS = 4  # classes in a line


def table(record: dict[str, Any]) -> str:
    """The metrics of a record in a few lines."""
    last, best, batch = record["metrics"], record["best"], record["batch"]
    name = f"{record['model'].rpartition(':')[2]} / {record['variant']} / {record['head']}"
    epochs = counted(record["epochs"], "epoch")
    reached = best.get("ema", best)["mIoU"]
    kept = f"  best: mIoU {reached:.2f} % after epoch {best['epoch'] + 1}" if reached else ""
    return "\n".join(
        [
            f"{name} on {record['dataset']}, {epochs}, seed {record['seed']}",
            f"  {shown(last)} after the last epoch",
            *([kept] if kept else []),
            *by_class(last["iou"]),
            f"  {record['seconds']:.0f} s, {speed(record)} on "
            f"{record['device']}, {batch['per_batchnorm']} images per BatchNorm batch",
        ]
    )


def by_class(iou: dict[str, float | None]) -> list[str]:
    """IoU of every class, a few in a line."""
    texts = [f"{name} {'-' if value is None else f'{value:.1f}'}" for name, value in iou.items()]
    width = max(map(len, texts))
    lines = [texts[i : i + ACROSS] for i in range(0, len(texts), ACROSS)]
    shown_lines = ["  ".join(text.ljust(width) for text in line).rstrip() for line in lines]
    return ["  IoU (%):", *(f"    {text}" for text in shown_lines)]
