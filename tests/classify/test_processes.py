"""Several processes do what one does."""

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rfbench.classify.evaluate import evaluate
from rfbench.data import augment
from rfbench.data.dataset import ArraySplit
from rfbench.data.loader import Loader
from rfbench.data.order import evaluation_tasks
from rfbench.errors import RfbenchError, UsageError
from rfbench.runs import processes
from rfbench.runs.processes import started
from rfbench.runs.signals import ASKED, Asked, Signals
from tests.classify import runs

IMAGES = 1001


def test_signals_are_noted_and_a_second_interrupt_ends_at_once() -> None:
    before = [signal.getsignal(number) for number in ASKED]
    with Signals() as signals:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert signals.asked == Asked.REQUEUE
        signal.raise_signal(signal.SIGINT)
        assert signals.asked == Asked.INTERRUPT
        signal.raise_signal(signal.SIGTERM)
        assert signals.asked == Asked.INTERRUPT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in ASKED] == before


DUPLICATE = """NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.cpp:94, invalid usage
ncclInvalidUsage: This usually reflects invalid usage of NCCL library.
Last error:
Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1a000"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("[gloo/transport/tcp/pair.cc:545] Connection reset by peer", "rank 0 of 2 lost contact "),
        (DUPLICATE, "communicate: Duplicate GPU detected : rank 1 and rank 0 both on CUDA device"),
        (DUPLICATE, "Each process needs a GPU of its own"),
    ],
)
def test_a_lost_process_is_reported_in_one_line(
    error: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_number", lambda name, _: {"WORLD_SIZE": 2}.get(name, 0))
    monkeypatch.setattr(processes, "_joined", lambda *_: None)
    with pytest.raises(RfbenchError, match=said), started("cpu"):
        raise RuntimeError(error)
    with pytest.raises(RuntimeError, match="a bug"), started("cpu"):
        raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_memory_that_a_gpu_lacks(error: RuntimeError, is_memory: bool) -> None:
    assert processes.out_of_memory(error) is is_memory


def join(folder: str, env: dict[str, str]) -> None:
    """One of two processes; the second says that it has a GPU."""
    import os

    os.environ.update(env)
    rank = int(env["RANK"])
    try:
        processes._joined(torch.device("cuda", 0) if rank else torch.device("cpu"), rank, 2)
    except RfbenchError as error:
        Path(folder, str(rank)).write_text(str(error))


def test_a_process_without_a_gpu_among_others_is_told(tmp_path: Path) -> None:
    runs.finish(runs.start_all(join, (str(tmp_path),), 2), 60)
    for rank in range(2):
        assert "rank 0 of 2 sees no GPU, and others do" in (tmp_path / str(rank)).read_text()


def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    # every pass is of 6 images, so that each BatchNorm sees the same; without dropout, whose
    # random numbers are each process's own
    values = runs.config(
        model="rfbench.classify.nets:resnet14",
        data={"train_scenes": 120, "val_scenes": 13},
        schedule={"epochs": 1},
        max_batch_per_gpu=6,
    )
    one = runs.start(values, tmp_path / "one")
    two = runs.start(values, tmp_path / "two", world=2)
    assert (runs.finish(one), runs.finish(two)) == ([0], [0, 0])
    losses = [
        [line["loss"] for line in runs.lines(tmp_path / name) if line["split"] == "train"][:10]
        for name in ("one", "two")
    ]
    assert len(losses[0]) == 10
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    record = json.loads((tmp_path / "two" / "result.json").read_text())
    expected = {"global": 12, "world_size": 2, "accumulation": 1, "per_batchnorm": 6}
    assert record["batch"] == expected


class Judge(nn.Module):
    """Scores that follow from an image: top-1 correct for some, top-5 for more."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        marks = x[:, 0, 0, 0].round().long()
        return -(torch.arange(10)[None] - marks[:, None]).abs().float()


def count(folder: str, env: dict[str, str]) -> None:
    """Evaluate in one of the processes; the first writes what it found."""
    import os

    os.environ.update(env)
    torch.set_num_threads(1)
    with started("cpu") as group:
        images = np.zeros((IMAGES, 4, 4, 3), np.uint8)
        images[:] = (np.arange(IMAGES) % 10)[:, None, None, None]
        split = ArraySplit(images, np.arange(IMAGES) // 7 % 10, "test")
        tasks = evaluation_tasks(IMAGES, 64, group.rank, group.world)
        batches = Loader(split, augment.evaluation(4, 1.0), train=False).batches(tasks)
        pairs = ((b.images.float().permute(0, 3, 1, 2), b.labels) for b in batches)
        model = Judge()
        found = evaluate(model, pairs, 16, group, model)
        Path(folder, str(group.rank)).write_text(json.dumps(found))


def test_evaluation_counts_every_image_once(tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    for world in (1, 3):
        folder = tmp_path / str(world)
        folder.mkdir()
        runs.finish(runs.start_all(count, (str(folder),), world))
        texts = {path.read_text() for path in folder.iterdir()}
        assert len(list(folder.iterdir())) == world and len(texts) == 1
        found.append(json.loads(texts.pop()))
    one, three = found
    labels, marks = np.arange(IMAGES) // 7 % 10, np.arange(IMAGES) % 10
    assert one["images"] == three["images"] == IMAGES
    assert one["top1"] == three["top1"] == pytest.approx(100 * (labels == marks).mean())
    assert one["top5"] == three["top5"]
    assert one["loss"] == pytest.approx(three["loss"], rel=1e-12)


def test_devices() -> None:
    with pytest.raises(UsageError, match="unknown device 'cudaa'. Did you mean: cuda"):
        started("cudaa").__enter__()
    if not torch.cuda.is_available():
        with pytest.raises(RfbenchError, match="torch finds no GPU"):
            started("cuda").__enter__()


def test_a_variable_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE is 'two'"):
        started("cpu").__enter__()


@pytest.mark.parametrize(
    ("device", "fails", "done"),
    [("cuda", False, "destroy"), ("cuda", True, "abort"), ("cpu", True, "destroy")],
)
def test_after_an_error_a_gpu_waits_for_nobody(
    device: str, fails: bool, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL's orderly end waits for what is queued."""
    told: list[str] = []

    class Group:
        def _get_backend(self, _: torch.device) -> "Group":
            return self

        def abort(self) -> None:
            told.append("abort")

    class Dist:
        group = type("group", (), {"WORLD": Group()})

        @staticmethod
        def is_initialized() -> bool:
            return True

        @staticmethod
        def destroy_process_group() -> None:
            told.append("destroy")

    monkeypatch.setattr(processes, "dist", Dist)
    monkeypatch.setattr(processes, "_number", lambda name, _: {"WORLD_SIZE": 2}.get(name, 0))
    monkeypatch.setattr(processes, "_joined", lambda *_: None)
    monkeypatch.setattr(processes, "device_of", lambda *_: torch.device(device))
    with contextlib.suppress(RfbenchError), started(device):
        if fails:
            raise RfbenchError("out of memory")
    assert told == [done]
