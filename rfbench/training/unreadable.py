"""--check-images: every image is read before training, not when its turn comes."""

import logging
import random
from collections.abc import Callable
from typing import Any

from torch import Tensor

from rfbench.data.loader import Loader
from rfbench.data.order import evaluation_tasks
from rfbench.errors import RfbenchError, printable
from rfbench.runs import processes
from rfbench.runs.processes import Processes
from rfbench.runs.progress import bar
from rfbench.training.images import Reader

logger = logging.getLogger(__name__)

BATCH = 64


class Corner:
    """A transform that keeps one pixel: only reading matters."""

    size = 1

    def __call__(self, image: Tensor, rng: random.Random) -> Tensor:
        """(H, W, C) uint8 to (1, 1, C)."""
        return image[:1, :1]


def check(config: Any, opened: Callable[[Any, Processes, bool], Reader], eval_only: bool) -> None:
    """Read all images of both splits, and name those that cannot be read.

    config: of a training. opened: its `Images`. eval_only: the validation images alone. With
    several processes the first reads. Raises RfbenchError if more than `data.max_bad_share` of
    either split cannot be read.
    """
    with processes.started(config.device) as group:
        data = group.alike(lambda: opened(config, group, eval_only))
        group.by_first(lambda: _check(data, config.data.max_bad_share))


def _check(data: Reader, allowed: float) -> None:
    problems = []
    for part, split in (("training", data.set.train), ("validation", data.set.val)):
        if not len(split):
            continue
        loader = Loader(
            split,
            Corner(),
            train=False,
            workers=data.workers,
            max_bad_share=1,
            channels=data.channels,
        )
        tasks = evaluation_tasks(len(split), BATCH)
        progress = bar(len(tasks), 0, f"checking the {part} images", True)
        try:
            for _ in loader.batches(tasks):
                progress.update()
        finally:
            progress.close()
            loader.close()
        lines = [printable(f"{path}: {reason}") for path, reason in sorted(loader.bad.items())]
        found = f"{len(lines)} of {len(split)} {part} images cannot be read"
        logger.info("\n".join([found, *lines]), extra={"lines": True})
        if len(lines) > allowed * len(split):
            problems.append(found)
    if problems:
        raise RfbenchError(
            f"{'; '.join(problems)}, more than data.max_bad_share = {allowed:g} "
            "allows. Replace them, or raise it."
        )
