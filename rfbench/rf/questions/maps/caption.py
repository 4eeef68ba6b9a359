"""The figures of a map in words, as they stand below its panel."""

from collections.abc import Mapping
from typing import Any

from rfbench.errors import counted


def figures(metrics: Mapping[str, Any], brief: bool = False) -> str:
    """Shift, CV, size and what is out of the ordinary. Breaks only at plain spaces."""
    y, x = (f"{round(s, 2) + 0.0:.2f}".replace("-", "−") for s in metrics["shift"])
    shift = f"shift {y} px" if y == x else f"shift (y, x) {y}, {x} px"
    grid = metrics["gridding_by_period"]
    periods = [*grid][:1] if brief else [*grid][:1] + [*grid][-1:]
    parts = [shift, *(f"CV({p}) {_cv(grid[p])}" for p in dict.fromkeys(periods))]
    if not brief:
        parts.append(f"r {' × '.join(str(n) for n in dict.fromkeys(metrics['size']))} px")
        if metrics["misaligned"]:
            parts.append(counted(metrics["misaligned"], "misaligned addition"))
        if metrics["bypass"]:
            parts.append(f"{metrics['bypass']:.1%} of paths bypass the source")
    if metrics["cut"]:
        parts.append("cut by the border")
    return ", ".join(part.replace(" ", "\u00a0") for part in parts)


def _cv(value: float) -> str:
    return "0" if value < 1e-9 else f"{value:.4f}" if value >= 5e-5 else "<0.0001"
