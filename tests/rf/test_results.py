"""Results for notebooks: they are the dicts they were, and they print and draw themselves."""

import pickle

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from rfbench import rf
from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.results import Measured, Report


class Net(nn.Module):
    """Two strided 3x3 convolutions: shifted by 1.5 px, and gridded."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))


def test_the_functions_are_listed() -> None:
    named = {"audit", "effective", "mirror", "path_counts", "record", "theory", "tiles"}
    assert named | {"visualize", "register_op"} <= set(dir(rf))


def reports() -> dict[str, Report | Measured]:
    graph = rf.record(Net(), size=32)
    return {
        "theory": rf.theory(graph),
        "counts": rf.path_counts(graph),
        "visualize": rf.visualize(Net(), size=32),
        "effective": rf.effective(Net(), torch.randn(1, 3, 32, 32)),
        "audit": rf.audit(Net(), size=32),
        "tiles": rf.tiles(Net(), size=64, tile=32),
        "mirror": rf.mirror(Net(), size=32),
    }


def test_what_is_printed_says_the_essentials() -> None:
    found = {name: repr(report) for name, report in reports().items()}
    assert found["theory"].splitlines() == [
        "axis  size  stride  padding  centre of unit 0",
        "y     7     4       3        0",
        "x     7     4       3        0",
    ]
    assert "map of 32x32 px\nshift y, x (px)  -1.50, -1.50" in found["counts"]
    assert len(found["visualize"].splitlines()) == 3  # 1x1 changes nothing, both what 3x3 does
    assert "the mean |gradient|" in found["effective"]
    assert "after fixing only this layer" in found["audit"]
    assert "smallest crop" in found["tiles"] and "mirrored back" in found["mirror"]


def test_every_one_but_theory_draws_itself() -> None:
    for name, report in reports().items():
        if name == "theory":
            with pytest.raises(RfbenchError, match="no figure"):
                report.plot()
            continue
        assert isinstance(report.plot(), Figure), name
        assert "<img" in report._repr_html_() and "<pre>" in report._repr_html_()


def test_a_map_is_drawn_into_axes_where_the_unit_is_the_origin() -> None:
    found = rf.path_counts(rf.record(Net(), size=32))
    axes = Figure().add_subplot()
    assert found.plot(axes) is axes
    (image,), (place, centroid) = axes.images, axes.lines
    left, right, bottom, top = image.get_extent()
    rows, columns = np.indices(found.map.shape)
    weights = found.map / found.map.sum()
    y = top + 0.5 + (rows * weights).sum()  # the centroid by the pixels as they are drawn
    x = left + 0.5 + (columns * weights).sum()
    assert (right - left, bottom - top) == (32, 32)
    assert place.get_xydata().tolist() == [[0, 0]]
    assert centroid.get_xydata()[0] == pytest.approx([-1.5, -1.5])
    assert (x, y) == pytest.approx((-1.5, -1.5))


def test_where_units_take_turns_the_map_is_drawn_about_its_own_unit() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Upsample(scale_factor=2))
    found = rf.path_counts(rf.record(net, size=32), unit=(16, 17))
    axes = Figure().add_subplot()
    found.plot(axes)
    (image,), (_, centroid) = axes.images, axes.lines
    left, _, _, top = image.get_extent()
    # units 16 and 17 both copy the unit whose field is centred on pixel 16
    assert (-0.5 - top, -0.5 - left) == (16, 17)
    assert centroid.get_xydata()[0] == pytest.approx([16 - 17, 16 - 16])


def test_maps_of_sequences_have_a_figure_of_their_own_only() -> None:
    found = rf.path_counts(rf.record(nn.Conv1d(1, 1, 3), size=(16,)))
    assert isinstance(found.plot(), Figure)
    with pytest.raises(RfbenchError, match="only maps of images"):
        found.plot(Figure().add_subplot())


def test_they_are_dicts_that_can_be_kept() -> None:
    report = rf.audit(Net(), size=32)
    kept = pickle.loads(pickle.dumps(report))
    assert kept == report == report.to_dict() and repr(kept) == repr(report)
    assert type(report.to_dict()) is dict
    counts, figures = rf.path_counts(rf.record(Net(), size=32))
    assert counts.shape == (32, 32) and figures["shift"] == (-1.5, -1.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_alike(dtype: torch.dtype) -> None:
    assert rf.audit(Net().to(dtype), size=32)["shift"] == rf.audit(Net(), size=32)["shift"]


def test_visualize_takes_variants() -> None:
    found = rf.visualize(Net(), ["3x3", "blur:3x3"], size=32)
    assert [panel["variant"] for panel in found["panels"]] == ["3x3", "blur:3x3"]
    with pytest.raises(UsageError, match="replaces no convolution"):
        rf.visualize(Net(), ["1x1"], size=32)


def test_a_notebook_shows_a_figure_in_its_own_size() -> None:
    """Not blown up to the width of a page; wider ones are made to fit."""
    _, figures = found = rf.path_counts(rf.record(nn.Conv2d(1, 1, 3, padding=1), size=16))
    width = figures.plot().get_size_inches()[0]
    assert width < 5 and f"width: {width:.2f}".rstrip("0") in found._repr_html_()
    with rf.styled(width=12):
        assert "width: 7.0in" in found._repr_html_()
