"""The documentation site: every page is in it, every link leads somewhere, nothing is fetched."""

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[dev]'")
pytest.importorskip("material", reason="mkdocs-material is not installed")

from mkdocs.utils.yaml import yaml_load

from tests.browser import Opened, violations

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "mkdocs.yml"


def build(settings: Path, folder: Path) -> subprocess.CompletedProcess:
    """What `make docs` runs."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", str(settings), "-d", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(SETTINGS, folder)
    assert done.returncode == 0, done.stderr
    return folder


def paths(nav: list) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else paths(value)


def test_every_page_is_in_the_navigation_once() -> None:
    with SETTINGS.open("rb") as file:
        named = [*paths(yaml_load(file)["nav"])]
    found = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
    pages = [p.relative_to(ROOT / "docs").with_suffix(".md").as_posix() for p in found]
    assert sorted(p for p in named if not p.startswith("repository/")) == sorted(pages)


def test_the_site_is_whole_and_needs_no_network(site: Path) -> None:
    assert (site / "index.html").exists() and not (site / "runs").exists()
    assert (site / "search" / "search_index.json").exists()
    pages = [*(ROOT / "docs").rglob("*.md")]
    assert all((site / p.relative_to(ROOT / "docs").with_suffix(".html")).exists() for p in pages)
    fetched = re.compile(r"<(?:script|img|iframe)[^>]*src=\"?https?:|<link[^>]*href=\"?https?:")
    for page in site.rglob("*.html"):
        assert not fetched.search(page.read_text()), page


def test_lists_and_tables_of_pages_are_lists_and_tables(site: Path) -> None:
    """A repository's browser begins a list without an empty line before it; the site does not."""
    lost = re.compile(r"<p>[^<]*(?:<(?!/p>)[^<]*)*\n(?:- |\d+\. |\|)")
    assert {page.name for page in site.glob("*.html") if lost.search(page.read_text())} == set()


def test_the_figures_of_concepts_are_small_and_shown() -> None:
    """`make figures-concepts` draws them."""
    folder = ROOT / "docs" / "figures" / "concepts"
    for page in (ROOT / "docs" / "concepts").glob("*.md"):
        figure = folder / f"{page.stem}.png"
        assert f"](../figures/concepts/{figure.name})" in page.read_text()
        assert figure.stat().st_size < 60_000
    assert len([*folder.iterdir()]) == 7


