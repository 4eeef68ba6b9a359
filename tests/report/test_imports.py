"""Comparing records that tell their receptive fields needs no torch, which is slow to import."""

import json
import subprocess
import sys
from pathlib import Path

from rfbench.models.pools import POOLS
from rfbench.models.variant import SHIPPED
from tests.report.records import record, write

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = """
import json, sys
from rfbench.cli import main
main(["compare", *sys.argv[1:]], standalone_mode=False)
print(json.dumps([m for m in ("torch", "torchvision", "timm", "matplotlib") if m in sys.modules]))
"""


def loaded(*args: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *args], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_compare_without_torch(tmp_path: Path) -> None:
    known = {"size": [32, 32], "macs": 5, "figures": {"shift": [-1.0, -1.0], "gridding": 0.1}}
    for seed in range(2):
        write(tmp_path / f"{seed}", record(), config__seed=seed, network=known)
    assert loaded(str(tmp_path)) == []
    assert loaded(str(tmp_path), "--format", "json") == []


def test_a_page_with_maps_without_torch(tmp_path: Path) -> None:
    """Of records that hold their maps: the repository's own, of all three trainings."""
    page = tmp_path / "page.html"
    assert loaded(str(DOCS / "runs"), "--format", "html", "--output", str(page)) == ["matplotlib"]
    text = page.read_text()
    assert text.count('<figure class="fields">') > 5
    assert text.count("as shown above") >= 1  # a network that several groups share


def test_names_of_pools() -> None:
    assert set(SHIPPED) <= set(POOLS)
