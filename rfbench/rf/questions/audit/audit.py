"""A lint for backbones: shift, gridding, holes, misaligned branches, coverage; causes and fixes.

Figures are of the central unit on an input that cuts nothing off and leaves the same remainders by
the strides as the size given: what stride-2 windows do to the centre depends on nothing else.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.copies import whole_copy
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import pruned, variants
from rfbench.rf.core import metrics, randomness
from rfbench.rf.core.geometry import uncut_size
from rfbench.rf.core.metric import Use
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_map import DEFAULT
from rfbench.rf.core.position import Pair
from rfbench.rf.core.progress import progress
from rfbench.rf.core.subjects import Subject, measured, models, short, sources, subjects
from rfbench.rf.core.target import Target
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
    figures, causal = _figures(target), own.is_causal
    rows = _causes(target, own, causes, figures)
    rows += _causes(target, own, resizing_steps(target), figures)
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
        **figures,
        "at_own_size": _at_own_size(own, figures["shift"]),
        "coverage": _coverage(own),
        "misaligned_layers": list(dict.fromkeys(metrics.misaligned_layers(target.geometry))),
        "misaligned_meant": causal and target.ends_agree,
        "checkerboard_layers": uneven_layers(target) if figures["checkerboard"] > LEAST else [],
        "hole_layers": [row["layer"] for row in rows if row["read"] > figures["read"]],
        "steps": rows,
        "together": [] if causal else _levels(target, causes),
        "all": _figures(target if causal else clean),
        "cost": _cost(subject.network, subject.size),
        **randomness.drawn(own.graph, own.value),
    }
    if subject.is_pruned:
        every = _like(subject.network, subject.backbone.module)
        whole = every.target(target.graph.size, own.layer, own.source)
        record["pruned"] = pruned_of(subject.backbone.module, subject.state, target, whole)
    if subject.backbone.variant == "baseline":
        record["fixes"] = _fixes(subject, own, record["cost"])
        record["best"] = _best(record)
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


def _figures(target: Target) -> Record:
    """What is judged of the central unit."""
    counts, geometry = target.counts(), target.geometry
    row = {m.name: m.of(counts, geometry) for m in metrics.used(Use.AUDIT)}
    row["shift"] = [s if s is None else round(s, 9) + 0.0 for s in row["shift"]]
    row["checkerboard"] = metrics.checkerboard(counts, geometry) or 0.0
    return {**row, "gridding_by_period": metrics.gridding_by_period(counts, geometry)}


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


def _causes(target: Target, own: Target, causes: list[Step], now: Record) -> list[Record]:
    """What remains after fixing only one layer, for those that make a difference.

    Not what would make a causal network read ahead.
    """
    reached = float(own.reached.mean())
    at_own = {s.number: s for s in steps(own)} if reached < 1 else {}
    rows = []
    for step in progress(causes, "layer"):
        alone = fixed(target, [step])
        if own.is_causal and not alone.is_causal:
            continue
        rest = _figures(alone)
        if same := at_own.get(step.number):
            rest["reached"] = float(fixed(own, [same]).reached.mean())
        if effect(rest, now) > 1e-6 or rest.get("reached", reached) != reached:
            rows.append({"layer": step.layer, "what": step.what, **rest})
    return rows


def faultless(record: Record) -> bool:
    """Whether the field is centred, even, without holes and of branches that agree."""
    meant = ["shift"] * record["causal"] + ["misaligned"] * record["misaligned_meant"]
    rest = [m for m in metrics.used(Use.AUDIT) if m.name not in meant]
    judged = any(m.is_fault(record[m.name]) for m in rest)
    return not judged and record["checkerboard"] <= LEAST


def effect(rest: Record, now: Record) -> float:
    """How much a fix changes, each figure by its own size."""
    pairs: list[tuple[float, float]] = []
    for m in metrics.used(Use.AUDIT):
        then, before = rest[m.name], now[m.name]
        pairs.append((m.badness(then), m.badness(before)))
        if isinstance(then, list):
            pairs += ((a, b) for a, b in zip(then, before, strict=True) if None not in (a, b))
    pairs.append((rest["checkerboard"], now["checkerboard"]))
    return max(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs)


def size_of(shift: Pair) -> float:
    """A shift as one number: the largest of all axes that have one, in px."""
    return max(abs(s) for s in shift if s is not None)


def _levels(target: Target, causes: list[Step]) -> list[Record]:
    """What remains after fixing all layers that reach one stride: branches belong together."""
    levels: dict[float, list[Step]] = {}
    for step in causes:
        fields = target.theory.fields[max(step.nodes)] or ()
        strides = [float(f.stride) for f in fields if f is not None and f.stride]
        if strides:
            levels.setdefault(max(strides), []).append(step)
    return [
        {"stride": stride, "layers": [s.layer for s in level]} | _figures(fixed(target, level))
        for stride, level in sorted(levels.items())
        if len(level) > 1
    ]


def _cost(network: Network, size: Size) -> Record | None:
    try:
        cost = network.cost(size)
    except RfbenchError:  # the head may insist on another size than the map
        return None
    return {"macs": cost.macs, "activations": cost.activations}


def _fixes(subject: Subject, own: Target, now: Record | None) -> list[Record]:
    """The paper's variants and that of all kernels: what each leaves and costs, or why not."""
    rows: list[Record] = []
    held = subject.backbone
    maps = [torch.empty((1, *shape), device="meta") for shape in subject.network.inputs or ()]
    names = dict.fromkeys([*variants.PAPER[1:], *_of_all_kernels(held.module)])
    for name in progress([*names], "variant"):
        try:
            module = whole_copy(held.module)
            label = short(held.name)
            replaced = variants.apply(module, name, label, held.input_size, maps or None)
        except RfbenchError as error:
            rows.append({"variant": name, "refused": str(error)})
            continue
        if any(row.get("layers") == replaced for row in rows):
            continue  # the same change by another name
        network = subject.network.with_layers(pruned.shown(module, subject.state), replaced)
        target = network.uncut(network.target(subject.size, own.layer, own.source))
        if own.is_causal and not target.is_causal:
            why = f"variant '{name}' would make this causal network read ahead"
            rows.append({"variant": name, "refused": why})
            continue
        row: Record = {"variant": name, "layers": replaced, **_figures(target)}
        then = _cost(network, subject.size)
        if now and then:
            row |= {key: then[key] for key in now}
            row |= {f"{key}_more": then[key] / now[key] - 1 for key in now if now[key]}
        rows.append(row)
    return rows


