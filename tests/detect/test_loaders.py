"""The order of images: Detectron2's own, from any iteration on."""

import itertools
import mmap
import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import TrainingSampler

from rfbench.detect import config as configs
from rfbench.detect import loaders, sets
from rfbench.detect.loaders import Batches
from rfbench.runs.processes import Processes
from tests.detect import runs


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


def pages(value: Any) -> Iterator[int]:
    """The whole pages of every tensor in what a loader sends."""
    if isinstance(value, torch.Tensor):
        yield -(-value.numel() * value.element_size() // mmap.PAGESIZE) * mmap.PAGESIZE
    elif isinstance(value, dict):
        for one in value.values():
            yield from pages(one)
    elif hasattr(value, "get_fields"):
        yield from pages(value.get_fields())
    elif hasattr(value, "tensor"):
        yield from pages(value.tensor)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("sampling", ["choice", "range"])
def test_the_memory_of_the_loaders_is_what_they_send(
    tmp_path: Path, masks: bool, sampling: str
) -> None:
    np.random.seed(0)  # Detectron2 draws each image's size from it
    values = runs.config(DATALOADER__NUM_WORKERS=3)
    sizes = {"MIN_SIZE_TRAIN": [96, 192], "MIN_SIZE_TRAIN_SAMPLING": sampling}
    values["opts"]["INPUT"] |= sizes | {"MAX_SIZE_TRAIN": 512, "MIN_SIZE_TEST": 128}
    values["opts"]["MODEL"]["MASK_ON"] = masks
    config = runs.parsed(values)
    parts = sets.prepare(config.data, Processes(torch.device("cpu")))
    cfg = configs.resolve(config, len(parts["train"].categories), tmp_path, "cpu", 1)
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0
    count = 100
    batches = list(itertools.islice(loaders.train_loader(cfg, 1, 0), count))
    training = sum(itertools.chain(*(pages(one) for one in itertools.chain(*batches)))) / count
    shown = [sum(pages(one["image"])) for (one,) in loaders.val_loader(cfg)]
    cfg.DATALOADER.NUM_WORKERS = 3
    # 3 x 2 being read, one ready, one in use; validation has 6 images in all
    wanted = 8 * training + 6 * sum(shown) / len(shown)
    assert loaders.memory(cfg, parts, 1) == pytest.approx(wanted, rel=0.1)
    cfg.DATALOADER.NUM_WORKERS = 0
    assert loaders.memory(cfg, parts, 1) == 0


def test_workers_are_forked_whatever_the_default_is(tmp_path: Path) -> None:
    """Python 3.14 starts a server for processes, which signals to the run would reach late."""
    values = runs.config(DATALOADER__NUM_WORKERS=2)
    settings = runs.parsed(values)
    with_sets = sets.prepare(settings.data, Processes(torch.device("cpu")))
    cfg = configs.resolve(settings, len(with_sets["val"].categories), tmp_path)
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("forkserver", force=True)
    try:
        for loader in (loaders.train_loader(cfg, 1, 0), loaders.val_loader(cfg)):
            assert loader.multiprocessing_context.get_start_method() == "fork"
            assert len(next(iter(loader))) >= 1
    finally:
        multiprocessing.set_start_method(before, force=True)
