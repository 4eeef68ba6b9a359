"""What is wrong with a configuration, in words: pydantic's errors as one line a key."""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from rfbench.errors import nearest, one_line

# A dotted key as a tuple, and the file (or "-o") that set it.
Key = tuple[str | int, ...]
Origins = dict[Key, str]
MOST = 50  # lines


def explain(
    error: ValidationError, schema: type[BaseModel], values: Any, origins: Origins
) -> list[str]:
    """One line for each wrong value: where it was set, its key, what is wrong."""
    by_key: dict[Key, list[Any]] = {}
    for detail in error.errors(include_url=False):
        by_key.setdefault(_key(detail, values), []).append(detail)
    # a union complains twice about one value: "not text", and what is wrong inside a mapping
    outer = {key[:n] for key in by_key for n in range(len(key))}
    lines: list[str] = []
    for key, details in by_key.items():
        if key in outer:
            continue
        if len(lines) == MOST:
            lines.append(f"and more: {len(by_key)} keys are wrong")
            break
        origin = next(origins[key[:n]] for n in range(len(key), -1, -1) if key[:n] in origins)
        dotted = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, key)))
        if details[0]["type"] == "extra_forbidden":
            what = f"unknown key {one_line(repr(dotted))}{_nearest(key, schema)}"
        elif details[0]["type"] == "missing" and key[-1] == details[0]["loc"][-1]:
            what = f"missing key {dotted!r}"
        else:
            wrong = _wrong(details, _length(key, schema))
            what = f"{dotted!r}: {wrong}" if key else wrong
        lines.append(f"{origin}: {what}")
    return lines


def _key(detail: Any, node: Any) -> Key:
    """The key of an error in `node`: pydantic's, without its names for the members of a union."""
    key: Key = ()
    for part in detail["loc"]:
        inside = range(len(node)) if isinstance(node, list) else node
        if isinstance(node, dict | list) and part in inside:
            node, key = node[part], (*key, part)
        elif detail["type"] == "missing" and part == detail["loc"][-1] and isinstance(node, dict):
            key = (*key, part)
    return key


def _wrong(details: list[Any], length: int | None) -> str:
    """Pydantic's message for one value; for a union, what its members expect.

    length: of the list that is expected, if it is fixed.
    """
    # an error in a value of the expected type is more helpful than the other types
    kinds = ("_type", "literal_error")
    relevant = [detail for detail in details if not detail["type"].endswith(kinds)] or details
    texts = [
        d["msg"] if d["type"] != "missing" else "Input should have more items" for d in relevant
    ]
    wanted = [re.sub("^[A-Z][a-z]+ should |^Value error, ", "", text) for text in texts]
    text = " or ".join(dict.fromkeys(wanted)).replace(" or be ", " or ")
    text = text.replace("an object", "a mapping").replace("a valid array", "a list")
    if length:
        text = text.replace("a list", f"a list of {length} values")
        wrong = "have (more|at most [0-9]+) items( after validation)?"
        text = re.sub(wrong, f"have {length} values", text)
    must = "must " if text.startswith(("be ", "have ")) else ""
    return f"{must}{text} (it is {shown(relevant[0]['input'])})"


def _nearest(key: Key, schema: type[BaseModel]) -> str:
    """A hint for an unknown key: the nearest key in the same section, else anywhere."""
    *parent, name = _names(key)
    keys = list(_all_keys(schema))
    beside = [known for known in keys if list(known[:-1]) == parent]
    if "." in name and tuple(name.split(".")) in keys:
        return "; only -o takes dotted keys, a file has nested mappings"
    for group in (beside, keys):
        names = {known[-1]: known for known in reversed(group)}
        if near := nearest(name, names):
            return f"; did you mean {'.'.join(names[near[0]])!r}?"
    return f"; there is: {', '.join(known[-1] for known in beside)}"


def _length(key: Key, schema: type[BaseModel]) -> int | None:
    """How many values the list at a key has; None: it is no list, or of any length."""
    node = _all_keys(schema).get(_names(key), {})
    lists = [part for part in (node, *node.get("anyOf", ())) if "maxItems" in part]
    return next((p["maxItems"] for p in lists if p["maxItems"] == p.get("minItems")), None)


def _names(key: Key) -> tuple[str, ...]:
    return tuple(part for part in key if isinstance(part, str))


@functools.cache
def _all_keys(schema: type[BaseModel]) -> dict[tuple[str, ...], Any]:
    described = schema.model_json_schema()
    return _keys(described, described.get("$defs", {}))


def _keys(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """The node of each key of a JSON schema, through references, unions and lists; outer first."""
    if "$ref" in node:
        node = defs[node["$ref"].rpartition("/")[2]]
    properties = node.get("properties", {})
    keys: dict[tuple[str, ...], Any] = {(name,): below for name, below in properties.items()}
    inner = [(name, below) for name, below in properties.items()]
    inner += [("", below) for below in (*node.get("anyOf", ()), node.get("items")) if below]
    for name, below in inner:
        for key, found in _keys(below, defs).items():
            keys.setdefault((name, *key) if name else key, found)
    return keys


def shown(value: Any) -> str:
    """A value as JSON, cut to 60 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
