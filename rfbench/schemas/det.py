"""What `rfbench train-det` trains. Defaults are the paper's."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from rfbench.config import (
    AVERAGED,
    MOST_KEPT,
    RESUMED,
    Free,
    Section,
)
from rfbench.models import arguments
from rfbench.schemas import keys
from rfbench.schemas.variant import VariantConfig

BestMetric = Literal["bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "segm/AP50", "segm/AP75"]


class DigitScenes(Section):
    """Digit scenes for detection, drawn once and written as a COCO data set."""

    train: PositiveInt = Field(600, description="Number of training scenes.")
    val: PositiveInt = Field(100, description="Number of validation scenes.")
    size: PositiveInt = Field(128, description="Side of a scene, in px.")
    objects: tuple[PositiveInt, PositiveInt] = Field(
        (1, 3), description="Least and most digits in a scene."
    )
    scale: tuple[float, float] = Field(
        (1.3, 4.1),
        description="Least and most scale of a digit; 1 is 20 px, plus what it is thickened by.",
    )
    thicken: NonNegativeInt = Field(
        1, description="Pixels of MNIST by which strokes grow on each side, before scaling."
    )
    distractors: NonNegativeInt = Field(3, description="Fragments of other digits in a scene.")


class DetData(Section):
    """The images of a detection: a data set in COCO's format, or drawn scenes."""

    name: Literal["coco", "digits"] = Field(
        "coco",
        description="coco: any data set in COCO's format; digits: scenes of MNIST digits, "
        "drawn once.",
    )
    root: Annotated[str | None, RESUMED, AVERAGED] = Field(
        None,
        description="Folder with annotations/, train2017/ and val2017/; null: datasets/coco, or "
        "the user's cache for digits.",
    )
    train_annotations: Annotated[str | None, RESUMED, AVERAGED] = Field(
        None, description="JSON file in place of COCO's."
    )
    train_images: Annotated[str | None, RESUMED, AVERAGED] = Field(
        None, description="Folder in place of COCO's."
    )
    val_annotations: Annotated[str | None, RESUMED, AVERAGED] = Field(
        None, description="JSON file in place of COCO's."
    )
    val_images: Annotated[str | None, RESUMED, AVERAGED] = Field(
        None, description="Folder in place of COCO's."
    )
    scenes: DigitScenes = Field(DigitScenes(), description="digits: what is drawn.")


class DetConfig(Section):
    """What `rfbench train-det` trains: a stock Detectron2 configuration and what differs."""

    KIND: ClassVar[str] = "det"

    detector: str = Field(
        "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        description="Configuration of Detectron2's model zoo; anything not set here keeps "
        "the stock value.",
    )
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
    features: list[str] = Field(
        [],
        description="Layers that the FPN reads, fine to coarse; []: the last layer of "
        "every stride.",
    )
    fpn: bool = Field(
        True,
        description="false: each layer of `features` is a level of RetinaNet's heads, f1, f2, ..., "
        "through a 1x1 convolution, without an FPN.",
    )
    weights: Annotated[str | None, RESUMED] = Field(
        "pretrained",
        description="Weights of the backbone: pretrained (the library's own) or a checkpoint of "
        "train-cls of this model and variant; null: random.",
    )
    ema: bool = Field(
        False,
        description="Take the averaged (EMA) weights of the file that `weights`, or --eval-only, "
        "names.",
    )
    data: DetData = Field(DetData(), description="The images.")
    pixel_mean: tuple[float, float, float] = Field(
        (123.675, 116.28, 103.53),
        description="Mean in RGB, 0 to 255; that of the backbone's training.",
    )
    pixel_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (58.395, 57.12, 57.375),
        description="Standard deviation in RGB; that of the backbone's training.",
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd",
        description="sgd: Detectron2's own; adamw: with the learning rate, decay and "
        "clipping of SOLVER.",
    )
    precision: Annotated[Literal["fp32", "tf32", "fp16", "bf16"], AVERAGED] = Field(
        "fp32",
        description="tf32: TensorFloat-32 where the GPU has it, else fp32 (Detectron2 calls both "
        "fp32). fp16, bf16: mixed precision on GPUs; bf16 needs a Detectron2 newer than 0.6.",
    )
    reference_world_size: NonNegativeInt = Field(
        0,
        description="Number of GPUs that the SOLVER keys are for (8 in the model zoo); for another "
        "number, batch, learning rate and periods are scaled, as by Detectron2's key of this name. "
        "0: never.",
    )
    opts: Annotated[
        dict[str, Any],
        Free("resumed", ("SOLVER.CHECKPOINT_PERIOD", "DATALOADER.NUM_WORKERS")),
        Free("averaged", ("SOLVER.CHECKPOINT_PERIOD", "DATALOADER.NUM_WORKERS", "OUTPUT_DIR")),
    ] = Field({}, description="Detectron2's own keys, such as {SOLVER: {IMS_PER_BATCH: 8}}.")
    eval: Annotated[Literal["pycocotools", "faster"], RESUMED, AVERAGED] = Field(
        "pycocotools",
        description="faster: faster-coco-eval, which gives the same figures in less time.",
    )
    visualize: Annotated[NonNegativeInt, RESUMED, AVERAGED] = Field(
        0, description="Number of images to draw with predictions beside ground truth."
    )
    seed: keys.Seed = 0
    device: keys.Device = "auto"
    threads: keys.Threads = None
    keep: Annotated[PositiveInt, RESUMED, AVERAGED] = Field(
        2,
        le=MOST_KEPT,
        description="Number of checkpoints to keep, one every SOLVER.CHECKPOINT_PERIOD iterations.",
    )
    best_metric: Annotated[BestMetric, AVERAGED] = Field(
        "bbox/AP", description="Metric by which best.pth is kept, and patience counts."
    )
    patience: PositiveInt | None = Field(
        None,
        description="Stop early after this many evaluations, one every opts.TEST.EVAL_PERIOD "
        "iterations, without a better best_metric; null: never.",
    )
    log_every: Annotated[PositiveInt, AVERAGED] = Field(
        20, description="Iterations between lines of metrics.jsonl."
    )
    tensorboard: keys.TensorBoard = False

    @property
    def network(self) -> str:
        """The model with its arguments, as one name."""
        return arguments.named(self.model, self.model_args)
