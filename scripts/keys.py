"""Write docs/keys.md, the reference of every configuration key: `python scripts/keys.py`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rfbench.config import AVERAGED, RESUMED, marked, schema_json
from rfbench.files import aside
from rfbench.schemas.kinds import SCHEMAS

PAGE = Path(__file__).parents[1] / "docs" / "keys.md"
HEAD = """# Configuration keys

Every key of every configuration file, written from the schemas by `python scripts/keys.py`; a test
compares. `-o key=value` sets one on the command line, with dots between the parts. An unknown key,
or a value of another type, is an error. `base: other.yaml` takes all other keys from another file.
`rfbench schema KIND` prints the same as a JSON schema, for editors.
"""
KINDS = {
    "cls": "`rfbench train-cls`",
    "seg": "`rfbench train-seg`",
    "det": "`rfbench train-det`",
    "grid": "`rfbench grid`",
    "rf": "`rfbench visualize-rf`",
}
# bounds of JSON schema, in signs
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
TYPES = {"string": "text", "integer": "whole number", "number": "number", "null": "null"}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, command in KINDS.items():
        parts += [f"## {kind}: {command}", *_kind(SCHEMAS[kind])]
    parts += ["## A variant, spelled out", "In place of its name, wherever one is asked for:"]
    variant = schema_json(SCHEMAS["rf"])["$defs"]["VariantConfig"]
    parts.append(_table(variant, ""))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _kind(schema: type[BaseModel]) -> Iterator[str]:
    """The tables of a kind, and what may differ between its runs."""
    whole = schema_json(schema)
    yield _table(whole, "")
    for name, section in _sections(whole, whole["$defs"], ""):
        yield f"**{name.rstrip('.')}**: {section['description']}"
        yield _table(section, name)
    for mark, text in (
        (RESUMED, "A run that is resumed may differ in"),
        (AVERAGED, "`compare` averages runs that differ in nothing but"),
    ):
        if keys := sorted(marked(schema, mark)):
            yield f"{text} {', '.join(f'`{key}`' for key in keys)}."


def _sections(
    node: dict[str, Any], held: dict[str, Any], above: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections below one, by the dotted name that their keys begin with."""
    for name, value in node["properties"].items():
        for part, dots in _parts(value):
            section = held[part]
            if part != "VariantConfig":
                yield f"{above}{name}.{dots}", section
                yield from _sections(section, held, f"{above}{name}.{dots}")


def _parts(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The sections that a value may be, and what stands between its name and their keys."""
    for each in value.get("anyOf", [value]):
        named = each.get("additionalProperties")
        if "$ref" in each:
            yield each["$ref"].rpartition("/")[2], ""
        elif isinstance(named, dict) and "$ref" in named:
            yield named["$ref"].rpartition("/")[2], "NAME."


def _table(node: dict[str, Any], above: str) -> str:
    required = node.get("required") or node.get("anyOf", [{}, {}])[-1].get("required", [])
    lines = ["| key | type | default | what |", "|---|---|---|---|"]
    for name, value in node["properties"].items():
        if any(part != "VariantConfig" for part, _ in _parts(value)) and "anyOf" not in value:
            continue  # a section, with a table of its own
        default = _default(value["default"]) if "default" in value else ""
        if name in required:
            default = "(required)"
        what = value.get("description", "").replace("|", "\\|")
        lines.append(f"| `{above}{name}` | {_type(value)} | {default} | {what} |")
    return "\n".join(lines)


def _default(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value)
    return f"`{text}`"


def _type(value: dict[str, Any]) -> str:
    """A type in words: 'whole number ≥ 1 or null'."""
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(map(_type, value["anyOf"])))
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return "[variant](#a-variant-spelled-out)" if name == "VariantConfig" else "mapping"
    if "enum" in value or "const" in value:
        return " or ".join(f"`{each}`" for each in value.get("enum", [value.get("const")]))
    kind = value.get("type")
    if kind == "boolean":
        return "`true` or `false`"
    if kind == "array":
        inner, several = value.get("items") or {}, value.get("prefixItems")
        if several:
            return f"list of {len(several)}: {', '.join(dict.fromkeys(map(_type, several)))}"
        return f"list of {_type(inner)}" if inner else "list"
    if kind == "object":
        return "mapping"
    bounds = [f"{sign} {_number(value[bound])}" for bound, sign in BOUNDS.items() if bound in value]
    return " ".join([TYPES.get(str(kind), "anything"), ", ".join(bounds)]).strip()


def _number(bound: float) -> str:
    """'4,096', '0.5'; pydantic writes 0.0 or 0, by its version."""
    return f"{int(bound) if bound == int(bound) else bound:,}"


if __name__ == "__main__":
    with aside(PAGE) as temporary:
        temporary.write_text(page())
