"""The share of a machine that a process has, under torchrun, srun and neither."""

import os

import pytest

from rfbench import machine

SLURM = {
    "SLURM_PROCID": "9",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_CPUS_ON_NODE": "96",
}


@pytest.mark.parametrize(
    ("environment", "cores", "bound", "processes", "share"),
    [
        ({}, 96, 96, 1, 96),
        ({}, 96, 4, 1, 4),  # taskset
        ({"LOCAL_WORLD_SIZE": "8", "TORCHELASTIC_RUN_ID": "x"}, 96, 96, 8, 12),
        # one core a task although the job asked for twelve: srun did not inherit it
        ({**SLURM, "SLURM_CPUS_PER_TASK": "12"}, 96, 1, 8, 1),
        ({**SLURM, "SLURM_CPUS_PER_TASK": "12"}, 96, 12, 8, 12),
        # tasks that are not bound: all see the machine, or the job's part of it
        ({**SLURM, "SLURM_CPUS_PER_TASK": "12"}, 192, 192, 8, 12),
        (SLURM, 192, 192, 8, 24),
        (SLURM, 192, 96, 8, 12),
        (SLURM, 192, 24, 8, 24),
        # uneven nodes
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4,2"}, 96, 96, 2, 48),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4(x3),2", "SLURM_NODEID": "3"}, 96, 96, 2, 48),
        # torchrun below one task
        (
            {**SLURM, "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"},
            96,
            96,
            4,
            24,
        ),
        # what makes no sense
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "many"}, 8, 8, 1, 8),
        ({"LOCAL_WORLD_SIZE": "0"}, 8, 8, 1, 8),
    ],
)
def test_the_share_of_a_process(
    environment: dict[str, str],
    cores: int,
    bound: int,
    processes: int,
    share: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in os.environ if n.startswith(("SLURM_", "LOCAL_WORLD", "TORCHELASTIC"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)))
    assert (machine.processes(), machine.cores()) == (processes, share)
