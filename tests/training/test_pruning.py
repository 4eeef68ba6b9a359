"""Magnitude pruning against counts by hand, and the field of what is left."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rfbench import rf
from rfbench.errors import UsageError
from rfbench.models import pruned as held
from rfbench.schemas.prune import PruneConfig
from rfbench.training import pruning


def config(**changes: Any) -> PruneConfig:
    values = {"sparsity": 0.75, "begin": 200, "end": 800, "every": 100, **changes}
    return PruneConfig.model_validate(values)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 5, padding=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )  # fmt: skip


def shares(model: nn.Module) -> dict[str, float]:
    """The share of zeros in every parameter."""
    return {name: float((p == 0).double().mean()) for name, p in model.named_parameters()}


def test_the_share_grows_by_the_cube_that_is_left() -> None:
    """Zhu and Gupta's equation 1, worked out for six choices a hundred steps apart."""
    left = {300: 5 / 6, 450: 4 / 6, 500: 3 / 6, 799: 1 / 6}
    wanted = {step: 0.75 * (1 - share**3) for step, share in left.items()}
    wanted |= {199: 0, 200: 0, 299: 0, 800: 0.75, 5000: 0.75}
    for step, share in wanted.items():
        assert pruning.sparsity_at(step, config()) == pytest.approx(share), step
    constant = config(schedule="constant")
    assert [pruning.sparsity_at(step, constant) for step in (199, 200, 900)] == [0, 0.75, 0.75]


def test_the_end_is_reached_where_the_steps_do_not_meet_it() -> None:
    assert pruning.sparsity_at(250, config(begin=10, end=250, every=100)) == 0.75
    assert pruning.sparsity_at(249, config(begin=10, end=250, every=100)) < 0.75


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_smallest_weights_are_zero(scope: str) -> None:
    model = network()
    before = {key: v.clone() for key, v in model.state_dict().items()}
    pruned = pruning.Pruning(model, config(schedule="constant", begin=1, end=1, scope=scope))
    pruned.after(1, model)
    kernels = [key for key, v in before.items() if v.ndim > 1]
    groups = [kernels] if scope == "global" else [[key] for key in kernels]
    for group in groups:
        values = np.concatenate([before[key].abs().flatten().numpy() for key in group])
        limit = np.sort(values)[math.floor(0.75 * len(values))]  # the smallest that stays
        for key in group:
            old, new = before[key], model.state_dict()[key]
            assert torch.equal(new, torch.where(old.abs() >= float(limit), old, 0)), key
    for key in before.keys() - kernels:
        assert torch.equal(model.state_dict()[key], before[key]), key
    assert held.nonzero(model) == sum(int((p != 0).sum()) for p in model.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_zeros_stay_zero_under_momentum_and_weight_decay(optimizer: str) -> None:
    model, settings = network(), config(begin=2, end=9, every=3)
    pruned = pruning.Pruning(model, settings)
    make: Any = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    more = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
    updates = make(model.parameters(), lr=0.05, weight_decay=0.1, **more)
    last: dict[str, torch.Tensor] = {}
    for step in range(1, 15):
        model(torch.randn(4, 3, 9, 9)).square().sum().backward()
        updates.step()
        updates.zero_grad()
        pruned.after(step, model)
        for name, zeros in last.items():
            assert not model.state_dict()[name][zeros].any(), (step, name)
        last = {name: zeros.clone() for name, zeros in pruned.pruned.items()}
        wanted = pruning.sparsity_at(step, settings)
        for name, zeros in last.items():
            assert int(zeros.sum()) == math.floor(wanted * zeros.numel() + 1e-6), (step, name)
    assert shares(model)["0.weight"] == 0.75


def test_equal_weights_are_pruned_in_their_order() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3))
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]
    pruned = pruning.Pruning(model, config(sparsity=0.5, begin=1, end=4, every=1))
    for step in range(1, 5):
        pruned.after(step, model)
    assert model[0].weight.flatten().tolist() == [0] * 4 + [1] * 5  # type: ignore[union-attr]


