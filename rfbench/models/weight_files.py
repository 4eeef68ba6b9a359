"""Files of weights, compared with the network that they are loaded into.

A checkpoint of rfbench records its network, variant and classes; other files (a state dict, a
.safetensors file) are compared by names, shapes and kinds of numbers only.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rfbench import class_names, metric_ranges
from rfbench.errors import RfbenchError, one_line
from rfbench.models import identity, integrity, weight_names, weight_sets
from rfbench.models.identity import LIBRARIES as LIBRARIES
from rfbench.models.weight_names import ONCE

logger = logging.getLogger(__name__)

FORMAT = "rfbench-checkpoint/1"  # of classifiers
SEGMENTERS = "rfbench-segmentation/1"
OURS = "rfbench-"  # how all of them begin, a detector's too
BASELINE = "baseline"  # the variant that libraries' weights are of
OF_NETWORKS = (FORMAT, SEGMENTERS)  # a detector's holds more than the network that it names
MANY = 20  # class names that a message lists


@dataclass(frozen=True)
class Weights:
    """The parameters by name in a file, and what it records. classes: None, it does not tell."""

    state: dict[str, Tensor]
    variant: str | None
    classes: list[str] | None


def variant_of(path: str) -> str | None:
    """The variant that a checkpoint of rfbench records; None for any other weights."""
    content = integrity.read(path)
    if not _is_ours(content):
        return None
    _check_format(content, path)
    return str(content.get("variant"))


def read(path: str, model: str, variant: str, ema: bool = False) -> Weights:
    """The weights in the file `path`; RfbenchError if it records another network.

    ema: take the averaged weights that a file may hold beside the others; which are taken is said.
    """
    content = integrity.read(path)
    held: dict[str, Any] = {}
    if _is_ours(content):
        held = _check_network(content, path, model, variant)
    elif variant != BASELINE:
        warn_of_no_variant(path, variant)
    state = weight_sets.tensors(weight_sets.chosen(content, path, ema), path)
    return Weights(state, held.get("variant"), classes_in(held, path))


def warn_of_no_variant(path: str, variant: str) -> None:
    """Warn that weights are taken for those of a variant, which their file does not tell."""
    text = "%s does not record the variant of its weights: taken as %s."
    logger.warning(text, path, variant, extra=ONCE)


def classes_in(content: Mapping[str, Any], path: str) -> list[str] | None:
    """The names of the classes in a checkpoint of rfbench; None: the file is another's.

    RfbenchError for one of rfbench without them, which could not be compared with the data's, and
    for metrics that no evaluation gives. Detectors of version 0.1 told no classes, and no code.
    """
    classes, kind = content.get("classes"), content.get("format")
    if not (isinstance(kind, str) and kind.startswith(OURS)):
        return None
    if classes is None and kind not in OF_NETWORKS and "code" not in content:
        text = "%s does not tell its classes, as it is of an older version: taken as the data's."
        logger.warning(text, path, extra=ONCE)
        return None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        what = (
            "it does not tell its classes"
            if classes is None
            else "its classes are no list of names"
        )
        raise RfbenchError(f"{path} is damaged: {what}.")
    try:
        metric_ranges.check(content.get("metrics", {}), "metrics")
    except ValueError as error:
        raise RfbenchError(f"{path} is damaged, or was changed: {error}.") from None
    return classes


def state_dict(
    path: str,
    model: str,
    variant: str,
    own: Collection[str],
    ema: bool = False,
) -> dict[str, Tensor]:
    """The parameters by name in the file `path`; RfbenchError if it records another network.

    own: the names of the network, which the file's may have wrapped. ema: as for `read`.
    """
    return weight_names.unwrapped(read(path, model, variant, ema).state, own, path)


def load(
    module: nn.Module,
    path: str,
    model: str,
    variant: str,
    device: str = "cpu",
    ema: bool = False,
    classes: Sequence[str] | None = None,
) -> list[str] | None:
    """Load the checkpoint `path` strictly into `module`, which is `model` in `variant`.

    classes: of the data, to be compared with the file's. Returns the file's, if it tells them.
    Raises RfbenchError if the file records another network or other classes, if names, shapes or
    kinds of numbers differ, or if a number is not finite.
    """
    weights = read(path, model, variant, ema)
    if classes is not None and weights.classes is not None:
        compare_classes(weights.classes, classes, path)
    load_strictly(module, weights.state, path, model, device)
    return weights.classes


def load_strictly(
    module: nn.Module, given: Mapping[str, Any], path: str, what: str, device: str = "cpu"
) -> None:
    """Load parameters into `module`; RfbenchError unless they have its names, shapes and kinds of
    numbers, all finite.

    what: the module, for the message.
    """
    own = module.state_dict()
    named = all(isinstance(key, str) for key in given)
    if not named or not all(isinstance(value, Tensor) for value in given.values()):
        raise RfbenchError(f"{path} does not fit {what}: not all of its weights are named tensors.")
    if empty := [key for key, value in given.items() if value.is_meta]:
        raise RfbenchError(f"{path} holds no values for {', '.join(empty[:3])} (meta tensors).")
    given = weight_names.unwrapped(given, own, path)
    # torch itself would cast, and a module of an old version may change its layers; what names
    # differ is told by it, as modules may rename old ones
    if any(_differ(key, own[key], given[key]) for key in own if key in given):
        raise RfbenchError(f"{path} does not fit {what}: {misfit(own, given)}.")
    check_finite(own, given, path)
    whole = weight_names.moved(weight_names.tracked(given, own), device)
    try:
        module.load_state_dict(whole, assign=device == "meta")
    except Exception as error:  # a module may have a method of its own for it
        problem = misfit(own, given) or one_line(error)
        raise RfbenchError(f"{path} does not fit {what}: {problem}.") from error


def _differ(name: str, own: Tensor, given: Tensor) -> bool:
    """Whether a parameter is of another kind or shape; torch takes old counts of one number."""
    shapes = _shape(own) != _shape(given) and not name.endswith(weight_names.TRACKED)
    return shapes or _kind(own) != _kind(given)


def check_finite(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: str) -> None:
    """Raise RfbenchError for NaN and infinity, but where a buffer of the network has them too.

    And for variances below 0, of which a BatchNorm makes NaN.
    """
    bad = [
        f"{key} ({int(wrong.sum())} of {value.numel()})"
        for key, value in given.items()
        if key in own and bool((wrong := _not_finite(own[key], value)).any())
    ]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise RfbenchError(f"{path} holds numbers that are not finite: {', '.join(bad[:3])}{more}.")
    negative = [key for key, value in given.items() if key in own and _is_negative(key, value)]
    if negative:
        raise RfbenchError(f"{path} holds variances below 0: {', '.join(negative[:3])}.")


def _is_negative(name: str, value: Tensor) -> bool:
    variance = name.endswith("running_var") and not value.is_meta and value.is_floating_point()
    return variance and bool((value < 0).any())


def _not_finite(own: Tensor, given: Tensor) -> Tensor:
    if given.is_meta or not (given.is_floating_point() or given.is_complex()):
        return torch.zeros(1, dtype=torch.bool)
    wrong = ~torch.isfinite(given)
    if not own.is_meta and own.shape == given.shape:
        wrong &= torch.isfinite(own).to(wrong.device)
    return wrong


def compare_classes(held: Sequence[str], own: Sequence[str], path: str) -> None:
    """Raise RfbenchError, with both lists, for other classes; another order is only said."""
    if sorted(held) != sorted(own):
        raise RfbenchError(
            f"{path} is of other classes: {_listed(held, own)}; the data has {_listed(own, held)}"
            f"{class_names.hint(set(held) - set(own), set(own) - set(held))}."
        )
    if list(held) != list(own):
        logger.warning(
            "%s has the classes of the data in another order: its own is kept, and labels follow.",
            path,
        )


def _listed(names: Sequence[str], others: Sequence[str]) -> str:
    """'3 (a, b, c)'; of many, those that the others lack."""
    shown = list(names)
    if len(shown) > MANY:
        lacking = set(others)
        shown = [name for name in shown if name not in lacking]
    rest = ", ..." if len(shown) > MANY or len(shown) < len(names) else ""
    return f"{len(names)} ({', '.join(shown[:MANY])}{rest})"


def _is_ours(content: Any) -> bool:
    """Whether a file records network and variant: of any training of ours that holds a network."""
    kind = content.get("format") if isinstance(content, dict) else None
    return isinstance(kind, str) and kind.startswith(tuple(one.rstrip("1") for one in OF_NETWORKS))


def _check_network(content: dict[str, Any], path: str, model: str, variant: str) -> dict[str, Any]:
    """The content, after a check of its format, network and variant."""
    _check_format(content, path)
    held, name = str(content.get("model")), str(content.get("variant"))
    if not identity.same(held, model) or name != variant:
        if held.partition(":")[0] == model.partition(":")[0] in LIBRARIES:
            held, model = held.partition(":")[2], model.partition(":")[2]
        raise RfbenchError(
            f"{path} holds {held} / {name}; this run is {model} / {variant}. "
            f"The weights would load but mean something else."
        )
    note_of_code(content.get("code"), model, path)
    return content


def _check_format(content: Mapping[str, Any], path: str) -> None:
    if content["format"] not in OF_NETWORKS:
        known = next(one for one in OF_NETWORKS if content["format"].startswith(one.rstrip("1")))
        raise RfbenchError(f"{path} is of format {content['format']}; this version reads {known}.")


def note_of_code(held: object, model: str, path: str) -> None:
    """Say that the code of one's own network is not what it was when `path` was written."""
    now = identity.code_of(model)
    if held and now and held != now:
        text = "the code of %s has changed since %s was written."
        logger.warning(text, model, path, extra=ONCE)


def misfit(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    ignored: tuple[str, ...] = (),
) -> str:
    """How the parameters `given` differ from `own`: counts and first names; "" if they do not.

    ignored: ends of names to be ignored.
    """
    own, given = ({k: v for k, v in s.items() if not k.endswith(ignored)} for s in (own, given))
    both = [key for key in own if key in given]
    shapes = {key: (_shape(given[key]), _shape(own[key])) for key in both}
    kinds = {key: (_kind(given[key]), _kind(own[key])) for key in both}
    names = {
        "missing": [key for key in own if key not in given],
        "unexpected": [key for key in given if key not in own],
        "of another shape": [f"{k}: {a} for {b}" for k, (a, b) in shapes.items() if a != b],
        "of another kind": [f"{k}: {a} for {b}" for k, (a, b) in kinds.items() if a != b],
    }
    return ", ".join(
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})"
        for what, keys in names.items()
        if keys
    )


def _shape(value: object) -> list[int]:
    return list(getattr(value, "shape", ()))  # a state dict may also hold plain values


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    layout = "" if value.layout == torch.strided else f" {value.layout}".replace("torch.", "")
    return str(value.dtype).removeprefix("torch.") + layout
