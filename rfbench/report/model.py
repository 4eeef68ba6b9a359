"""A comparison as data: groups of runs, settings, rows, cells; the source of all formats."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rfbench.errors import printable
from rfbench.models import variant as variants
from rfbench.report import paper
from rfbench.report.runs import Run
from rfbench.report.stats import Effect

if TYPE_CHECKING:
    from rfbench.rf.core.recorded_map import RecordedMap


@dataclass
class Cell:
    """A metric of a row. values: by seed, if they are numbers; missing: how many are not."""

    mean: float
    values: dict[int, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    missing: int = 0
    test: Effect | None = None


@dataclass
class Network:
    """What is known of a variant of a model without training it; None: not measured.

    figures: metrics of the receptive field by name (rf/core/metrics), px of the input. macs: for
    one image of `size` (H, W). map: as a record keeps it (rf/core/recorded_map), not checked yet.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    macs: int | None = None
    size: tuple[int, int] | None = None
    map: Any = None


@dataclass
class Field:
    """The receptive field of a row, to be drawn. words: its figures."""

    title: str
    words: str
    map: "RecordedMap"


@dataclass
class Row:
    """A variant averaged over seeds, or a single run if two claim to be the same.

    variant: its name; where other keys are compared, their values, see `Run.row`.
    source: "ours", "paper" or "not run". step_time: relative to the baseline's.
    """

    variant: str
    source: str = "ours"
    runs: list[Run] = field(default_factory=list)
    alone: bool = False
    cells: dict[str, Cell] = field(default_factory=dict)
    parameters: int | None = None
    nonzero: int | None = None  # of the parameters; None: the records do not tell
    step_time: float | None = None
    network: Network = field(default_factory=Network)

    @property
    def kernels(self) -> tuple[int, ...]:
        """Kernel sizes of the stride-2 convolutions that the variant changes."""
        variant = self.runs[0].record.variant if self.runs else self.variant
        return variants.get(variant).kernels

    @property
    def is_pruned(self) -> bool:
        """Whether its networks were pruned while they were trained."""
        return any(run.record.config.get("prune") for run in self.runs)

    @property
    def label(self) -> str:
        """The variant, with whatever distinguishes the row from others of it."""
        suffix = f" ({self.source})" if self.source == paper.NAME else ""
        if self.alone:
            suffix = f" ({self.runs[0].folder})"
        return self.variant + suffix


@dataclass
class Block:
    """Rows of one setting. keys: where it differs from other settings of the group."""

    keys: dict[str, str]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)


@dataclass
class Group:
    """All runs of one kind, detector, model and data set.

    fields: the receptive fields of its rows, to be drawn; unmapped: rows of which no map is known.
    """

    kind: str
    detector: str
    model: str
    dataset: str
    metrics: list[str]
    blocks: list[Block]
    fields: list[Field] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)
    name: str = ""  # the model as the records name it

    @property
    def key(self) -> tuple[str, str, str, str]:
        """As `Run.group`."""
        return self.kind, self.detector, self.model, self.dataset

    @property
    def title(self) -> str:
        """'RetinaNet ..., resnet50 on coco'."""
        what = self.detector or {"cls": "Classification", "seg": "Segmentation"}.get(
            self.kind, "Detection"
        )
        if not self.model:  # models are compared
            return printable(f"{what} on {self.dataset}")
        source, _, name = self.model.rpartition(":")
        text = f"{what}: {name if source != 'timm' else self.model} on {self.dataset}"
        return printable(text)


@dataclass
class Report:
    """A whole comparison. problems: what could not be used in the folders."""

    baseline: str
    groups: list[Group]
    problems: list[str]
