"""What `rfbench train-cls` trains. Defaults are the paper's."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from rfbench.config import AVERAGED, MOST_KEPT, MOST_THREADS, RESUMED, Section
from rfbench.data import sources
from rfbench.models import arguments
from rfbench.schemas import keys
from rfbench.schemas.prune import PruneConfig
from rfbench.schemas.variant import VariantConfig


def _known_data_set(name: str) -> str:
    if problem := sources.unknown(name):
        raise ValueError(problem)
    return name


def _describe_the_data_sets(schema: dict[str, Any]) -> None:
    """Fill in the data sets that are registered when the schema is generated."""
    schema["enum"] = list(sources.SOURCES)
    sets = [f"{name} ({source.reads})" for name, source in sources.SOURCES.items()]
    schema["description"] = f"The data set: {', '.join(sets)}."


Share = Annotated[float, Field(ge=0, lt=1)]

# options that had keys of their own before `data.options` existed
_OPTIONS = ("val_share", "train_scenes", "val_scenes")

SMALLEST_ALPHA = (
    0.001  # of a Beta distribution: less is drawn as 0 or 1, or is 0 in single precision
)


class ClsData(Section):
    """The images of a classification."""

    name: Annotated[str, AfterValidator(_known_data_set)] = Field(
        "imagenet", description="The data set.", json_schema_extra=_describe_the_data_sets
    )
    root: Annotated[str | None, RESUMED, AVERAGED] = Field(
        None, description="Folder of the data; null: datasets/NAME."
    )
    options: dict[str, Any] = Field(
        {}, description="Options of the data set, by the names of its function's arguments."
    )
    val_share: float | None = Field(
        None, gt=0, lt=1, description="folder: share of each ROOT/CLASS/ held out for validation."
    )
    train_scenes: Annotated[PositiveInt | None, AVERAGED] = Field(
        None, description="digits: number of training scenes; null: 12,000."
    )
    val_scenes: Annotated[PositiveInt | None, AVERAGED] = Field(
        None, description="digits: number of validation scenes; null: 3,000."
    )
    image_size: Annotated[PositiveInt | None, AVERAGED] = Field(
        None, description="Side of the input in px; null: the data set's own (ImageNet: 224)."
    )
    augment: Annotated[Literal["resized_crop", "pad_crop", "none"] | None, AVERAGED] = Field(
        None,
        description="Training augmentation: resized_crop, a random part of the image, resized; "
        "pad_crop, a shift of up to 4 px; none. null: the data set's own (ImageNet: resized_crop).",
    )
    train_size: PositiveInt | None = Field(
        None, description="Side of the training images in px; null: image_size."
    )
    policy: Literal["trivial_augment"] | None = Field(
        None, description="Further augmentation, behind crop and flip; null: none."
    )
    erase: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability that a rectangle of a training image is erased; 0: none.",
    )
    mixup: float | None = Field(
        None,
        ge=SMALLEST_ALPHA,
        description="Alpha of mixup, such as 0.2: a training image is mixed with another, labels "
        "in proportion; null: none. With cutmix too, each batch of a pass gets one of the two.",
    )
    cutmix: float | None = Field(
        None,
        ge=SMALLEST_ALPHA,
        description="Alpha of CutMix, such as 1.0: a rectangle of a training image is another's, "
        "labels in proportion; null: none.",
    )
    flip: Annotated[bool | None, AVERAGED] = Field(
        None, description="Mirror half of the training images; null: the data set's own choice."
    )
    crop_ratio: Annotated[float | None, AVERAGED] = Field(
        None,
        ge=0.1,  # less resizes every image to more than ten times its crop
        le=1,
        description="Validation crop over resized side; null: the data set's own "
        "(ImageNet: 0.875).",
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
    def _each_option_once(self) -> "ClsData":
        if twice := [key for key in _OPTIONS if key in self.options and getattr(self, key)]:
            raise ValueError(f"data.{twice[0]} and data.options.{twice[0]} are the same option")
        return self

    def all_options(self) -> dict[str, Any]:
        """The options of the data set, including those with keys of their own."""
        own = {key: getattr(self, key) for key in _OPTIONS}
        return {key: value for key, value in own.items() if value is not None} | self.options


def paper_lr(batch: int) -> float:
    """The paper's learning rate, 1.6 for 4,096 images, in proportion (Goyal et al., 2017)."""
    return 1.6 * batch / 4096


