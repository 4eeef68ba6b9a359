"""YAML 1.2 as plain values: the text of a configuration file or of a single value."""

import functools
import json
import re
from typing import Any

import yaml

from rfbench import json_text
from rfbench.errors import UsageError, one_line

MOST_BYTES = 256 << 10  # of a file; the largest of ours has 3 KB
NOT_TEXT = "bytes that are not UTF-8; rename what it names, or give a link to it"
MOST_VALUES = 20_000  # of a file, aliases expanded


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: 1e-4 is a float; no, 12:30 and 2024-01-01 are text.

    Checks the keys, and counts values with aliases expanded: ten lines can stand for billions.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (replaces pyyaml's own)

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.sizes: dict[int, int] = {}  # of nodes, by id: the number of values that they expand to

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        alias = self.check_event(yaml.AliasEvent)
        node: Any = super().compose_node(parent, index)
        if not alias:
            inside = node.value if isinstance(node, yaml.CollectionNode) else []
            pairs = isinstance(node, yaml.MappingNode)
            below = [one for pair in inside for one in pair] if pairs else inside
            self.sizes[id(node)] = 1 + sum(self.sizes.get(id(one), 0) for one in below)
        if self.sizes.get(id(node), 0) > MOST_VALUES:  # none: an alias to what holds it
            problem = f"more than {MOST_VALUES:,} values, aliases expanded"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node

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


@functools.lru_cache(maxsize=64)  # the thousands of runs of a grid read the same files
def _as_json(text: bytes | str) -> str:
    return json.dumps(yaml.load(text, _Loader))


def parse(text: bytes | str, where: str) -> Any:
    """The plain value (what JSON can hold) of a YAML text; UsageError naming `where`."""
    if len(text) > MOST_BYTES:
        raise UsageError(f"{where}: not a configuration: it has {len(text) >> 10} KB")
    try:
        return json.loads(_as_json(text), parse_int=json_text.whole)
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise UsageError(f"{where}: not valid YAML: {error.problem}{line}") from None
    except yaml.reader.ReaderError as error:
        raise UsageError(f"{where}: not valid YAML: {_unreadable(error, text)}") from None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        # sets and dates (by explicit tags); a cycle of anchors
        raise UsageError(f"{where}: not valid YAML: {one_line(error)}") from None


def comment_in(text: str) -> str:
    """What follows the value in a valid YAML text of one line: '#b' in 'a #b'."""
    if "#" not in text:
        return ""
    *_, last, _ = yaml.scan(text, _Loader)  # before the end of the stream
    return text[last.end_mark.index :].strip()


def _unreadable(error: yaml.reader.ReaderError, text: bytes | str) -> str:
    """What a reader stopped at; surrogates are bytes of the command line that are no text."""
    newline: Any = b"\n" if isinstance(text, bytes) else "\n"
    line = f" (line {text[: error.position].count(newline) + 1})" if newline in text else ""
    if isinstance(text, bytes) and error.encoding != "unicode":
        return f"not text of {error.encoding.upper()}{line}"
    if 0xD800 <= error.character <= 0xDFFF:
        return f"it holds {NOT_TEXT}"
    return f"the character U+{error.character:04X} is not allowed{line}"
