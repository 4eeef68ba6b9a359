"""What cannot work in a configuration, seen with its data before the first step, all at once.

Not in the schema: records and checkpoints of older versions are read with that.
"""

from collections.abc import Iterator

from rfbench.classify.images import Images
from rfbench.data import moved
from rfbench.errors import UsageError
from rfbench.schemas.cls import ClsConfig


def refuse(config: ClsConfig, data: Images, evaluation: bool = False) -> None:
    """Raise UsageError with every problem. evaluation: of a checkpoint, without training."""
    problems = [*_of_evaluation(config, data)]
    if not evaluation:
        problems += _of_training(config)
    if problems:
        raise UsageError(*problems)


def _of_evaluation(config: ClsConfig, data: Images) -> Iterator[str]:
    size = data.image_size
    if config.consistency_images and not moved.reach(size):
        yield (
            f"consistency is measured with images moved by up to 1/{moved.PART} of their size, "
            f"which is less than a pixel of {size} px. Set a larger data.image_size, or "
            "consistency_images=0."
        )


def _of_training(config: ClsConfig) -> Iterator[str]:
    schedule = config.schedule
    if schedule.name == "steps" and schedule.warmup_epochs > schedule.epochs:
        yield (
            f"the schedule ends before its warm-up: schedule.epochs is {schedule.epochs}, "
            f"schedule.warmup_epochs {schedule.warmup_epochs}. Train longer, or set "
            "schedule.warmup_epochs=0."
        )
