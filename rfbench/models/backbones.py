"""Networks by name, from torchvision, timm or a user's file, in any variant.

Nothing is downloaded: networks are built without pretrained weights, and weights come from files.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from rfbench.copies import whole_copy
from rfbench.errors import UsageError, suggest
from rfbench.models import arguments, own, variants
from rfbench.models.meta import build_on_meta, meta_copy
from rfbench.models.weight_files import LIBRARIES
from rfbench.models.weight_files import load as load_weights

# classes of torchvision's segmenters; of no other layer's width
OUTPUTS = 21


@dataclass
class Backbone:
    """A network in evaluation mode, with its name and variant.

    name: canonical, such as 'torchvision:resnet50', with its arguments. input_size: its usual
    (H, W) in px; (L,) of sequences, (D, H, W) of volumes. variant: the variant's name. replaced:
    module paths of the layers that the variant changed. inputs: examples of all that the network
    takes, where it was changed with these; None: one input.
    """

    name: str
    module: nn.Module
    input_size: tuple[int, ...]
    variant: str
    replaced: list[str]
    inputs: Sequence[Any] | None = None


def build(
    name: str,
    variant: str | Mapping[str, Any] | variants.Variant = "baseline",
    weights: str | None = None,
    meta: bool = False,
    ema: bool = False,
    inputs: Sequence[Any] | None = None,
) -> Backbone:
    """Build the network `name` as `variant`.

    name: of torchvision or timm (the prefix 'timm:' or 'torchvision:' decides), or
    'FILE.py:function' or 'package.module:function' for a callable that returns a module, or a
    program that torch.export.save wrote ('FILE.pt2'); arguments
    stand behind it, as in 'resnet50(in_chans=1)', see `arguments`. weights: a
    checkpoint of rfbench, a state dict or a .safetensors file; it must fit strictly. meta: allocate
    nothing; parameters are on the meta device, only fixed kernels (BlurPool's), and masks and
    tables of one's own networks, keep their values,
    and weights are checked instead of loaded. ema: take the averaged weights of a file with both.
    inputs: examples of all that the network takes, where that is more than one map.

    Raises UsageError for unknown names, variants and files, RfbenchError if the user's code, a
    library or loading the weights fails.
    """
    variant = variants.get(variant)
    canonical, make, size = _resolve(name)
    own_code = not canonical.startswith(tuple(f"{library}:" for library in LIBRARIES))
    module: Any = build_on_meta(make, own_code) if meta else make()
    if own_code and variant.changes and not meta:
        module = whole_copy(module)  # a function may return a network that it keeps
    with contextlib.suppress(NotImplementedError):  # an exported program has no modes
        module.eval()
    if size is None:
        size = _own_size(module, canonical)
    bare = canonical.removeprefix("torchvision:").removeprefix("timm:")
    # one's own function may return a network that is changed already
    replaced = variants.apply(module, variant, bare, size, inputs) if variant.changes else []
    if weights is not None:
        target = meta_copy(module) if meta else module
        load_weights(target, weights, canonical, variant.name, "meta" if meta else "cpu", ema)
    return Backbone(canonical, module, size, variant.name, replaced, inputs)


def names(library: str) -> list[str]:
    """All names of 'torchvision' (classifiers) or 'timm', sorted."""
    if library == "timm":
        import timm  # slow to import

        return timm.list_models()
    if library == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    raise UsageError(f"unknown library '{library}'.{suggest(library, LIBRARIES)}")


def _own_size(module: Any, name: str) -> tuple[int, int]:
    """(H, W) that a network of timm is meant for; its configuration says what its arguments say."""
    args = arguments.split(name)[1]
    channels, *size = module.default_cfg["input_size"]
    if side := args.get("img_size"):
        size = [side, side] if isinstance(side, int) else side
    if args:  # a copy: timm's own stays
        shape = (args.get("in_chans") or channels, *size)
        module.default_cfg = {**module.default_cfg, "input_size": shape}
    return size[0], size[1]


def _resolve(name: str) -> tuple[str, Callable[[], nn.Module], Any]:
    """(canonical name, function that builds the network, (H, W), or None if the network has it)."""
    name, args = arguments.split(name)
    canonical, make, size, *more = _found(name)
    called = functools.partial(arguments.call, name, make, args, *more)
    return arguments.named(canonical, args), called if args else make, size


def _found(name: str) -> tuple[Any, ...]:
    """As `_resolve`, of a name without arguments; the function takes them.

    A fourth item: a function that shows which class they are passed on to.
    """
    library, colon, rest = name.rpartition(":")
    if colon and library not in LIBRARIES:
        return name, own.builder(library, rest), (224, 224)
    if library != "timm" and rest in names("torchvision"):
        make, size = _torchvision(rest)
        guarded = functools.partial(own.guarded, name, make)
        return f"torchvision:{rest}", guarded, size, functools.partial(build_on_meta, make)
    if library != "timm" and rest in segmenters():
        make = functools.partial(_torchvision_segmenter, rest)
        return f"torchvision:{rest}", functools.partial(own.guarded, name, make), (520, 520)
    arch, _, tag = rest.partition(".")
    if library != "torchvision" and arch in names("timm"):
        import timm

        if tag and rest not in (tags := timm.list_pretrained(f"{arch}.*")):
            raise UsageError(f"timm's {arch} has no weights '{tag}'.{suggest(rest, tags)}")
        make = functools.partial(timm.create_model, rest)
        guarded = functools.partial(own.guarded, name, make)
        plain = functools.partial(build_on_meta, make)
        return f"timm:{rest}", guarded, None, plain
    if rest.endswith(".py"):
        raise UsageError(own.unnamed(rest))
    if name.endswith(".pt2"):
        return name, functools.partial(own.program, name), (224, 224)
    if name.endswith((".pt", ".pth")):
        raise UsageError(f"{name} is not read as a network. {own.LOADED}")
    known = {n for lib in LIBRARIES if library in ("", lib) for n in names(lib)}
    raise UsageError(f"unknown model '{name}'.{suggest(rest, sorted(known))}")


def segmenters() -> list[str]:
    """The names of torchvision's networks for segmentation, sorted."""
    from torchvision import models

    return models.list_models(module=models.segmentation)


def is_segmenter(name: str) -> bool:
    """Whether a canonical name is of one of them."""
    library, _, rest = arguments.bare(name).rpartition(":")
    return library == "torchvision" and rest in segmenters()


def set_map_classes(segmenter: Backbone, classes: int) -> None:
    """Give one of torchvision's segmenters `classes` outputs; others have what they have."""
    if not is_segmenter(segmenter.name):
        return
    own = {
        name: layer
        for name, layer in segmenter.module.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.out_channels == OUTPUTS
    }
    for name, layer in own.items():  # auxiliary ones, and both of LR-ASPP
        parent, _, child = name.rpartition(".")
        new = nn.Conv2d(layer.in_channels, classes, 1, device=layer.weight.device)
        setattr(segmenter.module.get_submodule(parent), child, new)


def _torchvision_segmenter(name: str, **args: Any) -> nn.Module:
    from torchvision import models

    if "num_classes" in args:
        raise UsageError(f"model_args: {name} gets as many classes as the data has.")
    # the backbone's weights would be downloaded otherwise
    return models.get_model(name, weights=None, weights_backbone=None, num_classes=OUTPUTS, **args)


def _torchvision(name: str) -> tuple[Callable[..., nn.Module], tuple[int, int]]:
    from torchvision import models

    # these two are slow to initialize with scipy, and warn that this will change
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # the smallest crop: larger ones are of weights fine-tuned with interpolated positions
    side = min(w.transforms.keywords["crop_size"] for w in models.get_model_weights(name))
    return functools.partial(models.get_model, name, weights=None, **options), (side, side)
