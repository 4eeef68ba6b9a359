"""Figures: what is marked where, what is written, and that nothing overlaps or depends on time."""

import re
import resource
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.plotting import page
from rfbench.rf.core.metrics import measure
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_map import Convention, PathMap
from rfbench.rf.core.target import Target
from rfbench.rf.questions.maps.by_layer import layers_figure
from rfbench.rf.questions.maps.figure import Panel, maps_figure, over_mean


def panel(title: str, *modules: nn.Module, size: int = 96) -> Panel:
    graph = Network(nn.Sequential(*modules), (size, size)).graph((size, size))
    found = Target(graph).counts()
    metrics = measure(found, Target(graph).geometry)
    return Panel(title, found, metrics, (found, metrics), f"at {size} px")


def shifted() -> Panel:
    """Three stride-2 convolutions: 3.5 px up-left, gridded."""
    return panel("shifted", *(nn.Conv2d(1, 1, 3, 2, 1) for _ in range(3)))


def centred() -> Panel:
    return panel("centred", nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, padding=1))


def smooth(grid: float, stride: int = 8, centre: float = 127.5) -> Panel:
    """A wide bell on 256 px, every second row and column heavier by `grid`."""
    line = np.exp(-((np.arange(256) - centre) ** 2) / (2 * 30**2))
    line[1::2] *= 1 + grid
    found = PathMap(np.outer(line, line), 0, (15, 15), (31, 31), Convention())
    at = float(line @ np.arange(256) / line.sum())
    metrics = {
        "centroid": (at, at),
        "shift": (at - 127.5, at - 127.5),
        "stride": [stride, stride],
        "size": [256, 256],
        "gridding": grid,
        "gridding_by_period": {"2": grid, "8": grid},
        "cut": False,
        "misaligned": 1,
        "bypass": 0.0,
    }
    return Panel("smooth", found, metrics)


def texts(figure: Figure) -> list:
    found = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    for a in figure.axes:
        found += [a.title, a.xaxis.label, a.yaxis.label, *a.get_xticklabels(), *a.get_yticklabels()]
    return [t for t in found if t.get_text() and t.get_visible()]


def test_marks_stand_at_the_unit_s_place_and_the_centroid() -> None:
    figure = maps_figure([shifted(), centred()], "Two", "caption")
    lines = [{line.get_label(): line for line in axes.lines} for axes in figure.axes]
    first = lines[0]
    assert first["place"].get_xydata().tolist() == [[0, 0]]
    assert first["centroid"].get_xydata()[0] == pytest.approx([-3.5, -3.5])


def test_figures_are_written_below_the_maps() -> None:
    text = "\n".join(t.get_text() for t in maps_figure([shifted()], "T", "my caption").texts)
    for part in (
        "shift\u00a0−3.50\u00a0px",
        "gridding\u00a0",
        "size\u00a015\u00a0px",
        "at 96 px",
        "my caption",
    ):
        assert part in text


def test_a_pdf_holds_the_pixels_of_a_map_and_no_more(tmp_path: Path) -> None:
    figure = maps_figure([shifted(), centred()], "T", "")
    before = [image.get_interpolation() for axes in figure.axes for image in axes.images]
    _, pdf = page.save(figure, tmp_path / "maps")
    sides = re.findall(rb"/Width (\d+)", pdf.read_bytes())
    assert sides and max(map(int, sides)) <= max(shifted().path_map.counts.shape) + 2
    assert before == [i.get_interpolation() for axes in figure.axes for i in axes.images]


def test_small_maps_have_their_counts_and_no_second_row() -> None:
    figure = maps_figure([panel("small", nn.Conv2d(1, 1, 3, 2, 1), size=14)], "T", "")
    counts = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert counts == ["1"] * 9
    assert len(figure.axes) == 2  # the map and its colour bar


def test_counts_that_are_not_whole_are_not_printed() -> None:
    small = panel("small", nn.Conv2d(1, 1, 3, 2, 1), size=14)
    half = PathMap(small.path_map.counts / 2, 0, (3, 3), (7, 7), Convention())
    assert not maps_figure([Panel("half", half, small.metrics)], "T", "").axes[0].texts
    doubled = PathMap(half.counts, 1, (3, 3), (7, 7), Convention())  # the exponent counts
    assert maps_figure([Panel("1", doubled, small.metrics)], "T", "").axes[0].texts


@pytest.mark.parametrize("grid", [0.0, 0.003, 0.2])
def test_over_mean_shows_a_weak_grid_and_nothing_else(grid: float) -> None:
    ratio = over_mean(smooth(grid), 40)
    even, odd = 1 / (1 + grid / 2), (1 + grid) / (1 + grid / 2)
    expected = np.outer(*[np.where(np.arange(40) % 2, odd, even)] * 2)
    assert ratio.shape == (40, 40)
    # a plain mean over 8 px would be off by 64 / 24 / 30^2 in both directions: 0.006
    assert np.abs(ratio - expected).max() < 3e-4


