"""The configurations: one schema a kind of run; the fields' descriptions are the documentation.

Defaults are the paper's.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, model_validator

from rfbench.config import Section


class VariantConfig(Section):
    """A variant that has no name, as data."""

    kernels: list[PositiveInt] = Field(description="Sizes of the stride-2 convolutions it changes.")
    pool: str = Field(description="The pooling it puts before them, such as avg.")


class RfConfig(Section):
    """What `rfbench visualize-rf` draws."""

    model: str | list[str] = Field(
        description="torchvision or timm name, or FILE.py:function; a list draws several."
    )
    variants: list[str | VariantConfig] | None = Field(
        None, description="Variants, one panel each; null: those of the paper that change the net."
    )
    from_: str | None = Field(
        None, alias="from", description="Layer behind which the map starts; null: the input."
    )
    to: str | None = Field(None, description="Layer where it ends; null: the last spatial map.")
    unit: tuple[NonNegativeInt, NonNegativeInt] | None = Field(
        None, description="Unit of the last layer, as [y, x]; null: the middle one."
    )
    size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="Input in px, N or [height, width], for the figures beside those of an input "
        "that cuts nothing off; null: the network's own.",
    )
    scale: Literal["linear", "sqrt"] = Field("sqrt", description="Brightness of the main panel.")
    channels: Literal["single", "real"] = Field(
        "single", description="One channel a layer (spatial paths), or the network's own numbers."
    )
    pool: Literal["count", "mean"] = Field(
        "count", description="A tap of an average pool weighs 1 (paths) or 1/k^2 (its gradient)."
    )
    gates: Literal["ignore", "count"] = Field(
        "ignore", description="Whether paths through gates (squeeze-and-excitation) count."
    )
    engine: Literal["graph", "autograd"] = Field(
        "graph", description="The spatial graph, or the paper's procedure as a second opinion."
    )
    by_layer: bool = Field(False, description="Draw the shift layer by layer instead of maps.")
    exact: bool = Field(False, description="Count in integers of any size instead of floats.")
    weights: str | None = Field(None, description="Checkpoint to load; null: none.")
    title: str | None = Field(None, description="Title of the figure; null: made from the model.")


class ClsData(Section):
    """The pictures of a classification."""

    name: Literal["imagenet", "folder", "cifar10", "cifar100", "digits"] = Field(
        "imagenet",
        description="imagenet (also its flat validation folder), folder (train/CLASS/, val/CLASS/),"
        " cifar10 and cifar100 (torchvision's files), digits (scenes of MNIST digits, embedded).",
    )
    root: str | None = Field(None, description="Folder of the data; null: datasets/NAME.")
    val_share: float | None = Field(
        None, gt=0, lt=1, description="Of folder: ROOT/CLASS/ is divided, this share validates."
    )
    train_scenes: PositiveInt | None = Field(
        None, description="Of digits: training scenes; null: 12,000."
    )
    val_scenes: PositiveInt | None = Field(
        None, description="Of digits: validation scenes; null: 3,000."
    )
    image_size: PositiveInt | None = Field(
        None, description="Side of the pictures, in px; null: the data set's own (ImageNet: 224)."
    )
    augment: Literal["resized_crop", "pad_crop", "none"] | None = Field(
        None,
        description="What training does to a picture: a random part, resized; moved by up to 4 px; "
        "nothing. null: as is usual for the data set (ImageNet: resized_crop).",
    )
    flip: bool | None = Field(
        None, description="Whether training mirrors half of the pictures; null: as is usual."
    )
    crop_ratio: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Validation's crop / resized side; null: as is usual (ImageNet: 224 of 256).",
    )
    workers: NonNegativeInt | None = Field(
        None,
        description="Processes that load, a GPU; 0: none beside; null: by the cores there are.",
    )
    max_bad_share: float = Field(
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

    weights: str | None = Field(
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

    every: NonNegativeInt = Field(500, description="Updates between two; 0: at epochs only.")
    keep: PositiveInt = Field(2, description="Checkpoints that are kept, the newest.")


class ClsConfig(Section):
    """What `rfbench train-cls` trains; the defaults are the paper's recipe for ImageNet."""

    model: str = Field(
        "resnet50",
        description="torchvision or timm name, FILE.py:function, package.module:function.",
    )
    variant: str | VariantConfig = Field("baseline", description="Which convolutions change.")
    data: ClsData = Field(ClsData(), description="The pictures.")
    optim: ClsOptim = Field(ClsOptim(), description="The optimizer.")
    schedule: ClsSchedule = Field(ClsSchedule(), description="The learning rate and the epochs.")
    init: ClsInit = Field(ClsInit(), description="The weights before the first update.")
    batch_size: PositiveInt = Field(
        4096, description="Pictures an update: over all GPUs and accumulation steps."
    )
    max_batch_per_gpu: PositiveInt = Field(
        256, description="Pictures that a GPU holds at once; accumulation follows from it."
    )
    seed: NonNegativeInt = Field(0, description="Of weights, order and augmentation.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast on a GPU, fp32 on a CPU."
    )
    channels_last: bool = Field(
        True, description="Memory format: the faster one for nearly every network, on CPUs too."
    )
    compile: bool = Field(False, description="torch.compile the network.")
    deterministic: bool = Field(
        False, description="Bit-exact on a GPU too, slower; a CPU always is."
    )
    device: str = Field("auto", description="auto, cpu or cuda.")
    threads: PositiveInt | None = Field(
        None, description="CPU threads of a process; 1 is fastest for tiny networks. null: torch's."
    )
    checkpoint: ClsCheckpoint = Field(ClsCheckpoint(), description="When the run is saved.")
    log_every: PositiveInt = Field(50, description="Updates between two lines of metrics.jsonl.")
    tensorboard: bool = Field(False, description="Write TensorBoard's files as well.")


