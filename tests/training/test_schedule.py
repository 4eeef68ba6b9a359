"""The learning rate at every boundary, and against torch's own schedulers."""

import pytest
import torch

from rfbench.schemas.cls import ClsConfig, ClsSchedule
from rfbench.training.schedule import SCHEDULES, lr_at

N = 1_281_167 // 4096


def paper(t: int) -> float:
    config = ClsConfig()
    return lr_at(t, N, config.optim.peak, config.schedule)


def test_the_paper_has_312_steps_per_epoch() -> None:
    assert N == 312


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (0, 0.0),
        (1, 1.6 / 1560),
        (N, 0.32),
        (780, 0.8),
        (5 * N - 1, 1.6 * 1559 / 1560),
        (5 * N, 1.6),
        (30 * N - 1, 1.6),
        (30 * N, 0.16),
        (60 * N - 1, 0.16),
        (60 * N, 0.016),
        (80 * N - 1, 0.016),
        (80 * N, 0.0016),
        (90 * N - 1, 0.0016),
    ],
)
def test_the_papers_lr_at_every_boundary(t: int, expected: float) -> None:
    assert paper(t) == pytest.approx(expected, rel=1e-12)


def test_without_warm_up_it_starts_at_the_top() -> None:
    assert lr_at(0, 10, 0.5, ClsSchedule(warmup_epochs=0)) == 0.5


@pytest.mark.parametrize(("epochs", "per_epoch"), [(3, 375), (1, 2), (1, 1), (7, 13)])
def test_one_cycle_is_torchs(epochs: int, per_epoch: int) -> None:
    schedule = ClsSchedule(name="one_cycle", epochs=epochs)
    total = epochs * per_epoch
    lrs = [lr_at(t, per_epoch, 0.004, schedule) for t in range(total)]
    assert all(0 < r <= 0.004 for r in lrs)
    if total * 0.3 <= 1:  # torch divides by zero
        return
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.004, total_steps=total)
    for own in lrs:
        assert own == pytest.approx(torchs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if torchs.last_epoch < total - 1:
            torchs.step()


def test_every_schedule_of_the_configuration_is_there() -> None:
    described = ClsSchedule.model_json_schema()["properties"]["name"]["enum"]
    assert set(described) == set(SCHEDULES)


def test_the_cosine_is_torchs_behind_a_warm_up() -> None:
    schedule = ClsSchedule(name="cosine", epochs=7, warmup_epochs=2)
    assert [lr_at(t, 10, 0.5, schedule) for t in (0, 5, 10, 20)] == [0, 0.125, 0.25, 0.5]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for t in range(20, 70):
        assert lr_at(t, 10, 0.5, schedule) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    without = ClsSchedule(name="cosine", epochs=1, warmup_epochs=0)
    assert lr_at(0, 10, 0.5, without) == 0.5 and lr_at(9, 10, 0.5, without) < 0.02
