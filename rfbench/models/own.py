"""Users' networks: a function of a file or module, imported and called."""

import ast
import functools
import importlib
import importlib.util
import itertools
import os
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rfbench.errors import RfbenchError, UsageError, one_line, suggest
from rfbench.models.weight_files import LIBRARIES


def guarded(source: str, call: Callable[..., Any], **args: Any) -> Any:
    """`call(**args)`, which runs the user's code; any error becomes an RfbenchError of one line."""
    given = sys.argv
    sys.argv = [source]  # argparse in the file would read rfbench's arguments
    try:
        return call(**args)
    except (RfbenchError, KeyboardInterrupt):
        raise
    except BaseException as error:  # sys.exit and whatever else it raises end its call, no more
        frames = traceback.extract_tb(error.__traceback__)
        own = [f.lineno for f in frames if Path(f.filename).name == Path(source).name]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1] if own else None
        where = f"{source}, line {line}" if line else source
        what = one_line(f"{type(error).__name__}: {error}", 300)
        raise RfbenchError(f"{where}: {what}") from error
    finally:
        sys.argv = given


def builder(source: str, attribute: str) -> Callable[..., nn.Module]:
    """The builder of 'FILE.py:function' or 'package.module:function', with its parameters."""
    module = guarded(source, lambda: _import_own(source))
    make = getattr(module, attribute, None)
    if not callable(make):
        near = suggest(attribute, (n for n, v in vars(module).items() if callable(v)))
        raise UsageError(f"{source} has no function '{attribute}'.{near}")

    @functools.wraps(make)
    def build(**args: Any) -> nn.Module:
        network = guarded(source, make, **args)
        if isinstance(network, torch.export.ExportedProgram):
            network = network.module()
        if not isinstance(network, nn.Module):
            kind = type(network).__name__
            hint = MODES if network is None else ""
            raise UsageError(f"{source}:{attribute}() returns {kind}, not a torch.nn.Module.{hint}")
        _refuse_lazy(network, f"{source}:{attribute}()", attribute)
        return network

    return build


def checked_module(model: object) -> nn.Module:
    """The module itself. Raises UsageError for anything else, such as the class of a network."""
    if isinstance(model, nn.Module):
        return model
    name = getattr(model, "__name__", None) if callable(model) else None
    what = f"{name}, which is to be called first: {name}(...)" if name else repr(model)[:100]
    hint = f".{MODES}" if model is None else ""
    raise UsageError(f"a network is a torch.nn.Module; this is {what}{hint}")


MODES = " Its own train() or eval() may return nothing: call it on a line of its own."
LOADED = "Write a function that builds it, or loads it whole: MODEL is FILE.py:function."


def program(path: str) -> nn.Module:
    """The module of a program that torch.export.save wrote."""
    if not Path(path).is_file():
        raise UsageError(f"no such file: {path}")
    return guarded(path, lambda: torch.export.load(path)).module()


def _refuse_lazy(network: nn.Module, label: str, function: str) -> None:
    """Raise UsageError for a layer without weights: their shapes depend on the first input."""
    for key, tensor in itertools.chain(network.named_parameters(), network.named_buffers()):
        if is_lazy(tensor):
            name = key.rpartition(".")[0]
            kind = type(network.get_submodule(name)).__name__
            raise UsageError(
                f"{label} returns a network whose {name or 'only layer'} is lazy and has no "
                f"weights yet. In {function}, run the network once on an example, or use "
                f"{kind.removeprefix('Lazy')} in place of {kind}."
            )


def unnamed(path: str) -> str:
    """What is said of a file without a function: those that it has. It is read, not run."""
    if not Path(path).is_file():
        return f"no such file: {path}"
    ask = f"which function of {path} builds the model? Write {path}:FUNCTION."
    try:
        body = ast.parse(Path(path).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return ask
    names = [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    public = [name for name in names if not name.startswith("_")]
    return (
        f"{ask} It has: {', '.join(public[:10])}{', ...' * (len(public) > 10)}." if public else ask
    )


def _import_own(source: str) -> types.ModuleType:
    path = Path(source)
    if path.suffix == ".py":
        if not path.is_file():
            raise UsageError(f"no such file: {source}")
        return _import_file(path.resolve(), path.stat().st_mtime_ns)
    if os.getcwd() not in sys.path:  # not on the path of an installed command
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if not f"{source}.".startswith(f"{error.name}."):
            raise  # the module exists, but imports one that does not
        forms = f"FILE.py:function, package.module:function, {':NAME, '.join(LIBRARIES)}:NAME"
        raise UsageError(f"no module '{error.name}'. A model is NAME, {forms}.") from None


@functools.cache  # like an import: once, and again only if the file has changed
def _import_file(path: Path, _changed: int) -> types.ModuleType:
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # for imports from the same folder
    taken = getattr(sys.modules.get(path.stem), "__file__", str(path)) != str(path)
    spec = importlib.util.spec_from_file_location(path.stem + "_" * taken, path)
    assert spec and spec.loader  # set for every .py file
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look classes up there
    spec.loader.exec_module(module)
    return module
