"""One function and one entry in METRICS: the new metric appears wherever the docstring says."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rfbench.cli import main
from rfbench.plotting.page import Page
from rfbench.report import networks
from rfbench.rf.core import metrics
from rfbench.rf.core.geometry import Geometry
from rfbench.rf.core.metric import Metric
from rfbench.rf.core.path_map import PathMap
from rfbench.rf.questions.zoo import page, summary, table, zoo

RUNS = Path(__file__).parents[1] / "report" / "runs"


def entropy(counts: PathMap, geometry: Geometry) -> float:
    """Of the distribution of paths over pixels, in bits."""
    share = counts.counts[counts.counts > 0].astype(float) / counts.counts.astype(float).sum()
    return float(-(share * np.log2(share)).sum())


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = Metric("entropy", entropy, "of the paths over pixels", form=".2f", unit="bit")
    monkeypatch.setattr(metrics, "METRICS", [*metrics.METRICS, entry])
    networks._network.cache_clear()  # other tests may have compared the same networks
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\ndef down():\n    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1))\n"
    (tmp_path / "own.py").write_text(code)


def run(*args: str) -> str:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_maps_have_it_in_record_caption_and_table(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    lines = Page.lines
    monkeypatch.setattr(Page, "lines", lambda s, *a, **k: (drawn.extend(a[2]), lines(s, *a, **k)))
    shown = run("visualize-rf", "own.py:down", "--variant", "baseline", "--output", "out")
    record = json.loads(Path("out/result.json").read_text())
    # nine paths, one a pixel
    assert record["panels"][0]["metrics"]["entropy"] == pytest.approx(np.log2(9))
    assert "entropy\u00a03.17\u00a0bit" in " ".join(drawn)
    head, line = (text.split("  ") for text in shown.splitlines()[:2])
    assert head[-1] == "entropy (bit)" and line[-1].strip() == "3.17"


def test_an_audit_shows_and_judges_it() -> None:
    text = run("rf", "audit", "own.py:down", "--size", "32")
    assert "  entropy     3.17 bit" in text
    for name in ("after fixing only this layer", "variant  layers"):
        head = next(line for line in text.splitlines() if name in line)
        assert "misaligned  entropy" in head
    (record,) = json.loads(run("rf", "audit", "own.py:down", "--size", "32", "--json"))
    assert record["entropy"] == pytest.approx(np.log2(9)) and "entropy" in record["steps"][0]
    limit = ("--size", "32", "--fail-on", "entropy>1")
    failed = CliRunner().invoke(main, ["rf", "audit", "own.py:down", *limit])
    assert failed.exit_code == 1 and "entropy 3.17 > 1" in failed.stderr


def test_the_zoo_has_columns_of_it() -> None:
    row, _ = zoo.row("timm:test_resnet")
    assert 1 < row["entropy"] < 2 * np.log2(row["size"][0])
    assert row["fixed_entropy"] != row["entropy"]
    cells = table.table([row]).splitlines()
    assert cells[0].split()[:6] == ["model", "status", "shift", "gridding", "read", "entropy"]
    assert cells[1].split()[5] == f"{row['entropy']:.2f}"
    (line,) = csv.DictReader(summary.table([row]).splitlines())
    assert line["entropy"] == str(row["entropy"]) and line["fixed_entropy"]
    whole = page.page([row], {})
    shown = f">{cells[1].split()[5]}<"
    for text in (">entropy (bit)<", "of the paths", shown):
        assert text in whole
    old = {key: value for key, value in row.items() if "entropy" not in key}  # rows.jsonl of before
    assert page.page([old], {}) and table.table([old]).splitlines()[1].split()[5] == "-"


def test_compare_has_it() -> None:
    head = next(t for t in run("compare", str(RUNS)).splitlines() if "gridding" in t)
    assert head.split()[-4:] == ["gridding", "read", "entropy", "(bit)"]
    rows = list(csv.DictReader(run("compare", str(RUNS), "--format", "csv").splitlines()))
    held = [float(row["entropy"]) for row in rows if row["entropy"]]
    assert held and min(held) > 1
    assert "entropy" in run("compare", str(RUNS), "--format", "json", "--sort", "entropy")