def _like(network: Network, module: nn.Module) -> Network:
    """A module that takes what another network takes."""
    channels = None if network.inputs else network.channels
    return Network(module, network.native, channels, network.inputs)


def _of_all_kernels(module: nn.Module) -> list[str]:
    """The variants of every kernel size that can change in a network, and with its max pools."""
    kernels = [getattr(part, "kernel_size", None) for part in module.modules()]
    fit = []
    for k in sorted({size[0] for size in kernels if isinstance(size, tuple)}):
        with contextlib.suppress(UsageError):  # no strided convolution, or one without padding
            variants.changeable(module, {"kernels": [k]})
            fit.append(k)
    pools = any(
        isinstance(m, variants.MAX_POOLS) and variants.is_uneven(m) for m in module.modules()
    )
    kinds = [False] * bool(fit) + [True] * pools
    return [variants.get({"kernels": fit, "maxpool": kind}).name for kind in kinds]


def _best(record: Record) -> str | None:
    """The variant that leaves the least and breaks nothing that was in order; None: none helps."""
    ranked, judged = metrics.used(Use.RANK), metrics.used(Use.AUDIT)

    def left(row: Record) -> tuple[float, ...]:
        return tuple(m.rank(row[m.name]) for m in ranked)

    def breaks(row: Record) -> bool:
        others = (m for m in judged if m not in ranked)
        return any(m.badness(row[m.name]) > m.badness(record[m.name]) for m in others)

    fit = [row for row in record["fixes"] if "refused" not in row and not breaks(row)]
    best = min(fit, key=left, default=None)
    return best["variant"] if best is not None and left(best) < left(record) else None
