"""All of `rfbench rf theory` for one network: sizes, strides, centres, alignment, as plain data."""

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from rfbench.errors import NoPath, RfbenchError, UsageError
from rfbench.rf.core.field import (
    Along,
    Field,
    Sparse,
    Whole,
    origin,
    region,
    units_containing,
)
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.randomness import drawn
from rfbench.rf.core.subjects import Subject
from rfbench.rf.core.target import Target, Unit, check_position, not_local
from rfbench.rf.core.theory import Disagreement, Fields
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.axis import Index, Window
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.operations import plain_name
from rfbench.spatial_graph.size import Size

Pixel = Size
Record = dict[str, Any]


def report(
    config: RfConfig, subject: Subject, per_layer: bool = False, pixel: Pixel | None = None
) -> Record:
    """What theory tells of a subject, ready for JSON. Positions and sizes are source pixels.

    pixel: (y, x) of the source; the report has the units whose receptive field contains it. Raises
    RfbenchError for a network that is neither local nor local with a global context.
    """
    target = subject.target(config.to, config.from_)
    if target.witness.reach > Reach.CONTEXT:
        raise not_local(target.witness, "receptive-field arithmetic needs")
    unit = target.unit(config.unit)
    target.check_path()
    names = target.graph.names
    axes = [figures(f, u) for f, u in zip(target.fields, unit, strict=True)]
    record: Record = {
        "model": subject.backbone.name,
        "variant": subject.backbone.variant,
        "input_size": target.graph.size,
        "input_channels": target.graph.channels,
        "from": target.source or "input",
        "source_size": target.source_size,
        "to": target.name or "output",
        "map_size": target.units,
        "status": str(target.witness.reach),
        "unit": unit,
        **dict(zip(names, axes, strict=True)),
        "resized_input": _resized_input(target),
        "misaligned_meant": target.is_causal and target.ends_agree,
        "misaligned": [_meeting(group) for group in _groups(target.disagreements)],
        "context": _context(target, unit),
        "depends_on_input_size": _by_size(subject, target),
        **drawn(target.graph, target.value),
    }
    if mixed := target.graph.mixed_axes(target.value):
        record["global_along"] = mixed
    if len(names) == 1:
        record["look_ahead"], record["look_back"] = _around(target, unit)
        record["rate"] = config.rate
    elif config.rate is not None:
        raise UsageError("--rate is the sampling rate of a sequence; this network takes none")
    if None in target.fields:
        record["irregular"] = _irregular(target, unit)
    if pixel is not None:
        record["pixel"] = _inverse(target, pixel)
    if per_layer:
        record["layers"] = _layers(target)
    return record


def _resized_input(target: Target) -> Size | None:
    """The size to which the network itself resizes its input first; None where it does not.

    Nor where it also reads the input as it is: a super-resolution network adds what it has found
    to a resized input.
    """
    graph = target.graph
    for i in sorted(target.ancestors):
        node = graph.nodes[i]
        if any(isinstance(a, Index) and a.period is not None for a in node.axes):
            before = graph.ancestors(set(node.sources))
            if any(graph.nodes[j].kind not in ("input", "same", "structure") for j in before):
                return None
            later = target.ancestors - before - {i}
            beside = any(not before.isdisjoint(graph.nodes[j].sources) for j in later)
            return None if beside else node.size
    return None


def _around(target: Target, unit: Unit) -> tuple[float | None, float | None]:
    """How many samples of a sequence a unit reads after its place, and before it.

    Its place is that in a grid centred on the source, (u - (n - 1) / 2) S + (L - 1) / 2.
    """
    (field,), (n,), (length,) = target.fields, target.units, target.source_size
    if field is None or isinstance(field, Whole):
        return None, None
    place = (unit[0] - (n - 1) / 2) * float(field.stride) + (length - 1) / 2
    first, last = region(field, unit[0])
    return max(0.0, last - place), max(0.0, place - first)


def figures(field: Along | None, unit: int = 0) -> Record:
    """Size, stride, padding, centre and region of a unit along one axis; None without a field."""
    if field is None:
        return dict.fromkeys(("size", "stride", "padding", "center", "region"))
    out: Record = {"region": region(field, unit), "center": field.center(unit)}
    if isinstance(field, Field | Whole):
        return {"size": field.size, "stride": field.stride, "padding": field.padding, **out}
    sizes = field.sizes[0] if len(set(field.sizes)) == 1 else field.sizes
    own = {"phases": field.phases, "step": field.step}
    return {"size": sizes, "stride": float(field.stride), "padding": None, **out, **own}


def _groups(disagreements: list[Disagreement]) -> list[list[Disagreement]]:
    """The disagreements of one operation along both axes belong together."""
    groups: dict[frozenset[int], list[Disagreement]] = {}
    for d in disagreements:
        groups.setdefault(d.nodes, []).append(d)
    return list(groups.values())


def _meeting(group: list[Disagreement]) -> Record:
    op = plain_name(group[0].op)
    sides = {
        d.axis: [
            {"layer": name, **figures(f, 0), "center": float(origin(f))}  # what they disagree in
            for f, name in zip(d.fields, d.branches, strict=True)
        ]
        for d in group
    }
    return {"layer": group[0].layer, "op": op, **sides}


