"""The sbatch files: with stand-ins for Slurm's commands, and slowly with Slurm's own where it is
installed (Debian: slurm-wlm, munge; as root)."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAIN, GRID = ROOT / "scripts/slurm_train.sbatch", ROOT / "scripts/slurm_grid.sbatch"

# as srun since 22.05: it takes no --cpus-per-task over from the job
SRUN = """#!{python}
import os, subprocess, sys
nodes, each = int(os.environ["SLURM_JOB_NUM_NODES"]), int(os.environ["TASKS"])
while sys.argv[1].startswith("-"):
    del sys.argv[1]
started = []
for rank in range(nodes * each):
    task = {{"SLURM_PROCID": rank, "SLURM_LOCALID": rank % each, "SLURM_NODEID": rank // each}}
    task["SLURM_STEP_TASKS_PER_NODE"] = f"{{each}}(x{{nodes}})"
    env = {{**os.environ, **{{name: str(value) for name, value in task.items()}}}}
    started.append(subprocess.Popen(sys.argv[1:], env=env))
sys.exit(max(process.wait() for process in started))
"""
SCONTROL = """#!/bin/bash
case "$1 $2" in
    "show hostnames") echo n1; echo n2 ;;
    "show node") echo "NodeName=$3 Arch=x86_64"; echo "   NodeAddr=127.0.0.1 NodeHostName=$3" ;;
    *) echo "$@" >> "$LOG" ;;
esac
"""
# what a task is started with; the run's record where DONE is set
PYTHON = """#!{python}
import json, os, sys
names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SRUN_CPUS_PER_TASK"]
told = {{name: os.environ.get(name) for name in names}}
with open(os.environ["LOG"] + os.environ["SLURM_PROCID"], "w") as file:
    json.dump([told, sys.argv[1:]], file)
if os.environ.get("DONE") and "--output" in sys.argv:
    folder = sys.argv[sys.argv.index("--output") + 1]
    os.makedirs(folder, exist_ok=True)
    open(folder + "/result.json", "w").close()
sys.exit(int(os.environ.get("CODE", 0)))
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of two nodes with two tasks each."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "python": PYTHON}.items():
        (tmp_path / name).write_text(text.format(python=sys.executable) if "{" in text else text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "scontrol").write_text(SCONTROL)
    slurm = {"JOB_ID": "41", "JOB_NODELIST": "n[1-2]", "NTASKS": "4", "JOB_NUM_NODES": "2"}
    slurm |= {"CPUS_PER_TASK": "12", "ARRAY_TASK_ID": "7", "ARRAY_TASK_MIN": "5"}
    slurm |= {"ARRAY_TASK_COUNT": "4"}
    env = {f"SLURM_{name}": value for name, value in slurm.items()}
    path = f"{tmp_path}:{os.environ['PATH']}"
    return {"PATH": path, "TASKS": "2", "LOG": str(tmp_path / "log"), **env}


def run(script: Path, job: dict[str, str], *arguments: str) -> tuple[int, list, str]:
    """Exit code, (variables, arguments) of each task, what was asked of scontrol."""
    log = Path(job["LOG"])
    command = ["bash", str(script), *arguments]
    code = subprocess.run(command, env=job, cwd=log.parent).returncode
    tasks = [json.loads(path.read_text()) for path in sorted(log.parent.glob("log[0-9]*"))]
    return code, tasks, log.read_text() if log.exists() else ""


def test_every_task_knows_its_rank(job: dict[str, str]) -> None:
    code, tasks, asked = run(TRAIN, {**job, "DONE": "1"}, "train-det", "det/digits", "-o", "a=1 2")
    assert (code, asked, len(tasks)) == (0, "", 4)
    for rank, (told, arguments) in enumerate(tasks):
        assert told == {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank % 2),
            "WORLD_SIZE": "4",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "20041",
            "SRUN_CPUS_PER_TASK": "12",
        }
        given = ["train-det", "det/digits", "-o", "a=1 2"]
        assert arguments[2:] == [*given, "--output", "results/det-slurm-41", "--resume"]


def test_without_a_command_it_trains_a_classifier(job: dict[str, str]) -> None:
    script = ROOT / "scripts/slurm_train_cls.sbatch"
    _, tasks, _ = run(script, {**job, "DONE": "1", "OUTPUT": "mine"}, "cls/digits")
    assert tasks[3][1][2:] == ["train-cls", "cls/digits", "--output", "mine", "--resume"]


