"""What cannot work in a configuration, seen with its data before the first step, all at once.

Not in the schema: records and checkpoints of older versions are read with that.
"""

from collections.abc import Iterator

from rfbench.classify.images import Images
from rfbench.data import moved
from rfbench.data.dataset import MOST_PIXELS
from rfbench.errors import UsageError
from rfbench.schemas.cls import ClsConfig
from rfbench.training.split import Split


def refuse(config: ClsConfig, data: Images, split: Split | None = None) -> None:
    """Raise UsageError with every problem. split: of a training; None: only an evaluation."""
    problems = [*_of_evaluation(config, data)]
    if split:
        problems += [
            *_of_schedule(config),
            *_of_classes(config, data),
            *_of_ranks(config, data),
            *_of_mixing(config, data, split),
        ]
    if problems:
        raise UsageError(*problems)


def _of_evaluation(config: ClsConfig, data: Images) -> Iterator[str]:
    size = data.image_size
    if (largest := max(size, data.train_size)) ** 2 > MOST_PIXELS:
        yield f"images of {largest}x{largest} px are more than {MOST_PIXELS >> 20} million pixels"
    if config.consistency_images and not moved.reach(size):
        yield (
            f"consistency is measured with images moved by up to 1/{moved.PART} of their size, "
            f"which is less than a pixel of {size} px. Set a larger data.image_size, or "
            "consistency_images=0."
        )


def _of_schedule(config: ClsConfig) -> Iterator[str]:
    schedule = config.schedule
    if schedule.name != "one_cycle" and schedule.warmup_epochs > schedule.epochs:
        yield (
            f"the schedule ends before its warm-up: schedule.epochs is {schedule.epochs}, "
            f"schedule.warmup_epochs {schedule.warmup_epochs}. Train longer, or set "
            "schedule.warmup_epochs=0."
        )


def _of_ranks(config: ClsConfig, data: Images) -> Iterator[str]:
    classes = len(data.set.classes)
    if config.best_metric == "top5" and classes <= 5:
        yield f"best_metric: top5 of {classes} classes is always 100 %. Choose top1 or loss."


def _of_classes(config: ClsConfig, data: Images) -> Iterator[str]:
    if len(data.set.classes) < 2 and not (config.data.mixup or config.data.cutmix):
        yield (
            f"{data.set.name} has one class, {', '.join(data.set.classes)}: top-1 would be 100 %, "
            "whatever is learnt. Give two or more."
        )


def _of_mixing(config: ClsConfig, data: Images, split: Split) -> Iterator[str]:
    keys = [f"data.{key}" for key in ("mixup", "cutmix") if getattr(config.data, key)]
    if not keys:
        return
    if len(data.set.classes) < 2:
        yield (
            f"{' and '.join(keys)} mix the labels of several classes; {data.set.name} has one: "
            f"{', '.join(data.set.classes)}. Leave them out."
        )
    if split.micro < 2:
        yield (
            f"{' and '.join(keys)} mix the images of a pass, and a pass is of one image: raise "
            "max_batch_per_gpu or batch_size."
        )
