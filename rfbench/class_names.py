"""Names of classes that people take for one, and programs for two: Cat and cat, é and é."""

import itertools
import unicodedata
from collections.abc import Iterable

SHOWN = 3


def _form(name: str) -> str:
    """The usual Unicode form: letters of full width and composed ones are plain."""
    return unicodedata.normalize("NFKC", name)


def _spaces(name: str) -> str:
    return " ".join(name.split())


# in what two names may differ -> a function that takes the difference away
KINDS = {"case": str.casefold, "spaces": _spaces, "Unicode form": _form}


def plain(name: str) -> str:
    """What all names have in common that differ in nothing else than KINDS."""
    return _form(_spaces(_form(name).casefold()))


def alike(names: Iterable[str], others: Iterable[str] | None = None) -> list[str]:
    """ "'Cat' and 'cat' differ only in case" for each pair of different names that are alike.

    Of one in `names` and one in `others` or, without these, of two in `names`.
    """
    groups: dict[str, tuple[list[str], list[str]]] = {}
    for place, given in enumerate((names, others or ())):
        for name in dict.fromkeys(given):
            groups.setdefault(plain(name), ([], []))[place].append(name)
    told = []
    for ours, theirs in groups.values():
        pairs = itertools.combinations(ours, 2)
        told += [_pair(*p) for p in (pairs if others is None else itertools.product(ours, theirs))]
    return [text for text in told if text]


def hint(names: Iterable[str], others: Iterable[str]) -> str:
    """' ('Cat' and 'cat' differ only in case)' of names on two sides, or ''."""
    found = alike(sorted(names), sorted(others))
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f" ({'; '.join(found[:SHOWN])}{more})" if found else ""


def _pair(one: str, other: str) -> str:
    if one == other:
        return ""
    kinds = [kind for kind, plain in KINDS.items() if plain(one) == plain(other)]
    # forms that look the same are told apart by their escapes
    shown = repr if kinds and kinds[0] != "Unicode form" else ascii
    what = kinds[0] if kinds else "case, spaces or Unicode form"
    return f"{shown(one)} and {shown(other)} differ only in {what}"
