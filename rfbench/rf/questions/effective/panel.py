"""One network's column of a figure of effective fields, and the words below it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rfbench.plotting.page import TEXT, wrap
from rfbench.rf.core.metric import axes_text, merged, unit_of
from rfbench.rf.core.path_map import PathMap
from rfbench.rf.questions.effective.gradients import Gradients


@dataclass(frozen=True)
class Panel:
    """A column: path counts (None where there are none) and field, both with a maximum of 1."""

    title: str
    counts: np.ndarray | None
    field: np.ndarray
    metrics: dict[str, Any]

    @property
    def origin(self) -> tuple[float, ...]:
        """(y, x) of the unit in the input: the origin of the panel's axes."""
        both = zip(self.metrics["centroid"], self.metrics["shift"], strict=True)
        return tuple(c - d for c, d in both)


def panel_of(title: str, seen: Gradients, counts: PathMap | None, metrics: dict[str, Any]) -> Panel:
    """A column of the figure."""
    paths = None if counts is None else counts.counts.astype(float)
    paths = None if paths is None else paths / paths.max()
    return Panel(title, paths, seen.magnitude / seen.magnitude.max(), metrics)


def words(metrics: dict[str, Any], side: float) -> list[str]:
    """The figures below a field."""
    axes = len(metrics["shift"])
    unit = unit_of(axes)
    units = "x".join(map(str, metrics["units"]))
    where = f"unit {','.join(map(str, metrics['unit']))} of {units}"
    lines = [f"size {metrics['size']:.1f} {unit}"]
    if metrics["ratio"] is not None:
        whole = "x".join(merged(metrics["theoretical"]))
        lines[0] += f", {metrics['ratio']:.0%} of theory's {whole}"
    elif reach := metrics.get("reach"):
        reaches = {"global": "; it sees the whole input", "windowed": "; it mixes within windows"}
        lines[0] += reaches.get(reach.partition(",")[0], "")
    along = f" ({axes_text(axes)})" if axes > 1 else ""
    shift = ", ".join(f"{s:+.1f}" for s in metrics["shift"])
    lines.append(f"shift{along} {shift} {unit}".replace("-", "\u2212"))
    if bell := metrics["gaussian"]:
        sigma = ", ".join(f"{s:.1f}" for s in bell["sigma"])
        lines.append(f"sigma {sigma} {unit}, R\u00b2 {bell['r2']:.2f}")
    shares = ", ".join(name.rstrip("%") for name in metrics["areas"])
    held = (f"{area['share'] * 100:.1f}" if area else "-" for area in metrics["areas"].values())
    shapes = {1: "intervals", 2: "squares", 3: "cubes"}[axes]
    what = "image" if axes == 2 else "input"
    lines.append(f"{shares} % of the sum in {shapes} of {', '.join(held)}\u00a0% of the {what}")
    return [part for text in [where, *lines] for part in wrap(text, side, TEXT)]
