"""Orders, steps and shares: pure functions that lose no image and count none twice."""

import hashlib

import numpy as np
import pytest

from rfbench.data.order import (
    Task,
    TrainTasks,
    epoch_order,
    evaluation_tasks,
    replacements,
    steps_per_epoch,
)
from rfbench.errors import RfbenchError


def positions(tasks: object) -> list[int]:
    return [position for task in tasks for position in range(task.start, task.stop)]  # type: ignore[attr-defined]


def test_orders_are_permutations_that_differ() -> None:
    seen = set()
    for seed in range(3):
        for epoch in range(3):
            order = epoch_order(1001, seed, epoch)
            assert sorted(order) == list(range(1001))
            seen.add(tuple(order))
    assert len(seen) == 9


def test_an_order_never_changes() -> None:
    # golden: the order must be the same with every NumPy, or resumed runs differ
    assert epoch_order(10, 0, 0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    digest = hashlib.sha256(epoch_order(100_000, 7, 89).astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "7e701e10442eb0c3"


def test_orders_are_fair() -> None:
    where = np.array([np.flatnonzero(epoch_order(50, 0, epoch) == 7)[0] for epoch in range(2000)])
    assert abs(where.mean() - 24.5) < 4 * 14.4 / np.sqrt(2000)


def test_an_order_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(10, 0, 0)[0] = 1


def test_replacements_follow_the_order_round_its_end() -> None:
    order = epoch_order(10, 3, 4).tolist()
    assert list(replacements(10, 3, 4, 8)) == [*order[8:], *order[:8]]


def test_steps_drop_the_rest_of_an_epoch() -> None:
    assert steps_per_epoch(1_281_167, 4096) == 312  # the paper's n
    with pytest.raises(RfbenchError, match="10 images, fewer than one batch of 16"):
        steps_per_epoch(10, 16)


@pytest.mark.parametrize(("world", "accumulation"), [(1, 1), (2, 1), (1, 4), (3, 2), (4, 3)])
def test_a_step_is_the_same_images_however_it_is_split(world: int, accumulation: int) -> None:
    n, batch = 100, 24
    for step in range(9):
        found = []
        for rank in range(world):
            tasks = TrainTasks(n, batch, step, step + 1, accumulation, rank, world)
            assert len(tasks) == len(list(tasks)) == accumulation
            found += positions(tasks)
        epoch, number = divmod(step, 4)
        assert sorted(found) == list(range(number * batch, (number + 1) * batch))
        assert {task.epoch for task in tasks} == {epoch}


def test_two_processes_see_what_one_sees_in_two_micro_batches() -> None:
    one = list(TrainTasks(100, 8, 0, 3, accumulation=2))
    two = [list(TrainTasks(100, 8, 0, 3, rank=rank, world=2)) for rank in range(2)]
    assert one == [two[i % 2][i // 2] for i in range(6)]


def test_tasks_start_anywhere() -> None:
    whole = list(TrainTasks(1000, 32, 0, 200, accumulation=2))
    assert whole[0] == Task(0, 0, 16)
    assert list(TrainTasks(1000, 32, 77, 200, accumulation=2)) == whole[154:]
    assert TrainTasks(1000, 32, 0, 200, accumulation=2)[10:14] == whole[10:14]
    assert len(TrainTasks(1000, 32, 5, 5)) == 0


def test_a_split_that_is_not_even_is_a_bug() -> None:
    with pytest.raises(ValueError, match="10 does not divide by 2 x 3"):
        TrainTasks(100, 10, 0, 1, accumulation=2, world=3)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [1001, 5, 1, 0])
def test_evaluation_counts_every_image_once(n: int, world: int) -> None:
    shares = [evaluation_tasks(n, 32, rank, world) for rank in range(world)]
    assert sorted(position for share in shares for position in positions(share)) == list(range(n))
    sizes = [len(positions(share)) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert all(0 < task.stop - task.start <= 32 for share in shares for task in share)
