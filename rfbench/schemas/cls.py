"""What `rfbench train-cls` trains. Defaults are the paper's."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from rfbench.config import AVERAGED, RESUMED, Section
from rfbench.schemas.variant import VariantConfig


class ClsData(Section):
    """The pictures of a classification."""

    name: Literal["imagenet", "folder", "cifar10", "cifar100", "digits"] = Field(
        "imagenet",
        description="imagenet (also its flat validation folder), folder (train/CLASS/, val/CLASS/),"
        " cifar10 and cifar100 (torchvision's files), digits (scenes of MNIST digits, embedded).",
    )
    root: Annotated[str | None, RESUMED, AVERAGED] = Field(
        None, description="Folder of the data; null: datasets/NAME."
    )
    val_share: float | None = Field(
        None, gt=0, lt=1, description="Of folder: ROOT/CLASS/ is divided, this share validates."
    )
    train_scenes: Annotated[PositiveInt | None, AVERAGED] = Field(
        None, description="Of digits: training scenes; null: 12,000."
    )
    val_scenes: Annotated[PositiveInt | None, AVERAGED] = Field(
        None, description="Of digits: validation scenes; null: 3,000."
    )
    image_size: Annotated[PositiveInt | None, AVERAGED] = Field(
        None, description="Side of the pictures, in px; null: the data set's own (ImageNet: 224)."
    )
    augment: Annotated[Literal["resized_crop", "pad_crop", "none"] | None, AVERAGED] = Field(
        None,
        description="What training does to a picture: a random part, resized; moved by up to 4 px; "
        "nothing. null: as is usual for the data set (ImageNet: resized_crop).",
    )
    flip: Annotated[bool | None, AVERAGED] = Field(
        None, description="Whether training mirrors half of the pictures; null: as is usual."
    )
    crop_ratio: Annotated[float | None, AVERAGED] = Field(
        None,
        gt=0,
        le=1,
        description="Validation's crop / resized side; null: as is usual (ImageNet: 224 of 256).",
    )
    workers: Annotated[NonNegativeInt | None, RESUMED, AVERAGED] = Field(
        None,
        description="Processes that load, a GPU; 0: none beside; null: by the cores there are.",
    )
    max_bad_share: Annotated[float, RESUMED] = Field(
        0.001, ge=0, le=1, description="Share of unreadable pictures past which a run stops."
    )


class ClsOptim(Section):
    """The optimizer; `lr` is the largest rate of the schedule."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="The optimizer.")
    lr: float = Field(1.6, gt=0, description="Learning rate at its highest, for the whole batch.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of SGD.")
    nesterov: bool = Field(True, description="Nesterov's momentum, of SGD.")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Of AdamW.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay.")
    norm_weight_decay: bool = Field(
        True, description="Whether biases and the parameters of normalisations decay too."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the loss.")


class ClsSchedule(Section):
    """The learning rate, a function of the update."""

    name: Literal["steps", "one_cycle"] = Field("steps", description="Its shape.")
    epochs: PositiveInt = Field(90, description="Epochs to train.")
    warmup_epochs: NonNegativeInt = Field(5, description="Of steps: linear from 0 over these.")
    milestones: list[PositiveInt] = Field(
        [30, 60, 80], description="Of steps: epochs before which the rate drops."
    )
    gamma: float = Field(0.1, gt=0, description="Of steps: the factor of a drop.")
    rise: float = Field(0.3, gt=0, lt=1, description="Of one_cycle: the share that rises.")


class ClsInit(Section):
    """What the network starts from."""

    weights: Annotated[str | None, RESUMED] = Field(
        None, description="pretrained (the library's own), or a checkpoint file; null: at random."
    )
    convert: bool = Field(
        False, description="Take weights of another variant, and report what the change costs."
    )

    @model_validator(mode="after")
    def _needs_weights(self) -> "ClsInit":
        if self.convert and self.weights is None:
            raise ValueError("convert needs init.weights: pretrained, or a file")
        return self

    zero_gamma: bool = Field(
        False,
        description="Whether residual branches start at 0 by their last normalisation's scale; "
        "false also where the library does so by itself (timm).",
    )


class ClsCheckpoint(Section):
    """When a run is saved; it is at every epoch's end in any case."""

    every: Annotated[NonNegativeInt, RESUMED] = Field(
        500, description="Updates between two; 0: at epochs only."
    )
    keep: Annotated[PositiveInt, RESUMED] = Field(
        2, description="Checkpoints that are kept, the newest."
    )


class ClsConfig(Section):
    """What `rfbench train-cls` trains; the defaults are the paper's recipe for ImageNet."""

    model: str = Field(
        "resnet50",
        description="torchvision or timm name, FILE.py:function, package.module:function.",
    )
    variant: Annotated[str | VariantConfig, AVERAGED] = Field(
        "baseline", description="Which convolutions change."
    )
    data: ClsData = Field(ClsData(), description="The pictures.")
    optim: ClsOptim = Field(ClsOptim(), description="The optimizer.")
    schedule: ClsSchedule = Field(ClsSchedule(), description="The learning rate and the epochs.")
    init: ClsInit = Field(ClsInit(), description="The weights before the first update.")
    batch_size: PositiveInt = Field(
        4096, description="Pictures an update: over all GPUs and accumulation steps."
    )
    max_batch_per_gpu: Annotated[PositiveInt, RESUMED] = Field(
        256, description="Pictures that a GPU holds at once; accumulation follows from it."
    )
    seed: Annotated[NonNegativeInt, AVERAGED] = Field(
        0, description="Of weights, order and augmentation."
    )
    precision: Annotated[Literal["auto", "fp32", "bf16"], AVERAGED] = Field(
        "auto", description="auto: bf16 autocast on a GPU, fp32 on a CPU."
    )
    channels_last: bool = Field(
        True, description="Memory format: the faster one for nearly every network, on CPUs too."
    )
    compile: bool = Field(False, description="torch.compile the network.")
    deterministic: bool = Field(
        False, description="Bit-exact on a GPU too, slower; a CPU always is."
    )
    device: Annotated[str, RESUMED, AVERAGED] = Field("auto", description="auto, cpu or cuda.")
    threads: Annotated[PositiveInt | None, RESUMED] = Field(
        None, description="CPU threads of a process; 1 is fastest for tiny networks. null: torch's."
    )
    checkpoint: Annotated[ClsCheckpoint, AVERAGED] = Field(
        ClsCheckpoint(), description="When the run is saved."
    )
    best_metric: Annotated[Literal["top1", "top5", "loss"], AVERAGED] = Field(
        "top1", description="Validation metric by which best.pth is kept, and patience counts."
    )
    patience: PositiveInt | None = Field(
        None,
        description="Stop early after this many epochs without a better best_metric; null: never.",
    )
    log_every: Annotated[PositiveInt, AVERAGED] = Field(
        50, description="Updates between two lines of metrics.jsonl."
    )
    tensorboard: Annotated[bool, RESUMED, AVERAGED] = Field(
        False, description="Write TensorBoard's files as well."
    )
