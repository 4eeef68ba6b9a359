"""What needs a GPU: skipped where there is none, and the first point of scripts/gpu_hour.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from rfbench.classify import fit as classify
from rfbench.classify.nets import resnet14
from rfbench.cli import main
from rfbench.errors import RfbenchError
from rfbench.rf import effective
from rfbench.runs import checkpoint, streams
from rfbench.schemas.cls import ClsConfig
from rfbench.schemas.seg import SegConfig
from rfbench.segment import fit as segment
from tests.classify import runs as cls
from tests.segment import runs as seg

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def flags_of_before() -> Any:
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def busy() -> torch.Tensor:
    """Milliseconds of work in the queue."""
    large = torch.randn(4096, 4096, device=GPU)
    for _ in range(10):
        large = large @ large / 64
    return large


def test_copies_beside_the_queue_arrive_whole() -> None:
    """Their pinned memory is used again at once, and the GPU's when they are gone."""
    for number in range(100):
        held = torch.full((1 << 20,), number, dtype=torch.int32).pin_memory()
        busy()
        copy = streams.to_device(held, GPU)
        del held
        total = copy.sum(dtype=torch.int64)
        del copy
        assert int(total) == number << 20


def test_what_is_read_later_is_of_then() -> None:
    values = torch.tensor([1.0, 2.0], dtype=torch.float64, device=GPU)
    busy()
    read = streams.later(values)
    values.zero_()
    assert read() == [1.0, 2.0]


def test_a_snapshot_is_of_then() -> None:
    weight = busy()
    whole = weight.clone()
    copied = checkpoint.snapshot({"weight": weight})["weight"]
    weight.zero_()
    assert copied.device.type == "cpu" and torch.equal(copied, whole.cpu())


def test_an_effective_field_is_that_of_the_cpu() -> None:
    torch.manual_seed(0)
    model, images = resnet14(classes=10).eval(), torch.randn(2, 3, 48, 48)
    wanted, _ = effective(model, images, "layer2")
    scale = wanted.magnitude.max()
    for shown in (images.to(GPU), images):
        found, _ = effective(model.to(GPU), shown, "layer2")
        assert abs(found.magnitude - wanted.magnitude).max() < 1e-4 * scale
    assert torch.backends.cudnn.allow_tf32


def test_the_command_takes_a_gpu_by_itself(tmp_path: Path) -> None:
    fields = {}
    for device in ("cpu", "cuda", "auto"):
        command = ["rf", "effective", "resnet18", "--size", "96", "--count", "40"]
        folder = tmp_path / device
        result = CliRunner().invoke(main, [*command, "--device", device, "--output", str(folder)])
        assert result.exit_code == 0, result.output
        fields[device] = np.load(folder / "effective.npz")[
            "torchvision:resnet18 baseline magnitude"
        ]
    for found in (fields["cuda"], fields["auto"]):
        assert abs(found - fields["cpu"]).max() < 1e-4 * fields["cpu"].max()


@pytest.mark.parametrize("precision", ["auto", "fp32", "tf32"])
def test_a_classifier_trains(precision: str, tmp_path: Path) -> None:
    values = cls.config(device="cuda", precision=precision, data={"workers": 2})
    record, code = classify.fit(ClsConfig.model_validate(values), tmp_path / "run", False, False)
    assert code == 0 and record
    assert record["precision"] == {"auto": "bf16"}.get(precision, precision)
    assert record["device"] == torch.cuda.get_device_name(GPU)
    assert record["metrics"]["loss"] < 2.5


@pytest.mark.parametrize("training", ["cls", "seg"])
def test_two_deterministic_runs_end_with_the_same_bits(training: str, tmp_path: Path) -> None:
    held = []
    for name in ("a", "b"):
        changes: dict[str, Any] = {"device": "cuda", "deterministic": True, "data": {"workers": 2}}
        folder = tmp_path / name
        if training == "cls":
            config = ClsConfig.model_validate(cls.config(**changes))
            classify.fit(config, folder, False, False)
        else:
            segment.fit(SegConfig.model_validate(seg.config(**changes)), folder, False, False)
        held.append(torch.load(folder / "last.pth", weights_only=True)["state_dict"])
    for key, value in held[0].items():
        assert torch.equal(value, held[1][key]), key


class Hungry(nn.Module):
    """Wants more memory than there is, but not in the warm-up pass of two images."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.scores = nn.Linear(3, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            x = x + torch.empty(1 << 43, dtype=torch.uint8, device=x.device)[:1]
        return self.scores(x.mean((2, 3)))


def hungry(num_classes: int = 10) -> nn.Module:
    return Hungry(num_classes)


def test_too_little_memory_is_told_with_what_to_do(tmp_path: Path) -> None:
    config = ClsConfig.model_validate(cls.config(device="cuda", model="tests.test_gpu:hungry"))
    with pytest.raises(RfbenchError, match="out of memory. Try -o max_batch_per_gpu=6; --resume"):
        classify.fit(config, tmp_path / "run", False, False)
