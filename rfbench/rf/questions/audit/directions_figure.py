"""The panel of an audit's figure on the kernels that pruning has left."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rfbench.plotting.page import SMALL, TEXT
from rfbench.plotting.palette import BLACK, BLUE
from rfbench.rf.questions.audit.pruned import BINS, KINDS

Record = dict[str, Any]


def draw(axes: Axes, record: Record) -> None:
    """How many kernels there are by number and spread of their taps."""
    kinds = [record["kernels"][kind] for kind in KINDS[:3]]
    # the bin from 0 also counts the lines, which have a bar of their own
    first, *rest = record["ratios"]
    spread = [first - kinds[2], *rest]
    axes.bar(range(3), kinds, color=BLACK, width=0.8)
    axes.bar(np.arange(BINS) + 4, spread, color=BLUE, width=1, align="edge", edgecolor="white")
    ticks = [0, 1, 2, 4, 4 + BINS / 2, 4 + BINS]
    names = ["no tap", "one tap", "on a line", "0", "0.5", "1"]
    axes.set_xticks(ticks, names, fontsize=SMALL)
    label = (
        "kernels with taps in two directions: smaller over larger eigenvalue of their covariance"
    )
    axes.set_xlabel(label, fontsize=TEXT, labelpad=1)
    share = record["left"] / max(1, record["weights"])
    axes.set_ylabel("kernels", fontsize=TEXT)
    axes.set_title(f"{share:.1%} of the weights are left", fontsize=TEXT, loc="left", pad=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
