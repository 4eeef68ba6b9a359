"""All of `rfbench rf theory` for one network: sizes, strides, centres, alignment, as plain data."""

import contextlib
from typing import Any

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core.field import Along, Field, hearers, origin, region
from rfbench.rf.core.metrics import support
from rfbench.rf.core.path_counts import Convention, checked_unit, not_local, path_counts, target_map
from rfbench.rf.core.theory import Disagreement, Theory, theory
from rfbench.rf.questions.subjects import Subject
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.graph import Reach, Size, SpatialGraph
from rfbench.spatial_graph.layout import Value

Pixel = tuple[int, int]
Record = dict[str, Any]
AXES = ("y", "x")


def report(
    config: RfConfig, subject: Subject, per_layer: bool = False, pixel: Pixel | None = None
) -> Record:
    """What theory tells of a subject, ready for JSON. Positions and sizes are source pixels.

    pixel: (y, x) of the source; the report has the units that hear it. Raises RfbenchError for a
    network that is neither local nor local with a global context.
    """
    graph = subject.network.graph(subject.size, config.to)
    target = target_map(graph, config.to)
    witness = graph.witness(target)
    if witness.reach > Reach.CONTEXT:
        raise not_local(witness, "receptive-field arithmetic needs")
    units = graph.map_size(target)
    unit = checked_unit(config.unit, units, config.to or graph.target)
    source = graph.layer(config.from_) if config.from_ else None
    known = theory(graph, source)
    fields = known.of(graph, target)
    if not any(known.fields[i] for i in graph.share(target)):
        raise UsageError(f"no path leads from '{config.from_}' to '{config.to or graph.target}'")
    source_size = graph.map_size(source) if source is not None else graph.size
    record: Record = {
        "model": subject.backbone.name,
        "variant": subject.backbone.variant,
        "input_size": graph.size,
        "from": config.from_ or "input",
        "source_size": source_size,
        "to": config.to or graph.target or "output",
        "map_size": units,
        "status": str(witness.reach),
        "unit": unit,
        **dict(zip(AXES, (figures(f, u) for f, u in zip(fields, unit, strict=True)), strict=True)),
        "misaligned": [_meeting(group) for group in _groups(known.behind(graph, target))],
        "context": _context(config, graph, target, unit),
        "depends_on_input_size": _by_size(config, subject, graph, target),
    }
    if None in fields:
        record |= _irregular(config, graph, target, known, unit)
    if pixel is not None:
        record["pixel"] = _inverse(fields, pixel, source_size, units)
    if per_layer:
        record["layers"] = _layers(graph, target, known)
    return record


def figures(field: Along | None, unit: int = 0) -> Record:
    """Size, stride, padding, centre and region of a unit along one axis; None without a field."""
    if field is None:
        return dict.fromkeys(("size", "stride", "padding", "center", "region"))
    out: Record = {"region": region(field, unit), "center": field.center(unit)}
    if isinstance(field, Field):
        return {"size": field.size, "stride": field.stride, "padding": field.padding, **out}
    sizes = field.sizes[0] if len(set(field.sizes)) == 1 else field.sizes
    own = {"phases": field.phases, "step": field.step}
    return {"size": sizes, "stride": float(field.stride), "padding": None, **out, **own}


def _groups(found: list[Disagreement]) -> list[list[Disagreement]]:
    """The disagreements of one operation along both axes belong together."""
    groups: dict[frozenset[int], list[Disagreement]] = {}
    for d in found:
        groups.setdefault(d.nodes, []).append(d)
    return list(groups.values())


def _meeting(group: list[Disagreement]) -> Record:
    op = group[0].op.removeprefix("aten.").split(".")[0].strip("_")
    sides = {
        d.axis: [
            {"layer": name, **figures(f, 0), "center": float(origin(f))}  # what they disagree in
            for f, name in zip(d.fields, d.branches, strict=True)
        ]
        for d in group
    }
    return {"layer": group[0].layer, "op": op, **sides}