def _context(target: Target, unit: Unit) -> Record | None:
    """The layers of the global context, and what a unit sees through it; None without one."""
    behind = (target.graph.nodes[i] for i in sorted(target.ancestors))
    layers = list(dict.fromkeys(n.layer for n in behind if n.reach == Reach.CONTEXT))
    if not layers:
        return None
    return {"layers": layers, "region": _reached(target, unit, Convention(gates="count"))}


def _reached(target: Target, unit: Unit, convention: Convention) -> Record:
    """The region that paths to a unit come from, by counting them; the border cuts it."""
    return dict(zip(target.graph.names, target.counts(unit, convention).bounds, strict=True))


def _irregular(target: Target, unit: Unit) -> Record:
    """Why units have no common field, and the region of this one by its paths (None: no path).

    gaps: whether it is because zeros stand between the rows of the map.
    """
    gaps = any(isinstance(f, Sparse) for f in target.theory.steps_of(target.graph, target.value))
    cause: Record = {"gaps": gaps}
    for i in sorted(target.ancestors):
        node, both = target.graph.nodes[i], target.theory.fields[i]
        if both is not None and any(f is None or (gaps and isinstance(f, Sparse)) for f in both):
            cause |= {"op": node.op, "layer": node.layer}
            break
    try:
        return {**cause, "region": _reached(target, unit, Convention())}
    except NoPath:
        return {**cause, "region": None}


def _inverse(target: Target, pixel: Pixel) -> Record:
    """The units whose region contains a pixel of the source."""
    check_position("pixel", pixel, target.source_size, "the source: it")
    fields = [f for f in target.fields if f is not None]
    if len(fields) < len(pixel):
        raise RfbenchError("units have no common field here: ask for one with --unit")
    for name, f, p, n in zip(target.graph.names, fields, pixel, target.source_size, strict=True):
        if _wraps(target, name) and not f.size <= p < n - f.size:
            raise RfbenchError(
                f"along {name} the map is padded around its edges, so that units at the far edge "
                "may read this pixel too: ask for one with --unit"
            )
    hits = [units_containing(f, p, n) for f, p, n in zip(fields, pixel, target.units, strict=True)]
    names = target.graph.names
    return {"at": pixel, "units": dict(zip(names, hits, strict=True)) if all(hits) else None}


def _wraps(target: Target, name: str) -> bool:
    """Whether a map on the way is padded along an axis with what stands at its other end."""
    k = target.graph.names.index(name)
    steps = (target.graph.nodes[i].axes[k] for i in target.ancestors)
    return any(isinstance(a, Index) and a.inner is not None and _far(a.at, a.inner) for a in steps)


def _far(at: np.ndarray, inner: Window) -> bool:
    """Whether a padding reads farther from its edge than it is wide: more than reflection does."""
    before, after = max(inner.before, 0), max(inner.after, 0)
    last = len(at) - before - after - 1
    ends = at[len(at) - after :]
    return bool((at[:before] > before).any() or ((ends >= 0) & (ends < last - after)).any())


def _layers(target: Target) -> list[Record]:
    """The fields of every layer on the way, in order of execution."""
    graph, theory = target.graph, target.theory
    rows = []
    for name in graph.maps():
        value = graph.layer(name)
        share = set(graph.share(value))
        if not share <= target.ancestors or not any(theory.fields[i] for i in share):
            continue
        axes = {a: figures(f) for a, f in zip(graph.names, theory.of(graph, value), strict=True)}
        rows.append({"layer": name, "map_size": graph.map_size(value), **axes})
    return rows


def _by_size(subject: Subject, target: Target) -> Record | None:
    """Where a step belongs to one input size (TF-same padding, resizing): the fields at others.

    At n + 1, n + 2, n + 4, ... < n + S, because padding that is made for a size changes with its
    remainder by one of the strides, of which S is the coarsest on the way. Where all these are
    refused, at n + S, with the coarsest stride of the whole network: its other branches run too.
    None where no step belongs to a size.
    """
    if not target.graph.is_rigid(target.value):
        return None
    stride, most = _coarsest(target, target.ancestors), _coarsest(target)
    same: list[Size] = []
    other: list[Record] = []
    for more in [*(2**k for k in range(max(1, (stride - 1).bit_length()))), most]:
        if more == most and (same or other):
            break
        size = tuple(n + more for n in target.graph.size)
        with contextlib.suppress(RfbenchError):  # a network may insist on its own size
            fields: Fields = subject.target(target.layer, target.source, size).fields
            if fields == target.fields:
                same.append(size)
            else:
                axes = {
                    axis: figures(f) for axis, f in zip(target.graph.names, fields, strict=True)
                }
                other.append({"input_size": size, **axes})
    return {"same_at": same, "other_at": other}


def _coarsest(target: Target, nodes: Iterable[int] | None = None) -> int:
    """The coarsest stride of some nodes, or of all."""
    every = target.theory.fields
    known = (f for i in (range(len(every)) if nodes is None else nodes) for f in every[i] or ())
    return int(max((f.stride for f in known if f and f.stride), default=32))
