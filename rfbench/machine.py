"""What a machine has for one process of a run: who else runs there, and its share of the cores."""

import os
import re


def processes(otherwise: int = 1) -> int:
    """The processes of the run on this machine, as torchrun or srun tells it, else `otherwise`."""
    local = os.environ.get("LOCAL_WORLD_SIZE", "")
    if local.isdigit():
        return max(1, int(local))
    return _tasks_here(otherwise) if by_srun() else otherwise


def by_srun() -> bool:
    """Whether srun started this process itself: as one task of several, or alone."""
    return "SLURM_PROCID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ


def _tasks_here(otherwise: int) -> int:
    """This node's number in Slurm's list of tasks a node, such as 8(x2),4."""
    counts: list[int] = []
    for part in os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        if found := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part):
            counts += [int(found[1])] * int(found[2] or 1)
    node = os.environ.get("SLURM_NODEID", "0")
    here = counts[int(node)] if node.isdigit() and int(node) < len(counts) else otherwise
    return max(1, here)


def cores() -> int:
    """The CPU cores that this process has for itself and its loaders.

    Slurm may bind each task to its own cores, all tasks to the job's, or none to any; a step that
    was not told --cpus-per-task is bound to one core a task, whatever the job asked for.
    """
    machine = os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    if not by_srun():
        return max(1, bound // processes())
    of_job = os.environ.get("SLURM_CPUS_ON_NODE", "")
    shared = bound == machine or str(bound) == of_job
    asked = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if asked.isdigit() and int(asked):
        return min(bound, int(asked))
    return max(1, bound // processes()) if shared else bound
