"""A run's images by Detectron2's own catalog, mapper and order, from any iteration.

Detectron2 restarts its order when a run is resumed, and drops images that wait for others of their
shape. Here the same order is cut into the same batches in advance, as a pure function of the seed:
a resumed run skips the batches that it has had, and repeats none.
"""

import contextlib
import itertools
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    DatasetMapper,
    MapDataset,
    MetadataCatalog,
    build_detection_test_loader,
    detection_utils,
    get_detection_dataset_dicts,
)
from detectron2.data.build import trivial_batch_collator, worker_init_reset_seed
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from PIL import Image

from rfbench.data import decode, text, workers
from rfbench.data.coco import CocoSet
from rfbench.data.loader import held_batches
from rfbench.detect.config import as_usage_error
from rfbench.errors import RfbenchError, UsageError, one_line


def register(
    name: str, annotations: str, images: str, categories: Mapping[int, str] | None = None
) -> None:
    """Register a set in COCO's format with Detectron2, replacing one of that name.

    categories: id -> name in the order of a detector's classes; None: Detectron2's, by id.
    """
    annotations = text.plain(annotations)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    if categories is None:
        register_coco_instances(name, {}, annotations, images)
        return
    class_of = {key: i for i, key in enumerate(categories)}

    def entries() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = load_coco_json(annotations, images)
        for one in (one for entry in found for one in entry["annotations"]):
            one["category_id"] = class_of[one["category_id"]]
        return found

    DatasetCatalog.register(name, entries)
    # the names stand by id: the evaluator takes them so for the metrics of single classes
    MetadataCatalog.get(name).set(
        json_file=annotations,
        image_root=images,
        evaluator_type="coco",
        thing_classes=[categories[key] for key in sorted(categories)],
        thing_dataset_id_to_contiguous_id=class_of,
    )


class Batches:
    """Endless batches of one process, lists of indices, starting with batch `start`.

    order: indices from a sampler of Detectron2. wide: whether the image of each index is wider than
    high; None: do not group. A batch is all wide or all high, as Detectron2 groups them.
    """

    def __init__(
        self, order: Iterable[int], batch: int, wide: list[bool] | None, start: int = 0
    ) -> None:
        self.order, self.batch, self.wide, self.start = order, batch, wide, start

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(self._all(), self.start, None)

    def _all(self) -> Iterator[list[int]]:
        waiting: tuple[list[int], list[int]] = ([], [])
        for index in self.order:
            bucket = waiting[bool(self.wide and self.wide[index])]
            bucket.append(index)
            if len(bucket) == self.batch:
                yield bucket[:]
                bucket.clear()


