"""Batches: the same bytes with any number of workers, bad images replaced, workers that end."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory

from rfbench.data import workers
from rfbench.data.augment import AUGMENTATIONS, CenterCrop, Transform
from rfbench.data.dataset import ArraySplit, FileSplit, Split
from rfbench.data.folder import list_classes
from rfbench.data.loader import Batch, Loader
from rfbench.data.order import Task, TrainTasks, epoch_order, evaluation_tasks
from rfbench.data.slots import Filled, Slots
from rfbench.errors import RfbenchError

CROP = AUGMENTATIONS["resized_crop"](24, True)
PLAIN = CenterCrop(24, 24)
N = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 JPEGs of noise in two classes."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(N):
        path = root / f"class{i % 2}" / f"{i:03d}.JPEG"
        path.parent.mkdir(exist_ok=True)
        height, width = rng.integers(20, 60, 2)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    return root


@pytest.fixture
def split(folder: Path) -> FileSplit:
    return list_classes(str(folder), ["class0", "class1"])


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> FileSplit:
    """The same images of which four cannot be read; see BROKEN."""
    for path in folder.glob("*/*"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    found = list_classes(str(tmp_path), ["class0", "class1"])
    for i in BROKEN[:3]:
        data = Path(found.name(i)).read_bytes()
        Path(found.name(i)).write_bytes(data[: len(data) // 2])
    Path(found.name(BROKEN[3])).write_bytes(b"")
    return found


# two that stand beside each other in the order, its last one, and any other
_ORDER = epoch_order(N, 0, 0).tolist()
BROKEN = [_ORDER[20], _ORDER[21], _ORDER[-1], _ORDER[3]]


def collect(
    split: Split, tasks: Any, transform: Transform = CROP, train: bool = True, **options: Any
) -> list[Batch]:
    loader = Loader(split, transform, train=train, **options)
    try:
        return list(loader.batches(tasks))
    finally:
        loader.close()


def active_pids() -> set[int]:
    return {child.pid for child in active_children() if child.pid}


def same(a: Batch, b: Batch) -> bool:
    return (
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.indices, b.indices)
        and list(map(str, a.bad)) == list(map(str, b.bad))
        and a.task == b.task
    )


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_same_bytes_with_any_number_of_workers(broken: FileSplit, processes: int) -> None:
    tasks = TrainTasks(N, 20, 0, 8, accumulation=2)  # two epochs and two steps of a third
    here = collect(broken, tasks, max_bad_share=0.1)
    there = collect(broken, tasks, max_bad_share=0.1, workers=processes)
    assert len(here) == len(there) == 16
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_a_batch(split: FileSplit) -> None:
    batch, *_ = collect(split, TrainTasks(N, 16, 0, 3))
    assert batch.images.shape == (16, 24, 24, 3)
    assert batch.images.dtype == torch.uint8 and batch.images.is_contiguous()
    assert batch.indices.tolist() == epoch_order(N, 0, 0)[:16].tolist()
    assert batch.labels.tolist() == split.labels[batch.indices].tolist()
    assert batch.labels.dtype == torch.int64
    assert batch.bad == []


def test_epochs_and_seeds_give_other_crops_and_orders(split: FileSplit) -> None:
    def crop_of_picture_0(seed: int, epoch: int) -> bytes:
        (batch,) = collect(split, [Task(epoch, 0, N)], seed=seed)
        return batch.images[batch.indices == 0].numpy().tobytes()

    crops = {crop_of_picture_0(seed, epoch) for seed in range(2) for epoch in range(2)}
    assert len(crops) == 4


def test_a_run_starts_anywhere(split: FileSplit) -> None:
    whole = collect(split, TrainTasks(N, 20, 0, 7))
    rest = collect(split, TrainTasks(N, 20, 4, 7))
    assert all(same(a, b) for a, b in zip(whole[4:], rest, strict=True))


def test_ranks_see_the_parts_of_what_one_process_sees(split: FileSplit) -> None:
    one = collect(split, TrainTasks(N, 20, 0, 3))
    two = [collect(split, TrainTasks(N, 20, 0, 3, rank=rank, world=2)) for rank in range(2)]
    for whole, *parts in zip(one, *two, strict=True):
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))


def test_a_bad_image_is_replaced_by_the_next_of_the_order(broken: FileSplit) -> None:
    (batch,) = collect(broken, [Task(0, 0, N)], max_bad_share=0.1)
    wanted = _ORDER.copy()
    wanted[20] = wanted[21] = wanted[22]
    wanted[3] = wanted[4]
    wanted[-1] = wanted[0]
    assert batch.indices.tolist() == wanted
    assert batch.labels.tolist() == broken.labels[wanted].tolist()
    # place by place, so the second of two neighbours is met twice
    met = [BROKEN[3], BROKEN[0], BROKEN[1], BROKEN[1], BROKEN[2]]
    assert [bad.path for bad in batch.bad] == [broken.name(i) for i in met]
    assert "truncated" in batch.bad[1].reason and batch.bad[0].reason == "the file is empty"
    # in a crop of its own
    assert not torch.equal(batch.images[3], batch.images[4])


def test_evaluation_leaves_bad_images_out(broken: FileSplit) -> None:
    batches = collect(broken, evaluation_tasks(N, 16), PLAIN, train=False, max_bad_share=0.1)
    found = torch.cat([batch.indices for batch in batches])
    assert found.tolist() == sorted(set(range(N)) - set(BROKEN))
    for batch in batches:
        assert len(batch.images) == len(batch.labels) == len(batch.indices)
    assert sorted(bad.path for batch in batches for bad in batch.bad) == sorted(
        broken.name(i) for i in BROKEN
    )


@pytest.mark.parametrize("world", [1, 3])
def test_shards_of_1001_images_make_up_all(world: int) -> None:
    images = np.zeros((1001, 4, 4, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(1001) % 256, np.arange(1001) // 256
    split = ArraySplit(images, np.arange(1001) % 7, "x")
    seen: list[int] = []
    for rank in range(world):
        tasks = evaluation_tasks(1001, 64, rank, world)
        for batch in collect(split, tasks, CenterCrop(4, 4), train=False, workers=1):
            pixels = batch.images[:, 0, 0].long()
            assert (batch.indices == pixels[:, 0] + 256 * pixels[:, 1]).all()
            seen += batch.indices.tolist()
    assert sorted(seen) == list(range(1001))


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize("train", [True, False])
def test_too_many_bad_images_stop_the_run(broken: FileSplit, train: bool, processes: int) -> None:
    options: Any = {"train": train, "workers": processes}
    tasks = [Task(0, 0, N)]
    collect(broken, tasks, max_bad_share=4 / N, **options)
    with pytest.raises(RfbenchError) as caught:
        collect(broken, tasks, max_bad_share=3 / N, **options)
    text = str(caught.value)
    assert "4 of 60 images cannot be read so far, more than data.max_bad_share = 0.05" in text
    assert all(broken.name(i) in text for i in BROKEN)
    assert "\n" not in text


def test_one_bad_image_is_counted_once(broken: FileSplit) -> None:
    loader = Loader(broken, CROP, train=True, max_bad_share=4 / N)
    tasks = TrainTasks(N, 20, 0, 12)  # four epochs
    met = [bad for batch in loader.batches(tasks) for bad in batch.bad]
    assert len(met) >= 16
    assert set(loader.bad) == {broken.name(i) for i in BROKEN}


def test_the_list_of_bad_images_can_be_restored(broken: FileSplit) -> None:
    loader = Loader(broken, CROP, train=True, max_bad_share=4 / N)
    loader.bad.update({"another.JPEG": "known from before"})
    with pytest.raises(RfbenchError, match=r"another\.JPEG: known from before"):
        list(loader.batches([Task(0, 0, N)]))


def test_a_deleted_folder_stops_the_run_at_once() -> None:
    files = [f"{i}.JPEG" for i in range(50_000)]
    gone = FileSplit(["/nowhere"], [0] * 50_000, files, [0] * 50_000)
    with pytest.raises(RfbenchError, match=r"51 of 50000.*No such file.*and 31 more") as caught:
        collect(gone, TrainTasks(50_000, 64, 0, 1))
    assert len(str(caught.value)) < 2000
    few = FileSplit(["/nowhere"], [0] * 9, files[:9], [0] * 9)
    with pytest.raises(
        RfbenchError, match="none of 9 images can be read: /nowhere/0.JPEG: No such file"
    ):
        collect(few, TrainTasks(9, 4, 0, 1), max_bad_share=1.0)


def test_loading_leaves_the_networks_random_numbers_alone(split: FileSplit) -> None:
    before = torch.get_rng_state()
    collect(split, TrainTasks(N, 20, 0, 3))
    collect(split, TrainTasks(N, 20, 0, 3), workers=1)
    assert torch.equal(before, torch.get_rng_state())


class Slow:
    """A split whose images take a while, and whose names tell the process that read them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.labels = np.zeros(N, np.int64)

    def __len__(self) -> int:
        return N

    def name(self, i: int) -> str:
        return str(i)

    def read(self, i: int) -> torch.Tensor:
        time.sleep(self.seconds)
        image = torch.zeros(24, 24, 3, dtype=torch.uint8)
        image[0, 0, 0] = torch.get_num_threads()
        return image


