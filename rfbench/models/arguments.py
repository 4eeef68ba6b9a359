"""Arguments of a network's function, as part of its name: 'resnet50(in_chans=1,output_stride=8)'.

One text thus carries them through records, checkpoints, tables and Detectron2's configurations,
and whatever compares names compares them too.
"""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any

from rfbench.errors import RfbenchError, UsageError, suggest

# given by keys of their own, or never
RESERVED = (
    "weights",
    "weights_backbone",
    "pretrained",
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)


def named(model: str, args: Mapping[str, Any] | None) -> str:
    """The name of a model with arguments; `model` itself may have some already.

    Raises UsageError for values that are no numbers, texts, lists or mappings, and for an argument
    that is given twice.
    """
    bare, held = split(model)
    if twice := [key for key in held if key in (args or {})]:
        raise UsageError(f"model_args: {twice[0]} is given in the model's name already.")
    every = {**held, **(args or {})}
    for key in every:
        if not isinstance(key, str) or not key.isidentifier():
            raise UsageError(f"model_args: '{key}' is no name of an argument.")
        if key in RESERVED:
            raise UsageError(f"model_args: {key} cannot be set here; weights are given apart.")
    words = [f"{key}={_text(key, every[key])}" for key in sorted(every)]
    return f"{bare}({','.join(words)})" if words else bare


def _text(key: str, value: Any) -> str:
    """A value as Python writes it, without ':' and spaces of its own."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value).replace(":", "\\x3a")  # names are split at their last colon
    if isinstance(value, list | tuple):
        return f"[{','.join(_text(key, v) for v in value)}]"
    if isinstance(value, Mapping) and all(str(k).isidentifier() for k in value):
        return f"dict({','.join(f'{k}={_text(key, v)}' for k, v in sorted(value.items()))})"
    raise UsageError(
        f"model_args: {key} is no number, text, list or mapping. For others, write a function "
        "that builds the network, or pass the module."
    )


def split(name: str) -> tuple[str, dict[str, Any]]:
    """The name of a model without arguments, and those. Raises UsageError if they are malformed."""
    found = re.fullmatch(r"(.+?)\((\s*[A-Za-z_]\w*\s*=.*)\)", name, re.DOTALL)
    if not found:
        return name, {}
    try:
        call = ast.parse(f"f({found[2]})", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return found[1], {str(word.arg): _value(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        form = "NAME(ARGUMENT=VALUE,...), with numbers, 'texts', lists and dict(KEY=VALUE)"
        raise UsageError(f"model '{name}': arguments are written {form}.") from None


def bare(name: str) -> str:
    """The name of a model without arguments."""
    return split(name)[0]


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {str(word.arg): _value(word.value) for word in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    return ast.literal_eval(node)


def call(label: str, make: Callable[..., Any], args: Mapping[str, Any], *more: Any) -> Any:
    """`make(**args)`; an argument that it does not take is a UsageError with the nearest names.

    more: callables that pass their arguments on; their parameters are suggested too.
    """
    known, open_ended = _parameters(make)
    if not open_ended and (unknown := [key for key in args if key not in known]):
        raise UsageError(_refusal(label, unknown[0], known))
    try:
        return make(**args)
    except (TypeError, RfbenchError) as error:
        cause = error.__cause__ or error
        found = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
        if not isinstance(cause, TypeError) or not found or found[1] not in args:
            raise
        names = {*known, *(name for one in more for name in _of_default(one))}
        raise UsageError(_refusal(label, found[1], names)) from None


def _refusal(label: str, key: str, known: Iterable[str]) -> str:
    names = sorted({*known} - {"self", *RESERVED})
    near = suggest(key, names) or (f" There are: {', '.join(names)}." if names else "")
    return f"model_args: {label} takes no argument '{key}'.{near}"


def _of_default(build: Callable[[], Any]) -> list[str]:
    """The parameters of the class of what a function builds without arguments."""
    try:
        return _parameters(type(build()).__init__)[0]
    except Exception:
        return []


def _parameters(function: Any) -> tuple[list[str], bool]:
    """The names of a function's parameters, and whether it takes any others."""
    try:
        every = signature(function).parameters.values()
    except (TypeError, ValueError):  # built in
        return [], True
    names = [
        p.name for p in every if p.kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    ]
    return names, any(p.kind is Parameter.VAR_KEYWORD for p in every)
