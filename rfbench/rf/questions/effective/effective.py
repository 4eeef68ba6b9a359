"""`rf effective`: the field of every model and variant asked for, beside its path counts."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from rfbench import files
from rfbench.errors import NoPath, RfbenchError, UsageError
from rfbench.models import backbones, pretrained
from rfbench.rf.core import memory
from rfbench.rf.core.metric import unit_of
from rfbench.rf.core.subjects import Subject, short, subjects
from rfbench.rf.core.target import pair
from rfbench.rf.questions.effective import extent, images
from rfbench.rf.questions.effective.caption import caption
from rfbench.rf.questions.effective.expected import Expected, expected
from rfbench.rf.questions.effective.gradients import Gradients, convention_of, gradients
from rfbench.rf.questions.effective.sample import Measured, Sample
from rfbench.runs import records
from rfbench.runs.processes import device_of
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.hooks import input_names
from rfbench.spatial_graph.size import Shape, Size, by
from rfbench.spatial_graph.skeleton import refuse_unreadable

log = logging.getLogger(__name__)


def run(config: RfConfig, sample: Sample, folder: Path) -> dict[str, Any]:
    """Measure, draw and write everything; returns the record."""
    from rfbench.plotting import page
    from rfbench.rf.questions.effective import figure as effective
    from rfbench.rf.questions.effective.panel import panel_of

    if sample.draws > 1 and sample.weights != "random":
        raise UsageError("--draws is for random weights; those of a checkpoint are what they are")
    measured = list(measure(config, sample))
    title = config.title or ", ".join(
        dict.fromkeys(short(sample.names(m.subject)[0]) for m in measured)
    )
    panels = [panel_of(m.title, m.gradients, m.counts, m.metrics) for m in measured]
    figure = effective.of_axes(panels, f"Effective field of {title}", caption(sample, measured))
    records.open_folder(folder)
    written = page.save(figure, folder / "effective")
    with files.aside(folder / "effective.npz") as temporary:
        arrays = {m.key: m for m in measured}
        kept: dict[str, Any] = {f"{k} magnitude": m.gradients.magnitude for k, m in arrays.items()}
        kept |= {f"{k} signed": m.gradients.signed for k, m in arrays.items()}
        np.savez_compressed(temporary, **kept)
    fields = [
        dict(zip(("model", "variant"), sample.names(m.subject), strict=True)) | m.metrics
        for m in measured
    ]
    names = [path.name for path in written]
    resolved = {**config.model_dump(by_alias=True, mode="json"), **asdict(sample)}
    resolved["layers"] = list(sample.layers)
    content = {
        "config": resolved,
        "fields": fields,
        "files": [*names, "effective.npz"],
    }
    return records.write_record(folder, "rf", content)


def measure(config: RfConfig, sample: Sample) -> Iterator[Measured]:
    """The fields of all subjects and layers, one at a time."""
    definition, convention = convention_of(sample.convention, sample.of)
    device = device_of(sample.device)
    for subject in subjects(config):
        size, held = subject.size, subject.backbone
        refuse_unreadable(held.module)
        views = _views(config, subject, sample)
        if sample.convention != "rfbench":
            pair(size, f"--convention {sample.convention}")
        at_once = min(sample.count, images.BATCH[device.type])
        sides = f"{by(size)} {unit_of(len(size))}"
        memory.check(
            subject.network.memory(size, at_once),
            f"the gradient of {short(held.name)} on {at_once} inputs of {sides}",
            "Choose a smaller --size, or fewer --count.",
        )
        for layer, view in product(sample.layers or [config.to], views):
            if view.source is not None and not _reaches(subject, layer, view.source):
                what = f"{layer or 'the last map'} does not depend on {view.source}"
                if len(views) == 1:
                    raise UsageError(what)
                log.info(what)
                continue
            nets = tqdm(
                (
                    subject.network.call.of(_network(held, sample, i).to(device))
                    for i in range(sample.draws)
                ),
                total=sample.draws,
                desc=subject.title.replace("\n", " "),
                unit="draw",
                disable=None,
            )
            wanted = layer or _last(subject)
            batches = _batches(view, subject, sample, at_once)
            seen = gradients(
                nets, batches, wanted, config.unit, definition, sample.axes, view.number
            )
            theory = _expected(subject, seen, view.source)
            figures = extent.measure(seen, extent.position(seen, theory.field), convention)
            figures |= {"reach": theory.reach, "definition": str(definition), **theory.random}
            model, variant = sample.names(subject)
            title, key = variant if sample.run else subject.title, f"{model} {variant}"
            if len(sample.layers) > 1:
                title, key = f"{title}\n{layer}", f"{key} {layer}"
            if view.source is not None:
                title, key = f"{title}\nfrom {view.source}", f"{key} {view.source}"
                figures["from"] = view.source
            yield Measured(subject, seen, figures, theory.counts, title, key)


def _last(subject: Subject) -> str | None:
    """The last map at any size is that at the network's own; None: as the trace at `size` says."""
    with contextlib.suppress(RfbenchError):
        return subject.network.graph(subject.size).target or None
    return None