def _context(config: RfConfig, graph: SpatialGraph, target: Value, unit: Pixel) -> Record | None:
    """The layers of the global context, and what a unit hears through it; None without one."""
    behind = sorted(graph.ancestors(set(graph.share(target))))
    gates = [graph.nodes[i] for i in behind if graph.nodes[i].reach == Reach.CONTEXT]
    if not gates:
        return None
    layers = list(dict.fromkeys(n.layer for n in gates))
    return {"layers": layers, **_heard(config, graph, unit, Convention(gates="count"))}


def _heard(config: RfConfig, graph: SpatialGraph, unit: Pixel, convention: Convention) -> Record:
    """The region that paths to a unit come from, by counting them; the border cuts it."""
    box = support(path_counts(graph, config.to, config.from_, unit, convention))
    return {"region": {"y": (box["top"], box["bottom"]), "x": (box["left"], box["right"])}}


def _irregular(
    config: RfConfig, graph: SpatialGraph, target: Value, known: Theory, unit: Pixel
) -> Record:
    """Why units have no common field, and the region of this one by its paths."""
    cause: Record = {}
    for i in sorted(graph.ancestors(set(graph.share(target)))):
        node, both = graph.nodes[i], known.fields[i]
        if both is not None and None in both:
            cause = {"op": node.op, "layer": node.layer}
            break
    return {"irregular": {**cause, **_heard(config, graph, unit, Convention())}}


def _inverse(fields: tuple, pixel: Pixel, source: Size, units: Size) -> Record:
    """The units whose region holds a pixel of the source."""
    if not all(0 <= p < n for p, n in zip(pixel, source, strict=True)):
        raise UsageError(
            f"pixel {pixel[0]},{pixel[1]} is outside the source: it is {source[0]}x{source[1]}, "
            f"pixels are 0,0 to {source[0] - 1},{source[1] - 1}"
        )
    if None in fields:
        raise RfbenchError("units have no common field here: ask for one with --unit")
    hits = [hearers(f, p, n) for f, p, n in zip(fields, pixel, units, strict=True)]
    return {"at": pixel, "units": dict(zip(AXES, hits, strict=True)) if all(hits) else None}


def _layers(graph: SpatialGraph, target: Value, known: Theory) -> list[Record]:
    """The fields of every layer on the way, in order of execution."""
    behind = graph.ancestors(set(graph.share(target)))
    rows = []
    for name in graph.maps():
        value = graph.layer(name)
        share = set(graph.share(value))
        if not share <= behind or not any(known.fields[i] for i in share):
            continue
        both = zip(AXES, known.of(graph, value), strict=True)
        axes = {axis: figures(f, 0) for axis, f in both}
        rows.append({"layer": name, "map_size": graph.map_size(value), **axes})
    return rows


def _by_size(
    config: RfConfig, subject: Subject, graph: SpatialGraph, target: Value
) -> Record | None:
    """Where a step belongs to one input size (TF-same padding, resizing): the fields at others.

    At n + 1, n + 2, n + 4, ... < n + S, because padding that is made for a size changes with its
    remainder by one of the strides; at n + S where all these are refused. None where no step
    belongs to a size.
    """
    if not graph.is_rigid(target):
        return None
    fields = _from(config, graph)
    stride = int(max((f.stride for f in fields if f), default=32))
    same: list[Size] = []
    other: list[Record] = []
    for more in [*(2**k for k in range(max(1, (stride - 1).bit_length()))), stride]:
        if more == stride and (same or other):
            break
        size = (graph.size[0] + more, graph.size[1] + more)
        with contextlib.suppress(RfbenchError):  # a network may insist on its own size
            found = _from(config, subject.network.graph(size, config.to))
            axes = {axis: figures(f, 0) for axis, f in zip(AXES, found, strict=True)}
            if found == fields:
                same.append(size)
            else:
                other.append({"input_size": size, **axes})
    return {"same_at": same, "other_at": other}


def _from(config: RfConfig, graph: SpatialGraph) -> tuple[Along | None, Along | None]:
    source = graph.layer(config.from_) if config.from_ else None
    return theory(graph, source).of(graph, target_map(graph, config.to))
