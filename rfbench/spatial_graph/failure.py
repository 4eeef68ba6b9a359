"""What a pass that failed says: one line with what, where, and what to do."""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.spatial_graph.hooks import Conditions
from rfbench.spatial_graph.size import Shape, by
from rfbench.spatial_graph.tracer import Tracer


def explained(
    module: nn.Module, shapes: Sequence[Shape], tracer: Tracer, error: Exception
) -> RfbenchError:
    """One line for an error inside the network: what, where, what to do."""
    error = tracer.refused or error
    where = f" in layer {tracer.stack[-1]}" if tracer.stack else ""
    if "TorchScript interpreter" in str(error) and tracer.failed:
        name, error = tracer.failed
        reason = _reason(error)
        reason = reason if "::" in reason else f"{name}: {reason}"
    else:
        reason = _reason(error)
    given = " and ".join(text(shape) for shape in shapes)
    what = f"{type(module).__name__} fails on an input of {given}{where}: {reason}"
    if isinstance(error, RfbenchError):
        return type(error)(what)
    if any(word in reason.lower() for word in _SIZE_WORDS):
        return UsageError(f"{what}. Choose another --size.")
    if "meta" in reason or "data-dependent" in reason:
        what += f". Its code reads values{_line(error)}; a trace has shapes only"
    if _takes_conditions(module) and any(word in what for word in _READS):
        what += f". If it looks at a condition (a time, a class): {FIX}"
    if found := re.search(r"takes (\d+) positional arguments? but \d+ w", reason):
        means = f"It takes what it needs by other means: {WRAP}"
        what += f". {means if found[1] == '1' else 'It takes fewer inputs than are given'}"
    if "scalar types: Long" in reason:  # what torch's embeddings say
        what += ". Tokens are given as --input 64xint (in Python: inputs=)"
    if "required positional argument" in reason:
        what += ". Give the shape of each input with --input (in Python: inputs=)"
    return RfbenchError(what)


def _line(error: Exception) -> str:
    """Where in the network's own code an error was raised: ' (net.py, line 5)'; '' if unknown."""
    own = [
        (Path(frame.f_code.co_filename).name, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ("torch", "rfbench")
    ]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""


WRAP = "give a module around it whose forward(x) calls it"
FIX = f"{WRAP} with that value fixed, as in net(x, 5)"


# what a tensor does where a number is meant: `if t > 3`, `self.layers[t]`, `scale_factor=t`
_READS = ("shapes only", "to an index", "takes no arguments of the kinds")


def _takes_conditions(module: nn.Module) -> bool:
    """Whether it is given more than maps."""
    return any(isinstance(hook, Conditions) for hook in module._forward_pre_hooks.values())


def _reason(error: Exception) -> str:
    """The first line of an error; of torch's long ones what they come to."""
    reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    for form, told in _TOLD:
        if found := form.match(reason):
            name = found[1] if found.groups() else ""
            looks = told is _META and not _returns_tensor(name)
            return (_LOOKS if looks else told).format(name)
    return reason


def _returns_tensor(name: str) -> bool:
    """Whether an operation does not return numbers (aten::equal)."""
    known = torch._C._jit_get_schemas_for_operator(name)
    return any("Tensor" in str(r.type) for schema in known for r in schema.returns)


_SHAPE = "the shape of its result depends on values: {}; a trace has none"
_META = "{} has no rule for the shape of its result (torch.library.register_fake gives it one)"
_LOOKS = "{} looks at values; a trace has shapes only"
_MKLDNN = (
    "its layers are stored for one kind of CPU (torch.jit.optimize_for_inference): measure the "
    "script that it was made of"
)
_GUARD = "it was exported for inputs with {}: give such ones, or export it with dynamic_shapes"
_KINDS = "{}() takes no arguments of the kinds that it is given"
_DIFFERENTIATES = "it takes gradients of its own (torch.func), which a trace does not follow"
_NUMPY = "it hands a tensor to NumPy; a trace has shapes only"
_SPARSE = "a sparse tensor holds values; a trace has shapes only"
_TOLD = (  # what torch's long messages come to
    (re.compile(r".*(TensorWrapper|GradTrackingTensor)"), _DIFFERENTIATES),
    (re.compile(r".*_to_sparse"), _SPARSE),
    (re.compile(r"aten::to_mkldnn"), _MKLDNN),
    (re.compile(r"can't convert meta .* to numpy"), _NUMPY),
    (re.compile(r"(tolist\(\)) shouldn't be called"), _LOOKS),
    (re.compile(r"expected TensorOptions\(.*device=meta"), _LOOKS.format("a tensor's constructor")),
    (re.compile(r"Guard failed: (.+)"), _GUARD),
    (re.compile(r".*register_meta function for (torch\.\w+)"), _SHAPE),
    (re.compile(r"(\w+::\w+) \(.*data-dependent shape"), _SHAPE),
    (re.compile(r"([\w.]+)\(\) received an invalid combination of arguments"), _KINDS),
    (
        re.compile(r"There was no rule registered for HigherOrderOperator (\w+) "),
        "torch.{} chooses by values; a trace has none",
    ),
    (re.compile(r"(\w+::\w+): attempted to run this operator with Meta tensors"), _META),
    (re.compile(r".*NestedTensorImpl"), "a nested tensor holds values; a trace has shapes only"),
)
_SIZE_WORDS = (
    "too small",
    "kernel size",
    "input size",
    "match model",
    "height",
    "padding size",
    "overflow",
)


def text(shape: Shape) -> str:
    """'3 x 224x224'."""
    return f"{shape[0]} x {by(shape[1:])}"
