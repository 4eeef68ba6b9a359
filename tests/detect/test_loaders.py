"""The order of images: Detectron2's own, from any iteration on."""

import itertools
import random
from collections import Counter
from typing import Any

import pytest
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import TrainingSampler

from rfbench.detect.loaders import Batches


def taken(start: int, count: int, batch: int = 4, wide: Any = None, n: int = 50) -> list[list[int]]:
    batches = Batches(TrainingSampler(n, seed=3), batch, wide, start)
    return list(itertools.islice(batches, count))


@pytest.mark.parametrize("grouped", [False, True])
def test_batches_are_detectron2s(grouped: bool) -> None:
    shapes = random.Random(0)
    entries = [{"width": shapes.choice([3, 5]), "height": 4, "index": index} for index in range(50)]
    order = TrainingSampler(50, seed=3)
    if grouped:
        theirs: Any = AspectRatioGroupedDataset((entries[i] for i in order), 4)
        wide = [entry["width"] > entry["height"] for entry in entries]
    else:
        numbers, wide = iter(order), None
        theirs = ([entries[i] for i in itertools.islice(numbers, 4)] for _ in itertools.count())
    wanted = [[entry["index"] for entry in batch] for batch in itertools.islice(theirs, 40)]
    assert taken(0, 40, wide=wide) == wanted


@pytest.mark.parametrize("wide", [None, [i % 3 == 0 for i in range(50)]])
def test_a_resumed_order_continues(wide: Any) -> None:
    whole = taken(0, 60, wide=wide)
    for stops in ([7], [0, 1, 30], [11, 12, 13, 40]):
        parts = []
        for start, stop in itertools.pairwise([0, *stops, 60]):
            parts += taken(start, stop - start, wide=wide)
        assert parts == whole


def test_every_image_once_an_epoch() -> None:
    seen = Counter(itertools.chain(*taken(0, 25, n=50)))  # 100 images: two epochs
    assert set(seen.values()) == {2}
