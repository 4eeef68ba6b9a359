"""Seeded changes of values and bytes: what broken programs, disks and people produce."""

import copy
import json
import random
from typing import Any

NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, -(2**64), 10**400),
    *(0.0, -0.0, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *("", " ", "\0", "\ud800", "é", "\u202e", "\x1b[31m", "x" * 5000, "1e999", "-", "~", "null"),
    *("=1+1", "<script>", "../..", "/dev/zero", "a:b", "os:abort", "yes", "1_000", "0x1F", "."),
    *([], {}, [[]], [None], [{}], {"": None}, {"a": {"b": []}}, [0] * 500),
]
SCRAPS = [
    *(b"\0", b"\xff", b"\n", b"\t", b":", b"- ", b"{", b"}", b"[", b"]", b'"', b"'", b"&a", b"*a"),
    *(b"!!python/object:os.system", b"<<: *a", b"---\n", b"...", b"%YAML", b"1e400", b"9" * 400),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80", b"[" * 3000, b"- " * 500, b"#", b"|", b">", b"?", b"@"),
]


def value(given: Any, rng: random.Random) -> Any:
    """A copy of nested lists and mappings, changed in one to four places."""
    changed = copy.deepcopy(given)
    for _ in range(rng.choice([1, 1, 2, 4])):
        changed = _change(changed, rng)
    return changed


def _change(node: Any, rng: random.Random) -> Any:
    if isinstance(node, dict | list) and node and rng.random() < 0.85:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = rng.choice(list(keys))
        what = rng.random()
        if what < 0.8:
            node[key] = _change(node[key], rng)
        elif what < 0.9:
            del node[key]
        elif isinstance(node, list):
            node.insert(rng.randint(0, len(node)), copy.deepcopy(node[key]))
        else:
            node[rng.choice(["", "x", "id", f"{key}s", "\0"])] = copy.deepcopy(node[key])
        return node
    if isinstance(node, int | float) and rng.random() < 0.5:
        near = [-node, node + 1, node - 0.5 if abs(node) < 1e300 else 0, str(node)[:40]]
        return rng.choice([*near, [node], node * 10**6])
    chosen = copy.deepcopy(rng.choice(NASTY))
    if rng.random() < 0.03:
        for _ in range(rng.choice([50, 2000])):
            chosen = [chosen]
    return chosen


def data(given: bytes, rng: random.Random) -> bytes:
    """Bytes with some changed, cut out, put in or repeated."""
    changed = bytearray(given)
    for _ in range(rng.choice([1, 1, 2, 6])):
        at = rng.randrange(len(changed) + 1)
        what = rng.randrange(5)
        if what == 0 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif what == 1:
            del changed[at : at + rng.choice([1, 2, 10, 1000])]
        elif what == 2:
            changed[at:at] = rng.choice(SCRAPS)
        elif what == 3:
            changed[at:at] = changed[at : at + rng.choice([1, 20, 200])]
        elif rng.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def as_json(given: Any) -> bytes:
    """As JSON; with NaN and half characters, as other programs write it."""
    try:
        return json.dumps(given).encode()
    except (RecursionError, ValueError):  # too deep, too long a number
        return b"[" * 5000
