"""Path counts by the paper's own procedure: rewrite the network as N', back-propagate one unit.

The independent second opinion to the graph engine; it shares no code with it. A deep copy of the
module runs once in float64 as N' (`rf.nprime`): convolutions all-ones without bias, activations the
identity, max-pooling an all-ones depthwise convolution. Everything left is linear, so one backward
pass from a unit counts its paths to every pixel: RF = d c' / d I (paper, section 3).
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rfbench.copies import evaluating, whole_copy
from rfbench.errors import RfbenchError, UsageError, suggest
from rfbench.rf.autograd.nprime import NPrime, Tag
from rfbench.rf.autograd.twins import Refused


def path_counts(
    module: nn.Module,
    size: tuple[int, ...],
    *,
    to: str,
    source: str | None = None,
    unit: tuple[int, ...],
    channels: Literal["single", "real"] = "single",
    pool: Literal["count", "mean"] = "count",
    gates: Literal["ignore", "count"] = "ignore",
    in_channels: int | None = None,
    forward: str | None = None,
) -> np.ndarray:
    """Paths from each position of `source` to `unit` of `to`: their number, float64, (h, w).

    module       any nn.Module; it is deep-copied and never changed. Meta parameters are fine.
    size         (height, width) of the input in pixels, or of other axes; the batch is 1.
    to, source   module paths as in `named_modules`, "layer1.0.relu#2" for a second call. `to=""`:
                 what `forward` returns; `source=None`: the input. Both are (1, C, h, w), or
                 channels-last by a permutation of the module's own.
    unit         (row, column) of the output unit, in units of `to`; with as many axes.
    channels     "single": a convolution weighs 1/C_in (of its group); the map is the mean over the
                 channels of `to`, the sum over those of `source`: a channel counts by its share.
                 "real": ones everywhere, N' to the letter.
    pool         "count": every pooling window, clipped ones included, sums; fixed kernels
                 (BlurPool: buffers, not parameters) are scaled to a smallest weight of 1.
                 "mean": average pooling keeps its divisor, fixed kernels their weights.
    gates        "ignore": a context (see `rf.nprime`) that joins a map is a constant.
                 "count": its paths are added.
    in_channels  of the input; that of the first convolution by default.
    forward      the method to run; default `forward_features` (timm) if there is one, or `forward`.

    Raises UsageError for an unknown layer or unit; RfbenchError for a function not known to be
    local (softmax, attention, ...), where no path exists, and where float64 overflows.
    """
    model = _prepare(module)
    names = [name for name, _ in model.named_modules() if name]
    for layer in filter(None, (to, source)):
        if layer.split("#")[0] not in names:
            near = suggest(layer, names)
            raise UsageError(f"unknown layer '{layer}' in {type(module).__name__}.{near}")
    if in_channels is None:
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(size) - 1]
        in_channels = next((m.in_channels for m in model.modules() if isinstance(m, kind)), 3)
    method = forward or ("forward_features" if hasattr(model, "forward_features") else "forward")
    mode = NPrime(model, channels == "single", pool == "count", gates == "ignore", len(size))
    run = _Run(model, mode, to, source)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = torch.zeros(1, in_channels, *size, dtype=torch.float64, device="cpu")
        leaf.requires_grad_()
        # the module itself, where it is `forward`: it may have hooks
        target = run(model if method == "forward" else getattr(model, method), leaf)
        origin = leaf if source is None else run.layer(source)
        seed = _seed(target, to, unit, channels)
        (grad,) = torch.autograd.grad(target, origin, seed, allow_unused=True)
    if grad is None:
        raise RfbenchError(f"no path leads from '{source or 'input'}' to '{to or 'output'}'.")
    counts: np.ndarray = grad[0].sum(0).numpy()
    if not np.isfinite(counts).all():
        raise RfbenchError("autograd's float64 overflowed; use the graph engine.")
    return counts


def _seed(target: Tensor, to: str, unit: tuple[int, ...], channels: str) -> Tensor:
    """The gradient of the target: one position, the mean (single) or sum (real) of channels."""
    _, depth, *units = target.shape
    if len(unit) != len(units) or not all(0 <= u < n for u, n in zip(unit, units, strict=True)):
        names = {2: "rows x columns, "}.get(len(units), "")
        shape = f"{' x '.join(map(str, units))} ({names}counted from 0)"
        raise UsageError(f"unit {tuple(unit)} is outside '{to or 'output'}', which is {shape}.")
    seed = torch.zeros_like(target)
    where: tuple[int | slice, ...] = (0, slice(None), *unit)
    seed[where] = 1 / depth if channels == "single" else 1
    return seed


def _prepare(module: nn.Module) -> nn.Module:
    """A float64 evaluation-mode copy on the CPU whose parameters require no gradient."""
    model = evaluating(whole_copy(module)).requires_grad_(False)
    for part in model.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_meta:
                part._parameters[name] = nn.Parameter(_materialised(parameter), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_meta:
                part._buffers[name] = _materialised(buffer)
    return model.to("cpu", torch.float64)


def _materialised(lost: Tensor) -> Tensor:
    """Weights do not matter in N' but for fixed kernels: NaN tells that such values are lost."""
    fill = math.nan if lost.is_floating_point() else 0
    return torch.full_like(lost, fill, device="cpu")


