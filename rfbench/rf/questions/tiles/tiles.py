"""Tiled inference that equals the whole image: halo, alignment, smallest crop, shown by running.

A network without padding, or with crops that have their margin, gives the same output in tiles as
in whole: where its steps are windows whose strides divide the places of the crops. Whatever looks
at the whole image (global contexts, attention, GroupNorm, InstanceNorm, align_corners) has none.
"""

from math import prod
from typing import Any

import numpy as np
from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core import doubles, randomness
from rfbench.rf.core.metric import unit_of
from rfbench.rf.core.network import Network
from rfbench.rf.core.progress import progress
from rfbench.rf.core.subjects import Subject
from rfbench.rf.core.target import Target
from rfbench.rf.questions.tiles import plan, run
from rfbench.rf.questions.tiles.exact import NoTiles, check_values
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.graph import ALL_INPUTS

Record = dict[str, Any]
OFTEN = 3e6  # px in all the crops of all kinds; beyond it only those along the diagonal are run


def tiles(
    config: RfConfig, subject: Subject, module: nn.Module, tile: Any = None
) -> tuple[Record, np.ndarray | None]:
    """What tiles of a layer need, ready for JSON; px, along each axis.

    With it comes what crops without a halo differ by, unit by unit, as a share of the largest
    value; None where they do not fit side by side.

    module: the network itself; a copy of it is run, with random weights. tile: the size of a crop,
    N or one number an axis; None: the smallest. Raises
    NoTiles where tiles cannot equal the whole image, UsageError for a crop that will not do.
    """
    own = subject.target(config.to, None)
    if own.graph.inputs:  # all are cut alike, smaller ones in proportion
        own = subject.target(config.to, ALL_INPUTS)
    if said := randomness.sources(randomness.drawn(own.graph, own.value)):
        raise NoTiles(f"it draws at random while it runs, by {said}, and each tile another time")
    check_values(_trace(subject.network, own), own.name)
    try:
        found, crop, whole = _plan(subject.network, own, tile)
    except NoTiles as error:
        _propose(subject.network, own, error)
        raise
    shown, without = _shown(subject, module, found, whole, crop)
    record = {
        "model": subject.backbone.name,
        "variant": subject.backbone.variant,
        "to": own.name or "output",
        "input_size": own.source_size,
        "halo": [(m.before, m.after) for m in found],
        "align": [m.align for m in found],
        "stride": [float(m.stride) for m in found],
        "smallest": [m.smallest for m in found],
        "crop": crop,
        "crops": [
            _choice(c, used)
            for c in _sizes(found, crop)
            if (used := plan.used(subject.network, own, found, c)) is not None
        ],
        "lost": [m.lost for m in found],
        "shown": shown,
    }
    return record, without


def _plan(
    network: Network, own: Target, tile: Any
) -> tuple[tuple[plan.Margins, ...], tuple[int, ...], Target]:
    """Margins, a size of crops, and an image on which crops of it are what the steps say."""
    errors: list[RfbenchError] = []
    for factor in plan.FACTORS:
        try:
            found = plan.margins(network, own, factor)
            crop = _crop(found, tile)
            whole = _whole(network, own, found, crop)
            plan.check(network, whole, plan.kinds(found, whole, crop))
            return found, crop, whole
        except (NoTiles, plan.DoesNotRun) as error:
            errors.append(error)
            if isinstance(error, NoTiles) and not own.graph.is_rigid(own.value):
                break
    raise errors[0]