class Reader:
    """Detectron2's mapper on images that `decode` reads; what cannot be read is named."""

    def __init__(self, cfg: CfgNode, train: bool) -> None:
        with as_usage_error("prepare images"):
            self.mapper = DatasetMapper(cfg, train)

    def __call__(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        try:
            with reading(upright):
                return self.mapper(entry)
        except decode.BadImage as error:
            raise RfbenchError(f"{error.path} cannot be read: {error.reason}") from None
        except (OSError, ValueError, SyntaxError) as error:  # another size than the JSON file says
            what = one_line(error)
            raise RfbenchError(f"{entry['file_name']} cannot be read: {what}") from None


def upright(path: str, format: str | None = None) -> np.ndarray:
    """The image at `path`, (H, W, C) uint8 in one of Detectron2's formats, rotated as EXIF says."""
    pixels = decode.read(path, upright=True).numpy()
    if format in (None, "RGB"):
        return pixels
    return detection_utils.convert_PIL_to_numpy(Image.fromarray(pixels), format)


@contextlib.contextmanager
def reading(read: Callable[..., np.ndarray]) -> Iterator[None]:
    """A context in which Detectron2's mapper reads images by `read`, its only way to say so.

    Its own reader makes every pixel of 16-bit grey white, and waits for pipes.
    """
    own, detection_utils.read_image = detection_utils.read_image, read
    try:
        yield
    finally:
        detection_utils.read_image = own


def train_loader(cfg: CfgNode, world: int, start: int) -> Any:
    """This process's batches from iteration `start`: lists of inputs of the model."""
    entries = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    wide = [entry["width"] > entry["height"] for entry in entries] if grouped else None
    batches = Batches(_order(cfg, entries), cfg.SOLVER.IMS_PER_BATCH // world, wide, start)
    return torch.utils.data.DataLoader(
        MapDataset(DatasetFromList(entries, copy=False), Reader(cfg, True)),
        batch_sampler=batches,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        worker_init_fn=prepare,
        multiprocessing_context=workers.context() if cfg.DATALOADER.NUM_WORKERS else None,
    )


def memory(cfg: CfgNode, parts: Mapping[str, CocoSet], world: int) -> int:
    """Bytes of shared memory that the loaders of one process take, by the mean of the images.

    Training's and validation's are there at once. Masks take memory as bitmaps only.
    """
    count, given = cfg.DATALOADER.NUM_WORKERS, cfg.INPUT
    train, val = parts["train"], parts["val"]
    # larger sizes weigh more: the mean of the areas, which the area of the mean size is below
    image = _mean_bytes(train, _train_sizes(given), given.MAX_SIZE_TRAIN)
    if cfg.MODEL.MASK_ON and given.MASK_FORMAT == "bitmask":
        image += image // 3 * train.objects // max(1, train.images)
    image += 2 * mmap.PAGESIZE  # its boxes and their classes
    batch = cfg.SOLVER.IMS_PER_BATCH // world
    shown = _mean_bytes(val, np.array([given.MIN_SIZE_TEST]), given.MAX_SIZE_TEST)
    return (
        held_batches(count, True) * batch * image
        + held_batches(count, False, math.ceil(val.images / world)) * shown
    )


def _train_sizes(given: CfgNode) -> np.ndarray:
    """Every length of the short side that Detectron2 draws from, each as often as another."""
    sizes = np.atleast_1d(given.MIN_SIZE_TRAIN)
    if given.MIN_SIZE_TRAIN_SAMPLING == "range":
        return np.arange(sizes.min(), sizes.max() + 1)
    return sizes


def _mean_bytes(data: CocoSet, shorts: np.ndarray, most: int) -> int:
    """Bytes of a set's images after Detectron2's resizing, on average; whole pages.

    shorts: lengths of the short side, each as often as another; 0 keeps an image's size.
    """
    total = 0.0
    for (height, width), number in data.sizes.items():
        scale = np.minimum(shorts / min(height, width), most / max(height, width))
        area = np.mean(np.where(shorts > 0, scale, 1.0) ** 2) * height * width
        total += number * 3 * float(area)
    return math.ceil(total / max(1, data.images) / mmap.PAGESIZE) * mmap.PAGESIZE


def with_plain_errors(loader: Any) -> Iterator[Any]:
    """The batches of a loader; an error in a worker, or its end, is raised in one line."""
    with workers.reported():
        batches = workers.start(loader)
    while True:
        try:
            with workers.reported(batches):
                batch = next(batches, None)
        except RfbenchError as error:
            # the text is the worker's whole traceback; its last line is the error's own
            last = str(error).strip().splitlines()[-1].rpartition("RfbenchError: ")[2]
            raise RfbenchError(last) from None
        if batch is None:
            return
        yield batch


def prepare(worker: int) -> None:
    """In a new worker: Detectron2's seeds; signals to the whole group are the main process's."""
    worker_init_reset_seed(worker)
    workers.prepare(worker)


def _order(cfg: CfgNode, entries: list[dict[str, Any]]) -> Iterable[int]:
    """Detectron2's sampler with the run's seed: this process's share of an endless order."""
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return TrainingSampler(len(entries), seed=cfg.SEED)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            entries, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        return RepeatFactorTrainingSampler(factors, seed=cfg.SEED)
    raise UsageError(
        f"opts.DATALOADER.SAMPLER_TRAIN: '{name}' is not supported. "
        "There are: TrainingSampler, RepeatFactorTrainingSampler."
    )


def val_loader(cfg: CfgNode) -> Any:
    """This process's share of the validation images, one at a time."""
    loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0], mapper=Reader(cfg, False))
    loader.worker_init_fn = workers.prepare
    if loader.num_workers:
        loader.multiprocessing_context = workers.context()
    return loader