def test_no_layer_of_its_own_ends_without_weights() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3))
    pruned = pruning.Pruning(model, config(sparsity=0.99, schedule="constant", begin=1, end=1))
    pruned.after(1, model)
    assert [int((p != 0).sum()) for p in (model[0].weight, model[1].weight)] == [1, 1]  # type: ignore


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sparsity": 1.0}, "less than 1"),
        ({"sparsity": -0.1}, "greater than or equal to 0"),
        ({"begin": 900}, "begin, step 900, is behind end, step 800"),
        ({"schedule": "linear"}, "'constant' or 'polynomial'"),
        ({"every": 0}, "greater than 0"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        config(**changes)


def test_what_cannot_be_pruned_is_named() -> None:
    with pytest.raises(UsageError, match="prune.end is step 800; the run has 700 steps"):
        pruning.check(network(), config(), 700, "net")
    with pytest.raises(UsageError, match="net has no convolution or linear layer"):
        pruning.check(nn.Sequential(nn.BatchNorm2d(3)), config(), 800, "net")
    import timm

    standardized = timm.create_model("resnetv2_50x1_bit", num_classes=0)
    with pytest.raises(UsageError, match="net standardizes its weights"):
        pruning.check(standardized, config(), 800, "net")


def test_a_state_of_another_network_is_refused() -> None:
    pruned = pruning.Pruning(network(), config())
    state = {**pruned.state_dict()}
    pruned.load_state_dict(state)
    with pytest.raises(ValueError, match=r"which weights of 0\.weight"):
        pruned.load_state_dict({**state, "0.weight": state["3.weight"]})
    with pytest.raises(ValueError, match="pruned weights of 9"):
        pruned.load_state_dict({**state, "9.weight": state["3.weight"]})


# --- the field of what is left -------------------------------------------------------------------


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 5, padding=2))


def reached(model: nn.Module, size: int) -> np.ndarray:
    """The pixels with a gradient at the central unit: positive weights where there are any."""
    before = model.state_dict()
    model.load_state_dict({key: (v != 0).to(v.dtype) for key, v in before.items()})
    image = torch.ones(1, 2, size, size, requires_grad=True)
    out = model(image)
    middle = (out.shape[2] - 1) // 2
    out[0, :, middle, middle].sum().backward()
    model.load_state_dict(before)
    assert image.grad is not None
    return (image.grad[0].sum(0) != 0).numpy()


def test_the_graph_counts_the_taps_that_are_left() -> None:
    model = chain()
    torch.manual_seed(1)
    with torch.no_grad():
        model[0].weight *= torch.rand(4, 2, 3, 3) < 0.2  # type: ignore[operator]
        model[2].weight[..., 0, :] = 0  # type: ignore[index]
        model[2].weight[..., :, 4] = 0  # type: ignore[index]
        model[2].weight *= torch.rand(4, 4, 5, 5) < 0.1  # type: ignore[operator]
    kept = held.shown(model, model.state_dict())
    counts, _ = rf.path_counts(rf.record(kept, size=21))
    assert np.array_equal(counts > 0, reached(model, 21))
    whole, _ = rf.path_counts(rf.record(model, size=21))
    assert (whole > 0).sum() == 49 > (counts > 0).sum()
    # one path a pair of channels and tap: the sum over all is the sum of products
    first = (model[0].weight != 0).double().sum((2, 3)).sum(1)  # type: ignore[operator]
    second = (model[2].weight != 0).double().sum((2, 3))  # type: ignore[operator]
    per_output = (second @ first) / 2 / 4
    assert counts.sum() == pytest.approx(float(per_output.mean()))


def test_a_network_without_zeros_is_left_as_it_is() -> None:
    model = chain()
    assert held.shown(model, model.state_dict()) is model