class _Reached(Exception):
    """The target has been captured; the rest of the forward pass is not needed."""


class _Run:
    """One forward pass as N' that captures the outputs of two layers."""

    def __init__(self, model: nn.Module, mode: NPrime, to: str, source: str | None) -> None:
        self.mode, self.to = mode, to
        self.wanted = {to, source} - {"", None}
        self.captured: dict[str, Tensor] = {}
        self.calls: Counter[str] = Counter()
        self.inside: list[str] = []  # the layers that are being run, outermost first
        for name, part in model.named_modules():
            part.register_forward_pre_hook(lambda _part, _args, name=name: self.inside.append(name))
            part.register_forward_hook(lambda _part, _args, out, name=name: self._leave(name, out))

    def __call__(self, function: Callable[[Tensor], Any], leaf: Tensor) -> Tensor:
        """The target of `function(leaf)`, as (1, C, h, w)."""
        self.mode.tags[leaf] = Tag()
        try:
            with self.mode:
                # a clone, since in-place functions may not write into a leaf
                out = function(leaf.clone())
                if not self.to:
                    return self._map("the output", out)
        except _Reached:
            pass
        except RfbenchError:
            raise
        except Refused as refused:
            name, why = refused.args
            message = f"autograd engine: {name} in {self._here()} {why}; choose a layer before it."
            raise RfbenchError(message) from None
        except Exception as error:
            size = " x ".join(map(str, leaf.shape))
            message = f"autograd engine: {self._here()} fails on an input of {size}: {error}"
            raise RfbenchError(message) from error
        return self.layer(self.to)

    def layer(self, name: str) -> Tensor:
        """The captured output of layer `name`; UsageError where the run did not come by it."""
        if name not in self.captured:
            way = "in the forward pass" if name == self.to else f"on the way to '{self.to}'"
            calls = f"it was called {self.calls[name.split('#')[0]]} times"
            raise UsageError(f"layer '{name}' is not reached {way}: {calls}.")
        return self.captured[name]

    def _leave(self, name: str, out: Any) -> Any:
        self.inside.pop()
        self.calls[name] += 1
        key = name if self.calls[name] == 1 else f"{name}#{self.calls[name]}"
        if key not in self.wanted:
            return None
        captured = self.captured[key] = self._map(f"'{key}'", out)
        if key == self.to:
            raise _Reached
        # The network goes on with a copy: its `out += identity` must not rewrite what is captured.
        last = self.mode.tags[out].channels_last
        return captured.movedim(1, -1).clone() if last else captured.clone()

    def _map(self, name: str, out: Any) -> Tensor:
        """`out` as a new (1, C, h, w) tensor; refused where it is none."""
        if not isinstance(out, Tensor) or out.ndim != self.mode.axes + 2:
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            axes = ("length", "height, width", "depth, height, width")[self.mode.axes - 1]
            wanted = f"(1, channels, {axes})"
            raise UsageError(f"{name} is not a map of {wanted} but {shape}.")
        if not out.requires_grad or out not in self.mode.tags:
            raise RfbenchError(f"autograd engine: no path leads from the input to {name}.")
        return (out.movedim(-1, 1) if self.mode.tags[out].channels_last else out).clone()

    def _here(self) -> str:
        return f"layer {self.inside[-1]}" if self.inside and self.inside[-1] else "the network"
