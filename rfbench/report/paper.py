"""The published results: Ge & Wu, tables 2 to 4. The paper gives no spread."""

from dataclasses import dataclass

from rfbench.models.variant import PAPER

NAME = "paper"
AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class Table:
    """A table of the paper, and the group of runs that it belongs to.

    group: kind, detector, model and data set. images: number of validation images. rows: results
    by variant, in the order of `metrics`.
    """

    number: int
    group: tuple[str, str, str, str]
    images: int
    metrics: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]


def _rows(*rows: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    return dict(zip(PAPER, rows, strict=True))


TABLES = (
    Table(
        2,
        ("cls", "", "resnet50", "imagenet"),
        50_000,
        ("top1", "top5"),
        _rows((76.30, 93.00), (76.74, 93.28), (76.23, 93.08), (76.44, 93.29)),
    ),
    Table(
        3,
        ("det", "retinanet_R_50_FPN_1x", "resnet50", "coco"),
        5_000,
        tuple(f"bbox.{name}" for name in AP),
        _rows(
            (38.32, 59.25, 41.29, 23.02, 41.27, 49.20),
            (39.26, 60.40, 42.93, 23.40, 42.78, 49.78),
            (39.23, 59.81, 42.56, 23.37, 42.89, 50.68),
            (39.72, 60.72, 43.40, 23.34, 43.71, 50.76),
        ),
    ),
    Table(
        4,
        ("det", "mask_rcnn_R_50_FPN_1x", "resnet50", "coco"),
        5_000,
        tuple(f"segm.{name}" for name in AP),
        _rows(
            (34.65, 55.91, 36.84, 17.02, 37.08, 49.67),
            (35.57, 57.30, 37.58, 17.42, 38.21, 50.22),
            (35.51, 56.90, 37.97, 17.10, 38.25, 51.10),
            (36.09, 57.67, 38.66, 17.41, 39.04, 51.55),
        ),
    ),
)
