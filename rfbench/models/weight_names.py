"""The names in a state dict, without what a wrapper of the network has put into all of them."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

TRACKED = "num_batches_tracked"  # of a BatchNorm; nothing reads it, and old files lack it
COUNT = "n_averaged"  # of torch's AveragedModel
PARALLEL = "module."  # of DataParallel, DDP and AveragedModel
# of torch.compile, FSDP and activation checkpointing, at any depth
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
ONCE = {"once": True}  # files are read to be checked, and again to be loaded

Value = TypeVar("Value")


def unwrapped(given: Mapping[str, Tensor], own: Collection[str], path: str) -> dict[str, Tensor]:
    """The weights in the file `path` by the names `own` of a network, if wrappers changed them.

    Any prefix of all names is left out if the rest are the network's names exactly, and no
    others; but for those of DDP and torch.compile, which it is, is said. Otherwise only the latter
    are left out.
    """
    names = {_plain(name): name for name in own}
    held = {_plain(name): name for name in given if name != COUNT or COUNT in own}
    counted = len(given) - (COUNT in given and COUNT not in own)
    if given.keys() == set(own) or len(names) < len(own) or len(held) < counted:
        return _versioned(dict(given), given, str)
    prefix = _prefix(held, names)
    fits = _main(name.removeprefix(prefix) for name in held) == _main(names)
    if not fits:  # for a message that tells of what differs apart from them
        prefix = "" if all(name.startswith(PARALLEL) for name in own) else _parallel(held)
    elif prefix.replace(PARALLEL, ""):
        logger.info("%s: the prefix '%s' of its names is left out.", path, prefix, extra=ONCE)
    rest = {name.removeprefix(prefix): given[full] for name, full in held.items()}
    state = {names.get(name, name): value for name, value in rest.items()}
    return _versioned(state, given, lambda name: f"{_plain(name)}.".removeprefix(prefix)[:-1])


def kept(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Some parameters of a state dict, which keeps the versions of the modules in it."""
    return _versioned({name: state[name] for name in names}, state, str)


def tracked(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with 0 for counts of batches that it lacks, as torch itself does for old files."""
    lacking = {k: torch.zeros_like(v) for k, v in own.items() if k.endswith(TRACKED)}
    return _versioned({**lacking, **state}, state, str)


def moved(state: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """A state dict on a device, which keeps the versions of the modules in it."""
    return _versioned({name: value.to(device) for name, value in state.items()}, state, str)


def without_versions(state: dict[str, Tensor], modules: Collection[str]) -> dict[str, Tensor]:
    """A state dict that does not tell the versions of these modules, which are of another class."""
    versions = getattr(state, "_metadata", {})
    copied = _versioned(dict(state), state, str)
    if versions:
        held = {name: told for name, told in versions.items() if name not in modules}
        setattr(copied, "_metadata", held)  # noqa: B010
    return copied


def _versioned(
    state: dict[str, Value], given: Mapping[str, Tensor], renamed: Callable[[str], str]
) -> dict[str, Value]:
    """`state` with the versions of modules that `given` tells: torch converts old ones by them."""
    held = getattr(given, "_metadata", None)  # of a file, so it may be anything
    if not isinstance(held, Mapping):
        return state
    versions = {
        renamed(name): {"version": told["version"]}
        for name, told in held.items()
        if isinstance(name, str) and isinstance(told, Mapping) and type(told.get("version")) is int
    }
    ordered = OrderedDict(state)
    setattr(ordered, "_metadata", versions)  # noqa: B010  as torch does, of a type without it
    return ordered


def _plain(name: str) -> str:
    """A name without the parts that wrappers within a network have added."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _main(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.endswith(TRACKED)}


def _prefix(held: Iterable[str], names: Iterable[str]) -> str:
    """What stands before all names of a network, if a file holds these: before the first, too."""
    ours, theirs = (min(_main(some), default="") for some in (names, held))
    prefix = theirs.removesuffix(ours)
    return prefix if prefix.endswith(".") else ""


def _parallel(held: Collection[str]) -> str:
    """'module.', as often as all names begin with it."""
    prefix = ""
    while held and all(name.startswith(prefix + PARALLEL) for name in held):
        prefix += PARALLEL
    return prefix
