"""A detection record as the text that `train-det` prints."""

from pathlib import Path
from typing import Any

from rfbench.detect import evaluate
from rfbench.runs.progress import speed


def table(record: dict[str, Any]) -> str:
    """The metrics of a record in a few lines."""
    name = f"{record['model'].rpartition(':')[2]} / {record['variant']}"
    head = f"{Path(record['detector']).stem}, {name} on {record['dataset']}, seed {record['seed']}"
    scaled = record["scaled"]
    lines = [
        head + (f", scaled from {scaled['from']} to {scaled['to']} GPUs" if scaled else ""),
        *(f"  {text}" for text in evaluate.shown(record["metrics"]).split("; ")),
        f"  {evaluate.localization(record['metrics'])}",
        f"  {record['steps']} iterations of {record['batch']['global']} images in "
        f"{record['seconds']:.0f} s, {speed(record, 1)} on "
        f"{record['device']}, evaluated by {record['eval']}",
    ]
    return "\n".join(lines)
