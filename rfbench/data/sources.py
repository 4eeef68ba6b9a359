"""The data sets by name. A new one is a function that returns a `Dataset`, and one entry here."""

import importlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from rfbench.errors import UsageError, one_line, suggest

if TYPE_CHECKING:  # schemas read only the names; opening a set imports torch
    from rfbench.data.dataset import Dataset


@dataclass(frozen=True)
class Source:
    """A data set: its function, as an object or 'module:function', and a short note on its files.

    The function takes `root` (a folder), `eval_only` and options of its own, by name; the latter
    can be set as `data.options` of a configuration.
    """

    function: "str | Callable[..., Any]"
    reads: str

    def open(self) -> Callable[..., Any]:
        """The function, imported now."""
        if callable(self.function):
            return self.function
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)


# values of `data.name`, in schema, errors, `train-cls` and `rf effective --images`
SOURCES: dict[str, Source] = {
    "imagenet": Source("rfbench.data.imagenet:imagenet", "also its flat validation folder"),
    "folder": Source("rfbench.data.folder:folder", "train/CLASS/ and val/CLASS/"),
    "cifar10": Source("rfbench.data.cifar:cifar10", "torchvision's files"),
    "cifar100": Source("rfbench.data.cifar:cifar100", "torchvision's files"),
    "digits": Source("rfbench.data.digits:digits", "scenes of MNIST digits, embedded"),
}


def unknown(name: str, sources: Mapping[str, Source] = SOURCES) -> str | None:
    """The error message for an unknown data set `name`; None if it is known."""
    if name in sources:
        return None
    known = suggest(name, sources) or f" There are: {', '.join(sources)}."
    return f"unknown data set '{name}'.{known}"


def load(name: str, root: str | None = None, eval_only: bool = False, **options: Any) -> "Dataset":
    """The data set for classification `name`; see `open_set`."""
    return open_set(SOURCES, name, root, eval_only, options)


def open_set(
    sources: Mapping[str, Source],
    name: str,
    root: str | None = None,
    eval_only: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """The data set `name` in the folder `root` (None: datasets/NAME), its files listed.

    With `eval_only` the training split is empty, and its files need not exist. Options that are
    None keep the function's default. Raises UsageError for an unknown name or option, or one of
    another type than the function's annotation, RfbenchError for missing or inconsistent files.
    """
    if problem := unknown(name, sources):
        raise UsageError(problem)
    function = sources[name].open()
    given = {key: value for key, value in (options or {}).items() if value is not None}
    known = set(inspect.signature(function).parameters) - {"root", "eval_only"}
    if foreign := sorted(set(given) - known):
        near = suggest(foreign[0], known) or f" It has: {', '.join(sorted(known)) or 'none'}."
        raise UsageError(f"the data set '{name}' has no option '{foreign[0]}'.{near}")
    _check_types(function, given)
    root = os.path.expanduser(root or f"datasets/{name}")
    return function(root=root, eval_only=eval_only, **given)


def _check_types(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise UsageError for options of another type: a text would be read as a list of letters.

    What has no annotation, or one that says nothing of plain values, is not checked.
    """
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):  # of names that stand nowhere at run time
        return
    for key, value in given.items():
        try:
            adapter = TypeAdapter(hints.get(key, Any), config=ConfigDict(allow_inf_nan=False))
        except PydanticUserError:
            continue
        try:
            # JSON mode, as for a configuration: strict, but a list may become a tuple
            adapter.validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            item = "".join(f"[{part}]" for part in wrong["loc"] if isinstance(part, int))
            what = wrong["msg"].removeprefix("Input should ").replace("a valid array", "a list")
            raise UsageError(
                f"data.options.{key}{item}: must {what} (it is {one_line(repr(value), 60)})"
            ) from None
