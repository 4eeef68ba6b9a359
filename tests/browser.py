"""Debian's Chromium, headless, driven by Playwright: pages are opened, clicked and typed into.

Without it these tests are skipped, unless RFBENCH_NEEDS_BROWSER is set, as `.ci/run` does.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# opened at a width, light or dark -> Playwright's page, what it complained of in `complaints`
Opened = Callable[..., Any]


def missing() -> str:
    """What there is not, to drive a browser; '' if nothing is missing."""
    try:
        import axe_playwright_python  # noqa: F401
        import playwright  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed: pip install '.[dev]'"
    return "" if found() else f"no browser: none of {', '.join(NAMES)}"


def found() -> str | None:
    """The path of a browser."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")  # Playwright's event loop is gone before other files need theirs
def chromium() -> Iterator[Any]:
    """A browser, started once a file."""
    if why := missing():
        (pytest.fail if os.environ.get("RFBENCH_NEEDS_BROWSER") else pytest.skip)(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Opened]:
    """Opens a file; a test ends with its pages closed and fails if one of them complained."""
    contexts, complaints = [], []

    def open_at(path: Path, width: int = 1400, dark: bool = False, complain: bool = False) -> Any:
        scheme = "dark" if dark else "light"
        size = {"width": width, "height": 900}
        contexts.append(chromium.new_context(viewport=size, color_scheme=scheme))
        page = contexts[-1].new_page()
        told: list[str] = [] if complain else complaints
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith(LOCAL) else told.append(r.url))
        page.goto(path.as_uri())
        page.complaints = told
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert complaints == []


LOCAL = ("file:", "data:", "about:")


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong for people who use a keyboard or a screen reader."""
    from axe_playwright_python.sync_playwright import Axe

    response = Axe().run(page).response
    return [
        f"{rule['id']}: {node['html'][:200]}"
        for rule in response["violations"]
        for node in rule["nodes"][:3]
    ]


def shown(page: Any, selector: str) -> list[str]:
    """The texts of the elements that are visible."""
    items = (item for item in page.locator(selector).all() if item.is_visible())
    return [item.text_content() for item in items]
