"""A real headless browser, for pages."""

import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
browser = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)}")


def opened(path: Path, *options: str) -> tuple[str, list[str]]:
    """The page as the browser has it after its scripts ran, and what it complained of."""
    call = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu"]
    call += ["--enable-logging=stderr", f"--user-data-dir={path.parent / 'profile'}", *options]
    done = subprocess.run(
        [*call, path.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
