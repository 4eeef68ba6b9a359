"""Variants as data: a name of one line, or a mapping. Nothing here needs torch."""

import functools
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rfbench.errors import UsageError, one_line, suggest

KEYS = ("kernels", "pool", "maxpool", "layers", "groups")  # of a variant as a mapping
GROUPS = ("dense", "depthwise")
MAXPOOL = "maxpool"  # the word in a name
# pools of `pools.POOLS` that need not be looked up there, which imports torch
SHIPPED = ("avg", "blur", "max", "alt", "blur_after")


@dataclass(frozen=True)
class Variant:
    """Strided convolutions of size `kernels` (k in every direction) sample with `POOLS[pool]`.

    maxpool: so do max pools, at stride 1, whose stride does not divide their kernel. layers: globs
    over module paths; a path selects what is below it; (): all. groups: "depthwise" or "dense" (all
    others) convolutions only; None: both.
    """

    name: str
    kernels: tuple[int, ...]
    pool: str
    maxpool: bool = False
    layers: tuple[str, ...] = ()
    groups: str | None = None

    @property
    def changes(self) -> bool:
        """Whether it changes anything: the baseline does not."""
        return bool(self.kernels) or self.maxpool


def _variant(
    kernels: Any, pool: Any = "avg", maxpool: Any = False, layers: Any = None, groups: Any = None
) -> Variant:
    """A variant with its canonical name, such as '1x1+3x3' or 'blur:3x3+maxpool:layers=layer2.*'.

    The baseline has no other name.
    """
    if not isinstance(kernels, list | tuple) or any(type(k) is not int or k < 1 for k in kernels):
        raise UsageError(f"variant: kernels is a list of sizes such as [1, 3], not {kernels!r}.")
    known = _pools(pool)
    if not isinstance(pool, str) or pool not in known:
        near = suggest(str(pool), known) or f" There are: {', '.join(known)}."
        raise UsageError(f"variant: unknown pool '{pool}'.{near}")
    if maxpool is None:
        maxpool = False
    if not isinstance(maxpool, bool):
        raise UsageError(f"variant: maxpool is true or false, not {maxpool!r}.")
    if groups is not None and groups not in GROUPS:
        raise UsageError(f"variant: groups is {' or '.join(GROUPS)}, not {groups!r}.")
    globs = _globs(layers)
    sizes = tuple(sorted(set(kernels)))
    if not sizes and not maxpool:
        if globs or groups:
            raise UsageError("variant: layers and groups choose among kernels; there are none.")
        return Variant("baseline", (), "avg")
    parts = ["+".join([f"{k}x{k}" for k in sizes] + [MAXPOOL] * maxpool)]
    parts = [pool, *parts] if pool != "avg" else parts
    parts += [f"layers={'+'.join(globs)}"] * bool(globs) + [f"groups={groups}"] * bool(groups)
    return Variant(":".join(parts), sizes, pool, maxpool, globs, groups)


def _pools(pool: Any) -> Collection[str]:
    """The names of all pools; those of one's own are asked for only where others do not do."""
    if pool in SHIPPED:
        return SHIPPED
    from rfbench.models.pools import POOLS  # imports torch

    return POOLS


def _globs(layers: Any) -> tuple[str, ...]:
    """A glob or a list of them."""
    globs = [layers] if isinstance(layers, str) else [] if layers is None else layers
    if not isinstance(globs, list | tuple) or not all(isinstance(g, str) and g for g in globs):
        raise UsageError(f"variant: layers is a glob such as layer2.*, or several, not {layers!r}.")
    if odd := [glob for glob in globs if set(glob) & set("+:, ")]:
        raise UsageError(f"variant: layers: '{odd[0]}' is no glob over module paths.")
    return tuple(sorted(set(globs)))


PAPER = ("baseline", "1x1", "3x3", "1x1+3x3")


def listed() -> dict[str, Variant]:
    """The paper's variants and one for each pool, by name.

    Pools of one's own are among them once `pools` is imported; nothing else tells that they exist.
    """
    held = sys.modules.get("rfbench.models.pools")
    return _listed(tuple(held.POOLS) if held else SHIPPED)


@functools.cache
def _listed(pools: tuple[str, ...]) -> dict[str, Variant]:
    values = [([], "avg"), ([1], "avg"), ([3], "avg"), *(([1, 3], pool) for pool in pools)]
    return {v.name: v for v in (_variant(*value) for value in values)}


def get(
    variant: str | Mapping[str, Any] | Variant,
    layers: str | list[str] | tuple[str, ...] | None = None,
    groups: str | None = None,
) -> Variant:
    """The variant of a name, of a mapping such as {kernels: [1, 3], pool: avg}, or itself.

    A name is [POOL:]KERNELS[:layers=GLOB[+GLOB...]][:groups=dense|depthwise], where KERNELS are
    sizes and `maxpool`, as in '1x1', 'blur:3x3+maxpool', '1x1+3x3:layers=layer2.*+layer3.*'.
    layers, groups: of the result, if given; a variant that has others already is refused.

    Raises UsageError for an unknown name, key or pool, or an impossible kernel size.
    """
    given = _get(variant)
    for key, more in (("layers", layers), ("groups", groups)):
        if more is not None and getattr(given, key):
            raise UsageError(f"variant '{given.name}' says {key} already: leave out {key}=")
    if layers is None and groups is None:
        return given
    globs, kind = given.layers if layers is None else layers, groups or given.groups
    return _variant(given.kernels, given.pool, given.maxpool, globs, kind)


def _get(variant: str | Mapping[str, Any] | Variant) -> Variant:
    if isinstance(variant, Variant):
        return _variant(*(getattr(variant, key) for key in KEYS))
    if isinstance(variant, Mapping):
        if unknown := [str(key) for key in variant if key not in KEYS]:
            raise UsageError(f"variant: unknown key '{unknown[0]}'.{suggest(unknown[0], KEYS)}")
        return _variant(
            variant.get("kernels", [] if variant.get("maxpool") else None),
            **{key: variant[key] for key in KEYS[1:] if key in variant},
        )
    if variant in listed():
        return listed()[variant]
    return _parsed(str(variant))


def _parsed(name: str) -> Variant:
    """A variant that is not listed, by the name that `_variant` gives it."""
    words = name.split(":")
    chosen = {}
    while len(words) > 1 and "=" in words[-1]:
        key, _, value = words.pop().partition("=")
        if key not in ("layers", "groups"):
            near = suggest(key, ("layers", "groups")) or " There are: layers, groups."
            raise UsageError(f"variant '{one_line(name, 100)}': unknown key '{key}'.{near}")
        if key in chosen:
            raise UsageError(f"variant '{one_line(name, 100)}': {key} is given twice.")
        chosen[key] = value.split("+") if key == "layers" else value
    *pools, sizes = words
    kinds = sizes.split("+")
    kernels = [int(m[1]) for k in kinds if (m := re.fullmatch(r"([0-9]{1,4})x\1", k))]
    if len(pools) > 1 or len(kernels) + (MAXPOOL in kinds) != len(kinds):
        near = suggest(name, [*listed(), MAXPOOL]) or f" There are: {', '.join(listed())}."
        raise UsageError(f"unknown variant '{one_line(name, 100)}'.{near}")
    return _variant(kernels, pools[0] if pools else "avg", MAXPOOL in kinds, **chosen)
