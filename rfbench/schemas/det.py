"""What `rfbench train-det` trains. Defaults are the paper's."""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from rfbench.config import Section
from rfbench.schemas.variant import VariantConfig

BestMetric = Literal["bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "segm/AP50", "segm/AP75"]


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
    best_metric: Literal[
        "bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "segm/AP50", "segm/AP75"
    ] = Field("bbox/AP", description="Metric by which best.pth is kept, and patience counts.")
    patience: PositiveInt | None = Field(
        None,
        description="Stop early after this many evaluations, one every opts.TEST.EVAL_PERIOD "
        "iterations, without a better best_metric; null: never.",
    )
    log_every: PositiveInt = Field(20, description="Iterations between two lines of metrics.jsonl.")
    tensorboard: bool = Field(False, description="Write TensorBoard's files as well.")
