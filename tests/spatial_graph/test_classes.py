"""Labels sorted out into classes, against numpy's own sorting."""

import numpy as np
import pytest

from rfbench.spatial_graph.layout import CONSTANT, Factor, Value, sort_out


def arrays() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    close = [random.integers(-1, high, shape) for high in (1, 3, 40) for shape in ((7,), (1, 64))]
    far = [random.integers(-1, 10**9, (1, 5, 2)), np.array([CONSTANT, 10**12])]
    return [*close, *far, np.full((1, 4, 1), 9), np.array([[CONSTANT]])]


@pytest.mark.parametrize("labels", arrays())
def test_as_numpy_sorts(labels: np.ndarray) -> None:
    ids, index, counts = sort_out(labels)
    wanted, number = np.unique(labels, return_counts=True)
    assert ids == wanted.tolist() and counts == number.tolist()
    assert (np.array(ids)[index] == labels).all()


@pytest.mark.parametrize("step", [10, 0, -1])
def test_new_labels(step: int) -> None:
    """Also where classes become one, or change their order."""
    labels = np.array([[4, 4, 2, CONSTANT, 7]])
    value = Value(((), (Factor("c", 5),)), labels)
    ids = [CONSTANT, *(100 + step * i for i in range(3))]
    new = value.relabelled(ids, value.dims)
    wanted = [dict(zip([CONSTANT, 2, 4, 7], ids, strict=True))[i] for i in labels[0].tolist()]
    assert new.labels.tolist() == [wanted]
    assert new.share == {i: wanted.count(i) for i in sorted(set(wanted)) if i != CONSTANT}
    assert list(new.share) == sorted(new.share)


def test_nothing_left() -> None:
    value = Value(((), (Factor("c", 0),)), np.zeros((1, 0), int))
    assert value.share == {} and not value.depends_on_input
