"""The data sets by name. A new one is a function here that returns a `Dataset`."""

import inspect
import os
from collections.abc import Callable
from typing import Any

from rfbench.data.cifar import cifar10, cifar100
from rfbench.data.dataset import Dataset
from rfbench.data.digits import digits
from rfbench.data.folder import folder
from rfbench.data.imagenet import imagenet
from rfbench.errors import UsageError, suggest

# What `data.name` may say. Each takes `root`, `eval_only` and options of its own.
SOURCES: dict[str, Callable[..., Dataset]] = {
    "imagenet": imagenet,
    "folder": folder,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "digits": digits,
}


def load(name: str, root: str | None = None, eval_only: bool = False, **options: Any) -> Dataset:
    """The data set `name` in the folder `root` (None: datasets/NAME), its files listed.

    With `eval_only` the training split is empty, and its files need not exist. Options that are
    None are left at the function's own default. Raises UsageError for an unknown name or option,
    RfbenchError for files that are not there or do not fit together.
    """
    if name not in SOURCES:
        known = suggest(name, SOURCES) or f" There is: {', '.join(SOURCES)}."
        raise UsageError(f"unknown data set '{name}'.{known}")
    source = SOURCES[name]
    given = {key: value for key, value in options.items() if value is not None}
    known_options = set(inspect.signature(source).parameters) - {"root", "eval_only"}
    if foreign := sorted(set(given) - known_options):
        raise UsageError(
            f"the data set '{name}' has no option '{foreign[0]}'."
            f"{suggest(foreign[0], sorted(known_options))}"
        )
    root = os.path.expanduser(root or f"datasets/{name}")
    return source(root=root, eval_only=eval_only, **given)
