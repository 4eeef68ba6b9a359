"""Consistency (Zhang, 2019): how often two moved windows of an image get the same top-1."""

from collections.abc import Callable

from torch import nn

from rfbench.classify.evaluate import evaluating
from rfbench.classify.images import Images
from rfbench.classify.network import scores_of
from rfbench.runs.processes import Processes
from rfbench.schemas.cls import ClsConfig


def consistency(
    model: nn.Module,
    data: Images,
    config: ClsConfig,
    batch: int,
    group: Processes,
    agree: Callable[[], object] = lambda: None,
) -> dict[str, float | None]:
    """{"consistency"} in percent of "consistency_images" images; {} if none are configured.

    The windows are those of `rfbench.data.moved`. An image counts once, whatever the number of
    processes; one that cannot be read does not. batch: windows in one pass. agree: called by all
    processes, once a round. None: no image could be read.
    """
    if not config.consistency_images:
        return {}
    batches, rounds = data.moved(batch)
    forward, mine = scores_of(model, config), dict[int, int]()
    with evaluating(model, group):
        for _ in range(rounds):
            agree()
            if (windows := next(batches, None)) is not None and len(windows.labels):
                best = forward(data.on_device(windows)[0]).argmax(1)
                mine.update(zip(windows.indices.tolist(), best.tolist(), strict=True))
    # the two windows of an image may have been read by different processes
    found = {window: best for part in group.gather(mine) for window, best in part.items()}
    same = [found[i] == found[i + 1] for i in found if i % 2 == 0 and i + 1 in found]
    share = 100 * sum(same) / len(same) if same else None
    return {"consistency": share, "consistency_images": len(same)}
