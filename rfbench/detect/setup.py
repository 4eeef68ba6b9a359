"""Everything before the first step: data sets, detector, optimizer, processes, checkpoint."""

import contextlib
import inspect
import logging
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

from rfbench import machine
from rfbench.data import workers
from rfbench.detect import config as configs
from rfbench.detect import loaders, sets, weights
from rfbench.detect import run as runs
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import classifier_weights
from rfbench.runs import checkpoint, loop, records
from rfbench.runs.processes import Processes
from rfbench.runs.state import Start
from rfbench.schemas.det import DetConfig
from rfbench.training.device import set_tf32

SMALLER = "opts.DATALOADER.NUM_WORKERS or opts.SOLVER.IMS_PER_BATCH"


def setup(config: DetConfig, start: Start) -> runs.Run:
    """A run ready for its next step: the first, or the one after the checkpoint of `start`."""
    group, content, folder = start.group, start.content, start.folder
    if config.threads:
        torch.set_num_threads(config.threads)
    # errors in the configuration come before the check of the data
    device = group.device.type
    group.alike(lambda: configs.resolve(config, 1, folder, device, group.world))
    parts, source = sets.prepare(config.data, group), str(folder / checkpoint.LAST)
    if content is not None:
        found = parts
        parts = group.alike(lambda: sets.follow(config.data, found, content, source))
    classes = len(parts["train"].categories)
    cfg = group.alike(lambda: configs.resolve(config, classes, folder, device, group.world))
    group.alike(lambda: sets.check_masks(cfg, parts))
    # Detectron2's loaders would wait for ever, or end at the first evaluation
    group.alike(lambda: workers.check_room(loaders.memory(cfg, parts, group.world), SMALLER))
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    set_tf32(config.precision != "fp32")
    model = group.alike(lambda: detector(cfg))
    if content is not None:
        group.alike(lambda: runs.load_detector(model, config, content, source))
    elif config.weights:
        given, own = config.weights, cfg.MODEL.RFBENCH
        load = group.in_turn if given == classifier_weights.PRETRAINED else group.alike
        load(lambda: weights.load(model, given, own.NAME, own.VARIANT, config.ema))
    run = runs.Run(config=config, start=start, cfg=cfg, sets=parts, model=model)
    run.parent = records.parent(config.weights)
    run.trainer = group.alike(lambda: trainer(run))
    run.scheduler = group.alike(lambda: scheduler(cfg, run.trainer.optimizer))
    if content is not None:
        with checkpoint.restoring(folder):
            runs.restore(run, content)
    # differs by process and after a resumption, or augmentations would repeat
    seed_all(1_000_003 * config.seed + 7919 * run.step + group.rank)
    loop.begin(run, cfg.SOLVER.MAX_ITER, cfg.MODEL.RFBENCH.VARIANT)
    return run


def seed_all(seed: int) -> None:
    """Seed the generators used by augmentations and by the sampling of boxes."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@configs.as_usage_error("build this detector")
def detector(cfg: CfgNode) -> nn.Module:
    """Detectron2's model with random weights from the seed."""
    torch.manual_seed(cfg.SEED)
    return build_model(cfg)


@configs.as_usage_error("set up the learning rate")
def scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
    """Detectron2's learning-rate schedule."""
    return build_lr_scheduler(cfg, optimizer)


@configs.as_usage_error("set up the optimizer")
def optimizer(cfg: CfgNode, name: str, model: nn.Module) -> torch.optim.Optimizer:
    """Detectron2's SGD, or AdamW with its parameter groups, learning rate, decay and clipping."""
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
    """Detectron2's trainer, which makes one step at a time, in the run's precision."""
    cfg, precision = run.cfg, run.config.precision
    if precision == "bf16" and "precision" not in inspect.signature(AMPTrainer).parameters:
        raise UsageError("precision: this Detectron2 supports fp16 only; bf16 needs a newer one.")
    algorithm = optimizer(cfg, run.config.optimizer, run.model)
    device = run.group.device  # not by Detectron2's local rank, which srun does not tell it
    devices = [device.index] if device.type == "cuda" else None
    # parameters of an FPN level that no head reads get no gradient
    heads = cfg.MODEL.RETINANET if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else cfg.MODEL.RPN
    unread = run.model.backbone.output_shape().keys() - set(heads.IN_FEATURES)  # type: ignore
    model = create_ddp_model(
        run.model, broadcast_buffers=False, find_unused_parameters=bool(unread), device_ids=devices
    )
    if precision in ("fp32", "tf32"):
        return SimpleTrainer(model, run.feed(), algorithm)
    kind = {"precision": torch.bfloat16} if precision == "bf16" else {}
    return AMPTrainer(model, run.feed(), algorithm, **kind)


@contextlib.contextmanager
def local_group(group: Processes) -> Iterator[None]:
    """Tell Detectron2 which processes share a machine, as its own launcher does.

    Its warnings (of category numbers, steps past the end) are hidden: they would break the bar.
    """
    logging.getLogger("detectron2").setLevel(logging.ERROR)
    if group.world == 1:
        yield
        return
    here = machine.processes(group.world)
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