class ClsOptim(Section):
    """The optimizer; `lr` is the peak of the schedule."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="The optimizer.")
    lr: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate for the global batch; null, with sgd: the paper's 1.6 for "
        "4,096 images, in proportion to batch_size. adamw needs one.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    nesterov: bool = Field(True, description="Nesterov momentum, for SGD.")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="Betas of AdamW.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay.")
    norm_weight_decay: bool = Field(
        True, description="Also decay biases and the parameters of normalization layers."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing.")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of an exponential moving average of the weights, such as 0.9999: it is "
        "evaluated and saved beside the weights, and best_metric is its own; null: none.",
    )

    @model_validator(mode="after")
    def _adamw_needs_a_rate(self) -> "ClsOptim":
        if self.name == "adamw" and self.lr is None:
            raise ValueError("adamw needs optim.lr; 1.0e-3 is usual for small networks")
        return self

    @property
    def peak(self) -> float:
        """The learning rate `lr` of a configuration, which is set when that is read."""
        assert self.lr is not None
        return self.lr


class ClsSchedule(Section):
    """The learning rate as a function of the step."""

    name: Literal["steps", "one_cycle", "cosine", "poly"] = Field(
        "steps",
        description="Shape of the schedule: steps; one_cycle; cosine, a warm-up and half a cosine "
        "to 0; poly, a warm-up and (1 - share of the steps)^0.9.",
    )
    epochs: PositiveInt = Field(90, le=10**6, description="Epochs to train.")
    warmup_epochs: NonNegativeInt = Field(
        5, description="steps, cosine, poly: epochs of linear warm-up from 0."
    )
    milestones: list[PositiveInt] = Field(
        [30, 60, 80], description="steps: epochs at whose start the learning rate drops."
    )
    gamma: float = Field(0.1, gt=0, description="steps: factor of each drop.")
    rise: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="one_cycle: share of the steps in which lr rises.",
    )


class ClsInit(Section):
    """Initial weights of the network."""

    weights: Annotated[str | None, RESUMED] = Field(
        None, description="pretrained (the library's own) or a checkpoint file; null: random."
    )
    fix: bool = Field(
        False,
        validation_alias=AliasChoices("fix", "convert"),  # the latter in runs of version 0.1
        description="Accept weights of another variant, and report what the change costs.",
    )
    light_center: bool = Field(
        False,
        description="Scale random weights: less in the middle of a kernel, more at its rim, for a "
        "larger effective field (Luo et al., 2016, section 4).",
    )
    ema: bool = Field(
        False,
        description="Take the averaged (EMA) weights of a file that holds them beside the others; "
        "for --eval-only too.",
    )

    @model_validator(mode="after")
    def _needs_weights(self) -> "ClsInit":
        if self.fix and self.weights is None:
            raise ValueError("init.fix needs init.weights: pretrained, or a file")
        if self.light_center and self.weights is not None:
            raise ValueError("light_center scales random weights; init.weights are set")
        return self

    zero_gamma: bool = Field(
        False,
        description="Start residual branches at 0 by the scale of their last normalization; "
        "false also undoes it where the library does so by itself (timm).",
    )


class ClsCheckpoint(Section):
    """When a run is saved, besides at the end of every epoch."""

    every: Annotated[NonNegativeInt, RESUMED] = Field(
        500, description="Steps between checkpoints; 0: at the end of epochs only."
    )
    keep: Annotated[PositiveInt, RESUMED] = Field(
        2, le=MOST_KEPT, description="Number of checkpoints to keep, the newest."
    )


class ClsConfig(Section):
    """What `rfbench train-cls` trains; the defaults are the paper's recipe for ImageNet."""

    KIND: ClassVar[str] = "cls"

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
    data: ClsData = Field(ClsData(), description="The images.")
    optim: ClsOptim = Field(ClsOptim(), description="The optimizer.")
    schedule: ClsSchedule = Field(ClsSchedule(), description="Learning rate and epochs.")
    init: ClsInit = Field(ClsInit(), description="Initial weights.")
    prune: PruneConfig | None = Field(
        None, description="Set the smallest weights to zero while training; null: none."
    )
    batch_size: PositiveInt = Field(
        4096, description="Global batch size in images, over all GPUs and accumulation steps."
    )
    max_batch_per_gpu: Annotated[PositiveInt, RESUMED] = Field(
        256, description="Most images per GPU in one pass; accumulation follows from it."
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
    best_metric: Annotated[Literal["top1", "top5", "loss"], AVERAGED] = Field(
        "top1", description="Validation metric by which best.pth is kept, and patience counts."
    )
    patience: keys.Patience = None
    consistency_images: Annotated[NonNegativeInt, RESUMED] = Field(
        1000,
        description="Validation images of which consistency is measured at the end: the share with "
        "the same top-1 at two positions, at most 1/8 of the image apart; 0: none.",
    )
    log_every: keys.LogEvery = 50
    tensorboard: keys.TensorBoard = False

    @property
    def network(self) -> str:
        """The model with its arguments, as one name."""
        return arguments.named(self.model, self.model_args)

    @model_validator(mode="after")
    def _lr_follows_the_batch(self) -> "ClsConfig":
        if self.optim.lr is None:  # so that config.yaml and the record hold the number
            optim = self.optim.model_copy(update={"lr": paper_lr(self.batch_size)})
            self.__dict__["optim"] = optim  # the model is frozen
        return self
