"""Reading a configuration: a YAML file, its `base:`, `-o key=value`, and every error at once.

A schema (schemas/) is a pydantic model made of `Section`s.
"""

import difflib
import json
import os
import re
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rfbench.errors import UsageError, one_line, suggest

Schema = TypeVar("Schema", bound=BaseModel)


class Section(BaseModel):
    """A configuration or a part of one: unknown keys and converted types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Free:
    """A mark on a field: where its value may differ. A field without marks is decisive.

    where: "resumed", between the two parts of a resumed run; "averaged", between runs that
    `compare` averages. only: of a mapping, the dotted keys below it that are meant; (): all.
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
    found: dict[str, Any] = {}
    for name, value in values.items():
        below = isinstance(value, Mapping)
        found |= flat(value, f"{above}{name}.") if below else {f"{above}{name}": value}
    return found


def load(schema: type[Schema], path: str | None, overrides: Sequence[str] = ()) -> Schema:
    """Read the YAML file `path` (None: none), apply `overrides` ("key=value") and validate.

    The file may say `base: ../x.yaml`, relative to itself: its keys are merged over that file's,
    mappings key by key, anything else whole. A value of an override is YAML and replaces what
    the key held. Raises UsageError with all errors, one a line: file or "-o", key, what is wrong.
    """
    values, origins = ({}, {}) if path is None else _read_with_base(path)
    problems = [problem for text in overrides if (problem := _override(values, origins, text))]
    try:
        # JSON mode: strict, but a list may become a tuple and a whole number a float
        config = schema.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problems += _explain(error, schema, values, {**origins, (): path or "-o"})
    if problems:
        raise UsageError("\n".join(problems))
    return config


def shipped(name: str) -> str:
    """The configuration `name`, such as "cls/digits.yaml", of the checkout or the installation."""
    folders = (Path(__file__).parents[1] / "configs", Path(sys.prefix, "share/rfbench/configs"))
    for folder in folders:
        if (folder / name).exists():
            return os.path.relpath(folder / name)
    raise UsageError(f"there is no {name} in {' or '.join(str(folder) for folder in folders)}")


