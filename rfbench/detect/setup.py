"""Everything before the first update: data sets, detector, optimizer, processes, checkpoint."""

import contextlib
import inspect
import logging
import os
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.engine.defaults import create_ddp_model
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm
from torch import nn

from rfbench.detect import config as configs
from rfbench.detect import run as runs
from rfbench.detect import sets, weights
from rfbench.errors import RfbenchError, UsageError
from rfbench.runs import checkpoint, loop, records
from rfbench.runs.processes import Processes
from rfbench.runs.state import Start
from rfbench.schemas.det import DetConfig


def setup(config: DetConfig, start: Start) -> runs.Run:
    """A run ready for its next update: the first, or that after the checkpoint of `start`."""
    group, content, folder = start.group, start.content, start.folder
    if config.threads:
        torch.set_num_threads(config.threads)
    # what is wrong with the configuration is told before the data are looked over
    device = group.device.type
    group.alike(lambda: configs.resolve(config, 1, folder, device, group.world))
    found = sets.prepare(config.data, group)
    classes = len(found["train"].categories)
    cfg = group.alike(lambda: configs.resolve(config, classes, folder, device, group.world))
    group.alike(lambda: sets.check_masks(cfg, found))
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    model = group.alike(lambda: detector(cfg))
    if content is not None:
        source = str(folder / checkpoint.LAST)
        group.alike(lambda: runs.load_detector(model, config, content, source))
    elif config.weights:
        source, name = config.weights, cfg.MODEL.RFBENCH.NAME
        group.alike(lambda: weights.load(model, source, name, cfg.MODEL.RFBENCH.VARIANT))
    run = runs.Run(config=config, start=start, cfg=cfg, sets=found, model=model)
    run.parent = records.parent(config.weights)
    run.trainer = group.alike(lambda: trainer(run))
    run.scheduler = group.alike(lambda: scheduler(cfg, run.trainer.optimizer))
    if content is not None:
        runs.restore(run, content)
    # every process its own, and another after a resumption: or augmentations would repeat
    seed_all(1_000_003 * config.seed + 7919 * run.step + group.rank)
    loop.begin(run, cfg.SOLVER.MAX_ITER, cfg.MODEL.RFBENCH.VARIANT)
    return run


def seed_all(seed: int) -> None:
    """Seed all that augmentations and the sampling of boxes draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@configs.telling("build this detector")
def detector(cfg: CfgNode) -> nn.Module:
    """Detectron2's model at random weights from the seed."""
    torch.manual_seed(cfg.SEED)
    return build_model(cfg)


@configs.telling("set up the learning rate")
def scheduler(cfg: CfgNode, update: torch.optim.Optimizer) -> Any:
    """Detectron2's, of the rate over the iterations."""
    return build_lr_scheduler(cfg, update)


@configs.telling("set up the optimizer")
def optimizer(cfg: CfgNode, name: str, model: nn.Module) -> torch.optim.Optimizer:
    """Detectron2's SGD, or AdamW with its groups of parameters, rate, decay and clipping."""
    if name == "sgd":
        return build_optimizer(cfg, model)
    solver = cfg.SOLVER
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    kind = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
    return kind(groups, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)


def trainer(run: runs.Run) -> Any:
    """Detectron2's trainer of one update, in the run's precision."""
    cfg, precision = run.cfg, run.config.precision
    if precision == "bf16" and "precision" not in inspect.signature(AMPTrainer).parameters:
        raise UsageError("precision: this Detectron2 knows fp16 only; bf16 needs a newer one.")
    update = optimizer(cfg, run.config.optimizer, run.model)
    devices = {} if run.group.device.type == "cuda" else {"device_ids": None}
    # a level of the FPN that no head reads has parameters without a gradient
    heads = cfg.MODEL.RETINANET if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else cfg.MODEL.RPN
    unread = run.model.backbone.output_shape().keys() - set(heads.IN_FEATURES)  # type: ignore
    model = create_ddp_model(
        run.model, broadcast_buffers=False, find_unused_parameters=bool(unread), **devices
    )
    if precision == "fp32":
        return SimpleTrainer(model, run.feed(), update)
    kind = {"precision": torch.bfloat16} if precision == "bf16" else {}
    return AMPTrainer(model, run.feed(), update, **kind)


@contextlib.contextmanager
def local_group(group: Processes) -> Iterator[None]:
    """Tell Detectron2 which processes share a machine, as its own launcher does.

    Its warnings (of categories' numbers, steps past the end) are not shown: they break the bar.
    """
    logging.getLogger("detectron2").setLevel(logging.ERROR)
    if group.world == 1:
        yield
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", group.world))
    if group.world % here:
        raise RfbenchError(f"{group.world} processes do not make up machines of {here} each.")
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(here)
    else:  # 0.6
        for first in range(0, group.world, here):
            ranks = torch.distributed.new_group(list(range(first, first + here)))
            if first <= group.rank < first + here:
                comm._LOCAL_PROCESS_GROUP = ranks
    try:
        yield
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        comm._get_global_gloo_group.cache_clear()
