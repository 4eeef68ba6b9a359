"""Reading a configuration: a YAML file, its `base:`, `-o key=value`, and every error at once.

A schema (schemas/) is a pydantic model made of `Section`s.
"""

import json
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from rfbench import files, shipped
from rfbench.config_errors import Key, Origins, explain, shown
from rfbench.errors import UsageError, one_line, suggest
from rfbench.json_text import DEPTH
from rfbench.yaml_text import MOST_BYTES, NOT_TEXT, comment_in, parse

# the largest values that a run can use
MOST_SEED, MOST_THREADS, MOST_KEPT = 2**32 - 1, 1024, 99
LARGEST = 2**53  # of whole numbers: what JSON and every library take

Schema = TypeVar("Schema", bound=BaseModel)


class Section(BaseModel):
    """A configuration or a part of one; unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Free:
    """A mark on a field: where its value may differ. Unmarked fields must be equal.

    where: "resumed", when a run is resumed; "averaged", between runs that `compare` averages.
    only: for a mapping, the dotted keys below it that may differ; (): all.
    """

    where: Literal["resumed", "averaged"]
    only: tuple[str, ...] = ()


RESUMED, AVERAGED = Free("resumed"), Free("averaged")


def marked(schema: type[BaseModel], mark: Free) -> set[str]:
    """The dotted keys of the fields with this mark; see `covers` for the keys below them."""
    return set(_marked(schema, mark.where, ""))


def _marked(schema: type[BaseModel], where: str, above: str) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        key = f"{above}{field.alias or name}"
        for mark in field.metadata:
            if isinstance(mark, Free) and mark.where == where:
                yield from [f"{key}.{below}" for below in mark.only] or [key]
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _marked(inner, where, f"{key}.")


def covers(keys: Container[str], key: str) -> bool:
    """Whether a dotted key, or one above it, is among `keys`."""
    parts = key.split(".")
    return any(".".join(parts[:n]) in keys for n in range(1, len(parts) + 1))


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{"optim": {"lr": 1}} as {"optim.lr": 1}."""
    dotted: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        dotted |= flat(value, f"{above}{name}.") if nested else {f"{above}{name}": value}
    return dotted


def load(schema: type[Schema], path: str | None, overrides: Sequence[str] = ()) -> Schema:
    """Read the YAML file `path` (None: none), apply `overrides` ("key=value") and validate.

    `path` may be the name of a shipped file, such as cls/resnet50. The file may say
    `base: ../x.yaml`, relative to itself, or name a shipped one: its keys are merged over that
    file's, mappings key by key, anything else as a whole. The value of an override is YAML and
    replaces the key's value. Raises UsageError with all errors, one a line: file or "-o", key, what
    is wrong.
    """
    values, origins, blank = (
        ({}, {}, []) if path is None else _read_with_base(shipped.path_of(path))
    )
    problems = [problem for text in overrides if (problem := _override(values, origins, text))]
    if unusable := [*_unusable(values, origins)]:
        raise UsageError(*problems, *unusable)
    try:
        # JSON mode: strict, but a list may become a tuple and a whole number a float
        config = schema.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problems += explain(error, schema, values, {**origins, (): path or "-o"})
    if not problems:  # as a full disk leaves files: every key would have its default
        problems = [f"{name}: holds no settings. Write {{}} to set none." for name in blank]
    if problems:
        raise UsageError(*problems)
    return config


def override(key: str, text: str) -> str:
    """The "key=value" that sets a key to `text`: quoted where YAML would read something else."""
    try:
        plain = parse(text, "") == text and not comment_in(text)
    except UsageError:
        plain = False
    return f"{key}={text if plain else json.dumps(text)}"


def _unusable(values: Mapping[str, Any], origins: Origins, above: Key = ()) -> Iterator[str]:
    """What is wrong with values that no key takes: numbers without end, bytes that end texts."""
    for name, value in values.items():
        key = (*above, name)
        if isinstance(value, Mapping):
            yield from _unusable(value, origins, key)
            continue
        for one in value if isinstance(value, list) else [value]:
            where = f"{origins.get(key, '-o')}: {one_line('.'.join(map(str, key)))!r}"
            if isinstance(one, int) and abs(one) >= LARGEST:
                yield f"{where}: a number of {len(str(abs(one)))} digits is too large"
            elif isinstance(one, str) and "\0" in one:
                yield f"{where}: holds a NUL byte"
            elif isinstance(one, str) and not one.isprintable() and _is_cut(one):
                yield f"{where}: holds {NOT_TEXT}"