def test_over_mean_is_empty_where_there_are_no_paths() -> None:
    whole = smooth(0.0)
    half = whole.path_map.counts.copy()
    half[:, 128:] = 0
    found = PathMap(half, 0, whole.path_map.unit, whole.path_map.units, Convention())
    empty = np.isnan(over_mean(Panel("half", found, whole.metrics), 40))
    assert not empty[:, :20].any() and empty[:, 34:].all()  # 3 means of 9 px reach 12 px


def test_the_greys_are_those_of_the_most_gridded_panel() -> None:
    figure = maps_figure([smooth(0.2), smooth(0.003)], "T", "")
    greys = [a.images[0] for a in figure.axes if a.images and a.images[0].get_cmap().name == "gray"]
    assert [g.get_clim() for g in greys] == [pytest.approx((0.6, 1.4))] * 2
    flat = maps_figure([smooth(0.0)], "T", "").axes[1].images[0]  # nothing grids: nothing to see
    assert flat.get_clim() == pytest.approx((0.9, 1.1))
    assert np.ptp(flat.get_array()) < 0.01 * 0.2


def test_pixels_stand_where_the_axes_say() -> None:
    """The heaviest pixel of a one-pixel map lies at its offset from the unit's position."""
    toy = panel("toy", nn.Conv2d(1, 1, 1, 2), size=14)  # unit (3, 3): pixel (6, 6), place 6.5
    image = maps_figure([toy], "T", "").axes[0].images[0]
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == pytest.approx((-7, 7, 7, -7))
    assert np.argwhere(image.get_array()).tolist() == [[6, 6]]
    assert image.get_interpolation() == "nearest"


def test_pixels_of_the_second_row_are_whole_dots() -> None:
    for number in (1, 3, 4):
        axes = maps_figure([smooth(0.2)] * number, "T", "").axes[1]
        box, (left, right) = axes.get_window_extent(), axes.get_xlim()
        for dots in (box.width / (right - left), box.height / (right - left), box.x0, box.y0):
            assert dots == pytest.approx(round(dots), abs=1e-6)


def test_an_arrow_only_where_the_shift_is_seen() -> None:
    arrows = [
        len([t for t in axes.texts if not t.get_text()])
        for kind in (smooth(0.2), smooth(0.2, centre=115.0))
        for axes in maps_figure([kind], "T", "").axes[:2]
    ]
    assert arrows == [0, 0, 0, 1]  # in the second row of the shifted map


def test_the_legend_names_what_lies_outside_of_the_source_where_that_is_shown() -> None:
    """Beside a wide field a small source has a frame; alone it has none."""
    small, wide = panel("small", nn.Conv2d(1, 1, 3), size=33), smooth(0)
    for panels, framed in (([small, wide], True), ([wide], False)):
        figure = maps_figure(panels, "title", "caption")
        assert ("outside the source" in [text.get_text() for text in legend(figure)]) is framed


def legend(figure: Figure) -> list[Text]:
    """The words that the legends of a figure hold."""
    return [text for held in figure.legends for text in held.get_texts()]


def test_no_panels_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one panel"):
        maps_figure([], "T", "")


@pytest.mark.parametrize("number", [1, 2, 5])
def test_no_text_overlaps_another_or_leaves_the_page(number: int) -> None:
    kinds = [shifted(), smooth(0.2), smooth(0.003, centre=110.0)]
    long = "A title that is long enough for more than one line of a figure, whatever its width " * 2
    panels = [Panel("a variant with a name", k.path_map, k.metrics, k.own, k.own_at) for k in kinds]
    figure = maps_figure([panels[i % 3] for i in range(number)], long, long)
    figure.canvas.draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure)]
    assert len(boxes) > 10 + 8 * number
    for i, (text, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, text
        assert not [other for other, b in boxes[i + 1 :] if box.overlaps(b)], text


def test_layers_are_in_order_and_labelled() -> None:
    rows = {"baseline": [("conv1", -0.5), ("pool", -1.5)], "3x3": [("conv1", 0.0), ("pool", 0.0)]}
    axes = layers_figure(rows, "T", "c").axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["conv1", "pool"]
    assert axes.lines[1].get_ydata().tolist() == [-0.5, -1.5]


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        page.save(maps_figure([shifted()], "T", "c"), tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pdf", "a.png", "b.pdf", "b.png"]
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_a_figure_that_fails_leaves_no_file(tmp_path: Path) -> None:
    figure = maps_figure([shifted()], "T", "c")
    page.save(figure, tmp_path / "maps")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(renderer: object) -> None:
        raise OSError("disk full")

    figure.axes[0].draw = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(RfbenchError, match=r"cannot write .*maps\.png: disk full"):
        page.save(figure, tmp_path / "maps")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    """A limit as of a full disk, in the middle of a PDF, whose writer would fail otherwise."""
    figure = maps_figure([shifted()], "T", "c")
    written = {path.suffix: path.stat().st_size for path in page.save(figure, tmp_path / "maps")}
    for path in tmp_path.iterdir():
        path.unlink()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for kind in ("png", "pdf"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (written[f".{kind}"] // 2, hard))
        try:
            with pytest.raises(RfbenchError, match=rf"cannot write .*maps\.{kind}: File too large"):
                page.save(figure, tmp_path / "maps", [kind])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == []
