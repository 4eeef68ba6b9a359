"""A lint for backbones: shift, gridding, holes, misaligned branches, coverage; causes and fixes.

Figures are of the central unit on an input that cuts nothing off and leaves the same remainders by
the strides as the size given: what stride-2 windows do to the centre depends on nothing else.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core import metrics, randomness
from rfbench.rf.core.geometry import uncut_size
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_map import DEFAULT
from rfbench.rf.core.position import Pair
from rfbench.rf.core.subjects import Subject, measured, models, sources, subjects
from rfbench.rf.core.target import Target
from rfbench.rf.questions.audit import fixes, remains
from rfbench.rf.questions.audit.by_size import by_size
from rfbench.rf.questions.audit.checkerboard import LEAST, even_steps, resizing_steps
from rfbench.rf.questions.audit.counterfactual import Step, fixed, steps, uneven_layers
from rfbench.rf.questions.audit.pruned import pruned_of
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.size import Size, by

Record = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """The network of a training: its model, variant and weights."""

    model: str
    variant: str
    state: Mapping[str, Tensor]


def audits(
    config: RfConfig,
    sizes: Iterable[int | Size] = (),
    trained: Trained | None = None,
) -> Iterator[tuple[str, Record | RfbenchError]]:
    """(model, record) of every network and variant; in place of a record the error that it raised.

    config: with explicit variants. trained: of the training whose network is the only one.
    """
    for model in models(config):
        for variant in config.variants or []:
            one = config.model_copy(
                update={"model": model, "model_args": {}, "variants": [variant]}
            )
            try:
                for subject in subjects(one):
                    if trained is not None:
                        subject.backbone.name = trained.model
                        subject.backbone.variant = trained.variant
                        subject = subject.with_weights(trained.state)
                    for record in _audited(one, subject, sizes):
                        yield model, record
            except RfbenchError as error:  # the other networks have findings of their own
                yield model, error


def _audited(config: RfConfig, subject: Subject, sizes: Iterable[int | Size]) -> Iterator[Record]:
    """The record; of several inputs, where none is named, one each."""

    def seen_from(_: str | None, source: str | None) -> Record:
        return audit(config.model_copy(update={"from_": source}), subject, sizes)

    return measured([(config.to, one) for one in sources(subject, config.from_)], seen_from)


def audit(config: RfConfig, subject: Subject, sizes: Iterable[int | Size] = ()) -> Record:
    """Everything about one network in one variant, ready for JSON; distances in source pixels.

    sizes: of inputs, for the shift against the size; N is the same along each axis. Raises
    RfbenchError for a network that is not local.
    """
    axes = len(subject.size)
    chosen = [(size,) * axes if isinstance(size, int) else size for size in sizes]
    if other := next((size for size in chosen if len(size) != axes), None):
        raise UsageError(f"sizes such as {by(other)} have {len(other)} axes, the input has {axes}")
    own = subject.target(config.to, config.from_)
    own.counts()  # refuses what is not local
    own.geometry.check_some()
    if subject.is_pruned:  # a kernel is many boxes of taps; none of them is a layer to be fixed
        target = clean = subject.network.uncut(own)
        causes: list[Step] = []
    else:
        target, causes, clean = _roomy(subject.network, own)
    now, causal = remains.figures(target), own.is_causal
    rows = remains.of_layers(target, own, causes, now)
    rows += remains.of_layers(target, own, resizing_steps(target), now)
    record: Record = {
        "model": subject.backbone.name,
        "variant": subject.backbone.variant,
        "input_size": subject.size,
        "input_channels": target.graph.channels,
        "from": target.source or "input",
        "to": target.name or "output",
        "status": _status(own),
        "shift_range": metrics.shift_range(target.counts(), target.geometry),
        "no_stride_along": _without_stride(target),
        "stretched_along": _stretched(target),
        "causal": causal,
        "measured_at": target.graph.size,
        "convention": asdict(DEFAULT),
        **now,
        "at_own_size": _at_own_size(own, now["shift"]),
        "coverage": _coverage(own),
        "misaligned_layers": list(dict.fromkeys(metrics.misaligned_layers(target.geometry))),
        "misaligned_meant": causal and target.ends_agree,
        "checkerboard_layers": uneven_layers(target) if now["checkerboard"] > LEAST else [],
        "hole_layers": [row["layer"] for row in rows if row["read"] > now["read"]],
        "steps": rows,
        "together": [] if causal else remains.of_levels(target, causes),
        "all": remains.figures(target if causal else clean),
        "cost": fixes.cost(subject.network, subject.size),
        **randomness.drawn(own.graph, own.value),
    }
    if subject.is_pruned:
        every = _like(subject.network, subject.backbone.module)
        whole = every.target(target.graph.size, own.layer, own.source)
        record["pruned"] = pruned_of(subject.backbone.module, subject.state, target, whole)
    if subject.backbone.variant == "baseline":
        record["fixes"] = fixes.fixes(subject, own, record["cost"])
        record["best"] = fixes.best(record)
    if chosen:
        record["sizes"] = by_size(subject.network, own, config.to, chosen)
    return record


def _roomy(network: Network, own: Target) -> tuple[Target, list[Step], Target]:
    """The target on an input so large that nothing is cut off, its steps to fix, and it fixed.

    Nor is anything cut off of the latter.
    """
    target = network.uncut(own)
    causes = _steps(target)
    clean = fixed(target, causes)
    if target.is_always_cut:
        raise RfbenchError(
            "fields behind adaptive pooling grow with the image, and the border cuts those of this "
            "map at every size. Choose an earlier layer with --to; --list-layers shows them."
        )
    for _ in range(4):
        if not clean.is_cut:
            break
        size = uncut_size(target.graph.size, clean.geometry, target.units)
        target = network.larger(target, size)
        causes = _steps(target)
        clean = fixed(target, causes)
    return target, causes, clean


def _status(own: Target) -> str:
    """How far the layer looks: 'local', 'local, global along x'."""
    mixed = own.graph.mixed_axes(own.value)
    return str(own.witness.reach) + (f", global along {mixed}" if mixed else "")


def _without_stride(target: Target) -> str:
    """The axes without a shift: 'x'; '' for none."""
    each = zip(target.graph.names, target.geometry.grid, strict=True)
    return "".join(name for name, stride in each if stride is None)


def _stretched(target: Target) -> str:
    """The axes along which units stand on a grid, but have no stride in common; '' for none."""
    each = zip(target.graph.names, target.geometry.stretched, strict=True)
    return "".join(name for name, stretched in each if stretched)


def _steps(target: Target) -> list[Step]:
    """All that has something to fix, in order."""
    return sorted([*steps(target), *even_steps(target)], key=lambda step: step.number)


def _at_own_size(own: Target, whole: Pair) -> Record:
    """The shift at the own size, and how much of it the border adds to that of a whole field."""
    shift = metrics.shift(own.counts(), own.geometry)
    border = [_difference(a, b) for a, b in zip(shift, whole, strict=True)] if own.is_cut else None
    return {"shift": shift, "cut": own.is_cut, "shift_by_border": border}


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _coverage(own: Target) -> Record:
    """Shares of the source's pixels at the own size.

    reached: those with a path to any unit. seen: those within the box of the central unit's.
    """
    area = math.prod(last - first + 1 for first, last in own.counts().bounds)
    return {"reached": float(own.reached.mean()), "seen": area / math.prod(own.source_size)}


def _like(network: Network, module: nn.Module) -> Network:
    """A module that takes what another network takes."""
    channels = None if network.inputs else network.channels
    return Network(module, network.native, channels, network.inputs)
