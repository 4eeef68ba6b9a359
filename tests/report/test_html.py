"""The report in a real browser: it loads without errors, sorts, filters, explains itself."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from rfbench.plotting import webpage
from rfbench.plotting.webpage import Column
from rfbench.report import html, metrics
from rfbench.report.model import Block, Field, Group, Row
from rfbench.report.sheets import sheets
from rfbench.rf.core.recorded_map import decode
from tests.browser import Opened, shown, violations
from tests.report.records import RUNS, record, recorded_map, report_of, seeds, write


def hill() -> dict[str, Any]:
    """A round map of 40 px, 10 px up and left of its unit."""
    y, x = np.mgrid[:40, :40] - 19.5
    grey = np.clip(270 - 11 * np.hypot(y, x), 0, 255).astype(np.uint8)
    return recorded_map(grey, [-30.0, -30.0], middle=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the real runs beside the paper's rows."""
    report = report_of(RUNS, reference=True)
    report.groups[0].fields = [
        Field("baseline", "shift 1 px", decode(hill())),
        Field("3x3", "", decode(hill())),
    ]
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.page(report))
    return path


def test_the_page_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r"""(?:src|href)=["']([^"']{0,30})""", text)
    assert found
    assert all(source.startswith(("data:image/png;base64,", "#", "./")) for source in found)
    assert set(re.findall(r"https?://[^\s\"'<]*", text)) == {"http://www.w3.org/2000/svg"}


def test_what_the_page_shows(page: Path) -> None:
    text = page.read_text()
    assert text.count('<figure class="fields">') == 1  # receptive fields
    assert "schedule.epochs=2" in text
    assert '<td class="n good">+44.47 ▲</td>' in text
    assert "39.72" in text
    commit = record()["git"]["commit"][:8]
    assert commit in text and record()["device"] in text


def test_the_summary_comes_first_and_agrees_with_the_tables(page: Path) -> None:
    text = page.read_text()
    summary = text[text.index(">Summary<") : text.index("<main")]
    report = report_of(RUNS, reference=True)
    for group in report.groups:
        for block in group.blocks:
            tested = [r for r in block.rows if r.source == "ours" and r.cells and not r.alone]
            means = {r.variant: r.cells[group.metrics[0]].mean for r in tested}
            if "baseline" in means and len(means) > 1:
                best = max((m, v) for v, m in means.items() if v != "baseline")[1]
                assert f"<td>{best}</td>" in summary
                assert f"{means[best] - means['baseline']:+.2f}" in summary


def test_runs_are_linked_from_where_the_page_is(tmp_path: Path) -> None:
    hostile = tmp_path / "runs" / 'a"b <i>#?%'
    seeds(hostile, "baseline", [70.0])
    text = html.page(report_of(tmp_path / "runs"), tmp_path / "pages" / "deep")
    (target,) = re.findall(r'href="(\./[^"]*)"', text)
    where = (tmp_path / "pages" / "deep").absolute() / unquote(target)
    assert Path(os.path.normpath(where)) == hostile / "baseline-0"


def test_the_date_of_a_run_is_its_own(tmp_path: Path) -> None:
    write(tmp_path / "new", record(), date="2026-11-26 12:34:56")
    assert "<td>2026-11-26 12:34:56</td>" in html.page(report_of(tmp_path))


def test_a_cells_class_is_its_verdict_and_not_sniffed_from_its_text(tmp_path: Path) -> None:
    seeds(tmp_path, "baseline", [70.0, 71.5, 72.0])
    seeds(tmp_path, "3x3", [60.0, 61.5, 62.1])
    for name in ("a", "b"):  # claim to be one run, so their folders are shown
        write(tmp_path / f"worse ▼ better {name}", record(), variant="1x1")
    text = html.page(report_of(tmp_path, metrics=("top1",)))
    assert "worse ▼ better a)" in text
    classes = re.findall(r'<td class="(?:n )?(good|bad|faint)">([^<]*)</td>', text)
    assert classes == 2 * [("bad", "-9.97 ▼"), ("bad", "worse")]  # in the summary, and below


def test_a_column_of_numbers_is_one_in_text_and_on_the_page(page: Path) -> None:
    report = report_of(RUNS, reference=True)
    text = page.read_text()
    for group in report.groups:
        for block in group.blocks:
            for sheet in sheets(group, block):
                assert all(len(row) == len(sheet.head) for row in sheet.rows)
                assert len(sheet.of) == len(sheet.rows)
                for column, cells in zip(
                    sheet.columns, zip(*sheet.texts, strict=True), strict=True
                ):
                    numbers = [re.match(r"[+-]?\d+\.\d", cell) for cell in cells]
                    assert column.is_number or not any(numbers)
                    start = '<th class="n" scope="col"' if column.is_number else '<th scope="col"'
                    head = (
                        rf'{start} data-best="{column.best}"><button[^>]*>{re.escape(column.name)}<'
                    )
                    assert re.search(head, text)


