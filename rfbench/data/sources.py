"""The data sets by name. A new one is a function that returns a `Dataset`, and one entry here."""

import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rfbench.errors import UsageError, suggest

if TYPE_CHECKING:  # the schema reads the names; torch is imported where a set is opened
    from rfbench.data.dataset import Dataset


@dataclass(frozen=True)
class Source:
    """A data set: its function, itself or as 'module:function', and what it reads, in short.

    The function takes `root` (a folder), `eval_only` and options of its own, by name; those are
    what `data.options` of a configuration may hold.
    """

    function: "str | Callable[..., Dataset]"
    reads: str

    def open(self) -> "Callable[..., Dataset]":
        """The function, imported now."""
        if callable(self.function):
            return self.function
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)


# What `data.name` may say; schema, errors, `train-cls` and `rf effective --images` follow.
SOURCES: dict[str, Source] = {
    "imagenet": Source("rfbench.data.imagenet:imagenet", "also its flat validation folder"),
    "folder": Source("rfbench.data.folder:folder", "train/CLASS/ and val/CLASS/"),
    "cifar10": Source("rfbench.data.cifar:cifar10", "torchvision's files"),
    "cifar100": Source("rfbench.data.cifar:cifar100", "torchvision's files"),
    "digits": Source("rfbench.data.digits:digits", "scenes of MNIST digits, embedded"),
}


def unknown(name: str) -> str | None:
    """What is wrong with `name` as that of a data set; None: nothing."""
    if name in SOURCES:
        return None
    known = suggest(name, SOURCES) or f" There are: {', '.join(SOURCES)}."
    return f"unknown data set '{name}'.{known}"


def load(name: str, root: str | None = None, eval_only: bool = False, **options: Any) -> "Dataset":
    """The data set `name` in the folder `root` (None: datasets/NAME), its files listed.

    With `eval_only` the training split is empty, and its files need not exist. Options that are
    None are left at the function's own default. Raises UsageError for an unknown name or option,
    RfbenchError for files that are not there or do not fit together.
    """
    if problem := unknown(name):
        raise UsageError(problem)
    function = SOURCES[name].open()
    given = {key: value for key, value in options.items() if value is not None}
    known = set(inspect.signature(function).parameters) - {"root", "eval_only"}
    if foreign := sorted(set(given) - known):
        near = suggest(foreign[0], known) or f" It has: {', '.join(sorted(known)) or 'none'}."
        raise UsageError(f"the data set '{name}' has no option '{foreign[0]}'.{near}")
    root = os.path.expanduser(root or f"datasets/{name}")
    return function(root=root, eval_only=eval_only, **given)
