"""The pages of reference say what the code has: configuration keys, and fields of records."""

import importlib.util
import re
from pathlib import Path
from typing import Any

from rfbench.config import schema_json
from rfbench.rf.core.recorded_map import encode
from rfbench.runs.records import KINDS
from rfbench.schemas.kinds import SCHEMAS
from tests.rf.test_render import smooth

ROOT = Path(__file__).parents[1]
KEYS, RECORDS = ROOT / "docs" / "keys.md", ROOT / "docs" / "records.md"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("keys", ROOT / "scripts" / "keys.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_keys_is_current(overwrite: bool) -> None:
    page = script().page()
    if overwrite:
        KEYS.write_text(page)
    assert KEYS.read_text() == page, "python scripts/keys.py"


def test_every_key_is_on_the_page() -> None:
    """By another way: dotted names from the models, and not from their JSON schema."""
    page = KEYS.read_text()
    assert set(SCHEMAS) == set(re.findall(r"^## (\w+): ", page, re.MULTILINE))
    for kind, schema in SCHEMAS.items():
        part = page.partition(f"## {kind}: ")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| `([\w.]+)`", part, re.MULTILINE)
        assert sorted(rows) == sorted(set(rows)) and "base" in rows
        named = {field.alias or name for name, field in schema.model_fields.items()}
        sections = {row.partition(".")[0] for row in rows if "." in row}
        assert named == {row for row in rows if "." not in row and row != "base"} | (
            sections & named
        ), kind
        required = {n for n, f in schema.model_fields.items() if f.is_required()}
        told = set(re.findall(r"^\| `([\w]+)` \|[^|]*\| \(required\)", part, re.MULTILINE))
        assert told == required & (named - sections), kind
        assert schema_json(schema)["properties"].keys() - {"base"} == named


def test_every_field_of_a_record_is_on_the_page_and_no_other() -> None:
    tables = RECORDS.read_text().partition("## result.json")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `([\w`, ]+)` \|", tables, re.MULTILINE)
    fields = {name for model in KINDS.values() for name in model.model_fields}
    assert {name for row in told for name in row.split("`, `")} == fields


def test_every_key_of_a_map_is_on_the_page_and_no_other() -> None:
    table = RECORDS.read_text().partition("## Maps")[2].partition("\n## ")[0]
    panel = smooth(0.2)
    content = encode(panel.path_map, panel.metrics)
    assert content is not None
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(content)
    for key in content["middle"]:
        assert f"`{key}`" in table.partition("| `middle` |")[2]