@dataclass(frozen=True)
class View:
    """What of a network's inputs is looked at.

    source: of several inputs the one, 'input.1', with its number; None: the only one. shapes: (C,
    H, W) of all; of the only one None where the trace finds its channels.
    """

    source: str | None
    number: int
    shapes: list[Shape] | None


def _views(config: RfConfig, subject: Subject, sample: Sample) -> list[View]:
    """One for each input, or of the one asked for. UsageError for images to several inputs."""
    network = subject.network
    shapes = network.inputs or []
    if not shapes and network.channels:
        shapes = [(network.channels, *subject.size)]
    names = input_names(network.module, len(shapes)) if len(shapes) > 1 else ["input"]
    if config.from_ not in (None, *names):
        raise UsageError(
            f"an effective field starts at an input: --from {config.from_} is none of "
            f"{', '.join(names)}"
        )
    if len(shapes) < 2:
        return [View(None, 0, shapes or None)]
    if sample.images != "noise":
        raise UsageError("--images is for networks of one input; several see noise")
    views = [View(name, i, shapes) for i, name in enumerate(names)]
    return [view for view in views if config.from_ in (None, view.source)]


def _batches(
    view: View, subject: Subject, sample: Sample, at_once: int
) -> list[tuple[Tensor, ...]]:
    """What every input sees, a few images at a time."""
    given: list[tuple[int | None, Size]] = [(None, subject.size)]
    if view.shapes:
        given = [(shape[0], shape[1:]) for shape in view.shapes]
    every = [
        images.batches(
            sample.images,
            subject.backbone.module,
            size,
            sample.count,
            sample.seed + i,
            channels,
            at_once,
        )
        for i, (channels, size) in enumerate(given)
    ]
    return list(zip(*every, strict=True))


def _reaches(subject: Subject, layer: str | None, source: str) -> bool:
    """Whether a layer depends on one of several inputs, as far as the trace tells."""
    try:
        subject.target(layer, source).counts()
    except NoPath:
        return False
    except RfbenchError:  # attention, or a layer that only a run knows
        return True
    return True


def _expected(subject: Subject, seen: Gradients, source: str | None) -> Expected:
    """What theory says of the unit; nothing where the network cannot be traced (with --axes)."""
    with contextlib.suppress(RfbenchError):
        graph = subject.network.graph(subject.size, seen.layer or None)
        return expected(graph, seen.layer, seen.unit, counts=True, source=source)
    return Expected()


def _network(held: backbones.Backbone, sample: Sample, draw: int) -> nn.Module:
    """The network with its weights, in evaluation mode."""
    torch.manual_seed(sample.seed + draw)
    built_in = sample.run or sample.weights in ("random", "pretrained")
    path = None if built_in else sample.weights
    variant, inputs = held.variant, held.inputs
    module = backbones.build(held.name, variant, path, ema=sample.ema, inputs=inputs).module
    if sample.weights == "pretrained":
        module.load_state_dict(pretrained.state_dict(held.name))
    zero = [n for n, m in module.named_modules() if _closed(m)]
    if zero and draw == 0:
        log.warning(
            f"{held.name}: the scale of {len(zero)} normalisations is 0 ({zero[0]}, ...): their "
            "residual branches pass nothing, and the field collapses to the shortcuts'. Use "
            "trained weights."
        )
    return module


def _closed(module: nn.Module) -> bool:
    """Whether a normalisation starts at a scale of 0."""
    weight = getattr(module, "weight", None)
    return (
        isinstance(weight, torch.Tensor)
        and weight.ndim == 1
        and hasattr(module, "eps")
        and not weight.any()
    )
