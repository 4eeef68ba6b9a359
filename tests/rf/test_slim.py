"""The table that google-research/receptive_field publishes for TF-slim, row by row."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from rfbench.cli import main

SLIM = Path(__file__).parents[2] / "scripts" / "slim_nets.py"

TABLE = [
    # network, input size, r, S, P
    ("alexnet_v2", 224, 195, 32, 64),
    ("torchvision:vgg16", 224, 212, 32, 90),
    ("mobilenet_v1", 224, 315, 32, 126),
    ("resnet_v1_50", 224, 483, 32, 239),
    ("inception_v2", 224, 699, 32, 318),
    ("resnet_v1_101", 224, 1027, 32, 511),
    ("torchvision:inception_v3", 299, 1311, 32, 618),
    ("resnet_v1_152", 224, 1507, 32, 751),
    ("resnet_v1_200", 224, 1763, 32, 879),
    ("timm:inception_v4", 299, 2071, 32, 998),
    ("timm:inception_resnet_v2", 299, 3039, 32, 1482),
]


@pytest.mark.parametrize(("name", "size", "r", "s", "p"), TABLE, ids=[row[0] for row in TABLE])
def test_published_row(name: str, size: int, r: int, s: int, p: int) -> None:
    model = name if ":" in name else f"{SLIM}:{name}"
    result = CliRunner().invoke(main, ["rf", "theory", model, "--size", str(size), "--json"])
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)
    for axis in ("y", "x"):
        assert [record[axis][key] for key in ("size", "stride", "padding")] == [r, s, p]
    assert not record["misaligned"]
