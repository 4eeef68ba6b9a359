"""Trace the operations of one forward pass, on the meta device, without touching a weight.

The pass runs on a skeleton of the module: the same Python objects with every tensor replaced by a
meta tensor. In-place operations on tensors that share their memory with no other are written down
as plain ones. Where a pass writes to anything else, it is made once more under functionalisation
(torch.func.functionalize), which turns every write into a plain operation: so the trace is a pure
data flow either way.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from rfbench.copies import named_parts
from rfbench.errors import RfbenchError
from rfbench.spatial_graph.draws import DRAWS, seeded
from rfbench.spatial_graph.failure import explained, text
from rfbench.spatial_graph.generator import left_at_the_end
from rfbench.spatial_graph.hooks import input_names
from rfbench.spatial_graph.kept import LATER, Kept
from rfbench.spatial_graph.operations import Trace
from rfbench.spatial_graph.overlap import memory
from rfbench.spatial_graph.size import Shape, Size
from rfbench.spatial_graph.skeleton import skeleton
from rfbench.spatial_graph.tracer import NotPure, Tracer, Trunk


def trunk(module: nn.Module) -> Callable[[Tensor], Any]:
    """What is run: `forward_features` where the module has one (timm: without the classifier)."""
    features = getattr(module, "forward_features", None)
    return features if callable(features) else module


def convolutions(module: nn.Module) -> list[tuple[int, int]]:
    """(axes, input channels) of the convolutions, in the order of registration.

    Transposed ones come last: they begin a network that has no others before them.
    """
    found = []
    for kinds in (
        (nn.Conv1d, nn.Conv2d, nn.Conv3d),
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    ):
        for m in module.modules():
            name = getattr(m, "original_name", type(m).__name__)  # as a scripted module is called
            for axes, kind in enumerate(kinds, start=1):
                if isinstance(m, kind) or name == kind.__name__:
                    found.append((axes, getattr(m, "in_channels", 0)))
    return found


def input_channels(module: nn.Module, axes: int = 2) -> int:
    """Channels of the input: as timm's networks say, else those of the first convolution, else 3.

    axes: of that convolution. It may stand behind a space-to-depth: `inputs.trace_as_fits` tries.
    """
    if isinstance(config := getattr(module, "default_cfg", None), dict):
        return config["input_size"][0]
    fit = (channels for n, channels in convolutions(module) if n == axes and channels)
    return next(fit, 3)


def trace_module(
    module: nn.Module,
    size: Size,
    channels: int | None = None,
    inputs: Sequence[Shape] | None = None,
) -> Trace:
    """Trace one forward pass of `module` on an input of 1 x channels x size.

    size: along every axis, (H, W) of an image. channels: of the input; as `input_channels` says
    when None. inputs: the shapes of several inputs, in place of both.

    A pass that fails behind a layer is traced as far as it went; `Trace.failure` says why. Raises
    UsageError where the input does not fit the network, RfbenchError where it fails at once.
    """
    shapes = list(inputs or [(channels or input_channels(module, len(size)), *size)])
    if len({len(shape) for shape in shapes}) > 1:
        some = " and ".join(text(shape) for shape in shapes)
        raise RfbenchError(f"inputs with different numbers of axes are not measured: {some}")
    trace = _pass(module, shapes, 0)
    if trace.failure is not None and not trace.layers:
        raise trace.failure from trace.failure.__cause__
    if trace.chosen or trace.kept:
        trace.others = functools.cache(lambda: [*_others(module, shapes, trace)])
    return trace


def _others(module: nn.Module, shapes: Sequence[Shape], trace: Trace) -> Iterator[Trace]:
    """Passes with other draws, and later ones of a network that keeps something between them."""
    if trace.chosen:
        yield from (_pass(module, shapes, draw) for draw in range(1, DRAWS))
    for earlier in LATER if trace.kept else ():
        yield (later := _pass(module, shapes, 0, earlier))
        if later.kept is None:  # a flag, or a size: from then on nothing changes
            return


def _pass(module: nn.Module, shapes: Sequence[Shape], draw: int, earlier: int = 0) -> Trace:
    """A pass, under functionalisation where it needs that.

    draw: of what it draws at random. earlier: how many passes there are before it.
    """
    trace, mutated = _traced(module, shapes, pure=True, draw=draw, earlier=earlier)
    if mutated:
        trace, _ = _traced(module, shapes, pure=False, draw=draw, earlier=earlier)
    return trace


def _traced(
    module: nn.Module, shapes: Sequence[Shape], *, pure: bool, draw: int, earlier: int = 0
) -> tuple[Trace, str]:
    """A pass, and what of it needs functionalisation.

    pure: without it, which is faster: in-place operations on tensors that share their memory with
    no other need none. draw, earlier: see `_pass`.
    """
    copied, buffers = skeleton(module)
    trace = Trace(shapes[0][1:], feature_maps=hasattr(module, "feature_info"))
    tracer = Tracer(trace, pure, draw)
    tracer.buffers = buffers
    tracer.watch.shape = (1, *shapes[0])
    parts = tracer.parts = named_parts(copied)
    scripted = [m for m in parts.values() if isinstance(m, torch.jit.ScriptModule)]
    tracer.weights = {memory(p) for m in scripted for p in m.parameters() if not p.is_meta}
    rnns = {n: m for n, m in parts.items() if isinstance(m, nn.RNNBase)}
    trace.recurrent = {n: (m.batch_first, m.bidirectional) for n, m in rnns.items()}
    dtype = next((p.dtype for p in copied.parameters() if p.is_floating_point()), torch.float32)
    forward = _forward(copied, tracer, earlier)

    try:
        with torch.no_grad(), seeded(copied, draw, tracer.chooses), tracer:
            images = [torch.empty((1, *shape), dtype=dtype, device="meta") for shape in shapes]
            with tracer.watch, _watched(parts, tracer), left_at_the_end():
                (forward if pure else _functional(forward, tracer))(*images)
        trace.forward = trace.ops
        trace.kept = tracer.kept.changed(tracer.written) if tracer.kept else None
        if not trace.outputs and tracer.trunk is None:
            what = f"{type(module).__name__} returns {tracer.returned}, which holds no tensor"
            trace.failure = RfbenchError(what)
    except NotPure:
        return trace, tracer.mutated
    except Exception as error:
        if tracer.trunk is None:  # else the classifier insists on another size than the map
            trace.failure = explained(module, shapes, tracer, error)
            trace.failure.__cause__ = None if trace.layers else error  # it holds all frames
    if tracer.trunk is not None and _is_classifier(trace, tracer.trunk):
        _cut(trace, tracer.trunk)
    return trace, tracer.mutated


def _forward(module: nn.Module, tracer: Tracer, earlier: int) -> Callable[..., None]:
    """A forward pass that notes its inputs, its outputs, and where timm's features end.

    earlier: passes before it, which are not noted.
    """
    trace, run = tracer.trace, trunk(module)

    def features(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        only = list(tracer.named(x, "").values())
        own = only == [*trace.inputs.values()]  # the image itself, not a stem's
        out = run(x, *args, **kwargs)
        if own and tracer.trunk is None:
            held = tracer.named(out, "output")
            tracer.trunk = Trunk(len(trace.ops), len(trace.layers), held)
        return out

    def forward(*images: Tensor) -> None:
        for _ in range(earlier):
            module(*map(torch.empty_like, images))
            trace.layers.clear()
            tracer.calls.clear()
        tracer.kept = Kept(tracer.parts)
        numbers = tracer.named(images, "").values()
        trace.inputs = dict(zip(input_names(module, len(images)), numbers, strict=True))
        trace.sized = None  # so far, only torch's own code ran
        if run is not module and not isinstance(module, torch.jit.ScriptModule):
            vars(module)["forward_features"] = features  # also where it is a submodule
        out = module(*images)
        trace.outputs = tracer.named(out, "output")
        tracer.returned = "None" if out is None else f"a {type(out).__name__}"

    return forward


def _functional(forward: Callable[..., None], tracer: Tracer) -> Callable[..., None]:
    """A pass under functionalisation; without it where that is refused.

    It does not take an autograd.Function without setup_context, nor a write to a weight. Without
    it, whatever a write to a view reaches is opaque (Op.written).
    """

    def run(*images: Tensor) -> None:
        try:
            torch.func.functionalize(forward)(*images)
        except RuntimeError as error:
            if not any(word in str(error) for word in _REFUSED):
                raise
            tracer.restart()
            forward(*images)

    return run


_REFUSED = ("setup_context", "custom_function_call", "mutating a non-functional tensor")


def _is_classifier(trace: Trace, end: Trunk) -> bool:
    """Whether what follows timm's features makes vectors of them, or failed to."""
    if not trace.outputs:
        return True
    seen = set(end.outputs.values())
    for op in trace.ops[end.ops :]:
        if any(ref.id in seen for ref in op.given):
            seen |= {ref.id for ref in op.made}
    vectors = all(len(trace.shapes[i]) <= 2 for i in trace.outputs.values())
    return vectors and not seen.isdisjoint(trace.outputs.values())