def _propose(network: Network, own: Target, error: NoTiles) -> None:
    """Raise UsageError if tiles would do at sizes that the strides divide: those are padded alike.

    What is done to a size that they do not divide is done to no crop.
    """
    for factor in plan.FACTORS if own.graph.is_rigid(own.value) else (1,):
        steps = [step * factor for step in own.geometry.step]
        if max(steps) > plan.LARGEST:
            break
        size: Any = tuple(-(-n // s) * s for n, s in zip(own.source_size, steps, strict=True))
        if size == own.source_size:
            continue
        try:
            _plan(network, plan.at(network, own, size), None)
        except RfbenchError:
            continue
        unit = unit_of(len(size))
        at, there = ("x".join(map(str, s)) + f" {unit}" for s in (own.source_size, size))
        raise UsageError(
            f"at {at} no crop is treated as the whole image is ({error.reason}); they are at "
            f"{there}: choose another --size"
        ) from error


def _trace(network: Network, own: Target) -> Any:
    """The trace that a target was read from."""
    size = own.graph.size
    if size not in network.traces:
        network.whole(size)
    return network.traces[size]


def _crop(found: tuple[plan.Margins, ...], tile: Any) -> tuple[int, ...]:
    if tile is None:
        return tuple(m.smallest for m in found)
    crop = (tile,) * len(found) if isinstance(tile, int) else tuple(tile)
    if len(crop) != len(found):
        raise UsageError(f"--tile: one number, or {len(found)}; these are {len(crop)}")
    plan.check_crop(found, crop)
    return crop


def _sizes(found: tuple[plan.Margins, ...], crop: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The smallest crop, and larger ones; the one that is asked for."""
    more = [
        tuple(m.smallest + -(-m.smallest * k // 2 // m.align) * m.align for m in found)
        for k in (0, 1, 2, 4)
    ]
    return sorted({*more, crop})


def _choice(crop: tuple[int, ...], used: tuple[int, ...]) -> Record:
    """A size of crops: how much of each is used, and how many px are computed for one."""
    return {"crop": crop, "used": used, "pixels": prod(crop) / prod(used)}


def _whole(
    network: Network, own: Target, found: tuple[plan.Margins, ...], crop: tuple[int, ...]
) -> Target:
    """The target on an image with a crop in its middle: the user's own, or the next larger."""
    least = [c + 2 * m.used(c) for m, c in zip(found, crop, strict=True)]
    size: Any = tuple(
        side + max(0, -(-(n - side) // m.align)) * m.align
        for side, n, m in zip(own.source_size, least, found, strict=True)
    )
    return plan.at(network, own, size)


def _shown(
    subject: Subject,
    module: nn.Module,
    found: tuple[plan.Margins, ...],
    whole: Target,
    crop: tuple[int, ...],
) -> tuple[Record, np.ndarray | None]:
    """Whole and tiles, both run, and tiles without a halo. Raises NoTiles where they differ."""
    every = plan.kinds(found, whole, crop)
    far = len(every) * prod(crop) > OFTEN
    chosen = plan.kinds(found, whole, crop, diagonal=True) if far else every
    made = doubles.randomised(module)
    x = doubles.images(whole.graph)
    out = doubles.output(made, whole, x)
    if tuple(out.shape[2:]) != whole.units:
        name = whole.name or "the network"
        raise NoTiles(f"the output of {name} is no N x C map of {whole.units} units")
    apart = {tile: run.difference(made, whole, x, out, tile) for tile in progress(chosen, "crop")}
    worst = max(apart, key=lambda tile: apart[tile])
    if not apart[worst] < run.LIMIT:
        name = run.first_difference(made, subject.network, whole, x, worst)
        raise NoTiles(
            f"run in tiles, its output differs by {apart[worst]:.1e} of the largest value, first "
            f"in layer {name or 'the network'}: something there depends on the place in the image "
            "or on its size (position embeddings, coordinates)"
        )
    without = run.without_halo(made, whole, x, out, crop)
    shown = {
        "size": whole.source_size,
        "tiles": plan.count(found, whole, crop),
        "run": len(chosen),
        "difference": apart[worst],
        "difference_without_halo": None if without is None else float(without[0].max()),
        "size_without_halo": None if without is None else without[1],
    }
    return shown, None if without is None else without[0]
