"""What a reader must know of an effective field's figure."""

from collections.abc import Sequence
from pathlib import Path

from rfbench.errors import counted
from rfbench.rf.core.metric import unit_of
from rfbench.rf.questions.effective.sample import Measured, Sample
from rfbench.spatial_graph.size import by


def caption(sample: Sample, measured: Sequence[Measured]) -> str:
    """What a reader must know of the fields."""
    m = measured[0].metrics
    weights = {"random": "random weights", "pretrained": "pretrained weights"}.get(
        sample.weights, f"weights of {Path(sample.weights).name}"
    )
    if sample.draws > 1:
        weights = f"{sample.draws} draws of {weights}"
    # each draw sees every image
    axes = len(m["input_size"])
    source = counted(m["samples"] // sample.draws, "image" if axes == 2 else "input")
    source += {"noise": " of noise", "digits": " of digit scenes"}.get(sample.images, "")
    some = any(one.counts is not None for one in measured)
    where = "Shaded: path counts at" if axes == 1 else "Path counts: at"
    beside = f"{where} the same size. " if some else ""
    units = {tuple(one.metrics["unit"]) for one in measured}
    layers = {one.metrics["layer"] for one in measured}
    what = f"Unit ({', '.join(map(str, m['unit']))})" if len(units) == 1 else "The unit"
    unit = f"{what} of {layers.pop() or 'the output'}" if len(layers) == 1 else "One unit a panel"
    shapes = dict.fromkeys(by(tuple(one.metrics["input_size"])) for one in measured)
    sides = f"{', '.join(shapes)} {unit_of(axes)}"
    ellipse = "; ellipse: two sigma of the Gaussian" if axes == 2 else ""
    return (
        f"{unit}; mean {sample.definition}, over {source}, {weights}; input {sides}, the part that "
        f"holds the field; offsets from the unit's position. {beside}{SIZES[axes]} above 4.55 % of "
        f"the centre's value (Luo et al., 2016){ellipse}. "
        + AREAS[sample.convention].replace("square", SHAPES[axes])
    )


SIZES = {
    1: "Size: all samples",
    2: "Size: of a square as large as all pixels",
    3: "Size: of a cube as large as all voxels",
}
SHAPES = {1: "interval", 2: "square", 3: "cube"}


AREAS = {
    "rfbench": "Shares: the smallest square around the unit that holds 20, 50 and 99 % of the sum.",
    "openerf": (
        "Shares: the smallest square around the unit; result.json has openerf's circles around the "
        "image's centre."
    ),
    "replknet": (
        "Shares: of log10(x + 1), squares around the image's centre, as RepLKNet's script has them."
    ),
}
