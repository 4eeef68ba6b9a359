"""A step of training never waits for the device, but where the figures of the step before are read.

On a GPU each of these operations waits for all that is queued. The same code runs on a CPU, where
they can be seen.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rfbench.classify import setup as classification
from rfbench.classify import train as classify
from rfbench.runs import loop, streams
from rfbench.schemas.cls import ClsConfig
from rfbench.schemas.seg import SegConfig
from rfbench.segment import losses
from rfbench.segment import setup as segmentation
from rfbench.segment import train as segment
from rfbench.training import epochs, pruning
from tests.classify import runs as cls
from tests.segment import runs as seg

WAITING = {
    "aten::_local_scalar_dense",  # .item(), float(), bool()
    "aten::nonzero",  # and indexing by a mask
    "aten::equal",
    "aten::unique2",
    "aten::_unique2",
    "aten::masked_select",
}


class Watch(TorchDispatchMode):
    """Raises where an operation waits, except while `allowed`."""

    allowed = False
    seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        waits = name in WAITING
        if name == "aten::_to_copy":
            device = (kwargs or {}).get("device")
            waits = device is not None and args[0].device != device and device.type == "cpu"
        if name in ("aten::index", "aten::index_put", "aten::index_put_"):  # counts what is True
            waits = any(i is not None and i.dtype == torch.bool for i in args[1])
        if waits and not self.allowed:
            raise AssertionError(f"{name} waits for the device")
        self.seen += waits
        return func(*args, **(kwargs or {}))


def allow(watch: Watch, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, in which waiting is allowed."""

    def allowed(*args: Any, **kwargs: Any) -> Any:
        watch.allowed = True
        try:
            return call(*args, **kwargs)
        finally:
            watch.allowed = False

    return allowed


SGD = {"name": "sgd", "lr": 0.01, "ema": 0.9}
PRUNE = {"sparsity": 0.5, "begin": 2, "end": 20, "every": 2}
CLS = cls.config(optim=SGD, data={"mixup": 0.2, "cutmix": 1.0}, checkpoint={"every": 0})
CASES: list[tuple[Any, Any, Any, dict[str, Any]]] = [
    (ClsConfig, classification, classify, CLS),
    (
        ClsConfig,
        classification,
        classify,
        cls.config(prune={"sparsity": 0.5, "begin": 2, "end": 20, "every": 2}),
    ),
    (SegConfig, segmentation, segment, {**seg.SMALL, "optim": SGD, "checkpoint": {"every": 0}}),
]


@pytest.mark.parametrize(("schema", "setup", "train", "values"), CASES)
def test_steps_without_waiting(
    schema: Any,
    setup: Any,
    train: Any,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = schema.model_validate(values)
    watch = Watch()
    # `fetch` works on the host; the figures of the step before are read by `settle`; lines and
    # checkpoints are written once in a while
    for name in ("fetch", "settle", "settle_together", "log_steps"):
        monkeypatch.setattr(loop, name, allow(watch, getattr(loop, name)))
    monkeypatch.setattr(epochs, "log_window", allow(watch, epochs.log_window))
    kind = dataclasses.replace(train.KIND, save=allow(watch, train.KIND.save))
    # once in `prune.every` steps, a warning of empty layers
    monkeypatch.setattr(pruning.Pruning, "_choose", allow(watch, pruning.Pruning._choose))
    # of masks on the host
    monkeypatch.setattr(losses, "weight_of", allow(watch, losses.weight_of))
    with loop.opened(config, tmp_path / "run", False, False) as start:
        run = setup.setup(config, start)
        run.per_epoch = 6
        if isinstance(config, ClsConfig):  # draws its numbers on the host
            run.mix = allow(watch, run.mix)
        with watch:
            epochs.train_epoch(run, kind)
        loop.settle(run)
        assert run.step == 6
        run.data.close()
        run.bar.close()


def test_the_watch_sees() -> None:
    with Watch(), pytest.raises(AssertionError, match="waits"):
        torch.ones(2).sum().item()
    with Watch(), pytest.raises(AssertionError, match="waits"):
        torch.ones(2)[torch.tensor([True, False])]


def test_what_is_read_later_is_of_now() -> None:
    sums = torch.tensor([1.0, 2.0])
    read = streams.later(sums)
    sums.zero_()
    assert read() == [1.0, 2.0]
