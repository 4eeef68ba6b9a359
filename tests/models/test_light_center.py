"""Light middles and heavy rims: by hand, what is left alone, and the field that comes of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.signal import convolve2d
from torch import nn

from rfbench.classify.network import build
from rfbench.cli import main
from rfbench.errors import UsageError
from rfbench.models.light_center import light_center, scales
from rfbench.schemas.cls import ClsConfig


def test_a_3x3_by_hand() -> None:
    # squared distances 0, 1 and 2, of mean 12 / 9
    corner, edge = (1 / 4 + 3 / 4 * 2 * 9 / 12) ** 0.5, (1 / 4 + 3 / 4 * 9 / 12) ** 0.5
    rim = [corner, edge, corner]
    expected = torch.tensor([rim, [edge, 0.5, edge], rim], dtype=torch.double)
    assert torch.allclose(scales((3, 3)), expected, atol=1e-12)
    # the variance along an axis, in squared px a layer: 2 / 3 of weights of equal scale
    assert float((expected.square() * torch.tensor([1.0, 0, 1])).mean()) == pytest.approx(19 / 24)


@pytest.mark.parametrize("kernel", [(3,), (7,), (5, 5), (3, 5), (1, 7), (4, 4), (3, 3, 3)])
@pytest.mark.parametrize("dilation", [1, 3])
def test_the_middle_is_half_and_the_variance_stays(kernel: tuple[int, ...], dilation: int) -> None:
    found = scales(kernel, (dilation,) * len(kernel))
    assert found.shape == kernel and float(found.square().mean()) == pytest.approx(1)
    assert torch.equal(found, found.flip(*range(len(kernel))))
    if all(k % 2 for k in kernel):
        assert float(found[tuple(k // 2 for k in kernel)]) == pytest.approx(0.5)
    assert float(found.max()) == float(found[(0,) * len(kernel)])


@pytest.mark.parametrize("kernel", [(1,), (2,), (1, 1), (2, 2), (1, 2), (2, 2, 2)])
def test_kernels_without_a_rim_stay(kernel: tuple[int, ...]) -> None:
    assert torch.allclose(scales(kernel), torch.ones((), dtype=torch.double))


def test_only_convolutions_with_a_rim_change() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5, groups=4),
            nn.Conv2d(4, 4, 2), nn.Flatten(), nn.Linear(4, 2),
        )  # fmt: skip

    plain, changed = network(), network()
    assert light_center(changed, "it") == ["0", "3"]
    for key, value in changed.state_dict().items():
        before = plain.state_dict()[key]
        if key in ("0.weight", "3.weight"):
            before = before * scales(before.shape[2:]).float()
            assert not torch.equal(value, plain.state_dict()[key])
        assert torch.equal(value, before)


def test_shared_weights_are_scaled_once() -> None:
    first, second = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
    second.weight = first.weight
    before = first.weight.detach().clone()
    assert light_center(nn.Sequential(first, second), "it") == ["0"]
    assert torch.equal(second.weight, before * scales((3, 3)).float())


def test_computed_weights_are_refused_and_nothing_changes() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 2, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3))
    )
    before = model[0].weight.detach().clone()
    with pytest.raises(UsageError, match="the weights of 1 in it are computed from others"):
        light_center(model, "it")
    assert torch.equal(model[0].weight, before)


def test_the_field_of_random_weights_grows_as_the_variance_says() -> None:
    """Means of squared gradients are a convolution of the weights' variances, layer by layer."""
    layers, sums = 12, np.zeros((25, 25))
    for seed in range(300):
        torch.manual_seed(seed)
        convs = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(layers)]
        model = nn.Sequential(*convs).double()
        for conv in convs:
            nn.init.normal_(conv.weight, std=1 / 3)
        light_center(model, "chain")
        x = torch.zeros(1, 1, 25, 25, dtype=torch.double, requires_grad=True)
        model(x)[0, 0, 12, 12].backward()
        assert x.grad is not None
        sums += x.grad[0, 0].square().numpy()
    expected = np.ones((1, 1))
    for _ in range(layers):
        expected = convolve2d(expected, scales((3, 3)).square().numpy())
    at = np.arange(25) - 12

    def variance(field: np.ndarray) -> float:
        return float((field.sum(0) * at**2).sum() / field.sum())

    assert variance(expected) == pytest.approx(layers * 19 / 24)
    assert variance(sums) == pytest.approx(layers * 19 / 24, rel=0.1)
    assert variance(sums) > 1.08 * layers * 2 / 3


def test_it_is_a_key_of_the_configuration() -> None:
    def first(light: bool) -> torch.Tensor:
        values = {"model": "resnet18", "init": {"light_center": light}}
        return build(ClsConfig.model_validate(values), 10).module.conv1.weight.detach()

    assert torch.equal(first(True), first(False) * scales((7, 7)).float())


POINTWISE = """
from torch import nn


def net():
    pool = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(3, 8, 1), *pool, nn.Linear(8, 10))
"""


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_bad_input_is_one_line(
    dry: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(POINTWISE)
    base = ["train-cls", "-o", "data.train_scenes=64", "-o", "data.val_scenes=20"]
    light = [*base, "--output", "run", "-o", "init.light_center=true", *dry]
    for more, message in (
        (["-o", "model=own.py:net"], "own.py:net has no convolution with a kernel larger than 2"),
        (["-o", "init.weights=a.pth"], "light_center scales random weights; init.weights are set"),
    ):
        result = CliRunner().invoke(main, [*light, *more])
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
        assert result.exit_code == 2 and len(errors) == 1, result.stderr
        assert message in errors[0]
    assert not (tmp_path / "run" / "config.yaml").exists()
