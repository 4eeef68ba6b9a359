"""docs/no_downsampling.md: the table's parameters, MACs and fields are those of the networks."""

import re

import pytest

from scripts import no_downsampling as script

ROWS = [
    line.strip("| ").split(" | ") for line in script.PAGE.read_text().splitlines() if "|" in line
]
SHOWN = {cells[0]: cells for cells in ROWS if cells[0].startswith("`")}


@pytest.mark.parametrize("name", script.NETWORKS)
def test_a_row_is_computed_again(name: str) -> None:
    cells = script.computed(name)
    shown = SHOWN[cells[0]]
    assert shown[:-1] == cells
    if shown[-1] != "-":  # no effective field is larger than that of theory
        assert 0 < float(shown[-1]) <= int(cells[4])


def test_macs_by_hand() -> None:
    """At 32 px, strided: maps of 16, 8, 4 and 2 px; dilated: 32 px in every layer."""
    weights = [9 * a * b for a, b in ((3, 16), (16, 24), (24, 32), (32, 48))]
    strided = sum(w * n * n for w, n in zip(weights, (16, 8, 4, 2), strict=True)) + 480
    dilated = sum(weights) * 32 * 32 + 480
    for name, macs in (("strided", strided), ("dilated", dilated)):
        assert script.computed(name)[3] == f"{macs / 1e6:,.1f} M"


def test_every_network_has_a_row() -> None:
    from rfbench.classify import nets

    bare = {re.sub(r"\(.*", "", name) for name in script.NETWORKS}
    others = ("resnet14", "resnet16", "resnet17")  # ResNets with strides, of other pages
    assert bare == {name for name in nets.__all__ if not name.startswith(others)}
