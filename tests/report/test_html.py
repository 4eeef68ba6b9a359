"""The report in a real browser: it loads without errors, its tables sort and search."""

import re
import struct
import zlib
from pathlib import Path

import pytest

from rfbench.plotting import webpage
from rfbench.report import html
from rfbench.report.sheets import sheets
from tests.browser import browser, opened
from tests.report.records import RUNS, record, report_of, seeds, write


def png(width: int = 8) -> bytes:
    """A grey image of that width."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, 1, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" + b"\x80" * width)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the real runs beside the paper's rows."""
    report = report_of(RUNS, reference=True)
    report.groups[0].image = png()
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.page(report))
    return path


def test_the_page_needs_nothing_else(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r"""(?:src|href)=["']([^"']{0,30})""", text)
    assert found
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in found)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)


def test_what_the_page_shows(page: Path) -> None:
    text = page.read_text()
    assert text.count("<table>") == 11
    # differences and curves of two settings, curves of one, receptive fields
    assert text.count("<img") == 6
    assert "schedule.epochs=2" in text
    assert '<td class="n good">+44.47 ▲</td>' in text
    assert "39.72" in text


def test_a_cells_class_is_its_verdict_and_not_sniffed_from_its_text(tmp_path: Path) -> None:
    seeds(tmp_path, "baseline", [70.0, 71.5, 72.0])
    seeds(tmp_path, "3x3", [60.0, 61.5, 62.1])
    for name in ("a", "b"):  # claim to be one run, so their folders are shown
        write(tmp_path / f"worse ▼ better {name}", record(), variant="1x1")
    text = html.page(report_of(tmp_path, metrics=("top1",)))
    assert "worse ▼ better a)" in text
    classes = re.findall(r'<td class="(?:n )?(good|bad|faint)">([^<]*)</td>', text)
    assert classes == [("bad", "-9.97 ▼"), ("bad", "worse")]


def test_a_column_of_numbers_is_one_in_text_and_on_the_page(page: Path) -> None:
    report = report_of(RUNS, reference=True)
    text = page.read_text()
    for group in report.groups:
        for block in group.blocks:
            for sheet in sheets(group, block):
                assert len(sheet.numeric) == len(sheet.head)
                cells = [cell for row in sheet.texts for cell in row[: sheet.words]]
                assert not any(re.match(r"[+-]?\d+\.\d", cell) for cell in cells)
                for name, number in zip(sheet.head, sheet.numeric, strict=True):
                    start = '<th class="n" scope="col">' if number else '<th scope="col">'
                    assert f'{start}<button type="button">{name}</button>' in text


def test_names_are_escaped(tmp_path: Path) -> None:
    seeds(tmp_path / "<b>&", "baseline", [1.0])
    report = report_of(tmp_path)
    report.problems.append("<script>alert(1)</script>")
    text = html.page(report)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


@browser
def test_it_loads_without_errors(page: Path) -> None:
    shown, complaints = opened(page, "--dump-dom")
    assert complaints == []
    assert shown.count("<table>") == 11
    assert "How to read this" in shown


@browser
def test_a_broken_page_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<script>nothing.at.all()</script>")
    _, complaints = opened(tmp_path / "bad.html", "--dump-dom")
    assert len(complaints) == 1


USE = """
<script>
const first = document.querySelector("table");
const column = name => [...first.tHead.rows[0].cells].findIndex(c => c.textContent === name);
const texts = name => [...first.tBodies[0].rows].map(r => r.cells[column(name)].textContent);
const click = name => first.tHead.rows[0].cells[column(name)].querySelector("button").click();
const told = [];
click("cost"); told.push(texts("name").join(" "));
click("cost"); told.push(texts("name").join(" "));
click("name"); told.push(texts("name").join(" "));
box.value = "b 1e"; box.dispatchEvent(new Event("input"));
told.push([...first.tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[0].textContent));
told.push(document.querySelector(".search output").textContent);
box.value = ""; box.dispatchEvent(new Event("input"));
told.push([...first.tBodies[0].rows].filter(r => !r.hidden).length);
document.title = told.join("; ");
</script></body>
"""


@browser
def test_tables_sort_and_search(tmp_path: Path) -> None:
    rows = [["a", "4.1 G", "-1"], ["b10", "900 k", "1e-05"], ["b9", "", "2"], ["c", "25.6 M", "–"]]
    text = webpage.page("x", [webpage.table(["name", "cost", "figure"], rows, [False, True, True])])
    (tmp_path / "x.html").write_text(text.replace("</body>", USE))
    shown, complaints = opened(tmp_path / "x.html", "--dump-dom")
    assert complaints == []
    found = re.search("<title>(.*?)</title>", shown)
    assert found
    assert found[1].split("; ") == [
        "b10 c a b9", "a c b10 b9", "a b9 b10 c", "b10", "1 of 4 rows", "4",
    ]  # fmt: skip


@browser
@pytest.mark.parametrize("width", [1400, 500])
def test_nothing_is_wider_than_the_window(page: Path, width: int) -> None:
    measure = "<script>document.title = document.documentElement.scrollWidth</script></body>"
    path = page.with_name(f"measured{width}.html")
    path.write_text(page.read_text().replace("</body>", measure))
    shown, _ = opened(path, "--dump-dom", f"--window-size={width},900")
    found = re.search(r"<title>(\d+)</title>", shown)
    assert found and int(found[1]) <= width


@browser
def test_a_screenshot_shows_more_than_paper(page: Path) -> None:
    import matplotlib.image

    target = page.with_name("shot.png")
    opened(page, f"--screenshot={target}", "--window-size=1400,2000", "--hide-scrollbars")
    picture = matplotlib.image.imread(target)
    assert picture.shape[:2] == (2000, 1400)
    assert 0.01 < (picture[..., :3].min(2) < 0.9).mean() < 0.5
