"""The tensors in what a module returns, by name: lists, tuples, dicts, dataclasses, nested."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def named_tensors(value: Any, name: str) -> dict[str, Tensor]:
    """Every tensor of a result by its name: 'enc', or 'enc.aux', 'enc.0', 'enc.out.1'.

    Names are keys, indices, and the fields of named tuples, dataclasses and other objects.
    """
    return dict(_walk(value, name, set()))


def _walk(value: Any, name: str, above: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif id(value) not in above:  # an object that holds itself
        for key, part in _parts(value):
            yield from _walk(part, f"{name}.{key}", above | {id(value)})


def _parts(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, type) or callable(value):
        return []
    if is_dataclass(value):
        return [(f.name, getattr(value, f.name)) for f in fields(value) if hasattr(value, f.name)]
    return list(vars(value).items()) if hasattr(value, "__dict__") else []
