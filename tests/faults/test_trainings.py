"""Faults at random moments of a training, then --resume: as if nothing had happened.

RFBENCH_FAULTS is the number of moments each; `make test-slow` prints what happened (-s).
"""

import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import faults, trainings
from tests.faults.trainings import TRAININGS, Training

pytestmark = pytest.mark.slow
Whole = tuple[str, Training, Path, float]


@pytest.fixture(scope="module", params=TRAININGS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """(name, training, the folder of a whole run, its seconds)."""
    training = TRAININGS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    trainings.whole(training, folder / "first")  # the first start of all takes longer
    seconds = trainings.whole(training, folder / "whole")
    training.same(folder / "first", folder / "whole")
    return request.param, training, folder / "whole", seconds


def finish_and_compare(given: Whole, folder: Path) -> None:
    """Resume without faults; the result is the whole run's."""
    _, training, reference, _ = given
    training.kept(folder)
    code = faults.end(training.start(folder, trainings.begun(folder), 0))
    assert code == 0, trainings.said(folder)
    training.same(reference, folder)


def test_kills(whole: Whole, tmp_path: Path) -> None:
    """kill -9 of everything at random moments, up to five times in a run.

    What ended before its moment does not count, and is tried again.
    """
    name, training, _, seconds = whole
    counts: Counter[str] = Counter()
    folder, kills = tmp_path / "0", 0
    for number, after in enumerate(faults.moments(name, seconds, 5 * faults.COUNT)):
        if kills == faults.COUNT:
            break
        training.kept(folder)
        workers = (0, 2)[number % 2]
        started = training.start(folder, trainings.begun(folder), workers)
        alive = faults.moment(started, after)
        faults.kill_group(started)
        kills += alive
        step = "with" if trainings.begun(folder) else "without"
        counts[f"killed {step} a checkpoint" if alive else "ended before"] += 1
        if number % 5 == 4 or kills == faults.COUNT or not alive:
            finish_and_compare(whole, folder)
            counts["resumed to the same end"] += 1
            folder = tmp_path / str(number + 1)
    print(f"{name}: kill -9:", dict(counts))
    assert kills == faults.COUNT


@pytest.mark.parametrize("kind", ["group", "process"])
def test_sigterm(whole: Whole, kind: str, tmp_path: Path) -> None:
    """To all processes, as a scheduler sends it, and to the run's own alone."""
    name, training, _, seconds = whole
    counts: Counter[str] = Counter()
    for number, after in enumerate(faults.moments(f"{name}{kind}", seconds, faults.COUNT // 3 + 1)):
        folder = tmp_path / str(number)
        started = training.start(folder, False, 2)
        if faults.moment(started, after):
            if kind == "group":
                faults.send_to_group(started, signal.SIGTERM)
            else:
                os.kill(started.pid, signal.SIGTERM)
        code = faults.end(started)
        # before the handler is there, the signal ends the process as any other
        assert code in (0, -signal.SIGTERM), trainings.said(folder)
        stopped = "and saved in" in trainings.said(folder)
        counts["stopped and saved" if stopped else "earlier, or finished"] += 1
        finish_and_compare(whole, folder)
        counts["resumed to the same end"] += 1
    print(f"{name}: SIGTERM to the {kind}:", dict(counts))


def test_full_disks(whole: Whole, tmp_path: Path) -> None:
    """Disks of many sizes, so that each kind of file is the one that does not fit."""
    name, training, reference, _ = whole
    counts: Counter[str] = Counter()
    sizes = {path.name: path.stat().st_size // 1024 + 4 for path in reference.iterdir()}
    most = 3 * sizes["last.pth"] + sum(sizes.values())
    for size in sorted({4, 8, 12, *(int(m) for m in faults.moments(f"{name} full", most))}):
        with faults.disk(tmp_path / "disk", size) as disk:
            (disk / "run").mkdir()
            folder = tmp_path / f"run{size}"  # a link, so that stderr lies on another disk
            folder.symlink_to(disk / "run")
            code = faults.end(training.start(folder, False, 0))
            text = trainings.said(folder)
            if code:
                line = text.strip().splitlines()[-1]
                assert code == 1 and "Traceback" not in text, text
                named = [n for n in (*sizes, "inference", "run") if n in line]
                assert named, f"no file is named: {line}"
                counts[f"full at {named[0]}"] += 1
            faults.grow(disk)
            finish_and_compare(whole, folder)
            counts["resumed to the same end"] += 1
    print(f"{name}: disk full:", dict(counts))


def test_a_loader_that_is_killed(whole: Whole, tmp_path: Path) -> None:
    name, training, _, _ = whole
    folder = tmp_path / "run"
    started = training.start(folder, False, 2)
    while not (trainings.children(started.pid) and trainings.begun(folder)):
        assert started.is_alive(), trainings.said(folder)
        time.sleep(0.002)
    for child in trainings.children(started.pid)[:1]:
        os.kill(child, signal.SIGKILL)
    code = faults.end(started)
    text = trainings.said(folder)
    assert code in (0, 1) and "Traceback" not in text, text
    finish_and_compare(whole, folder)
    print(f"{name}: loader killed: exit code {code}, {text.strip().splitlines()[-1][-90:]}")


@pytest.mark.parametrize("fault", ["deleted", "read-only"])
def test_a_folder_that_goes(whole: Whole, fault: str, tmp_path: Path) -> None:
    name, training, _, _ = whole
    folder = tmp_path / "run"
    started = training.start(folder, False, 0)
    while not trainings.begun(folder):
        assert started.is_alive(), trainings.said(folder)
        time.sleep(0.002)
    if fault == "deleted":
        shutil.rmtree(folder, ignore_errors=True)
        code = faults.end(started)
    else:
        with faults.read_only(folder):
            code = faults.end(started)
    text = trainings.said(folder)
    assert code == 1 and "Traceback" not in text and str(folder) in text, text
    if fault == "deleted":
        shutil.rmtree(folder, ignore_errors=True)
    finish_and_compare(whole, folder)
    print(f"{name}: folder {fault}: {text.strip().splitlines()[-1][-90:]}")


def test_little_shared_memory(whole: Whole, tmp_path: Path) -> None:
    """/dev/shm of 64 KiB: the loader has no room for its batches."""
    name = whole[0]
    folder = tmp_path / "run"
    started = trainings.SMALL_SHM[name](folder)
    code = faults.end(started)
    text = trainings.said(folder)
    if "unshare" in text or "Operation not permitted" in text:
        pytest.skip("no mounts here")
    assert code in (0, 1) and "Traceback" not in text, text
    finish_and_compare(whole, folder)
    print(f"{name}: 64 KiB of shared memory: exit code {code}")


def test_two_starts_at_once(whole: Whole, tmp_path: Path) -> None:
    name, training, _, _ = whole
    counts: Counter[str] = Counter()
    for number in range(faults.COUNT // 10 + 1):
        folder = tmp_path / str(number)
        pair = [training.start(folder, False, 0) for _ in range(2)]
        codes = sorted(faults.end(one) for one in pair)
        text = trainings.said(folder)
        assert codes in ([0, 1], [0, 2], [0, 0]), text
        refused = "another run is writing" in text or "holds a run" in text
        counts["one refused" if refused else "one after the other"] += 1
        if name != "train-det":
            training.same(whole[2], folder)
    print(f"{name}: two starts:", dict(counts))
