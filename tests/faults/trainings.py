"""All trainings as the tests of faults need them: start, resume, compare with a whole run."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfbench.runs import checkpoint, progress
from tests.classify import runs as cls
from tests.detect import runs as det
from tests.faults import faults
from tests.segment import runs as seg


@dataclass(frozen=True)
class Training:
    """start: (folder, resume, workers) -> process. kept: after a kill. same: (whole, run)."""

    start: Callable[[Path, bool, int], Any]
    kept: Callable[[Path], None]
    same: Callable[[Path, Path], None]


def start_cls(folder: Path, resume: bool, workers: int = 0, job: Any = cls.job) -> Any:
    values = cls.config(data={"workers": workers}, checkpoint={"every": 2})
    (started,) = cls.start_all(job, (values, str(folder), resume, 0.0), 1)
    return started


def start_det(folder: Path, resume: bool, workers: int = 0, job: Any = det.job) -> Any:
    values = det.config(DATALOADER__NUM_WORKERS=workers, SOLVER__CHECKPOINT_PERIOD=2)
    (started,) = cls.start_all(job, (values, str(folder), resume), 1)
    return started


def start_seg(folder: Path, resume: bool, workers: int = 0, job: Any = seg.job) -> Any:
    values = seg.config(data={"workers": workers}, checkpoint={"every": 2})
    (started,) = cls.start_all(job, (values, str(folder), resume), 1)
    return started


def nothing(folder: Path) -> None:
    """The checkpoint says everything."""


def keep_seen(folder: Path) -> None:
    """Forget the images after the newest checkpoint: they are trained on again, once."""
    from rfbench.detect.run import FORMAT

    path = Path(f"{folder}.seen0")
    if path.exists():
        held = checkpoint.load_last(folder, FORMAT) if folder.exists() else None
        images = path.read_text().split()[: 4 * (held["step"] if held else 0)]
        path.write_text("".join(f"{image}\n" for image in images))


def same_det(whole: Path, folder: Path) -> None:
    """The same images in the same order, none twice, and the figures are there."""
    taken = 4 * 14
    assert det.seen(folder)[:taken] == det.seen(whole)[:taken]
    lines = [
        [(line["split"], line["step"]) for line in progress.read_metrics(one)]
        for one in (whole, folder)
    ]
    assert lines[0] == lines[1]
    record = json.loads((folder / "result.json").read_text())
    assert record["metrics"]["bbox"].keys() and record["metrics"]["jitter"]


TRAININGS = {
    "train-cls": Training(start_cls, nothing, cls.assert_equal),
    "train-seg": Training(start_seg, nothing, seg.assert_equal),
    "train-det": Training(start_det, keep_seen, same_det),
}


def cls_with_small_shm(*args: Any) -> None:
    faults.small_shared_memory(64)
    cls.job(*args)


def det_with_small_shm(*args: Any) -> None:
    faults.small_shared_memory(64)
    det.job(*args)


def seg_with_small_shm(*args: Any) -> None:
    faults.small_shared_memory(64)
    seg.job(*args)


# training -> what starts it with little shared memory
SMALL_SHM: dict[str, Callable[[Path], Any]] = {
    "train-cls": lambda folder: start_cls(folder, False, 2, cls_with_small_shm),
    "train-seg": lambda folder: start_seg(folder, False, 2, seg_with_small_shm),
    "train-det": lambda folder: start_det(folder, False, 2, det_with_small_shm),
}


def whole(training: Training, folder: Path) -> float:
    """A run that nothing happens to; its seconds."""
    begun = time.monotonic()
    assert faults.end(training.start(folder, False, 0)) == 0, said(folder)
    return time.monotonic() - begun


def said(folder: Path) -> str:
    """What a run wrote to stderr."""
    path = Path(f"{folder}.stderr0")
    return path.read_text() if path.exists() else ""


def begun(folder: Path) -> bool:
    """Whether there is something to resume."""
    return (folder / "last.pth").exists() or (folder / "result.json").exists()


def children(process: int) -> list[int]:
    """The child processes: a loader's workers."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split() if os.path.exists(f"/proc/{child}")]
