"""Exponential moving average of the weights and buffers, by timm's ModelEmaV3.

The decay is a function of the step, so that a resumed run goes on with the same:
min(decay, 1 - (1 + n)^(-2/3)) after n + 1 steps; the first copies the network.
"""

import torch
from timm.utils import ModelEmaV3
from torch import nn

from rfbench.training.state import Epochs


def start(run: Epochs) -> None:
    """Begin the average at the network's own values, if the configuration asks for one."""
    if run.config.optim.ema is not None:
        run.ema = ModelEmaV3(run.network, run.config.optim.ema, use_warmup=True)


def update(run: Epochs) -> None:
    """Take in the weights after step `run.step`, counted from 0."""
    if run.ema is not None:
        with torch.no_grad():
            run.ema.update(run.network, step=run.step + 1)


def averaged(run: Epochs) -> nn.Module | None:
    """The network with averaged weights; None: the configuration asks for none."""
    return None if run.ema is None else run.ema.module