def test_links_that_leave_the_pages(tmp_path: Path) -> None:
    """A file that is linked to is shown, what it links to as well; a dead link ends the build."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "site_links.py", tmp_path / "scripts")
    settings = tmp_path / "mkdocs.yml"
    settings.write_text(
        "site_name: x\nstrict: true\nhooks: [scripts/site_links.py]\n"
        "validation: {links: {anchors: warn}}\nuse_directory_urls: false\n"
    )
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / "index.md").write_text("# A\n\n[a](../NOTES.md#a-part), [b](deep/page.md)\n")
    (docs / "deep" / "page.md").write_text("# Deep\n\n## There\n\n[c](../../code.py)\n")
    (tmp_path / "NOTES.md").write_text(
        "# Notes\n\n## A part\n\n[d](docs/deep/page.md#there), [e](code.py), [f](folder)\n"
    )
    (tmp_path / "code.py").write_text("print('~~~')\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside.yaml").write_text("")
    done = build(settings, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site" / "index.html").read_text()
    assert 'href="repository/NOTES.html#a-part"' in index
    notes = (tmp_path / "site" / "repository" / "NOTES.html").read_text()
    for target in ("../deep/page.html#there", "code.py.html", "folder.html"):
        assert f'href="{target}"' in notes
    deep = (tmp_path / "site" / "deep" / "page.html").read_text()
    assert 'href="../repository/code.py.html"' in deep
    assert "print" in (tmp_path / "site" / "repository" / "code.py.html").read_text()
    assert "inside.yaml" in (tmp_path / "site" / "repository" / "folder.html").read_text()
    for link in ("nowhere.md", "../nowhere.py", "deep/page.md#nowhere"):
        (docs / "index.md").write_text(f"# A\n\n[a]({link})\n")
        done = build(settings, tmp_path / "site")
        assert done.returncode == 1 and "nowhere" in done.stderr, link


def test_links_to_pages_are_named_by_words() -> None:
    """Not by the file, which a reader of the site has not got."""
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    named = re.compile(r"\[`?[\w/.]+\.(?:md|ipynb)`?\]\(")
    assert [str(page) for page in pages if named.search(page.read_text())] == []


def test_a_notebook_is_a_page_with_its_outputs(site: Path) -> None:
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        page = (site / "notebooks" / f"{path.stem}.html").read_text()
        assert page.count('class="language-python highlight"') >= 6, path
        assert "data:image/png;base64," in page and "baseline to" in page, path
        assert f'href="{path.name}"' in page and (site / "notebooks" / path.name).exists()
    index = (site / "index.html").read_text()
    assert 'href="notebooks/my_backbone.html"' in index and ".ipynb" not in index


def test_columns_of_figures_are_marked_and_images_open(site: Path) -> None:
    zoo = (site / "zoo.html").read_text()
    assert '<th class="figure">models</th>' in zoo and "<th>family</th>" in zoo
    assert '<td class="figure">49.98</td>' in zoo and "<td>hrnet</td>" in zoo
    assert '<a class="image" href="zoo.png"><img ' in zoo
    tables = (site / "reproduction.html").read_text()
    assert '<td class="figure">[82.78, 84.67]</td>' in tables and "<td>better</td>" in tables


def test_what_is_copied_can_be_pasted(site: Path, opened: Opened) -> None:
    """As the theme copies it: neither prompts nor what was printed."""
    shot = opened(site / "concepts" / "checkerboard.html", complain=True)
    text = shot.locator(".language-pycon code").first.evaluate(
        "code => { code.setAttribute('data-md-copying', ''); return code.innerText; }"
    )
    assert "def decoder(kernel):\n    up = nn." in text and ">>>" not in text
    assert "[0.0, 0.4843" not in text
    compile(text, "pasted", "exec")


def test_words_with_dashes_are_searched_for_as_words(site: Path, chromium: Any) -> None:
    """Served, since the theme searches in a worker; every page that is found has the word."""
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with contextlib.closing(chromium.new_page()) as shot:
            shot.goto(f"http://127.0.0.1:{server.server_port}/index.html")
            for typed in ("--fail-on", "fail-on", "train-det", "-o"):
                shot.fill(".md-search__input", typed)
                shot.keyboard.press("Shift")  # the theme looks after a key
                first = shot.locator(".md-search-result__link mark", has_text=typed.strip("-"))
                first.first.wait_for(state="attached")
                links = shot.locator(".md-search-result__item > .md-search-result__link").all()
                for link in links:
                    path = site / urlsplit(link.get_attribute("href")).path.lstrip("/")
                    assert typed in path.read_text(), (typed, path)
                assert 2 < len(links) < 20, typed
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is said of requests."""


@pytest.mark.parametrize("dark", [False, True])
def test_pages_are_for_keyboards_and_screen_readers(site: Path, opened: Opened, dark: bool) -> None:
    """But for the theme's own buttons that copy: landmarks of one name."""
    for name in ("index", "notebooks/my_decoder", "zoo"):
        shot = opened(site / f"{name}.html", dark=dark, complain=True)
        found = [text for text in violations(shot) if not text.startswith("landmark-unique")]
        assert found == [], name


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_the_window(site: Path, width: int, opened: Opened) -> None:
    for name in ("index", "receptive_fields", "reproduction", "notebooks/my_backbone"):
        shot = opened(site / f"{name}.html", width, complain=True)
        assert shot.evaluate("document.documentElement.scrollWidth") <= width, name
