"""Receptive fields on the page: from records, on one scale, where they say, or not at all."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from rfbench.cli import main
from rfbench.report import panels
from rfbench.report.model import Field
from rfbench.rf.core.recorded_map import decode
from tests.browser import Opened
from tests.report.records import known, png, record, recorded_map, write

MAGMA_MOST, BLACK = (252, 253, 191), (0, 0, 4)  # of Matplotlib's colours, the last and the first


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(*args: str) -> tuple[str, Result]:
    """The page of results/, and what was said beside it."""
    done = CliRunner().invoke(main, ["compare", "results", "--format", "html", *args])
    assert done.exit_code == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done


def spot(side: int = 21, at: float = -10.5, y: int = 3, x: int = 15) -> dict[str, Any]:
    """A map whose paths are nearly all at one pixel."""
    grey = np.ones((side, side), np.uint8)
    grey[y, x] = 255
    return recorded_map(grey, [at, at])


def titles(text: str) -> list[str]:
    return re.findall(r"<h4>([^<]*)</h4>", text)


def test_maps_are_those_of_the_records(folder: Path) -> None:
    """Each once, whatever the seeds and settings; two settings' maps of one variant apart."""
    for seed in range(2):
        write(folder / f"results/a{seed}", record(), seed=seed, network=known(1, spot()))
    long = {"config__schedule__epochs": 99, "epochs": 99}
    write(folder / "results/b", record(), network=known(1, spot()), **long)
    write(folder / "results/c", record(), network=known(2, spot(x=4)), **long, variant="1x1")
    other = {"config__schedule__epochs": 7, "epochs": 7}
    write(folder / "results/d", record(), network=known(3, spot(x=9)), **other)
    text, done = page()
    assert titles(text) == ["baseline", "1x1", "baseline (schedule.epochs=7)"]
    assert "shift 3.00 px" in text.replace("\u00a0", " ")
    assert done.stderr == ""


def test_what_has_no_map_is_named(folder: Path) -> None:
    """What pruning left of a network is in no code, and one's own is not imported."""
    write(folder / "results/a", record(), network=known(1, spot()))
    pruned = {"sparsity": 0.9}
    network = known(-7.5, None)  # as it was before it was pruned
    network["figures"]["gridding"] = 0.3046
    write(folder / "results/b", record(), network=network, config__prune=pruned)
    text, done = page()
    assert done.stderr == ""
    assert titles(text) == ["baseline"]
    assert "No map is known of baseline (prune.sparsity=0.9)." in text


def test_a_network_of_today_with_other_figures_is_not_drawn(folder: Path) -> None:
    """resnet14's shift is -7.5 px."""
    for name, shift in (("a", -7.5), ("b", -6.5)):
        network = known(shift, None)
        del network["map"], network["figures"]["gridding"]
        write(folder / f"results/{name}", record(), network=network, dataset=name)
    text, done = page()
    assert text.count('<figure class="fields">') == 1
    what = "the shift of the network is -7.50, -7.50, of its record -6.50, -6.50"
    assert done.stderr.endswith(f"resnet14 / baseline: not drawn: {what}\n")


HOSTILE = [
    None,
    "<script>pwned=1</script>",
    {"png": '"><script>pwned=1</script>'},
    spot() | {"png": '"><img src=x onerror=pwned=1>'},
    spot() | {"png": png(np.zeros((3, 3), np.uint8))},
    spot() | {"offset": [9.0, 9.0]},
    spot() | {"at": ["<b>", 1e300]},
    spot() | {"middle": {"png": "javascript:pwned=1"}},
    spot() | {"size": {"__proto__": 1}},
]


@pytest.mark.parametrize("content", HOSTILE)
def test_a_damaged_map_is_left_out_in_one_line(folder: Path, content: Any, opened: Opened) -> None:
    write(folder / "results/bad", record(), network=known(1, content), variant="1x1")
    write(folder / "results/good", record(), network=known(1, spot()))
    text, done = page()
    lines = [line for line in done.stderr.splitlines() if "results/bad" in line]
    assert len(lines) == (content is not None)
    assert all("its map is left out: " in line for line in lines)
    assert titles(text) in (["baseline"], ["baseline", "1x1"])  # without a map it is made anew
    assert "26.40" in text  # the figures stay
    (folder / "page.html").write_text(text)
    shot = opened(folder / "page.html")
    assert shot.evaluate("window.pwned") is None
    assert shot.locator("img, iframe, b").count() == 0


def test_one_scale_holds_all_maps(folder: Path) -> None:
    maps = [decode(spot(9, -4.5, x=8)), decode(spot(200, -150.0, 90, 90))]
    scale = panels.scale_of(maps)
    assert 300 <= scale.width <= 360  # 150 px to either side, and little more
    assert scale.side % scale.width == 0
    text = panels.figure([Field("a", "", maps[0]), Field("b", "", maps[1])])
    boxes = re.findall(r'<image href="[^"]*" x="([^"]*)" y="[^"]*" width="([^"]*)"', text)[:2]
    factor = scale.side / scale.width
    centre = scale.side / 2
    expected = [(centre - 4.5 * factor, 9 * factor), (centre - 150 * factor, 200 * factor)]
    assert [tuple(map(float, box)) for box in boxes] == [pytest.approx(e) for e in expected]


def test_a_weak_grid_is_not_shown_finer_than_it_is_kept() -> None:
    content = recorded_map(np.full((90, 90), 255, np.uint8), [-45.0, -45.0], middle=True)
    content["middle"] |= {"span": 1.0, "contrast": 0.002}
    scale = panels.scale_of([decode(content)])
    assert scale.zoom and scale.contrast == pytest.approx(8 / 127)


@pytest.mark.parametrize("width", [1400, 390])
def test_pixels_are_where_and_what_they_say(folder: Path, opened: Opened, width: int) -> None:
    """The brightest pixel of the map is seen 7 px above and 5 px right of the unit's position."""
    content = spot(y=3, x=15)
    for name in ("a", "b"):
        write(folder / "results" / name, record(), network=known(1, content), dataset=name)
    (folder / "page.html").write_text(page()[0])
    shot = opened(folder / "page.html", width)
    panel = shot.locator(".panel svg svg").first
    panel.evaluate("one => one.querySelectorAll('path, circle').forEach(each => each.remove())")
    seen = np.array(Image.open(io.BytesIO(panel.screenshot())).convert("RGB")).astype(int)
    side = float(panel.get_attribute("width"))
    factor = side / panels.scale_of([decode(content)]).width
    centre = side / 2
    bright = np.argwhere(np.abs(seen - MAGMA_MOST).max(-1) <= 2)
    corner = [centre + (3 - 10.5) * factor, centre + (15 - 10.5) * factor]
    assert np.abs(bright.min(0) - corner).max() <= 2
    assert np.abs(bright.max(0) + 1 - corner - factor).max() <= 2
    assert len(bright) >= (factor - 1) ** 2
    assert np.abs(seen[2, 2] - BLACK).max() <= 5
