"""What an operation writes to, by its schema, and the operation that returns that instead."""

from functools import cache
from typing import Any, NamedTuple

import torch


def kinds(func: Any) -> list[str]:
    """The types of its arguments."""
    return [str(argument.type) for argument in func._schema.arguments]


class Traits(NamedTuple):
    """Of an operation. writes: to the memory of an argument."""

    views_in_place: bool
    mutable: bool
    writes: bool


@cache
def traits_of(func: Any) -> Traits:
    mutable, views = func._schema.is_mutable, torch.Tag.inplace_view in func.tags
    return Traits(views, mutable, mutable and not views)


@cache
def twin_of(func: Any) -> Any:
    """The operation that returns what another, such as relu_, writes to its argument, or None."""
    packet, overload = str(func).rpartition(".")[::2]
    library, _, name = packet.partition(".")
    if not name.endswith("_") or name.endswith("__"):
        return None
    twin = getattr(getattr(getattr(torch.ops, library), name[:-1], None), overload, None)
    if twin is None or twin._schema.is_mutable:
        return None
    mine, others = func._schema.arguments, twin._schema.arguments
    alike = [(a.name, str(a.type)) for a in mine] == [(a.name, str(a.type)) for a in others]
    writes = [a.name for a in mine if a.alias_info and a.alias_info.is_write]
    single = len(twin._schema.returns) == 1 and twin._schema.returns[0].alias_info is None
    return twin if alike and writes == [mine[0].name] and single else None
