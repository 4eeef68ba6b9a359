"""What every variant that changes a network leaves of its faults, what it costs, which is best."""

import contextlib
from typing import Any

import torch
from torch import nn

from rfbench.copies import whole_copy
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import pruned, variants
from rfbench.rf.core import metrics
from rfbench.rf.core.metric import Use
from rfbench.rf.core.network import Network
from rfbench.rf.core.progress import progress
from rfbench.rf.core.subjects import Subject, short
from rfbench.rf.core.target import Target
from rfbench.rf.questions.audit.remains import figures
from rfbench.spatial_graph.size import Size

Record = dict[str, Any]


def fixes(subject: Subject, own: Target, now: Record | None) -> list[Record]:
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
        row: Record = {"variant": name, "layers": replaced, **figures(target)}
        then = cost(network, subject.size)
        if now and then:
            row |= {key: then[key] for key in now}
            row |= {f"{key}_more": then[key] / now[key] - 1 for key in now if now[key]}
        rows.append(row)
    return rows


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


def cost(network: Network, size: Size) -> Record | None:
    try:
        cost = network.cost(size)
    except RfbenchError:  # the head may insist on another size than the map
        return None
    return {"macs": cost.macs, "activations": cost.activations}


def best(record: Record) -> str | None:
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