@pytest.mark.parametrize("metric", metrics.MORE + metrics.LESS)
def test_what_is_better_comes_first(metric: str, tmp_path: Path) -> None:
    """loss and jitter the least, top-1 and AP the largest."""
    group = Group("cls", "", "m", "d", [metric], [Block({}, [Row("baseline")])])
    columns = {c.name: c.best for c in sheets(group, group.blocks[0])[0].columns}
    best = "high" if metrics.direction(metric) == 1 else "low"
    assert (columns[metric], columns["Δ"]) == (best, best)
    assert (columns["shift (px)"], columns["gridding"], columns["read"]) == ("zero", "zero", "high")


def test_names_are_escaped(tmp_path: Path) -> None:
    seeds(tmp_path / "<b>&", "baseline", [1.0])
    report = report_of(tmp_path)
    report.problems.append("<script>alert(1)</script>")
    text = html.page(report)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_it_loads_without_errors(page: Path, opened: Opened) -> None:
    shot = opened(page)
    assert shot.locator("table").count() > 10
    assert shot.get_by_text("How to read this").is_visible()


def test_a_broken_page_would_be_noticed(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "bad.html").write_text(
        "<script>nothing.at.all()</script><img src='http://localhost:1/x.png'>"
    )
    told = opened(tmp_path / "bad.html", complain=True).complaints
    assert any("nothing is not defined" in text for text in told)
    assert "http://localhost:1/x.png" in told


COLUMNS = [
    Column("name", "name", "what it is called"),
    Column("cost", "low"),
    Column("figure", "zero"),
    Column("score", "high"),
]
ROWS = [
    ["a", "4.1 G", "-1", "1"],
    ["b10", "900 k", "1e-05", "–"],
    ["b9", "", "2", "3"],
    ["c", "25.6 M", "–", "2"],
]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    keys = [f"k{i}" for i in range(len(ROWS))]
    table = webpage.table("A", COLUMNS, ROWS, keys, [row[0] for row in ROWS], foot=["-"] * 4)
    follower = webpage.table("B", COLUMNS[:1], [["of c"]], keys[3:])
    (tmp_path / "x.html").write_text(webpage.page("x", [table, webpage.section([follower])]))
    return tmp_path / "x.html"


def test_a_click_sorts_the_best_first(small: Path, opened: Opened) -> None:
    shot = opened(small)

    def after(name: str) -> str:
        shot.get_by_role("button", name=name, exact=True).first.click()
        return " ".join(shot.locator("table").first.locator("tbody th").all_inner_texts())

    assert after("cost") == "b10 c a b9"
    assert after("cost") == "a c b10 b9"  # what has none stays last
    assert after("figure") == "b10 a b9 c"
    assert after("score") == "b9 c a b10"
    heads = shot.locator("table").first.locator("[aria-sort]")
    assert heads.count() == 1 and heads.get_attribute("aria-sort") == "descending"
    assert after("name") == "a b9 b10 c"  # in natural order
    shot.keyboard.press("Enter")  # the head has the focus
    assert shot.locator("tbody th").first.inner_text() == "c"


def test_there_is_one_true_count(small: Path, opened: Opened) -> None:
    shot = opened(small)
    assert shot.locator("output").all_inner_texts() == ["4 of 4 rows"]
    shot.get_by_label("search").fill("b 1")
    assert shown(shot, "tbody th") == ["b10"]  # its name, and not the 1e-05 of b9
    assert shot.locator("output").all_inner_texts() == ["1 of 4 rows"]
    assert not shot.locator("section").is_visible()  # none of its rows is shown
    shot.get_by_label("search").fill("nobody")
    assert shot.get_by_text("Nothing fits").is_visible()
    shot.get_by_role("button", name="show all").click()
    assert shown(shot, "tbody th") == ["a", "b10", "b9", "c", "of c"]
    assert shot.locator("output").inner_text() == "4 of 4 rows"


