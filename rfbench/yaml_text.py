"""YAML 1.2 as plain values: the text of a configuration file or of a single value."""

import json
import re
from typing import Any

import yaml

from rfbench.errors import UsageError, one_line


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: 1e-4 is a float; no, 12:30 and 2024-01-01 are text. Checks the keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (replaces pyyaml's own)

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


def parse(text: bytes | str, where: str) -> Any:
    """The plain value (what JSON can hold) of a YAML text; UsageError naming `where`."""
    try:
        return json.loads(json.dumps(yaml.load(text, _Loader)))
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise UsageError(f"{where}: not valid YAML: {error.problem}{line}") from None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        # bytes that are not text; sets and dates (by explicit tags); a cycle of anchors
        raise UsageError(f"{where}: not valid YAML: {one_line(error)}") from None
