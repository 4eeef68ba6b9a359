"""What an effective field is averaged over, and what comes of it."""

from dataclasses import dataclass
from typing import Any

from rfbench.rf.core.path_map import PathMap
from rfbench.rf.core.subjects import Subject
from rfbench.rf.questions.effective.gradients import Definition, Gradients, convention_of


@dataclass(frozen=True)
class Sample:
    """What is averaged over, and what of the unit is looked at.

    weights: random, pretrained or a file; images: as `batches` has it. layers: one panel each,
    empty for the last map. of, convention: as `convention_of` has them. axes: of the layer's output
    where the trace does not tell. run: (model, variant) of the training whose network it is, with
    its weights; None: the network is built by its name. ema: take a file's averaged weights.
    device: auto, cpu or cuda.
    """

    weights: str = "random"
    images: str = "noise"
    count: int = 16
    draws: int = 1
    seed: int = 0
    layers: tuple[str, ...] = ()
    of: str | None = None
    convention: str = "rfbench"
    axes: str | None = None
    run: tuple[str, str] | None = None
    ema: bool = False
    device: str = "auto"

    @property
    def definition(self) -> Definition:
        """What is differentiated."""
        return convention_of(self.convention, self.of)[0]

    def names(self, subject: Subject) -> tuple[str, str]:
        """Model and variant of a subject, as records and titles have them."""
        return self.run or (subject.backbone.name, subject.backbone.variant)


@dataclass(frozen=True)
class Measured:
    """A field with its figures; counts is None where there are no path counts (attention).

    title: of its panel. key: of its arrays.
    """

    subject: Subject
    gradients: Gradients
    metrics: dict[str, Any]
    counts: PathMap | None
    title: str = ""
    key: str = ""
