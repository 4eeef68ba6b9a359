"""Every variant exported to ONNX gives the same numbers in onnxruntime."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import rfbench
from rfbench.models import variants

CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MAX: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}


class Net(nn.Module):
    """A residual block whose convolutions stride, behind a max pool; a last stride by axis."""

    def __init__(self, axes: int, last: tuple[int, ...]) -> None:
        super().__init__()
        conv = CONV[axes]
        self.stem, self.pool = conv(3, 4, 3, 1, 1), MAX[axes](3, 2, 1)
        self.a, self.b, self.short = conv(4, 6, 3, 2, 1), conv(6, 6, 3, 1, 1), conv(4, 6, 1, 2)
        self.last, self.act = conv(6, 6, 3, last, 1, groups=2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        return self.act(self.last(self.b(self.a(x).relu()) + self.short(x)))


def check(model: nn.Module, x: Tensor, file: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model(x).numpy()
        torch.onnx.export(model, (x,), str(file), dynamo=True, verbose=False)
    onnx.checker.check_model(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


CASES = [*((pool, (2, 1)) for pool in variants.POOLS), ("avg", (3,)), ("blur", (2,))]


@pytest.mark.parametrize(("pool", "last"), [*CASES, ("avg", (2, 2, 2)), ("blur_after", (1, 2, 2))])
def test_the_same_numbers(pool: str, last: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net(len(last), last).eval()
    plain = Net(len(last), last).state_dict().keys()
    rfbench.fix(model, {"kernels": [1, 3], "maxpool": True, "pool": pool})
    assert model.state_dict().keys() == plain
    check(model, torch.randn(1, 3, *(21, 22, 20)[: len(last)]), tmp_path / "net.onnx")


@pytest.mark.parametrize("variant", ["1x1+3x3+7x7+maxpool", "blur_after:1x1+3x3"])
def test_a_resnet(variant: str, tmp_path: Path) -> None:
    from torchvision.models.resnet import BasicBlock, ResNet

    torch.manual_seed(0)
    model = rfbench.fix(ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).eval(), variant)
    check(model, torch.randn(1, 3, 64, 65), tmp_path / "net.onnx")