@pytest.mark.parametrize(
    ("state", "code", "asked"),
    [
        ({}, 0, "requeue 41\n"),  # ended without its record: it was asked to stop
        ({"DONE": "1"}, 0, ""),
        ({"CODE": "1"}, 1, ""),  # a job that failed stays failed
        ({"CODE": "130"}, 130, ""),
    ],
)
def test_what_is_queued_again(
    state: dict[str, str], code: int, asked: str, job: dict[str, str]
) -> None:
    ended, _, said = run(TRAIN, {**job, **state}, "cls/digits")
    assert (ended, said) == (code, asked)


@pytest.mark.parametrize(("code", "asked"), [(0, ""), (1, ""), (130, "requeue 41\n")])
def test_a_grid_in_parts(code: int, asked: str, job: dict[str, str]) -> None:
    state = {"CODE": str(code), "SLURM_JOB_NUM_NODES": "1", "TASKS": "1"}
    ended, tasks, said = run(GRID, {**job, **state}, "grids/digits", "--jobs", "2")
    assert (ended, said) == (code, asked)
    given = ["grid", "grids/digits", "--jobs", "2", "--shard", "3/4"]
    assert [arguments[2:] for _, arguments in tasks] == [given]


CONF = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a cluster of two nodes on this machine, each with its cores."""
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))) or os.geteuid() != 0:
        pytest.skip("needs root and Debian's slurm-wlm and munge")
    ports, host = free_ports(3), socket.gethostname()
    cores = os.cpu_count()
    nodes = [
        f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i]} CPUs={cores}"
        for i in (1, 2)
    ]
    conf = tmp_path / "slurm.conf"
    conf.write_text(CONF.format(host=host, ports=ports, folder=tmp_path, nodes="\n".join(nodes)))
    for name in ("state", "spool-n1", "spool-n2"):
        (tmp_path / name).mkdir()
    key = tmp_path / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = [f"--socket={tmp_path}/munge.socket", f"--key-file={key}"]
    files += [f"--{name}-file={tmp_path}/munge.{name}" for name in ("log", "pid", "seed")]
    env = {**os.environ, "SLURM_CONF": str(conf)}
    daemons = [["munged", "-F", "--force", *files], ["slurmctld", "-D"]]
    daemons += [["slurmd", "-D", "-N", f"n{i}"] for i in (1, 2)]
    started = []
    try:
        for command in daemons:
            started.append(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL))
            time.sleep(1)
        yield env
    finally:
        subprocess.run(["scancel", "-u", "root"], env=env)
        time.sleep(2)
        for process in reversed(started):
            process.terminate()
            process.wait(20)


def until(wanted: object, call: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not call():  # type: ignore[operator]
        assert time.monotonic() < end, wanted
        time.sleep(0.5)


@pytest.mark.slow
def test_a_job_is_warned_queued_again_and_finishes(slurm: dict[str, str], tmp_path: Path) -> None:
    """Two nodes of a task; the warning comes at a random step."""
    steps = ["schedule.epochs=2", "data.train_scenes=1600", "data.val_scenes=64", "seed=1"]
    given = ["cls/digits", "--device", "cpu", *(part for key in steps for part in ("-o", key))]
    out = tmp_path / "run"
    env = {**slurm, "OUTPUT": str(out), "PYTHONPATH": str(ROOT)}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"

    def ask(*command: str) -> str:
        result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    options = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0"]
    number = ask("sbatch", "--parsable", "--time=60", *options, str(TRAIN), *given).strip()
    until("a step", lambda: (out / "metrics.jsonl").exists(), 120)
    ask("scancel", "--signal=USR1", number)
    until("queued again", lambda: " Restarts=1 " in ask("scontrol", "show", "job", number), 60)
    assert (out / "last.pth").exists() and not (out / "result.json").exists()
    ask("scontrol", "update", f"jobid={number}", "starttime=now")
    until("the end", lambda: (out / "result.json").exists(), 300)
    log = (tmp_path / f"slurm-{number}.out").read_text()
    assert "stopped at step" in log and log.count("starting from the beginning") == 1, log
