"""A comparison as data: groups of runs, settings, rows, cells. Every format is made from it."""

from dataclasses import dataclass, field
from typing import Any

from rfbench.models import variants
from rfbench.report import paper
from rfbench.report.runs import Run
from rfbench.report.stats import Effect


@dataclass
class Cell:
    """A metric of a row. values: by seed, those that are numbers; missing: how many are not."""

    mean: float
    values: dict[int, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    missing: int = 0
    test: Effect | None = None


@dataclass
class Network:
    """What is known of a variant of a model without training it; None: could not be found out.

    figures: metrics of the receptive field by name (rf/core/metrics), px of the input. macs: of
    one image of `size` (H, W).
    """

    figures: dict[str, Any] = field(default_factory=dict)
    macs: int | None = None
    size: tuple[int, int] | None = None


@dataclass
class Row:
    """A variant, averaged over seeds; or a single run, where two claim to be the same one.

    source: "ours", "paper" or "not run". step_time: relative to the baseline's.
    """

    variant: str
    source: str = "ours"
    runs: list[Run] = field(default_factory=list)
    alone: bool = False
    cells: dict[str, Cell] = field(default_factory=dict)
    parameters: int | None = None
    step_time: float | None = None
    network: Network = field(default_factory=Network)

    @property
    def kernels(self) -> tuple[int, ...]:
        """Which stride-2 convolutions the variant changes."""
        return variants.get(self.variant).kernels

    @property
    def label(self) -> str:
        """The variant, and what tells the row from others of it."""
        beside = f" ({self.source})" if self.source == paper.NAME else ""
        if self.alone:
            beside = f" ({self.runs[0].folder})"
        return self.variant + beside


@dataclass
class Block:
    """Rows of one setting. keys: what other settings of the group have otherwise."""

    keys: dict[str, str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


@dataclass
class Group:
    """All runs of one kind, detector, model and data set. image: PNG of the receptive fields."""

    kind: str
    detector: str
    model: str
    dataset: str
    metrics: list[str]
    blocks: list[Block]
    image: bytes | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """As `Run.group`."""
        return self.kind, self.detector, self.model, self.dataset

    @property
    def title(self) -> str:
        """'RetinaNet ..., resnet50 on coco'."""
        what = self.detector or {"cls": "Classification"}.get(self.kind, "Detection")
        source, _, name = self.model.rpartition(":")
        return f"{what}: {name if source != 'timm' else self.model} on {self.dataset}"


@dataclass
class Report:
    """A whole comparison. problems: what lies below the folders and could not be used."""

    baseline: str
    groups: list[Group]
    problems: list[str]
