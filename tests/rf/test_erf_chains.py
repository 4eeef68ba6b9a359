"""Fields by hand against gradients, and fits against shapes that are known."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

PATH = Path(__file__).parents[2] / "scripts" / "erf_chains.py"


@pytest.fixture(scope="module")
def erf() -> ModuleType:
    spec = importlib.util.spec_from_file_location("erf_chains", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def gradient(net: torch.nn.Module, side: int) -> np.ndarray:
    """Of the output's middle, by hand as well."""
    x = torch.randn(1, 1, side, side, dtype=torch.double, requires_grad=True)
    out = net(x)
    h, w = out.shape[2:]
    out[0, 0, h // 2, w // 2].backward()
    assert x.grad is not None
    return x.grad[0, 0].numpy()


def cut(values: np.ndarray) -> np.ndarray:
    """Without the zeros around it."""
    rows, columns = np.flatnonzero(values.any(1)), np.flatnonzero(values.any(0))
    return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.mark.parametrize(
    "given",
    [{}, {"stride": {1: 2, 4: 2}}, {"dilation": {2: 4, 5: 2}}, {"skips": True},
     {"stride": {0: 2}, "dilation": {3: 3}, "activation": "ReLU"}],
    ids=str,
)  # fmt: skip
def test_uniform_weights_by_hand_are_the_gradient(erf: ModuleType, given: dict) -> None:
    chain = erf.Chain(6, init="ones", **given)
    net = chain.network()
    if chain.activation:  # every unit passes where all inputs are positive
        x = torch.rand(1, 1, 101, 101, dtype=torch.double, requires_grad=True)
        out = net(x)
        out[0, 0, out.shape[2] // 2, out.shape[3] // 2].backward()
        found = cut(x.grad[0, 0].numpy())
    else:
        found = cut(gradient(net, 101))
    expected = chain.by_hand()
    assert found.shape == expected.shape == (chain.theoretical, chain.theoretical)
    assert np.allclose(found / found.sum(), expected / expected.sum(), atol=1e-12)


@pytest.mark.parametrize("given", [{}, {"init": "light"}, {"skips": True}], ids=str)
def test_random_weights_by_hand_are_the_mean_square(erf: ModuleType, given: dict) -> None:
    chain, squares = erf.Chain(6, **given), 0.0
    for net in erf.draws(chain.network, 800):
        squares = squares + gradient(net, 13) ** 2
    at = np.arange(13) - 6

    def variance(values: np.ndarray) -> float:
        return float(values.sum(0) @ at**2 / values.sum())

    expected = chain.by_hand() ** 2
    assert variance(squares) == pytest.approx(variance(expected), rel=0.06)
    # what the kernels' variance says is the field's own, and a Gaussian's size follows from it
    sizes = erf.Chain(60, **given)
    assert sizes.by_variance == pytest.approx(erf.size(sizes.by_hand()), rel=0.02)
    by_variance = chain.by_variance**2 / (2 * np.pi * 2 * np.log(1 / (1 - 0.9545)))
    assert by_variance == pytest.approx(variance(expected))


def test_fifteen_layers_by_hand(erf: ModuleType) -> None:
    """19.2 px plain and 42.7 dilated, as others have calculated it."""
    assert erf.size(erf.Chain(15).by_hand()) == pytest.approx(19.2, abs=0.2)
    dilated = erf.Chain(15, dilation={3: 2, 7: 4, 11: 8})
    assert erf.size(dilated.by_hand()) == pytest.approx(42.7, abs=0.2)
    assert dilated.theoretical == 53 and erf.Chain(15).theoretical == 31


def test_dropout_drops_in_evaluation_too(erf: ModuleType) -> None:
    net = erf.Chain(3, 4, dropout=0.5).network().eval()
    x = torch.ones(1, 1, 9, 9, dtype=torch.double)
    assert not torch.equal(net(x), net(x))


@pytest.mark.parametrize("kind", ["Gaussian", "exponential", "Lorentzian", "pyramid", "disc"])
def test_a_shape_is_recognised(erf: ModuleType, kind: str) -> None:
    at = np.arange(61) - 30.0
    values = 3 * erf.SHAPES[kind](at[:, None] / 7.4, at[None] / 7.4)
    found = erf.fits(values)
    assert next(iter(found)) == kind and found[kind].r2 > 0.9999
    if kind != "disc":  # whose pixels are the same for many widths
        assert found[kind].width == pytest.approx(7.4, rel=0.01)
        assert found[kind].height == pytest.approx(3, rel=0.01)
