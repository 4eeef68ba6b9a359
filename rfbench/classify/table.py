"""A classification record as the text that `train-cls` prints."""

from typing import Any

from rfbench.classify.evaluate import ranks
from rfbench.errors import counted
from rfbench.runs.progress import speed


def table(record: dict[str, Any]) -> str:
    """The metrics of a record in a few lines."""
    last, best, batch = record["metrics"], record["best"], record["batch"]
    name = f"{record['model'].rpartition(':')[2]} / {record['variant']}"
    epochs = counted(record["epochs"], "epoch")
    return "\n".join(
        [
            f"{name} on {record['dataset']}, {epochs}, seed {record['seed']}",
            *_fixed(record.get("fix"), last),
            f"  {ranks(last)} after the last epoch "
            f"(best: {best.get('ema', best)['top1']:.2f} % after epoch {best['epoch'] + 1})",
            *_averaged(last),
            *_consistent(last),
            f"  {record['seconds']:.0f} s, {speed(record)} on "
            f"{record['device']}, {batch['per_batchnorm']} images per BatchNorm batch",
        ]
    )


def _averaged(last: dict[str, Any]) -> list[str]:
    """One line on the averaged weights, if there are any."""
    if "ema" not in last:
        return []
    return [f"  {ranks(last['ema'])} of the EMA weights, after the last epoch"]


def _consistent(last: dict[str, Any]) -> list[str]:
    """One line on consistency, if it was measured."""
    if last.get("consistency") is None:
        return []
    averaged = last.get("ema", {}).get("consistency")
    more = "" if averaged is None else f" (EMA weights: {averaged:.2f} %)"
    return [
        f"  consistency {last['consistency']:.2f} %{more}: the same top-1 at two positions, of "
        f"{last['consistency_images']:,} images"
    ]


def _fixed(stages: dict[str, Any] | None, last: dict[str, Any]) -> list[str]:
    """One line for each stage of changing the variant of a trained network."""
    if not stages:
        return []
    rows = {
        f"before ({stages['from']})": stages["before"],
        "after the change": stages["changed"],
        "after precise BN": stages["norms"],
        "after fine-tuning": last,
    }
    return [f"  top-1 {row['top1']:6.2f} %  {what}" for what, row in rows.items()]
