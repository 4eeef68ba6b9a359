"""What `runs/loop` gives every training, shown on one that is a few lines long: `tiny`."""

import copy
import logging
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rfbench.errors import RfbenchError, UsageError
from rfbench.runs import best, checkpoint, logs, loop, progress, records
from rfbench.runs.state import Loop
from tests.classify.runs import finish, start_all
from tests.runs import tiny


def untimed(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in progress.TIME_FIELDS}
        for line in progress.read_metrics(folder)
    ]


def assert_equal(one: Path, other: Path) -> None:
    """The same lines, weights, optimizer, and best."""
    assert untimed(one) == untimed(other)
    for name in ("last.pth", "best.pth"):
        a, b = (torch.load(folder / name, weights_only=True) for folder in (one, other))
        assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in ("weight",))
        if name == "last.pth":
            for key in ("step", "evaluated", "best", "waited", "metrics", "window"):
                assert a[key] == b[key], key
            momenta = [held["optimizer"]["state"][0]["momentum_buffer"] for held in (a, b)]
            assert torch.equal(*momenta)


def test_a_third_training_runs_to_its_record(tmp_path: Path) -> None:
    record, code = tiny.fit(tiny.Config(), tmp_path / "run")
    assert code == 0 and record["steps"] == 40 and not record["stopped_early"]
    read = records.read_record(tmp_path / "run/result.json")
    assert read and read.metrics == record["metrics"]
    lines = untimed(tmp_path / "run")
    assert [(line["split"], line["step"]) for line in lines] == [
        (split, step) for step in (10, 20, 30, 40) for split in ("train", "val")
    ]
    losses = [line["loss"] for line in lines if line["split"] == "val"]
    assert record["best"]["loss"] == min(losses) < 0.1 * losses[0]
    # the sums settled a step later are of all steps
    network, total = torch.nn.Linear(3, 1), 0.0
    torch.manual_seed(0)
    network.reset_parameters()
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for step in range(10):
        x, y = tiny.data(step)
        loss = (network(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    assert lines[0]["loss"] == pytest.approx(total / 10, rel=1e-6)
    # a finished run is its record; another configuration is refused
    assert tiny.fit(tiny.Config(), tmp_path / "run", resume=True)[0] == record
    with pytest.raises(UsageError, match="lr = 0.05; now it is 0.1"):
        tiny.fit(tiny.Config(lr=0.1), tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match="holds a run"):
        tiny.fit(tiny.Config(), tmp_path / "run")


# the pause decides nothing, but is the same in all parts: configurations are compared
VALUES = {"pause": 0.02}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    tiny.fit(tiny.Config(**VALUES), folder)
    return folder


@pytest.mark.parametrize(
    ("number", "code", "world"),
    [
        (signal.SIGTERM, 0, 1),
        (signal.SIGINT, 130, 1),
        (signal.SIGKILL, -9, 1),
        (signal.SIGTERM, 0, 2),
    ],
)
def test_stopped_and_resumed_it_is_bit_equal(
    whole: Path, tmp_path: Path, number: signal.Signals, code: int, world: int
) -> None:
    folder = tmp_path / "run"
    parts = start_all(tiny.job, (VALUES, str(folder), False), world)
    while not (folder / "last.pth").exists():
        time.sleep(0.002)
    os.kill(parts[-1].pid, number)  # one that hears of it is enough
    assert finish(parts) == [code] * world
    held = checkpoint.load_last(folder)
    assert held and 10 <= held["step"] < 40
    if code >= 0:
        said = Path(f"{folder}.stderr0").read_text()
        assert f"stopped at step {held['step']} and saved" in said
    assert finish(start_all(tiny.job, (VALUES, str(folder), True), world)) == [0] * world
    assert_equal(whole, folder)


@pytest.mark.parametrize("stops_at", [None, 20, 30])
def test_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_at: int | None) -> None:
    """Two evaluations without a better one end the run, also where it is resumed between them."""
    losses = {10: 3.0, 20: 2.0, 30: 2.5, 40: 2.0, 50: 1.0}
    monkeypatch.setattr(tiny, "evaluate", lambda run: {"loss": losses[run.step]})
    config, folder = tiny.Config(steps=50, patience=2), tmp_path / "run"
    if stops_at is not None:
        agree = loop.agree

        def stop(run: Any) -> None:
            if run.step == stops_at:
                run.start.signals.asked = loop.Asked.REQUEUE
            agree(run)

        monkeypatch.setattr(loop, "agree", stop)
        assert tiny.fit(config, folder) == (None, 0)
        monkeypatch.setattr(loop, "agree", agree)
    record, code = tiny.fit(config, folder, resume=True)
    assert code == 0 and record["stopped_early"] and record["steps"] == 40
    assert record["best"] == {"loss": 2.0} and record["metrics"] == {"loss": 2.0}
    held = torch.load(folder / "last.pth", weights_only=True)
    assert (held["waited"], held["evaluated"]) == (2, 40)
    # the weights of step 20, the first of two equals
    tiny.fit(tiny.Config(steps=20), tmp_path / "short")
    best, last = (
        torch.load(path, weights_only=True)["state_dict"]["weight"]
        for path in (folder / "best.pth", tmp_path / "short/last.pth")
    )
    assert torch.equal(best, last)


@pytest.mark.parametrize(
    ("metric", "before", "now", "better"),
    [
        ("top1", {"top1": 70.0}, {"top1": 70.1}, True),
        ("top1", {"top1": 70.0}, {"top1": 70.0}, False),
        ("loss", {"loss": 0.5}, {"loss": 0.6}, False),
        ("bbox/AP", {"bbox": {"AP": None}}, {"bbox": {"AP": 0.0}}, True),
        ("bbox/AP", {"bbox": {"AP": 0.0}}, {"bbox": {"AP": None}}, False),
        ("segm/AP", {}, {"segm": {"AP": None}}, True),
    ],
)
def test_what_is_better(metric: str, before: Any, now: Any, better: bool) -> None:
    start: Any = None
    run = Loop(config=tiny.Config(best_metric=metric), start=start, best=before, waited=1)
    assert best.judge(run, now) is better
    assert run.waited == (0 if better else 2)


def test_an_old_checkpoint_takes_defaults(tmp_path: Path) -> None:
    """One without the best, the count of patience, or the keys of the configuration for them."""
    folder = tmp_path / "run"
    tiny.fit(tiny.Config(steps=20), folder)
    content = torch.load(folder / "last.pth", weights_only=True)
    for key in ("evaluated", "metrics", "best", "waited", "parent", "digest"):
        del content[key]
    for key in ("best_metric", "patience"):
        del content["config"][key]
    torch.save(content, folder / "last.pth")
    (folder / "result.json").unlink()
    record, _ = tiny.fit(tiny.Config(steps=20), folder, resume=True)
    assert record["steps"] == 20 and record["best"] == {}


def test_an_error_of_the_data_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(step: int) -> Any:
        raise RfbenchError(f"no batch {step}")

    monkeypatch.setattr(tiny, "data", broken)
    with pytest.raises(RfbenchError, match="no batch 0"):
        tiny.fit(tiny.Config(), tmp_path / "run")


class Late(checkpoint.Writer):
    """Copies states at the steps' boundaries, and writes all of them at the end."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.held: list[tuple[Path, Any, int]] = []
        self.failure = failure

    def write(self, path: Path, content: Any, keep: int = 1) -> None:
        self.held.append((path, copy.deepcopy(content), keep))

    def wait(self) -> None:
        if self.failure:
            raise self.failure
        while self.held:
            path, content, keep = self.held.pop(0)
            checkpoint.save(path, content, keep)


def fit_late(folder: Path, writer: Late) -> None:
    with loop.opened(tiny.Config(**VALUES), folder, False, False) as start:
        run = tiny.setup(tiny.Config(**VALUES), start)
        run.writer = writer
        loop.to_the_end(run, tiny.train, tiny.save, tiny.finish)


def test_a_writer_beside_the_training_leaves_the_same(whole: Path, tmp_path: Path) -> None:
    fit_late(tmp_path / "run", Late())
    assert_equal(whole, tmp_path / "run")
    one, other = (
        torch.load(f / "last-1.pth", weights_only=True) for f in (whole, tmp_path / "run")
    )
    assert one["step"] == other["step"] == 30
    assert torch.equal(one["state_dict"]["weight"], other["state_dict"]["weight"])


def test_the_error_of_a_writer_ends_the_run_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(RfbenchError, match="disk full"):
        fit_late(tmp_path / "run", Late(RfbenchError("disk full")))
    assert not (tmp_path / "run/result.json").exists()


@pytest.mark.parametrize(("rank", "printed"), [("0", "of the first\n"), ("1", "")])
def test_only_the_first_process_prints(
    rank: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RANK", rank)
    logger = logging.getLogger("rfbench")
    monkeypatch.setattr(logger, "handlers", [])
    logs.to_stderr()
    logs.to_stderr()  # a second time changes nothing
    assert len(logger.handlers) == 1
    logging.getLogger("rfbench.runs.loop").warning("of the first")
    logging.getLogger("rfbench.runs.loop").debug("of nobody")
    assert capsys.readouterr().err == printed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_log_that_cannot_be_closed_names_its_file(tmp_path: Path) -> None:
    log = progress.Log(tmp_path, 0, 0, False)
    log.file.close()
    log.file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(RfbenchError, match=r"cannot write .*metrics.jsonl: No space left"):
        log.write({"split": "train", "step": 1})
    with pytest.raises(RfbenchError, match=r"cannot write .*metrics.jsonl: No space left"):
        log.close()


def test_the_bar_tells_no_speed_before_there_is_one() -> None:
    """An epoch may be shorter than `log_every`: no image has been counted since the last line."""
    bar = progress.bar(10, 0, "", shown=True)
    run = SimpleNamespace(step=1, bar=bar, clock=progress.Clock())
    for images, told in ((0, False), (16, True)):
        loop.show(run, images, "loss 1")  # type: ignore[arg-type]
        assert ("images/s" in bar.postfix) is told
    bar.close()
