"""Names to networks: torchvision, timm or anyone's own, as a variant.

Nothing is ever downloaded: networks are built without pretrained weights, weights come from files.
"""

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rfbench.errors import RfbenchError, UsageError, suggest
from rfbench.models import variants
from rfbench.models.weight_files import LIBRARIES
from rfbench.models.weight_files import load as load_weights


@dataclass
class Backbone:
    """A network in evaluation mode, and what it is.

    name: canonical, such as 'torchvision:resnet50'. input_size: (H, W) in px that it is meant for.
    variant: the variant's name. replaced: module paths of the convolutions that it changed.
    """

    name: str
    module: nn.Module
    input_size: tuple[int, int]
    variant: str
    replaced: list[str]


def build(
    name: str,
    variant: str | Mapping[str, Any] | variants.Variant = "baseline",
    weights: str | None = None,
    meta: bool = False,
) -> Backbone:
    """Build the network `name` as `variant`.

    name: of torchvision or timm ('timm:', 'torchvision:' say which), or 'FILE.py:function' or
    'package.module:function' for a callable that returns a module. weights: a checkpoint of
    rfbench, a state dict or a .safetensors file; it must fit strictly. meta: allocate nothing;
    parameters are shapes on the meta device, only fixed kernels (BlurPool's) keep their values, and
    weights are checked instead of loaded.

    Raises UsageError for names, variants and files that do not exist, RfbenchError where own code,
    a library or the weights fail.
    """
    variant = variants.get(variant)
    canonical, make, size = _find(name)
    module: Any = (_on_meta(make) if meta else make()).eval()
    if size is None:
        size = tuple(module.default_cfg["input_size"][1:])  # timm's
    bare = canonical.removeprefix("torchvision:").removeprefix("timm:")
    replaced = variants.apply(module, variant, label=bare, size=size)
    if weights is not None:
        target = variants.meta_copy(module) if meta else module
        load_weights(target, weights, canonical, variant.name, "meta" if meta else "cpu")
    return Backbone(canonical, module, size, variant.name, replaced)


def names(library: str) -> list[str]:
    """All names of 'torchvision' (classifiers) or 'timm', sorted."""
    if library == "timm":
        import timm  # a second to import: only where it is asked for

        return timm.list_models()
    if library == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    raise UsageError(f"unknown library '{library}'.{suggest(library, LIBRARIES)}")


def _find(name: str) -> tuple[str, Callable[[], nn.Module], Any]:
    """The canonical name, a function that builds the network, (H, W) or None: ask the network."""
    library, colon, rest = name.rpartition(":")
    if colon and library not in LIBRARIES:
        return name, _own(library, rest), (224, 224)
    if library != "timm" and rest in names("torchvision"):
        return f"torchvision:{rest}", *_torchvision(rest)
    arch, _, tag = rest.partition(".")
    if library != "torchvision" and arch in names("timm"):
        import timm

        if tag and rest not in (tags := timm.list_pretrained(f"{arch}.*")):
            raise UsageError(f"timm's {arch} has no weights '{tag}'.{suggest(rest, tags)}")
        make = functools.partial(timm.create_model, rest)
        return f"timm:{rest}", lambda: _guarded(name, make), None
    if rest.endswith(".py"):
        raise UsageError(f"which function of {name} builds the model? Write {name}:FUNCTION.")
    known = {n for lib in LIBRARIES if library in ("", lib) for n in names(lib)}
    raise UsageError(f"unknown model '{name}'.{suggest(rest, sorted(known))}")


def _torchvision(name: str) -> tuple[Callable[[], nn.Module], tuple[int, int]]:
    from torchvision import models

    # these two draw from scipy's truncated normal for long, and announce to stop doing so
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # the smallest crop: larger ones belong to weights fine-tuned with interpolated positions
    side = min(w.transforms.keywords["crop_size"] for w in models.get_model_weights(name))
    return functools.partial(models.get_model, name, weights=None, **options), (side, side)


