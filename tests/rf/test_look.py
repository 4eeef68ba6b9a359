"""--style and --width: how wide figures are, in both files, and that their letters keep apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from matplotlib.axes import Axes
from matplotlib.axis import Tick
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from rfbench.cli import main
from rfbench.errors import UsageError
from rfbench.plotting import page
from rfbench.plotting.look import ENLARGED, styled
from rfbench.rf.questions.maps.by_layer import layers_figure
from rfbench.rf.questions.maps.figure import maps_figure
from tests.rf.test_render import centred, panel, shifted, texts

NETS = """
from torch import nn
def image(): return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
def decoder():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 2, 3, 2, 1, 1))
def sequence(): return nn.Sequential(nn.Conv1d(1, 4, 9, 2, 4))
def volume(): return nn.Sequential(nn.Conv3d(1, 4, 3, 2, 1))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def inches(png: Path) -> float:
    with Image.open(png) as image:
        return image.width / image.info["dpi"][0]


def run(*arguments: str) -> list[Path]:
    """The PNGs and PDFs of a command."""
    result = CliRunner().invoke(main, [*arguments, "--output", "out"])
    assert result.exit_code == 0, result.output
    return sorted(path for path in Path("out").iterdir() if path.suffix in (".png", ".pdf"))


@pytest.mark.parametrize(
    "command",
    [
        "visualize-rf nets.py:image --size 64",
        "visualize-rf nets.py:image --size 64 --by-layer",
        "visualize-rf nets.py:decoder --size 64",
        "visualize-rf nets.py:sequence --size 64",
        "visualize-rf nets.py:volume --size 32",
        "rf audit nets.py:image --size 64",
        "rf effective nets.py:image --size 64 --count 1",
        "rf effective nets.py:sequence --size 64 --count 1",
        "rf mirror nets.py:image --size 64",
        "rf tiles nets.py:decoder --size 64",
        "rf tiles nets.py:sequence --size 256",
    ],
)
def test_every_figure_is_as_wide_as_asked(here: Path, command: str) -> None:
    found = run(*command.split(), "--width", "4.5")
    assert {path.suffix for path in found} == {".png", ".pdf"}
    for path in found:
        if path.suffix == ".png":
            assert inches(path) == pytest.approx(4.5, abs=0.01), path
        else:  # 72 points an inch
            assert b"/MediaBox [ 0 0 324 " in path.read_bytes(), path


def test_for_a_screen_everything_is_twice_as_large(here: Path) -> None:
    (only,) = run("visualize-rf", "nets.py:image", "--size", "64", "--style", "screen")
    assert only.suffix == ".png"
    with Image.open(only) as image:
        assert image.width == 2666 and inches(only) == pytest.approx(13.33, abs=0.01)


DRAW: list[Callable[[], Figure]] = [
    lambda: maps_figure([shifted(), centred(), shifted(), centred()], "Some title", "caption " * 9),
    lambda: maps_figure([turns()], "Some title", "caption"),
    lambda: layers_figure(
        {name: [(f"layer{i}.{i}", float(i)) for i in range(40)] for name in ("baseline", "3x3")},
        "Some title",
        "caption",
    ),
]


def turns() -> object:
    return panel("units", nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=2), size=64)


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("style", ENLARGED)
@pytest.mark.parametrize("width", [3.3, 7.0])
def test_letters_keep_apart(draw: Callable[[], Figure], style: str, width: float) -> None:
    with styled(style, width * ENLARGED[style]):
        figure = draw()
    assert figure.get_size_inches()[0] == pytest.approx(width, abs=0.01)
    check_letters(figure)


def ticks_beyond(axes: Axes) -> list[Tick]:
    """Those outside of what the axes show: they are not drawn."""
    held = [(axis.get_view_interval(), axis.get_major_ticks()) for axis in (axes.xaxis, axes.yaxis)]
    return [t for view, every in held for t in every if not min(view) <= t.get_loc() <= max(view)]


def check_letters(figure: Figure) -> None:
    """That no text leaves the figure, and none covers another."""
    figure.canvas.draw()
    unseen = [tick.label1 for ax in figure.axes for tick in ticks_beyond(ax)]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure) if t not in unseen]
    for i, (text, box) in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert not [other for other, b in boxes[i + 1 :] if box.overlaps(b)], text


@pytest.mark.parametrize(
    "command",
    [
        "rf effective nets.py:image --size 64 --count 1",
        "rf effective nets.py:image --size 64 --count 1 --variant baseline --variant 3x3",
        "rf effective nets.py:sequence --size 64 --count 1",
        "rf tiles nets.py:image --size 256 --tile 64",
        "rf tiles nets.py:sequence --size 256 --tile 64",
    ],
)
@pytest.mark.parametrize(("style", "width"), [("paper", 3.4), ("screen", 3.4)])
def test_letters_of_commands_keep_apart(
    here: Path, monkeypatch: pytest.MonkeyPatch, command: str, style: str, width: float
) -> None:
    drawn: list[Figure] = []
    save = page.save

    def kept(figure: Figure, *args: Any, **kwargs: Any) -> list[Path]:
        drawn.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(page, "save", kept)
    run(*command.split(), "--style", style, "--width", str(width * ENLARGED[style]))
    assert drawn
    for figure in drawn:
        check_letters(figure)


def test_of_one_network_a_slide_has_both_maps_side_by_side(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    for more in ([], ["--variant", "baseline", "--variant", "3x3"]):
        command = "rf effective nets.py:image --size 64 --count 1 --overwrite --style screen"
        (only,) = run(*command.split(), *more)
        with Image.open(only) as image:
            shapes.append(image.size)
    assert shapes[0][0] > 1.2 * shapes[0][1]  # wider than high
    assert shapes[1][0] < 1.2 * shapes[1][1]


def test_the_usual_look_returns_after_a_figure() -> None:
    with pytest.raises(ZeroDivisionError), styled("screen", 5):
        _ = 1 / 0
    assert maps_figure([shifted()], "T", "").get_size_inches()[0] == pytest.approx(3.18, abs=0.01)


@pytest.mark.parametrize(
    ("style", "width", "message"),
    [
        ("slide", None, "there are paper and screen"),
        ("paper", 1.0, "must be 2 to 40 inches"),
        ("paper", float("nan"), "must be 2 to 40 inches"),
    ],
)
def test_other_looks_are_refused(style: str, width: float | None, message: str) -> None:
    with pytest.raises(UsageError, match=message), styled(style, width):
        pass


def test_too_narrow_for_its_panels_is_said_before_anything_is_written(here: Path) -> None:
    arguments = "visualize-rf nets.py:volume --size 32 --width 2.5 --output out"
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 2
    assert "needs a width of 3.8 inches or more (--width)" in result.stderr
    assert not Path("out").exists()


def test_words_that_hold_together_are_parted_only_where_they_must() -> None:
    assert page.wrap("a\u00a0b c", 2, 6) == ["a\u00a0b c"]
    together = "\u00a0".join(["word"] * 8)
    assert all(page.text_width(part, 6) <= 0.5 for part in page.wrap(together, 0.5, 6))