def _is_cut(text: str) -> bool:
    """Whether a text holds half a character, as bytes of a path that are not UTF-8 become."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def schema_json(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a configuration *file*, where `base` may stand for the required keys."""
    described = schema.model_json_schema()
    base = {
        "type": "string",
        "description": "A file, relative to this one, to change keys of.",
    }
    described["properties"] = {"base": base, **described["properties"]}
    if required := described.pop("required", None):
        described["anyOf"] = [{"required": ["base"]}, {"required": required}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def for_a_network(name: str) -> str:
    """What to do with a name that looks like a network's, where a configuration is expected."""
    if Path(name).suffix in (".yaml", ".yml") or ("/" in name and ":" not in name):
        return ""
    return (
        f" A network is a key of one: -o model={name}; `rfbench configs` lists the configurations."
    )


def _read(path: str, role: str = "") -> dict[str, Any] | None:
    """The mapping in the file `path`; empty for an empty file."""
    try:
        text = files.read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        folder = Path(path).parent
        near = suggest(Path(path).name, os.listdir(folder), n=1) if folder.is_dir() else ""
        near = near or shipped.near(path) or ("" if role else for_a_network(path))
        raise UsageError(f"{path}: no such file{role}.{near}") from None
    except OSError as error:  # a directory, no permission
        raise UsageError(f"{path}: cannot be read{role}: {error.strerror}") from None
    except ValueError:  # a NUL, or half a character
        raise UsageError(f"{path!a}: not the name of a file{role}") from None
    values = parse(text, path)
    if not isinstance(values, dict | None):
        raise UsageError(f"{path}: expected a mapping (key: value), got {shown(values)}")
    return values


def _read_with_base(path: str) -> tuple[dict[str, Any], Origins, list[str]]:
    """(values, where each was set, the files that hold none)."""
    values: dict[str, Any] = {}
    origins: Origins = {}
    read = {path: _read(path)}
    own = read[path] or {}
    base = own.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise UsageError(f"{path}: 'base': expected the name of a file, got {shown(base)}")
        base_path = os.path.normpath(os.path.join(os.path.dirname(path), base))
        if not os.path.exists(base_path) and shipped.find(base):
            base_path = shipped.path_of(base)
        read[base_path] = _read(base_path, f" ('base' of {path})")
        _merge(values, read[base_path] or {}, base_path, origins)
        if "base" in values:
            raise UsageError(f"{base_path}: has a 'base' itself, and is the 'base' of {path}")
    _merge(values, own, path, origins)
    return values, origins, [name for name, held in read.items() if held is None]


def _merge(
    into: dict[str, Any], values: Mapping[str, Any], origin: str, origins: Origins, key: Key = ()
) -> None:
    """Set `values` in `into`, mappings key by key, and note under `key` where each came from."""
    for name, value in values.items():
        origins[(*key, name)] = origin
        if isinstance(value, dict):
            if not isinstance(into.get(name), dict):
                into[name] = {}
            _merge(into[name], value, origin, origins, (*key, name))
        else:
            into[name] = value


def _override(values: dict[str, Any], origins: Origins, text: str) -> str | None:
    """Set the key of "key=value" in `values`; returns the error message, if any."""
    dotted, equals, raw = text.partition("=")
    *parents, last = key = dotted.strip().split(".")
    if not equals or not all(key):
        return f"-o: {text!r}: expected KEY=VALUE, such as optim.lr=0.1"
    if len(key) > DEPTH:
        return f"-o: {one_line(dotted, 40)!r}...: a key of {len(key)} parts"
    if not raw.strip():  # "data.root=$UNSET" would take the default
        unset = "is a variable of the shell not set?"
        return f"-o: {dotted!r} has no value; {unset} Without one it is {dotted}=null."
    hint = f"; to give text, quote it twice: -o '{dotted}=\"...\"'"
    try:
        value = parse(raw, f"-o: {dotted!r}")
    except UsageError as error:
        return f"{error}{hint if raw.isprintable() else ''}"
    if comment := comment_in(raw):
        return f"-o: {dotted!r}: {comment!r} is a comment{hint}"
    node = values
    for depth, part in enumerate(parents, 1):
        if node.get(part) is None:
            _merge(node, {part: {}}, "-o", origins, tuple(key[: depth - 1]))
        node = node[part]
        if not isinstance(node, dict):
            what = f"{'.'.join(key[:depth])!r} holds {shown(node)}, which is not a mapping"
            return f"-o: cannot set {dotted!r}: {what}"
    node.pop(last, None)
    _merge(node, {last: value}, "-o", origins, tuple(parents))
    return None
