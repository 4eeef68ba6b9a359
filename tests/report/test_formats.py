"""What `compare` prints of records of real runs: `pytest --overwrite` rewrites the texts."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from rfbench.report import formats, latex
from tests.report.records import DETECTORS, RUNS, copied, report_of, seeds

GOLDEN = Path(__file__).parent / "golden"


def rounded(text: str) -> str:
    """Versions of numpy and scipy differ in the last digits of a float."""
    return re.sub(r"-?\d+\.\d{7,}(e-?\d+)?", lambda m: f"{float(m[0]):.6g}", text)


WANTED: dict[str, dict[str, Any]] = {
    "runs": {},
    "detectors": {"metrics": ("AP", "AP90", "jitter", "registration.dx")},
    "paper": {"reference": True, "metrics": ("AP", "top1"), "sort": "shift"},
}


@pytest.mark.parametrize("form", formats.FORMATS)
@pytest.mark.parametrize("name", WANTED)
def test_golden(form: str, name: str, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> None:
    monkeypatch.chdir(RUNS.parent)
    folder = DETECTORS if name == "detectors" else RUNS
    report = report_of(folder.relative_to(RUNS.parent), **WANTED[name])
    text = rounded(formats.FORMATS[form](report)) + "\n"
    path = GOLDEN / f"{name}.{form}.txt"
    if overwrite:
        path.write_text(text)
    assert text == path.read_text()


def test_csv_has_a_line_for_every_metric_of_every_row() -> None:
    report = report_of(RUNS)
    rows = list(csv.DictReader(io.StringIO(formats.table_csv(report))))
    (group,) = report.groups
    assert len(rows) == sum(len(block.rows) for block in group.blocks) * 2
    best = next(r for r in rows if (r["variant"], r["metric"]) == ("1x1+3x3", "top1"))
    assert (best["seeds"], best["word"], best["1x1"], best["source"]) == (
        "3",
        "better",
        "True",
        "ours",
    )


def test_json_holds_every_seed_and_no_nan(tmp_path: Path) -> None:
    seeds(tmp_path, "baseline", [70.0, None])
    seeds(tmp_path, "1x1", [None])
    text = formats.as_json(report_of(tmp_path))
    assert "NaN" not in text
    rows = json.loads(text)["groups"][0]["settings"][0]["rows"]
    assert rows[0]["metrics"]["top1"]["values"] == {"0": 70.0}
    assert rows[1]["metrics"]["top1"]["mean"] is None


def test_names_do_not_break_markdown(tmp_path: Path) -> None:
    root = copied(tmp_path)
    (root / "two-1x1-s0").rename(root / "a|b")
    (root / "two-blur-s0" / "result.json").write_text((root / "a|b" / "result.json").read_text())
    lines = formats.markdown(report_of(root)).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert any("a\\|b" in line for line in tables)
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert widths == {15, 12}  # of the figures and of the tests


def test_latex_prints_names_and_runs_nothing(tmp_path: Path) -> None:
    root = copied(tmp_path)
    (root / "two-1x1-s0").rename(root / r"a_b & 50% \input{x}$")
    record = (root / r"a_b & 50% \input{x}$" / "result.json").read_text()
    (root / "two-blur-s0" / "result.json").write_text(
        record
    )  # folders are named where runs stand alone
    text = latex.latex(report_of(root))
    assert r"\input" not in text.replace(r"\textbackslash{}input", "")
    assert r"a\_b \& 50\% \textbackslash{}input\{x\}\$" in text
    tables = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert tables
    for columns, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        cells = {len(re.findall(r"(?<!\\)&", line)) + 1 for line in rows}
        assert cells == {len(columns)} and len(rows) >= 2
        assert body.split().count(r"\toprule") == body.split().count(r"\bottomrule") == 1
    comments = [line for line in text.splitlines() if re.search(r"(?<!\\)%", line)]
    assert all(line.startswith("%") for line in comments)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("+6.76 ▲", r"$+$6.76 $\blacktriangle$"),
        ("a-b", "a-b"),
        ("-1.69", "$-$1.69"),
        ("✓", r"\checkmark{}"),
    ],
)
def test_signs_in_latex(text: str, printed: str) -> None:
    assert latex.escaped(text) == printed


def test_a_variant_of_other_kernels_gets_a_column_for_them(tmp_path: Path) -> None:
    """1x1+3x3+7x7, an audit's best for ResNets, is not to look like 1x1+3x3."""
    for variant in ("baseline", "1x1+3x3", "1x1+3x3+7x7"):
        seeds(tmp_path, variant, [70.0, 71.0])
    report = report_of(tmp_path)
    lines = [line.split() for line in formats.table(report).splitlines()]
    assert ["variant", "1x1", "3x3", "7x7", "seeds"] in [line[:5] for line in lines]
    assert ["1x1+3x3", "✓", "✓", "2"] in [line[:4] for line in lines]
    assert ["1x1+3x3+7x7", "✓", "✓", "✓", "2"] in [line[:5] for line in lines]
    rows = list(csv.DictReader(io.StringIO(formats.table_csv(report))))
    ticks = {row["variant"]: (row["1x1"], row["3x3"], row["7x7"]) for row in rows}
    assert ticks["1x1+3x3"] == ("True", "True", "False")
    assert ticks["1x1+3x3+7x7"] == ("True", "True", "True")
