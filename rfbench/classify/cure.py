"""Giving a trained network another variant: what the change costs, and what mends it.

Top-1 with the weights' own variant, after the change, after estimating BatchNorm's statistics
anew; fine-tuning then follows as any training.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.classify import network
from rfbench.classify.engine import agree
from rfbench.classify.evaluate import evaluate, share_buffers, shown
from rfbench.classify.run import Run, random_state, set_random_state
from rfbench.classify.start import place
from rfbench.runs.processes import Processes

# pictures that BatchNorm's statistics are estimated from
PICTURES = 20_000


def cure(run: Run, note: Callable[[str], object]) -> None:
    """Evaluate `run` before and after the change, and estimate its BatchNorms anew.

    What it finds goes to `run.cure` and metrics.jsonl. Random numbers are left as they were.
    """
    config, device = run.config, run.group.device
    state = random_state(device)
    held = network.held_variant(config)
    network.load_start(run.backbone, config)  # again: an earlier attempt may have been stopped
    own = config.model_copy(update={"variant": held})
    before = network.build(own, len(run.data.set.classes))
    before.module.load_state_dict(run.network.state_dict())
    stages: dict[str, Any] = {}
    _stage(run, place(before.module, own, device), f"as {held}", "before", stages, note)
    _stage(run, run.network, f"as {run.backbone.variant}", "changed", stages, note)
    estimate_norms(run)
    _stage(run, run.network, "with BatchNorm estimated anew", "norms", stages, note)
    run.cure = {"from": held, **stages}
    if run.log:
        for name, found in stages.items():
            run.log.write({"split": "cure", "stage": name, "step": 0, **found})
    set_random_state(state, device)


def _stage(
    run: Run,
    model: nn.Module,
    text: str,
    name: str,
    stages: dict[str, Any],
    note: Callable[[str], object],
) -> None:
    batches, rounds = run.data.val(run.split.micro)
    pictures = (run.data.on_device(batch) for batch in batches)
    forward = network.scores_of(model, run.config)
    with torch.inference_mode():
        found = evaluate(model, pictures, rounds, run.group, forward, lambda: agree(run))
    stages[name] = found
    note(f"{text}: {shown(found)}")


def estimate_norms(run: Run) -> None:
    """Set BatchNorm's running statistics to the mean over the first training batches."""
    norms = [m for m in run.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean instead of a decaying one
    run.network.train()
    updates = min(run.per_epoch, -(-PICTURES // run.split.batch))
    batches = run.data.train(0, updates, run.split)
    forward = network.scores_of(run.network, run.config)
    with torch.no_grad():
        for _ in range(updates):
            agree(run)
            for _ in range(run.split.accumulation):
                forward(run.data.on_device(next(batches))[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    average_buffers(run.network, run.group)


def average_buffers(model: nn.Module, group: Processes) -> None:
    """Every process has seen other pictures: take the mean of their statistics."""
    if group.world > 1:
        buffers: list[Tensor] = [b for b in model.buffers() if b.is_floating_point()]
        for buffer in buffers:
            torch.distributed.all_reduce(buffer)
            buffer /= group.world
    share_buffers(model, group)
