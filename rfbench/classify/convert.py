"""Giving a trained network another variant: what the change costs, and what repairs it.

Top-1 with the weights' own variant, after the change, after precise BN (BatchNorm's statistics are
estimated from the training images: Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021, section 3);
fine-tuning then follows as any training. In checkpoints, records and metrics.jsonl it is "cure".
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.classify import network
from rfbench.classify.evaluate import evaluate, share_buffers, shown
from rfbench.classify.run import Run
from rfbench.classify.setup import to_device
from rfbench.runs import loop
from rfbench.runs.checkpoint import random_state, set_random_state
from rfbench.runs.processes import Processes

logger = logging.getLogger(__name__)

# images that BatchNorm's statistics are estimated from
IMAGES = 20_000


def convert(run: Run) -> None:
    """Evaluate `run` before and after the change, and estimate its BatchNorms' statistics.

    The figures go to `run.conversion` and metrics.jsonl. Random numbers are left as they were.
    """
    config, device = run.config, run.group.device
    state = random_state(device)
    held = network.held_variant(config)
    network.load_start(run.backbone, config)  # again: an earlier attempt may have been stopped
    own = config.model_copy(update={"variant": held})
    before = network.build(own, len(run.data.set.classes))
    before.module.load_state_dict(run.network.state_dict())
    stages = {"before": _measure(run, to_device(before.module, own, device), f"as {held}")}
    stages["changed"] = _measure(run, run.network, f"as {run.backbone.variant}")
    precise_bn(run)
    stages["norms"] = _measure(run, run.network, "after precise BN")
    run.conversion = {"from": held, **stages}
    if run.log:
        for name, found in stages.items():
            run.log.write({"split": "cure", "stage": name, "step": 0, **found})
    set_random_state(state, device)


def _measure(run: Run, model: nn.Module, text: str) -> dict[str, Any]:
    batches, rounds = run.data.val(run.split.micro)
    images = (run.data.on_device(batch) for batch in batches)
    forward = network.scores_of(model, run.config)
    with torch.inference_mode():
        found = evaluate(model, images, rounds, run.group, forward, lambda: loop.agree(run))
    logger.info("%s: %s", text, shown(found))
    return found


def precise_bn(run: Run) -> None:
    """Set BatchNorm's running statistics to the mean over the first training batches."""
    norms = [m for m in run.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean instead of a decaying one
    run.network.train()
    updates = min(run.per_epoch, -(-IMAGES // run.split.batch))
    batches = run.data.train(0, updates, run.split)
    forward = network.scores_of(run.network, run.config)
    with torch.no_grad():
        for _ in range(updates):
            loop.agree(run)
            for _ in range(run.split.accumulation):
                forward(run.data.on_device(next(batches))[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    average_buffers(run.network, run.group)


def average_buffers(model: nn.Module, group: Processes) -> None:
    """Every process has seen other images: take the mean of their statistics."""
    if group.world > 1:
        buffers: list[Tensor] = [b for b in model.buffers() if b.is_floating_point()]
        for buffer in buffers:
            torch.distributed.all_reduce(buffer)
            buffer /= group.world
    share_buffers(model, group)