class DigitScenes(Section):
    """Scenes of digits for a detection, drawn once and written as a COCO data set."""

    train: PositiveInt = Field(600, description="Scenes to train on.")
    val: PositiveInt = Field(100, description="Scenes to evaluate on.")
    size: PositiveInt = Field(128, description="Side of a scene, in px.")
    objects: tuple[PositiveInt, PositiveInt] = Field((1, 3), description="Digits on a scene.")
    scale: tuple[float, float] = Field(
        (1.3, 4.1), description="Size of a digit in MNIST's; 1 is 20 px, and what it is thickened."
    )
    thicken: NonNegativeInt = Field(
        1, description="MNIST px by which strokes grow on each side, before they are scaled."
    )
    distractors: NonNegativeInt = Field(3, description="Fragments of other digits on a scene.")


class DetData(Section):
    """The pictures of a detection: COCO's layout, any set in COCO's format, or drawn scenes."""

    name: Literal["coco", "digits"] = Field(
        "coco",
        description="coco: any set in COCO's format; digits: scenes of MNIST digits, drawn once.",
    )
    root: str | None = Field(
        None,
        description="Folder with annotations/, train2017/ and val2017/; null: datasets/coco, or of "
        "digits the user's cache.",
    )
    train_annotations: str | None = Field(None, description="JSON file, in place of COCO's.")
    train_images: str | None = Field(None, description="Folder, in place of COCO's.")
    val_annotations: str | None = Field(None, description="JSON file, in place of COCO's.")
    val_images: str | None = Field(None, description="Folder, in place of COCO's.")
    scenes: DigitScenes = Field(DigitScenes(), description="Of digits: what is drawn.")


class DetConfig(Section):
    """What `rfbench train-det` trains: a stock Detectron2 configuration, and what differs."""

    detector: str = Field(
        "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        description="Configuration of Detectron2's model zoo; all not said here stays as there.",
    )
    model: str = Field(
        "resnet50",
        description="torchvision or timm name, FILE.py:function, package.module:function.",
    )
    variant: str | VariantConfig = Field("baseline", description="Which convolutions change.")
    features: list[str] = Field(
        [], description="Layers that the FPN reads, fine to coarse; []: the last of every stride."
    )
    weights: str | None = Field(
        "pretrained",
        description="Backbone's weights: pretrained (the library's own), or a checkpoint of "
        "train-cls of this model and variant; null: at random.",
    )
    data: DetData = Field(DetData(), description="The pictures.")
    pixel_mean: tuple[float, float, float] = Field(
        (123.675, 116.28, 103.53), description="RGB, 0 to 255; as the backbone was trained."
    )
    pixel_std: tuple[float, float, float] = Field(
        (58.395, 57.12, 57.375), description="RGB; as the backbone was trained."
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd: Detectron2's; adamw: with SOLVER's rate, decay and clipping."
    )
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="fp16 and bf16 on a GPU; bf16 needs a Detectron2 newer than 0.6."
    )
    reference_world_size: NonNegativeInt = Field(
        0,
        description="GPUs that SOLVER's figures are for (COCO's: 8); on fewer or more, batch, rate "
        "and periods are scaled, as by Detectron2's key of this name. 0: never.",
    )
    opts: dict[str, Any] = Field(
        {}, description="Detectron2's own keys, such as {SOLVER: {IMS_PER_BATCH: 8}}."
    )
    eval: Literal["pycocotools", "faster"] = Field(
        "pycocotools", description="faster: faster-coco-eval, the same figures in less time."
    )
    visualize: NonNegativeInt = Field(
        0, description="Pictures to draw with predictions beside ground truth."
    )
    seed: NonNegativeInt = Field(0, description="Of weights, order and augmentation.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    threads: PositiveInt | None = Field(
        None, description="CPU threads of a process; null: torch's."
    )
    keep: PositiveInt = Field(
        2, description="Checkpoints that are kept, one every SOLVER.CHECKPOINT_PERIOD iterations."
    )
    log_every: PositiveInt = Field(20, description="Iterations between two lines of metrics.jsonl.")
    tensorboard: bool = Field(False, description="Write TensorBoard's files as well.")


# what `rfbench schema KIND` knows
SCHEMAS: dict[str, type[BaseModel]] = {"rf": RfConfig, "cls": ClsConfig, "det": DetConfig}