def test_a_term_explains_itself_to_pointer_and_keyboard(small: Path, opened: Opened) -> None:
    shot = opened(small)
    tip = shot.get_by_role("tooltip")
    head = shot.get_by_role("button", name="name", exact=True).first
    head.hover()
    assert tip.inner_text() == "what it is called"
    shot.keyboard.press("Escape")
    assert not tip.is_visible()
    shot.mouse.move(0, 500)
    head.focus()
    assert tip.is_visible() and head.get_attribute("aria-describedby") == "tip"
    head.blur()
    assert not tip.is_visible() and head.get_attribute("aria-describedby") is None


def test_charts_follow_the_filters(page: Path, opened: Opened) -> None:
    shot = opened(page)
    assert len(set(shown(shot, ".keys span"))) > 2
    charts = len(shown(shot, ".chart"))
    shot.get_by_label("search").fill("blur")
    assert set(shown(shot, ".keys span")) == {"blur:1x1+3x3"}
    assert 0 < len(shown(shot, ".chart")) < charts
    rows = shown(shot, "main tbody tr")
    assert rows and all("blur" in row for row in rows)
    shot.get_by_role("button", name="show all").click()
    shot.get_by_label("verdict").select_option("better")
    assert shot.locator("output").inner_text().startswith(f"{len(shown(shot, 'tr[data-text]'))} of")
    assert shown(shot, "main tr[data-text] th") == ["1x1+3x3", "blur:1x1+3x3"]


def test_heads_and_names_stay_in_view(page: Path, opened: Opened) -> None:
    shot = opened(page, 390)
    shot.locator("summary").first.click()
    box = shot.locator(".frame.more > .wide").first.element_handle()
    name, heads = box.query_selector("tbody th"), box.query_selector(".heads")
    before = name.bounding_box()["x"]
    box.evaluate("box => box.scrollLeft = 200")
    assert name.bounding_box()["x"] == before
    box.evaluate("box => box.style.maxHeight = '80px'")
    box.evaluate("box => box.scrollTo(1e5, 60)")
    assert abs(heads.bounding_box()["y"] - box.bounding_box()["y"]) <= 2
    shot.wait_for_function("box => !box.parentElement.matches('.more')", arg=box)


@pytest.mark.parametrize("width", [1920, 1024, 390])
def test_nothing_is_wider_than_the_window(page: Path, width: int, opened: Opened) -> None:
    shot = opened(page, width)
    shot.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shot.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_nothing_is_cut_and_all_is_dark_on_white(page: Path, opened: Opened) -> None:
    """A4 across, less its margins; also of a reader whose pages are dark."""
    shot = opened(page, 1047, dark=True)
    shot.emulate_media(media="print")
    assert shot.evaluate("document.documentElement.scrollWidth") <= 1047
    assert not shot.locator(".tools").is_visible()
    assert shot.evaluate("getComputedStyle(document.querySelector('td')).color") == "rgb(0, 0, 0)"


def test_labels_of_an_axis_are_whole(page: Path, opened: Opened) -> None:
    """Also the least, at the edge of its drawing: -0.6 is not 0.6."""
    shot = opened(page)
    axes = shot.locator("tfoot svg.strip")
    assert (
        axes.count() and axes.first.evaluate("axis => getComputedStyle(axis).overflow") == "visible"
    )


def test_a_name_is_broken_between_its_parts(page: Path, opened: Opened) -> None:
    """And read, searched and sorted as one."""
    link = opened(page, 390).locator("th a", has_text="resnet14").first
    assert "<wbr>" in link.inner_html() and "\u200b" not in link.text_content()


@pytest.mark.parametrize("dark", [False, True])
def test_for_keyboards_and_screen_readers(page: Path, opened: Opened, dark: bool) -> None:
    shot = opened(page, dark=dark)
    shot.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert violations(shot) == []


def test_hostile_names_execute_nothing(tmp_path: Path, opened: Opened) -> None:
    for i, name in enumerate(HOSTILE):
        change = {"dataset": name, "model": f"{name}.py:f", "device": name}
        write(tmp_path / "runs" / str(i), record(), **change)
    report = report_of(tmp_path / "runs")
    report.problems += HOSTILE
    (tmp_path / "x.html").write_text(html.page(report, tmp_path))
    shot = opened(tmp_path / "x.html")
    shot.get_by_label("search").fill("a")
    assert shot.evaluate("window.pwned") is None
    assert shot.locator("img, iframe, b").count() == 0


HOSTILE = [
    "<img src=x onerror='pwned=1'>",
    "</script><script>pwned=1</script>",
    '"><b onmouseover=pwned=1>',
    "javascript:pwned=1",
    "__proto__",
]