def _guarded(source: str, call: Callable[[], Any]) -> Any:
    """`call()`, with whatever code that is not ours raises as one line."""
    try:
        return call()
    except RfbenchError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f.lineno for f in frames if Path(f.filename).name == Path(source).name]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1] if own else None
        where = f"{source}, line {line}" if line else source
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise RfbenchError(f"{where}: {what}") from error


def _own(source: str, attribute: str) -> Callable[[], nn.Module]:
    """The builder of 'FILE.py:function' or 'package.module:function'."""
    module = _guarded(source, lambda: _import_own(source))
    make = getattr(module, attribute, None)
    if not callable(make):
        near = suggest(attribute, (n for n, v in vars(module).items() if callable(v)))
        raise UsageError(f"{source} has no function '{attribute}'.{near}")

    def build() -> nn.Module:
        network = _guarded(source, make)
        if not isinstance(network, nn.Module):
            kind = type(network).__name__
            raise UsageError(f"{source}:{attribute}() returns {kind}, not a torch.nn.Module.")
        return network

    return build


def _import_own(source: str) -> types.ModuleType:
    path = Path(source)
    if path.suffix == ".py":
        if not path.is_file():
            raise UsageError(f"no such file: {source}")
        return _import_file(path.resolve(), path.stat().st_mtime_ns)
    if os.getcwd() not in sys.path:  # an installed command does not look there by itself
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if not f"{source}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports one that is not
        forms = f"FILE.py:function, package.module:function, {':NAME, '.join(LIBRARIES)}:NAME"
        raise UsageError(f"no module '{error.name}'. A model is NAME, {forms}.") from None


@functools.cache  # as an import: once, and again only when the file has changed
def _import_file(path: Path, _changed: int) -> types.ModuleType:
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # so that it finds its neighbours
    taken = getattr(sys.modules.get(path.stem), "__file__", str(path)) != str(path)
    spec = importlib.util.spec_from_file_location(path.stem + "_" * taken, path)
    assert spec and spec.loader  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look classes up there
    spec.loader.exec_module(module)
    return module


class _EmptyOnMeta(TorchFunctionMode):
    """torch.empty, which layers get their parameters from, allocates nothing; all else is real."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        place = {"device": "meta"} if func is torch.empty else {}
        return func(*args, **{**(kwargs or {}), **place})


def _on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Build with every parameter and buffer on the meta device, but for fixed kernels."""
    # RegNet computes its widths with tensors: all on meta fails; hybrid ViTs run themselves on
    # zeros: only torch.empty on meta fails; what fails in both ways is built for real
    for place in (_EmptyOnMeta(), torch.device("meta"), contextlib.nullcontext()):
        try:
            with place:
                module = make()
        except Exception as error:
            if isinstance(error, UsageError) or isinstance(place, contextlib.nullcontext):
                raise
            continue
        named = [(m, key, b) for m in module.modules() for key, b in m._buffers.items()]
        kernels = [(m, key, b) for m, key, b in named if b is not None and _is_kernel(b)]
        if all(hasattr(m, "init_non_persistent_buffers") for m, _, b in kernels if b.is_meta):
            break
    module.to("meta")
    for owner, key, kernel in kernels:
        owner._buffers[key] = torch.empty_like(kernel, device="cpu") if kernel.is_meta else kernel
        if kernel.is_meta:
            owner.init_non_persistent_buffers()  # type: ignore[operator]  # timm's protocol
    return module


def _is_kernel(buffer: Tensor) -> bool:
    """Whether it can be the weight of a fixed 2-D convolution: (C_out, C_in, h, w)."""
    if buffer.ndim != 4 or not buffer.is_floating_point():
        return False
    outputs, inputs, *window = buffer.shape
    return max(window) > 1 and (outputs > 1 or inputs == 1)  # (1, C, H, W) is an image or a table
