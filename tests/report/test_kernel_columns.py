"""Variants that change other kernels than the paper's are told apart in the tables."""

import csv

from rfbench.report.formats import table_csv
from rfbench.report.model import Block, Group, Report, Row
from rfbench.report.sheets import sheets


def test_a_third_size_of_kernels_has_a_column_of_its_own() -> None:
    block = Block({}, [Row("baseline"), Row("1x1+3x3"), Row("1x1+3x3+7x7")])
    group = Group("cls", "", "resnet18", "digits", ["top1"], [block])
    figures = sheets(group, block)[0]
    assert figures.head[:5] == ["variant", "1x1", "3x3", "7x7", "seeds"]
    ticks = [row[1:4] for row in figures.rows]
    assert ticks == [["", "", ""], ["✓", "✓", ""], ["✓", "✓", "✓"]]
    rows = list(csv.DictReader(table_csv(Report("baseline", [group], [])).splitlines()))
    assert [row["7x7"] for row in rows] == ["False", "False", "True"]
    block.rows.pop()
    assert sheets(group, block)[0].head[:4] == ["variant", "1x1", "3x3", "seeds"]
