"""The learning rate as a pure function of the step, so that no state has to be saved."""

import math
from collections.abc import Callable

from rfbench.schemas.cls import ClsSchedule

# torch's OneCycleLR: starts at peak / 25, ends at 1 / 10,000 of that
START, END = 25.0, 1e4
POWER = 0.9  # of poly: Chen et al. 2018, section 4.1


def steps(t: int, per_epoch: int, lr: float, schedule: ClsSchedule) -> float:
    """Linear from 0 over the warm-up, then `lr`, multiplied by gamma at every milestone.

    The paper, Classification: lr t / (5 n) in the first five epochs, drops at epochs 30, 60, 80.
    """
    warmup = schedule.warmup_epochs * per_epoch
    if t < warmup:
        return lr * t / warmup
    # a power of gamma, not a product: 1.6, 0.16, 0.016 without accumulated rounding
    drops = sum(t >= milestone * per_epoch for milestone in schedule.milestones)
    return lr * schedule.gamma**drops


def one_cycle(t: int, per_epoch: int, lr: float, schedule: ClsSchedule) -> float:
    """Half a cosine up to `lr`, half a cosine down (Smith and Topin 2018), as torch's OneCycleLR.

    Its momentum cycle is left out.
    """
    last = schedule.epochs * per_epoch - 1
    peak = schedule.rise * (last + 1) - 1
    start, end = lr / START, lr / START / END
    if t < peak:
        return _cosine(start, lr, t / peak)
    return _cosine(lr, end, (t - peak) / (last - peak)) if last > peak else end


def poly(t: int, per_epoch: int, lr: float, schedule: ClsSchedule) -> float:
    """Linear from 0 over the warm-up, then lr (1 - share of the other steps)^0.9 (DeepLab)."""
    warmup = schedule.warmup_epochs * per_epoch
    if t < warmup:
        return lr * t / warmup
    return lr * (1 - (t - warmup) / max(1, schedule.epochs * per_epoch - warmup)) ** POWER


def cosine(t: int, per_epoch: int, lr: float, schedule: ClsSchedule) -> float:
    """Linear from 0 over the warm-up, then half a cosine from `lr` to 0 at the end.

    Loshchilov and Hutter 2017, without restarts; as torch's CosineAnnealingLR, but at every step.
    """
    warmup, end = schedule.warmup_epochs * per_epoch, schedule.epochs * per_epoch
    if t < warmup:
        return lr * t / warmup
    return _cosine(lr, 0.0, (t - warmup) / (end - warmup))


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


# A new schedule is one entry here and one word in ClsSchedule.name.
SCHEDULES: dict[str, Callable[[int, int, float, ClsSchedule], float]] = {
    "steps": steps,
    "one_cycle": one_cycle,
    "poly": poly,
    "cosine": cosine,
}


def lr_at(t: int, per_epoch: int, lr: float, schedule: ClsSchedule) -> float:
    """The learning rate of step `t`, counted from 0.

    per_epoch: steps per epoch. lr: the peak learning rate.
    """
    return SCHEDULES[schedule.name](t, per_epoch, lr, schedule)
