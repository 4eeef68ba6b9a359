"""Everything before the first step: images, network, optimizer, processes, checkpoint."""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.classify import network, problems
from rfbench.classify.images import Images
from rfbench.classify.mix import mix
from rfbench.classify.run import Run, restore
from rfbench.data import workers
from rfbench.data.order import steps_per_epoch
from rfbench.runs import checkpoint, loop, records, surroundings
from rfbench.runs.state import Start
from rfbench.schemas.cls import ClsConfig, paper_lr
from rfbench.training import device, ema, optimizer, pruning, state
from rfbench.training.split import split

logger = logging.getLogger(__name__)


def setup(config: ClsConfig, start: Start) -> Run:
    """A run ready for its next step: the first, or the one after the checkpoint of `start`."""
    group, content = start.group, start.content
    device.set_up_device(config, group)
    logger.info(described_lr(config))
    data = group.alike(lambda: Images(config, group))
    logger.info(data.described())
    shares = group.alike(lambda: split(config.batch_size, group.world, config.max_batch_per_gpu))
    if content is None:  # a run that has begun, of an older version perhaps, may go on
        group.alike(lambda: problems.refuse(config, data, shares))
    # that of validation would be noticed after the first epoch
    group.alike(lambda: workers.check_room(data.memory(shares)))
    backbone = group.alike(lambda: network.build(config, len(data.set.classes)))
    names = data.set.classes
    if content is not None:
        data.follow(group.alike(lambda: state.same_data(start, data)))
    elif config.init.weights:
        load = group.in_turn if config.init.weights == network.PRETRAINED else group.alike
        data.follow(load(lambda: network.load_start(backbone, config, names)))
        network.warn_of_no_variant(config)
    else:
        network.refuse_ema_of_nothing(config)
    per_epoch = group.alike(lambda: steps_per_epoch(len(data.set.train), config.batch_size))
    steps = per_epoch * config.schedule.epochs
    group.alike(lambda: pruning.check(backbone.module, config.prune, steps, config.model))
    surroundings.warn(start.folder, group, state.need(config, backbone, data, shares))
    model = device.to_device(backbone.module, config, group.device)
    run = Run(
        config=config,
        start=start,
        data=data,
        backbone=backbone,
        split=shares,
        optimizer=optimizer.optimizer(model, config.optim),
        per_epoch=per_epoch,
        wrapped=model,
        mix=mix(config, len(data.set.classes)),
        parent=records.parent(config.init.weights),
    )
    size = data.train_size
    run.wrapped = device.wrap(run, lambda net: blank_loss(run, net), f"{size} px images")
    # from here on every process draws its own random numbers, as for dropout
    torch.manual_seed(1_000_003 * config.seed + group.rank)
    ema.start(run)
    pruning.start(run)
    if content is not None:
        with checkpoint.restoring(start.folder):
            restore(run, content)
    loop.begin(run, steps, backbone.variant)
    return run


def described_lr(config: ClsConfig) -> str:
    """'learning rate 0.0125 for batches of 32 images (sgd): the paper's 1.6 for 4,096 ...'."""
    peak, optim = config.optim.peak, config.optim.name
    rule = optim == "sgd" and peak == paper_lr(config.batch_size)
    why = ": the paper's 1.6 for 4,096, in proportion" if rule else ""
    return f"learning rate {peak:g} for batches of {config.batch_size} images ({optim}){why}"


def blank_loss(run: Run, model: nn.Module) -> Tensor:
    """The loss of a few blank images."""
    config, size = run.config, run.data.train_size
    # torch.compile compiles for the number of images that it sees
    many = run.split.micro if config.compile else min(2, run.split.micro)
    images = torch.zeros(many, size, size, 3, device=run.group.device).permute(0, 3, 1, 2)
    if not config.channels_last:
        images = images.contiguous()
    scores = network.scores_of(model, config)(images)
    return F.cross_entropy(scores.float(), zeros(scores))


def zeros(scores: Tensor) -> Tensor:
    """Label 0 for each of (N, C) scores."""
    return torch.zeros(len(scores), dtype=torch.long, device=scores.device)
