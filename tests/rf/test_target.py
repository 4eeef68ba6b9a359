"""A target makes its theory and counts once, and a whole audit does so too."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from rfbench.config import load
from rfbench.rf.core import path_counts, theory
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.subjects import subjects
from rfbench.rf.core.target import Target
from rfbench.rf.questions.audit.audit import audit
from rfbench.schemas.rf import RfConfig
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import conv


def content(graph: SpatialGraph) -> tuple:
    """What tells a graph from another: two objects may be the same graph."""
    return tuple((n.kind, n.sources, n.size, n.axes, n.counts) for n in graph.nodes)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often theory and path counts were computed, by graph."""
    counter: Counter = Counter()

    def counted(what: str, compute: Callable) -> Callable:
        def run(graph: SpatialGraph, *args: Any) -> Any:
            counter[(what, content(graph), *map(str, args))] += 1
            return compute(graph, *args)

        return run

    monkeypatch.setattr(theory, "theory", counted("theory", theory.theory))
    counts = counted("counts", path_counts.count_tensor)
    monkeypatch.setattr(path_counts, "count_tensor", counts)
    return counter


def test_an_audit_computes_theory_once_a_graph(calls: Counter) -> None:
    config = load(RfConfig, None, ["model=resnet18", "variants=[baseline]"])
    audit(config, next(subjects(config)))
    by_graph = Counter(key[:2] for key in calls.elements())
    assert len([key for key in by_graph if key[0] == "theory"]) >= 10  # 8 layers are fixed alone
    assert set(by_graph.values()) == {1}


def test_all_that_follows_from_a_target_is_made_once(calls: Counter) -> None:
    target = Target(spatial_graph(conv(3, 4, 3, 2, 1), (16, 16)))
    for _ in range(2):
        assert target.geometry.uniform[0].stride == 2 and not target.disagreements
        assert target.counts() is target.counts((3, 3)) is target.counts(target.center)
        assert target.counts((0, 0)) is not target.counts()
        assert target.counts(convention=Convention("real")).convention.channels == "real"
    assert sum(n for key, n in calls.items() if key[0] == "theory") == 1
    assert sum(n for key, n in calls.items() if key[0] == "counts") == 3