def schema_json(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a configuration *file*, where `base` may stand for the required keys."""
    described = schema.model_json_schema()
    base = {"type": "string", "description": "A file, relative to this one, to change keys of."}
    described["properties"] = {"base": base, **described["properties"]}
    if required := described.pop("required", None):
        described["anyOf"] = [{"required": ["base"]}, {"required": required}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


# A dotted key as a tuple, and the file (or "-o") that set it.
Key = tuple[str | int, ...]
Origins = dict[Key, str]


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: 1e-4 is a float; no, 12:30 and 2024-01-01 are text. Checks the keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (pyyaml's; its own are left out)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            problem = f"duplicate key {key.value!r}" if str(key.value) in seen else None
            if key.tag != "tag:yaml.org,2002:str":
                problem = "a key that is not text; quote it"
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return node


_FLOAT = r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?"
for _tag, _first, _pattern in (
    ("null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
    ("bool", list("tTfF"), r"true|True|TRUE|false|False|FALSE"),
    ("int", list("-+0123456789"), r"[-+]?(0|[1-9][0-9_]*)"),
    ("float", list("-+.0123456789"), _FLOAT + r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"({_pattern})$"), _first)


def _parse(text: bytes | str, where: str) -> Any:
    """The plain value (what JSON can hold) of a YAML text; UsageError naming `where`."""
    try:
        return json.loads(json.dumps(yaml.load(text, _Loader)))
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise UsageError(f"{where}: not valid YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        # bytes that are no text; sets and dates (by explicit tags); a loop of anchors
        raise UsageError(f"{where}: not valid YAML: {one_line(error)}") from None


def _read(path: str, role: str = "") -> dict[str, Any]:
    """The mapping in the file `path`; an empty file is an empty one."""
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        folder = Path(path).parent
        near = suggest(Path(path).name, os.listdir(folder), n=1) if folder.is_dir() else ""
        raise UsageError(f"{path}: no such file{role}.{near}") from None
    except OSError as error:  # a directory, no permission
        raise UsageError(f"{path}: cannot be read{role}: {error.strerror}") from None
    values = _parse(text, path)
    if not isinstance(values, dict | None):
        raise UsageError(f"{path}: expected a mapping (key: value), got {_show(values)}")
    return values or {}


def _read_with_base(path: str) -> tuple[dict[str, Any], Origins]:
    values: dict[str, Any] = {}
    origins: Origins = {}
    own = _read(path)
    base = own.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise UsageError(f"{path}: 'base': expected the name of a file, got {_show(base)}")
        base_path = os.path.normpath(os.path.join(os.path.dirname(path), base))
        _merge(values, _read(base_path, f" ('base' of {path})"), base_path, origins)
        if "base" in values:
            raise UsageError(f"{base_path}: has a 'base' itself, and is the 'base' of {path}")
    _merge(values, own, path, origins)
    return values, origins


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
    """Set the key of "key=value" in `values`; what is wrong with it, if anything."""
    dotted, equals, raw = text.partition("=")
    *parents, last = key = dotted.strip().split(".")
    if not equals or not all(key):
        return f"-o: {text!r}: expected KEY=VALUE, such as optim.lr=0.1"
    try:
        value = _parse(raw, f"-o: {dotted!r}")
    except UsageError as error:
        return f"{error}; to give text, quote it twice: -o '{dotted}=\"...\"'"
    node = values
    for depth, part in enumerate(parents, 1):
        if node.get(part) is None:
            _merge(node, {part: {}}, "-o", origins, tuple(key[: depth - 1]))
        node = node[part]
        if not isinstance(node, dict):
            what = f"{'.'.join(key[:depth])!r} holds {_show(node)}, which is not a mapping"
            return f"-o: cannot set {dotted!r}: {what}"
    node.pop(last, None)
    _merge(node, {last: value}, "-o", origins, tuple(parents))
    return None


def _explain(
    error: ValidationError, schema: type[BaseModel], values: Any, origins: Origins
) -> list[str]:
    """One line for each wrong value: where it was set, its key, what is wrong."""
    found: dict[Key, list[Any]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault(_key(detail, values), []).append(detail)
    lines = []
    for key, details in found.items():
        # a union complains twice about one value: "not text", and what is wrong inside a mapping
        if any(other != key and other[: len(key)] == key for other in found):
            continue
        origin = next(origins[key[:n]] for n in range(len(key), -1, -1) if key[:n] in origins)
        dotted = re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, key)))
        if details[0]["type"] == "extra_forbidden":
            what = f"unknown key {dotted!r}{_nearest(key, schema)}"
        elif details[0]["type"] == "missing" and key[-1] == details[0]["loc"][-1]:
            what = f"missing key {dotted!r}"
        else:
            what = f"{dotted!r}: {_wrong(details)}" if key else _wrong(details)
        lines.append(f"{origin}: {what}")
    return lines


def _key(detail: Any, node: Any) -> Key:
    """The key of an error in `node`: pydantic's, less its names for the members of a union."""
    key: Key = ()
    for part in detail["loc"]:
        inside = range(len(node)) if isinstance(node, list) else node
        if isinstance(node, dict | list) and part in inside:
            node, key = node[part], (*key, part)
        elif detail["type"] == "missing" and part == detail["loc"][-1] and isinstance(node, dict):
            key = (*key, part)
    return key


def _wrong(details: list[Any]) -> str:
    """What pydantic says of one value; of a union, what its members wanted."""
    # a value of the right kind that is still wrong says more than the kinds it is not
    kinds = ("_type", "literal_error")
    told = [detail for detail in details if not detail["type"].endswith(kinds)] or details
    texts = [d["msg"] if d["type"] != "missing" else "Input should have more items" for d in told]
    wanted = [re.sub("^[A-Z][a-z]+ should |^Value error, ", "", text) for text in texts]
    text = " or ".join(dict.fromkeys(wanted)).replace(" or be ", " or ")
    text = text.replace("an object", "a mapping").replace("a valid array", "a list")
    must = "must " if text.startswith(("be ", "have ")) else ""
    return f"{must}{text} (it is {_show(told[0]['input'])})"


def _nearest(key: Key, schema: type[BaseModel]) -> str:
    """What an unknown key may have meant: the nearest beside it, else the nearest anywhere."""
    *parent, name = (part for part in key if isinstance(part, str))
    described = schema.model_json_schema()
    keys = _keys(described, described.get("$defs", {}))
    beside = [known for known in keys if list(known[:-1]) == parent]
    if "." in name and tuple(name.split(".")) in keys:
        return "; only -o takes dotted keys, a file has nested mappings"
    for group in (beside, keys):
        names = {known[-1]: known for known in reversed(group)}
        if near := difflib.get_close_matches(name, names, n=1):
            return f"; did you mean {'.'.join(names[near[0]])!r}?"
    return f"; there is: {', '.join(known[-1] for known in beside)}"


def _keys(node: Mapping[str, Any], defs: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """All keys of a JSON schema, through references, unions and lists; outer ones first."""
    if "$ref" in node:
        node = defs[node["$ref"].rpartition("/")[2]]
    properties = node.get("properties", {})
    keys: list[tuple[str, ...]] = [(name,) for name in properties]
    for name, below in properties.items():
        keys += [(name, *key) for key in _keys(below, defs)]
    for below in (*node.get("anyOf", ()), node.get("items")):
        keys += _keys(below, defs) if below else []
    return keys


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
