"""What `rfbench train-seg` trains."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from rfbench.config import AVERAGED, MOST_THREADS, RESUMED, Section
from rfbench.data import sources
from rfbench.data.segmentation.sources import SOURCES
from rfbench.models import arguments
from rfbench.schemas import keys
from rfbench.schemas.cls import ClsCheckpoint, ClsOptim, ClsSchedule
from rfbench.schemas.prune import PruneConfig
from rfbench.schemas.variant import VariantConfig

Metric = Literal[
    "mIoU", "foreground_mIoU", "boundary_mIoU", "pixel_accuracy", "mean_accuracy", "loss"
]
Size = tuple[PositiveInt, PositiveInt]
Factor = Annotated[float, Field(gt=0)]


def _known_data_set(name: str) -> str:
    if problem := sources.unknown(name, SOURCES):
        raise ValueError(problem)
    return name


def _describe_the_data_sets(schema: dict[str, Any]) -> None:
    """Fill in the data sets that are registered when the schema is generated."""
    schema["enum"] = list(SOURCES)
    sets = [f"{name} ({source.reads})" for name, source in SOURCES.items()]
    schema["description"] = f"The data set: {', '.join(sets)}."


class SegData(Section):
    """The images of a segmentation, and their masks."""

    name: Annotated[str, AfterValidator(_known_data_set)] = Field(
        "voc", description="The data set.", json_schema_extra=_describe_the_data_sets
    )
    root: Annotated[str | None, RESUMED, AVERAGED] = Field(
        None, description="Folder of the data; null: datasets/NAME."
    )
    options: dict[str, Any] = Field(
        {}, description="Options of the data set, by the names of its function's arguments."
    )
    crop: Annotated[Size | None, AVERAGED] = Field(
        None, description="Height and width of a training image in px; null: the data set's own."
    )
    scale: Annotated[tuple[Factor, Factor] | None, AVERAGED] = Field(
        None,
        description="Least and most factor by which a training image is resized before the crop; "
        "null: the data set's own.",
    )
    flip: Annotated[bool | None, AVERAGED] = Field(
        None, description="Mirror half of the training images; null: the data set's own choice."
    )
    check: Annotated[Literal["values", "sizes"], RESUMED, AVERAGED] = Field(
        "values",
        description="What is looked at in every mask before training: sizes (also that it is "
        "there), or values too, which reads all masks.",
    )
    workers: Annotated[NonNegativeInt | None, RESUMED, AVERAGED] = Field(
        None,
        le=MOST_THREADS,
        description="DataLoader workers per GPU; 0: main process; null: by the number of cores.",
    )
    max_bad_share: Annotated[float, RESUMED] = Field(
        0.001, ge=0, le=1, description="Share of unreadable images above which a run stops."
    )

    @model_validator(mode="after")
    def _scale_is_ordered(self) -> "SegData":
        if self.scale and self.scale[0] > self.scale[1]:
            raise ValueError(f"data.scale must be [least, most] (it is {list(self.scale)})")
        return self


class SegLoss(Section):
    """The loss: cross-entropy over the pixels that are not ignored."""

    class_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="Weight of a class by its name; 1 for those not named."
    )
    auxiliary: float = Field(
        0.4, ge=0, description="Weight of each auxiliary output of a network that returns a dict."
    )


class SegSchedule(ClsSchedule):
    """The learning rate as a function of the step."""

    name: Literal["steps", "one_cycle", "poly"] = Field(
        "poly", description="Shape of the schedule."
    )
    epochs: PositiveInt = Field(50, le=10**6, description="Epochs to train.")
    warmup_epochs: NonNegativeInt = Field(
        0, description="steps, poly: epochs of linear warm-up from 0."
    )


class SegConfig(Section):
    """What `rfbench train-seg` trains: a network with a map of scores, or a classifier below a
    head.
    """

    KIND: ClassVar[str] = "seg"

    model: str = Field(
        "resnet50",
        description="torchvision or timm name, FILE.py:function, package.module:function.",
    )
    model_args: dict[str, Any] = Field(
        {},
        description="Arguments of the model's function, such as {output_stride: 8}; they become "
        "part of its name.",
    )
    variant: Annotated[str | VariantConfig, AVERAGED] = Field(
        "baseline", description="Which convolutions change, and into what."
    )
    head: Literal["fcn", "fpn", "own"] = Field(
        description="What stands above a classifier: fcn, a 1x1 convolution of its last map; fpn, "
        "a feature pyramid; both are up-sampled bilinearly. own: the model returns scores at each "
        "pixel itself.",
    )
    features: list[str] = Field(
        [],
        description="Layers that the head reads, fine to coarse; []: the last layer of every "
        "stride (fcn reads the coarsest).",
    )
    channels: PositiveInt = Field(128, description="fpn: channels of its maps.")
    weights: Annotated[str | None, RESUMED] = Field(
        None,
        description="Weights of the classifier below the head: pretrained (the library's own) or "
        "a checkpoint of train-cls of this model and variant; null: random.",
    )
    ema: bool = Field(
        False,
        description="Take the averaged (EMA) weights of the file that `weights`, or --eval-only, "
        "names.",
    )
    data: SegData = Field(SegData(), description="The images.")
    loss: SegLoss = Field(SegLoss(), description="The loss.")
    optim: ClsOptim = Field(
        ClsOptim(lr=0.02), description="The optimizer; lr is for the global batch."
    )
    schedule: SegSchedule = Field(SegSchedule(), description="Learning rate and epochs.")
    prune: PruneConfig | None = Field(
        None, description="Set the smallest weights to zero while training; null: none."
    )
    batch_size: PositiveInt = Field(
        16, description="Global batch size in images, over all GPUs and accumulation steps."
    )
    max_batch_per_gpu: Annotated[PositiveInt, RESUMED] = Field(
        8, description="Most images per GPU in one pass; accumulation follows from it."
    )
    jitter: Annotated[bool, AVERAGED] = Field(
        True,
        description="In evaluations, also count the pixels whose class changes when the image "
        "moves by 1 px, which takes as long again.",
    )
    visualize: Annotated[NonNegativeInt, RESUMED, AVERAGED] = Field(
        0, description="Number of validation images to draw with truth and prediction."
    )
    seed: keys.Seed = 0
    precision: keys.Precision = "auto"
    channels_last: keys.ChannelsLast = True
    compile: keys.Compile = False
    deterministic: keys.Deterministic = False
    device: keys.Device = "auto"
    threads: keys.Threads = None
    checkpoint: Annotated[ClsCheckpoint, AVERAGED] = Field(
        ClsCheckpoint(), description="When the run is saved."
    )
    best_metric: Annotated[Metric, AVERAGED] = Field(
        "mIoU", description="Validation metric by which best.pth is kept, and patience counts."
    )
    patience: keys.Patience = None
    log_every: keys.LogEvery = 50
    tensorboard: keys.TensorBoard = False

    @property
    def network(self) -> str:
        """The model with its arguments, as one name."""
        return arguments.named(self.model, self.model_args)

    @model_validator(mode="after")
    def _the_rate_is_given(self) -> "SegConfig":
        if self.optim.lr is None:
            raise ValueError("optim.lr: segmentation has no learning rate of the paper's; give one")
        return self

    @model_validator(mode="after")
    def _weights_need_a_head(self) -> "SegConfig":
        if self.head == "own" and self.weights:
            raise ValueError("weights are a classifier's, below a head; head: own has none")
        return self
