"""What pruning has left of a network: of its field, and of the directions of its kernels.

Between a channel in and a channel out lies one kernel. Of its taps that are not zero, the
covariance of their positions has two eigenvalues; the smaller over the larger is 1 where they
spread alike in every direction and 0 where they lie on a line: two taps have one direction.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from rfbench.models import pruned
from rfbench.plotting.columns import columns
from rfbench.rf.core.target import Target

Record = dict[str, Any]
BINS = 10
KINDS = ("empty", "one tap", "one direction", "two directions")


def pruned_of(model: nn.Module, state: Mapping[str, Tensor], left: Target, whole: Target) -> Record:
    """The figures of a network with the weights `state`, ready for JSON.

    left, whole: the same target with the taps that are left, and with all of them.
    """
    layers = [
        _layer(name, kept.numpy())
        for name, kept in pruned.kept_taps(model, state).items()
        if kept.ndim == 4
    ]
    return {
        "weights": sum(row["weights"] for row in layers),
        "left": sum(row["left"] for row in layers),
        "field": {"whole": _field(whole), "left": _field(left)},
        "kernels": {kind: sum(row["kernels"][kind] for row in layers) for kind in KINDS},
        "ratios": np.sum([row["ratios"] for row in layers], axis=0).tolist() if layers else [],
        "layers": layers,
    }


def _field(target: Target) -> Record:
    """Size of the box, its pixels that are read, and the spread of the paths, px along y and x."""
    counts = target.counts()
    ends = counts.bounds
    values = counts.counts
    spread = []
    for axis in range(values.ndim):
        along = values.sum(tuple(i for i in range(values.ndim) if i != axis))
        at = np.arange(len(along))
        mean = (along * at).sum() / along.sum()
        spread.append(float(np.sqrt((along * (at - mean) ** 2).sum() / along.sum())))
    return {
        "size": [last - first + 1 for first, last in ends],
        "pixels": int((values > 0).sum()),
        "spread": spread,
    }


def _layer(name: str, kept: np.ndarray) -> Record:
    """kept: (C_out, C_in / groups, h, w), bool."""
    kernels = kept.reshape(-1, *kept.shape[2:])
    taps, collinear, ratio = directions(kernels)
    several = taps > 1
    counts = (taps == 0, taps == 1, several & collinear, several & ~collinear)
    return {
        "layer": name,
        "kernel": list(kept.shape[2:]),
        "weights": kept.size,
        "left": int(kept.sum()),
        "kernels": {kind: int(c.sum()) for kind, c in zip(KINDS, counts, strict=True)},
        "ratios": np.histogram(ratio[several], BINS, (0, 1))[0].tolist(),
        "ratio": float(directions(kernels.mean(0, keepdims=True))[2][0]),
        "shares": kernels.mean(0).round(6).tolist(),
    }


def directions(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of kernels (K, h, w) of weights of taps: number of taps, whether these lie on one line, and
    the eigenvalue ratio of the covariance of their positions (0 for fewer than two).
    """
    h, w = kernels.shape[1:]
    y, x = (axis.ravel() for axis in np.mgrid[:h, :w])
    weight = kernels.reshape(len(kernels), -1).astype(float)
    n, sy, sx = (weight @ v for v in (np.ones(h * w), y, x))
    # n^2 times the covariance: of ones and zeros in whole numbers, so that a line is exactly one
    yy, xx = n * (weight @ y**2) - sy**2, n * (weight @ x**2) - sx**2
    yx = n * (weight @ (y * x)) - sy * sx
    root = np.sqrt((yy - xx) ** 2 + 4 * yx**2)
    small, large = yy + xx - root, yy + xx + root
    line = yy * xx - yx**2 <= 1e-9 * np.maximum(yy * xx, 1)
    ratio = np.where(line, 0, small / np.where(large > 0, large, 1))
    return (weight > 0).sum(1), line, ratio


def lines(record: Record) -> list[str]:
    """The part of an audit's text on pruning."""
    share = record["left"] / max(1, record["weights"])
    whole, left = record["field"]["whole"], record["field"]["left"]
    rows: list[tuple[str, ...]] = [("field", "all taps", "those left")]
    rows.append(("size", *("x".join(map(str, f["size"])) for f in (whole, left))))
    rows.append(("pixels read", *(f"{f['pixels']:,}" for f in (whole, left))))
    spread = (", ".join(f"{s:.2f}" for s in f["spread"]) for f in (whole, left))
    rows.append(("spread of paths y, x, px", *spread))
    head = ("kernels", "size", "left", *KINDS, "ratio of the layer")
    table: list[tuple[str, ...]] = [head]
    for row in record["layers"]:
        size = "x".join(map(str, row["kernel"]))
        kinds = (str(row["kernels"][kind]) for kind in KINDS)
        left_of = f"{row['left'] / row['weights']:.1%}"
        table.append((row["layer"], size, left_of, *kinds, f"{row['ratio']:.2f}"))
    many = f"{record['left']:,} of {record['weights']:,} weights"
    title = f"  pruned: {many} of kernels larger than 1x1 are left ({share:.1%})"
    return [title, *columns(rows, "    "), *columns(table, "    ")]