def _cut(trace: Trace, end: Trunk) -> None:
    """Leave out what follows timm's features."""
    trace.ops = trace.ops[: end.ops]
    trace.layers = dict(list(trace.layers.items())[: end.layers])
    trace.outputs = end.outputs


@contextlib.contextmanager
def _watched(modules: Mapping[str, nn.Module], tracer: Tracer) -> Iterator[None]:
    """Tell the tracer which layer is running, and what each returned.

    By hooks of all modules, of which there are two, where modules have none of their own: these
    run later, and may change what is returned.
    """
    scripted = torch.jit.ScriptModule  # takes no hooks
    names = {id(m): k for k, m in modules.items() if k and not isinstance(m, scripted)}
    layers, calls = tracer.trace.layers, tracer.calls

    def enter(module: nn.Module, _args: Any) -> None:
        if name := names.get(id(module)):
            tracer.stack.append(name)

    def leave(module: nn.Module, _args: Any, out: Any) -> None:
        if not (name := names.get(id(module))):
            return
        tracer.stack.pop()
        calls[name] += 1
        label = name if calls[name] == 1 else f"{name}#{calls[name]}"
        for own, number in tracer.named(out, label).items():
            # the first output of `enc` is `enc.0`, unless that is a module of its own
            taken = own != label and own in modules
            layers[f"{label}.output{own.removeprefix(label)}" if taken else own] = number

    def leave_shared(module: nn.Module, args: Any, out: Any) -> None:
        if not module._forward_hooks:
            leave(module, args, out)

    each = any(hasattr(m, "_orig_mod") for m in modules.values())  # torch.compile warns otherwise
    for m in modules.values():
        if id(m) in names and (each or m._forward_hooks):
            m.register_forward_hook(leave)
            if each:
                m.register_forward_pre_hook(enter)
    if each:
        yield
        return
    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave_shared)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