def test_workers_stay_and_a_round_may_be_broken_off(split: FileSplit) -> None:
    loader = Loader(split, CROP, train=True, workers=2)
    first = loader.batches(TrainTasks(N, 10, 0, 6))
    started = [next(first), next(first)]
    children = active_pids()
    again = list(loader.batches(TrainTasks(N, 10, 0, 6)))
    assert active_pids() == children
    assert len(again) == 6
    assert all(same(a, b) for a, b in zip(started, again, strict=False))
    del first
    loader.close()
    assert not active_pids() & children
    with pytest.raises(ValueError, match="closed"):
        next(loader.batches([]))


def test_batches_lie_in_memory_that_is_used_again(
    split: FileSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = TrainTasks(N, 10, 0, 18)
    plain = collect(split, tasks)
    loader = Loader(split, CROP, train=True, workers=2)
    taken: list[int | None] = []
    take = Slots.take
    monkeypatch.setattr(Slots, "take", lambda *of: taken.append(take(*of)) or taken[-1])
    for batch, expected in zip(loader.batches(tasks), plain, strict=True):
        assert same(batch, expected)
    assert len(taken) == 18 and set(taken) == set(range(6))

    # a round broken off, and views of all batches held through the next
    next(loader.batches(tasks))
    del batch
    taken.clear()
    views = [batch.images[3] for batch in loader.batches(tasks)]
    assert all(torch.equal(a, b.images[3]) for a, b in zip(views, plain, strict=True))
    assert taken.count(None) == 12

    # a larger batch than the memory was made for
    views.clear()
    larger = TrainTasks(N, 30, 0, 2)
    found = list(loader.batches(larger))
    assert all(same(a, b) for a, b in zip(found, collect(split, larger), strict=True))
    loader.close()


def test_a_slot_is_free_when_its_last_view_is_gone() -> None:
    slots = Slots(2, (4, 3))
    assert slots.take(5) is None
    first, second = slots.take(4), slots.take(1)
    assert first is not None and second is not None and slots.take(4) is None
    slots.images[first][1] = 7
    images = Filled(slots.number, first, 2).lent()
    assert images.tolist()[1] == [7, 7, 7] and len(images) == 2
    view = images[1].flip(0)[1:], images[1:].permute(1, 0)
    del images
    assert slots.take(4) is None
    slots.begin()  # the second never came; the first is still looked at
    assert slots.take(4) == second and slots.take(4) is None
    del view
    assert slots.take(4) == first


def test_a_slot_is_free_when_its_copy_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(1, (4, 3))
    slot = slots.take(4)
    assert slot is not None
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    slots.images[slot][:] = 7
    images = pin_memory((Filled(slots.number, slot, 3), None))[0]
    assert slots.take(4) == slot
    slots.images[slot][:] = 0
    assert images.tolist() == 3 * [[7, 7, 7]]


@pytest.fixture
def running() -> Iterator[tuple[Iterator[Batch], list[int]]]:
    """The batches of a loader with two workers, the first one taken, and the workers' numbers."""
    before = active_pids()
    loader = Loader(Slow(0.001), PLAIN, train=False, workers=2)
    batches = loader.batches(evaluation_tasks(N, 5))
    assert next(batches).images[0, 0, 0, 0] == 1  # one thread in a worker
    yield batches, sorted(active_pids() - before)
    del batches
    loader.close()


def test_workers_ignore_signals_for_the_main_process(
    running: tuple[Iterator[Batch], list[int]],
) -> None:
    batches, pids = running
    assert len(pids) == 2
    for name in ("INT", "USR1", "TERM", "TERM"):
        # from another process, as the terminal or Slurm would
        subprocess.run(["kill", f"-{name}", *map(str, pids)], check=True)
    assert len(list(batches)) == N // 5 - 1


def test_the_main_process_can_end_its_workers(
    running: tuple[Iterator[Batch], list[int]],
) -> None:
    _, pids = running
    ours = [child for child in active_children() if child.pid in pids]
    for child in ours:
        child.terminate()
        child.join(timeout=5)
    assert [child.exitcode for child in ours] == [0, 0]


def test_a_worker_that_is_killed_is_reported_in_one_line(
    running: tuple[Iterator[Batch], list[int]],
) -> None:
    batches, pids = running
    handler = signal.getsignal(signal.SIGCHLD)
    os.kill(pids[0], signal.SIGKILL)
    time.sleep(0.3)  # torch's handler would raise here
    with pytest.raises(RfbenchError, match=r"has ended: killed, .*lower data.workers\.$"):
        list(batches)
    assert handler in (signal.SIG_DFL, None) or "dataloader" not in str(handler)


class Failing(Slow):
    def read(self, i: int) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2>")


def test_full_shared_memory_is_reported_in_one_line() -> None:
    with pytest.raises(RfbenchError, match=r"shared memory is full.*--shm-size"):
        collect(Failing(0), evaluation_tasks(N, 5), PLAIN, train=False, workers=1)


class Buggy(Slow):
    def read(self, i: int) -> torch.Tensor:
        raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("processes", [0, 1])
def test_a_bug_stays_a_bug(processes: int) -> None:
    with pytest.raises(ZeroDivisionError, match="a bug"):
        collect(Buggy(0), evaluation_tasks(N, 5), PLAIN, train=False, workers=processes)


def test_processes_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", no_process)
    with pytest.raises(RfbenchError, match="cannot start.*Cannot allocate memory"):
        collect(Slow(0), evaluation_tasks(N, 5), PLAIN, train=False, workers=1)


def test_workers_write_into_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not workers.empty((2, 3)).is_shared()
    monkeypatch.setattr(workers, "get_worker_info", lambda: object())
    images = workers.empty((2, 4, 4, 3))
    assert images.is_shared() and images.shape == (2, 4, 4, 3) and images.is_contiguous()


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinning needs a GPU")
def test_pinned_batches_hold_the_same_bytes(split: FileSplit) -> None:
    tasks = TrainTasks(N, 20, 0, 3)
    plain = collect(split, tasks)
    for processes in (0, 2):
        pinned = collect(split, tasks, workers=processes, pin_memory=True)
        assert all(batch.images.is_pinned() and batch.labels.is_pinned() for batch in pinned)
        assert all(same(a, b) for a, b in zip(plain, pinned, strict=True))
