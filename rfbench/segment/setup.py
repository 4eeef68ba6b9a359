"""Everything before the first step: images, network, optimizer, processes, checkpoint."""

import logging

import torch
from torch import Tensor, nn

from rfbench.data import workers
from rfbench.data.order import steps_per_epoch
from rfbench.models import classifier_weights
from rfbench.runs import checkpoint, loop, records, surroundings
from rfbench.runs.state import Start
from rfbench.schemas.seg import SegConfig
from rfbench.segment import losses, network, tries
from rfbench.segment.images import Images
from rfbench.segment.run import Run, restore
from rfbench.training import device, ema, optimizer, pruning, state
from rfbench.training.split import split

logger = logging.getLogger(__name__)


def setup(config: SegConfig, start: Start) -> Run:
    """A run ready for its next step: the first, or the one after the checkpoint of `start`."""
    group, content = start.group, start.content
    device.set_up_device(config, group)
    data = group.alike(lambda: Images(config, group))
    logger.info(data.described())
    names = data.set.classes
    shares = group.alike(lambda: split(config.batch_size, group.world, config.max_batch_per_gpu))
    # that of validation would be noticed after the first epoch
    group.alike(lambda: workers.check_room(data.memory(shares)))
    backbone = group.alike(lambda: network.build(config, len(names)))
    if content is not None:
        data.follow(group.alike(lambda: state.same_data(start, data)))
    else:
        # what is downloaded, once a machine
        load = group.in_turn if config.weights == classifier_weights.PRETRAINED else group.alike
        load(lambda: network.load_start(backbone, config))
        data.check_masks()
        group.alike(lambda: tries.whole(backbone.module, config, data))
    names = data.set.classes
    class_weights = group.alike(lambda: network.weights_of_classes(config, names))
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
        class_weights=None if class_weights is None else class_weights.to(group.device),
        weights_on_host=class_weights,
        parent=records.parent(config.weights),
    )
    size = "{}x{} px images".format(*data.crop)
    run.wrapped = device.wrap(run, lambda net: blank_loss(run, net), size)
    # from here on every process draws its own random numbers, as for dropout
    torch.manual_seed(1_000_003 * config.seed + group.rank)
    ema.start(run)
    pruning.start(run)
    if content is not None:
        with checkpoint.restoring(start.folder):
            restore(run, content)
    loop.begin(run, steps, backbone.variant)
    return run


def blank_loss(run: Run, model: nn.Module) -> Tensor:
    """The loss of a few blank images, all of class 0."""
    config, (height, width) = run.config, run.data.crop
    # torch.compile compiles for the number of images that it sees
    many = run.split.micro if config.compile else min(2, run.split.micro)
    pixels = torch.zeros(many, height, width, 4, dtype=torch.uint8, device=run.group.device)
    images, truth = run.data.split(pixels)
    scores = network.scores_of(model, config, len(run.data.set.classes))(images)
    return losses.total(scores, truth, config, run.class_weights)
