"""Figures: what is marked where, what is written, and that nothing overlaps or depends on time."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from torch import nn

from rfbench.rf import page
from rfbench.rf.metrics import geometry, measure
from rfbench.rf.network import Network
from rfbench.rf.paths import path_counts
from rfbench.rf.render import Panel, maps_figure
from rfbench.rf.render_layers import layers_figure


def panel(title: str, *modules: nn.Module, size: int = 96) -> Panel:
    graph = Network(nn.Sequential(*modules), (size, size)).graph((size, size))
    found = path_counts(graph)
    metrics = measure(found, geometry(graph, None, None))
    return Panel(title, found, metrics, (found, metrics), f"at {size} px")


def shifted() -> Panel:
    """Three stride-2 convolutions: 3.5 px up-left, gridded."""
    return panel("shifted", *(nn.Conv2d(1, 1, 3, 2, 1) for _ in range(3)))


def centred() -> Panel:
    return panel("centred", nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, padding=1))


def texts(figure: Figure) -> list:
    found = [t for t in figure.texts if t.get_text()]
    return [*found, *(t for a in figure.axes for t in (a.title, a.xaxis.label, a.yaxis.label))]


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
        "CV(8)",
        "r\u00a015\u00a0px",
        "at 96 px",
        "my caption",
    ):
        assert part in text


def test_small_maps_have_their_counts_and_no_second_row() -> None:
    figure = maps_figure([panel("small", nn.Conv2d(1, 1, 3, 2, 1), size=14)], "T", "")
    counts = [t.get_text() for axes in figure.axes for t in axes.texts]
    assert counts == ["1"] * 9
    assert len(figure.axes) == 2  # the map and its colour bar


@pytest.mark.parametrize("number", [1, 2, 4, 5])
def test_no_text_overlaps_another_or_leaves_the_page(number: int) -> None:
    figure = maps_figure(
        [shifted(), centred()] * (number // 2) + [shifted()] * (number % 2), "T", "c"
    )
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in texts(figure) if t.get_text()]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


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
