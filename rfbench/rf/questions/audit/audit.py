"""A lint for backbones: shift, gridding, misaligned branches, coverage; whose fault, what helps.

Figures are of the central unit on an input that cuts nothing off and leaves the same remainders by
the strides as the size given: what stride-2 windows do to the centre depends on nothing else.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import variants
from rfbench.rf.core import metrics
from rfbench.rf.core.metrics import geometry
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_counts import DEFAULT, path_counts, paths_to_all, target_map
from rfbench.rf.core.theory import theory
from rfbench.rf.questions.audit.counterfactual import Step, cured, steps
from rfbench.rf.questions.subjects import Subject, short
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.graph import Size, SpatialGraph

Record = dict[str, Any]
EVEN = 5e-5  # gridding that is printed as 0
SYMMETRIC = 0.005  # px; what a smaller shift is worth nobody can tell


def audit(
    config: RfConfig,
    subject: Subject,
    sizes: Iterable[int] = (),
    bar: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Record:
    """Everything about one network in one variant, ready for JSON; distances in source pixels.

    sizes: sides of square inputs for the shift against the size. bar: shows progress over those.
    Raises RfbenchError for a network that is not local.
    """
    to, source = config.to, config.from_
    own = subject.network.graph(subject.size, to)
    path_counts(own, to, source)  # refuses what is not local
    graph, found = _roomy(subject.network, subject.size, to, source)
    figures = _figures(graph, to, source)
    record: Record = {
        "model": subject.backbone.name,
        "variant": subject.backbone.variant,
        "input_size": subject.size,
        "from": source or "input",
        "to": to or graph.target or "output",
        "status": str(graph.witness(target_map(graph, to)).reach),
        "measured_at": graph.size,
        "convention": asdict(DEFAULT),
        **figures,
        "at_own_size": _at(own, to, source),
        "coverage": _coverage(own, to, source),
        "misaligned_layers": list(dict.fromkeys(metrics.misaligned(geometry(graph, to, source)))),
        "steps": _blame(graph, own, found, figures, to, source),
        "together": _levels(graph, found, to, source),
        "all": _figures(cured(graph, found), to, source),
        "cost": _cost(subject.network, subject.size),
    }
    if subject.backbone.variant == "baseline":
        record["cures"] = _cures(config, subject, record["cost"])
        record["best"] = _best(record)
    if chosen := list(sizes):
        record["sizes"] = by_size(config, subject, chosen, bar)
    return record


def _roomy(
    network: Network, size: Size, to: str | None, source: str | None
) -> tuple[SpatialGraph, list[Step]]:
    """A graph so large that nothing is cut off, cured or not, and its steps to cure."""
    graph, _ = network.uncut(size, to, source)
    for _ in range(4):
        found = steps(graph, target_map(graph, to))
        whole = cured(graph, found)
        place = geometry(whole, to, source)
        units = graph.map_size(target_map(graph, to))
        if not metrics.is_cut(place, ((units[0] - 1) // 2, (units[1] - 1) // 2)):
            break
        graph = network.graph(metrics.uncut_size(whole, place, units), to)
    return graph, found


def _figures(graph: SpatialGraph, to: str | None, source: str | None) -> Record:
    """What is judged: shift, gridding and misaligned branches."""
    found, place = path_counts(graph, to, source), geometry(graph, to, source)
    grid = metrics.gridding(found, place)
    return {
        "shift": [round(s, 9) + 0.0 for s in metrics.shift(found, place)],
        "gridding": list(grid.values())[-1] if grid else 0.0,
        "gridding_by_period": grid,
        "misaligned": len(metrics.misaligned(place)),
    }


def _at(graph: SpatialGraph, to: str | None, source: str | None) -> Record:
    found, place = path_counts(graph, to, source), geometry(graph, to, source)
    return {"shift": metrics.shift(found, place), "cut": metrics.is_cut(place, found.unit)}


def _coverage(graph: SpatialGraph, to: str | None, source: str | None) -> Record:
    """Shares of the source's pixels at the own size.

    reached: that any unit hears. seen: within the box of those that the central unit hears.
    """
    box = metrics.support(path_counts(graph, to, source))
    area = (box["bottom"] - box["top"] + 1) * (box["right"] - box["left"] + 1)
    size = geometry(graph, to, source).source
    return {"reached": _reached(graph, to, source), "seen": area / (size[0] * size[1])}


def _reached(graph: SpatialGraph, to: str | None, source: str | None) -> float:
    return float((paths_to_all(graph, to, source) > 0).mean())


def _blame(
    graph: SpatialGraph,
    own: SpatialGraph,
    found: list[Step],
    now: Record,
    to: str | None,
    source: str | None,
) -> list[Record]:
    """What remains when one layer alone is cured, for those that make a difference."""
    reached = _reached(own, to, source)
    at_own = {s.number: s for s in steps(own, target_map(own, to))} if reached < 1 else {}
    rows = []
    for step in found:
        rest = _figures(cured(graph, [step]), to, source)
        if same := at_own.get(step.number):
            rest["reached"] = _reached(cured(own, [same]), to, source)
        if effect(rest, now) > 1e-6 or rest.get("reached", reached) != reached:
            rows.append({"layer": step.layer, "what": step.what, **rest})
    return rows


def faultless(record: Record) -> bool:
    """Whether the field is centred, even and of branches that agree, as far as anyone can tell."""
    even = record["gridding"] < EVEN and not record["misaligned"]
    return even and size_of(record["shift"]) < SYMMETRIC


def effect(rest: Record, now: Record) -> float:
    """How much a cure changes, each figure by its own size."""
    pairs = [(size_of(rest["shift"]), size_of(now["shift"]))]
    pairs += [(rest[key], now[key]) for key in ("gridding", "misaligned")]
    pairs += [(a, b) for a, b in zip(rest["shift"], now["shift"], strict=True)]
    return max(abs(a - b) / max(abs(b), 1e-3) for a, b in pairs)


def size_of(shift: Sequence[float]) -> float:
    """A shift as one number: the larger of both axes, in px."""
    return max(abs(s) for s in shift)


def _levels(
    graph: SpatialGraph, found: list[Step], to: str | None, source: str | None
) -> list[Record]:
    """What remains when all layers that reach one stride are cured: branches belong together."""
    origin = graph.layer(source) if source is not None else None
    fields = theory(graph, origin).fields
    levels: dict[float, list[Step]] = {}
    for step in found:
        both = fields[max(step.nodes)]
        if both is not None and (y := both[0]) is not None:
            levels.setdefault(float(y.stride), []).append(step)
    return [
        {"stride": stride, "layers": [s.layer for s in level]}
        | _figures(cured(graph, level), to, source)
        for stride, level in sorted(levels.items())
        if len(level) > 1
    ]


def _cost(network: Network, size: Size) -> Record | None:
    try:
        found = network.cost(size)
    except RfbenchError:  # the head may insist on another size than the map
        return None
    return {"macs": found.macs, "activations": found.activations}


def _cures(config: RfConfig, subject: Subject, now: Record | None) -> list[Record]:
    """The paper's variants and that of all kernels: what each leaves and costs, or why not."""
    rows: list[Record] = []
    held = subject.backbone
    for name in dict.fromkeys([*variants.PAPER[1:], *_of_all_kernels(held.module)]):
        try:
            module = copy.deepcopy(held.module)
            replaced = variants.apply(module, name, short(held.name), held.input_size)
        except UsageError as error:
            rows.append({"variant": name, "refused": str(error)})
            continue
        if any(row.get("layers") == replaced for row in rows):
            continue  # the same change by another name
        network = Network(module, held.input_size)
        graph, _ = network.uncut(subject.size, config.to, config.from_)
        row: Record = {"variant": name, "layers": replaced}
        row |= _figures(graph, config.to, config.from_)
        then = _cost(network, subject.size)
        if now and then:
            row |= {key: then[key] for key in now}
            row |= {f"{key}_more": then[key] / now[key] - 1 for key in now}
        rows.append(row)
    return rows


def _of_all_kernels(module: nn.Module) -> list[str]:
    """The variant that changes every kernel size that can change in a network; none where none."""
    held = [getattr(part, "kernel_size", None) for part in module.modules()]
    fit = []
    for k in sorted({size[0] for size in held if isinstance(size, tuple)}):
        with contextlib.suppress(UsageError):  # no stride-2 convolution, or one without padding
            variants.apply(variants.meta_copy(module), {"kernels": [k]})
            fit.append(k)
    return [variants.get({"kernels": fit}).name] if fit else []


def _best(record: Record) -> str | None:
    """The variant that leaves the least and breaks nothing that was in order; None: none helps."""

    def left(row: Record) -> tuple[float, float]:
        return round(size_of(row["shift"]), 2), round(row["gridding"], 4)

    fit = [row for row in record["cures"] if "refused" not in row]
    fit = [row for row in fit if row["misaligned"] <= record["misaligned"]]
    best = min(fit, key=left, default=None)
    return best["variant"] if best is not None and left(best) < left(record) else None


def by_size(
    config: RfConfig,
    subject: Subject,
    sizes: Sequence[int],
    bar: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Record:
    """The shift on square inputs of these sides, and the symmetric one nearest to the own size.

    Only the remainder by the effective stride counts, so one input of each remainder is measured.
    shift: (side, y, x), None where the network refuses the size.
    """
    _, place = subject.network.uncut(subject.size, config.to, config.from_)
    period = math.lcm(*(f.stride for f in place.uniform))
    known: dict[int, list[float] | None] = {}
    for side in bar([*{s % period: s for s in reversed(sizes)}.values()][::-1]):
        try:
            graph, _ = subject.network.uncut((side, side), config.to, config.from_)
            known[side % period] = _figures(graph, config.to, config.from_)["shift"]
        except RfbenchError:
            known[side % period] = None
    rows = [(side, *(known[side % period] or (None, None))) for side in sizes]
    told = [row for row in rows if row[1] is not None]
    shifts = np.array([row[1:] for row in told], float).reshape(-1, 2)
    distance = np.array([abs(row[0] - max(subject.size)) for row in told])
    clean = np.abs(shifts).max(1, initial=0) < SYMMETRIC
    nearest = told[int(np.where(clean, distance, np.inf).argmin())][0] if clean.any() else None
    return {"shift": rows, "symmetric": nearest, "period": period}
