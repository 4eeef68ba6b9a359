"""Records of older versions get their network's figures and map, and nothing else is changed."""

import json
from pathlib import Path

from rfbench.rf.core.recorded_map import decode
from scripts import migrate_records as script
from tests.report.records import record, write


def test_a_map_is_added_to_what_its_figures_are_of(tmp_path: Path) -> None:
    """resnet14 of today is the network of a record with its figures, and of no other."""
    old, told, pruned = (write(tmp_path / name, record()) / "result.json" for name in "abc")
    before, known = json.loads(old.read_text()), {}
    assert script.migrate(old, known)
    content = json.loads(old.read_text())
    network = content.pop("network")
    assert content == before and list(content) == list(before)
    assert network["figures"]["shift"] == [-7.5, -7.5]
    assert decode(network["map"]).offset == (-7.5, -7.5)
    without = {key: value for key, value in network.items() if key != "map"}
    write(told.parent, before, network=without)
    figures = {**without["figures"], "shift": [-7.4, -7.5]}
    write(pruned.parent, before, network={**without, "figures": figures})
    texts = {path: path.read_text() for path in (old, pruned)}
    assert script.migrate(told, known)
    assert not script.migrate(old, known) and not script.migrate(pruned, known)
    assert {path: path.read_text() for path in texts} == texts
    content = json.loads(told.read_text())
    assert content == {**before, "network": network}
    assert list(content["network"]) == [*without, "map"]
