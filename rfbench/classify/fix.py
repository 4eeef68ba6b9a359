"""Changing the variant of a trained network: what it costs, and how much precise BN recovers.

Top-1 is measured with the original variant, after the change and after precise BN (BatchNorm
statistics re-estimated from training images: Wu & Johnson, Rethinking "Batch" in BatchNorm, 2021,
section 3). Fine-tuning follows as an ordinary training. The key in checkpoints, records and
metrics.jsonl is "fix".
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.classify import network
from rfbench.classify.evaluate import evaluate, shown
from rfbench.classify.run import Run
from rfbench.runs import loop
from rfbench.runs.checkpoint import random_state, set_random_state
from rfbench.runs.processes import Processes
from rfbench.training.device import share_buffers, to_device

logger = logging.getLogger(__name__)

# images that BatchNorm's statistics are estimated from
IMAGES = 20_000


def fix(run: Run) -> None:
    """Evaluate `run` before and after the change, then apply precise BN and evaluate again.

    The metrics go to `run.fixed` and metrics.jsonl. Random states are restored.
    """
    config, device = run.config, run.group.device
    state = random_state(device)
    original = network.held_variant(config)
    # again: an earlier attempt may have been interrupted
    network.load_start(run.backbone, config, run.data.set.classes)
    own = config.model_copy(update={"variant": original})
    before = network.build(own, len(run.data.set.classes))
    before.module.load_state_dict(run.network.state_dict())
    stages = {"before": _measure(run, to_device(before.module, own, device), f"as {original}")}
    stages["changed"] = _measure(run, run.network, f"as {run.backbone.variant}")
    precise_bn(run)
    stages["norms"] = _measure(run, run.network, "after precise BN")
    run.fixed = {"from": original, **stages}
    if run.log:
        for name, metrics in stages.items():
            run.log.write({"split": "fix", "stage": name, "step": 0, **metrics})
    set_random_state(state, device)


def _measure(run: Run, model: nn.Module, text: str) -> dict[str, Any]:
    batches, rounds = run.data.val(run.split.micro)
    images = (run.data.on_device(batch) for batch in batches)
    forward = network.scores_of(model, run.config)
    with torch.inference_mode():
        metrics = evaluate(model, images, rounds, run.group, forward, lambda: loop.agree(run))
    logger.info("%s: %s", text, shown(metrics))
    return metrics


def precise_bn(run: Run) -> None:
    """Set BatchNorm's running statistics to the mean over the first training batches."""
    norms = [m for m in run.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean instead of a decaying one
    run.network.train()
    steps = min(run.per_epoch, -(-IMAGES // run.split.batch))
    batches = run.data.train(0, steps, run.split)
    forward = network.scores_of(run.network, run.config)
    with torch.no_grad():
        for _ in range(steps):
            loop.agree(run)
            for _ in range(run.split.accumulation):
                forward(run.data.on_device(next(batches))[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    average_buffers(run.network, run.group)


def average_buffers(model: nn.Module, group: Processes) -> None:
    """Average the statistics over the processes, each of which has seen different images."""
    if group.world > 1:
        buffers: list[Tensor] = [b for b in model.buffers() if b.is_floating_point()]
        for buffer in buffers:
            torch.distributed.all_reduce(buffer)
            buffer /= group.world
    share_buffers(model, group)
