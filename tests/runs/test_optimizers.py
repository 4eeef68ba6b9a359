"""What no optimizer could continue with is refused; torch would crash, or go on otherwise."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rfbench.runs import optimizers

Kept = dict[str, Any]


def stepped(kind: str) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    """An optimizer and its state after a step; of the last parameter nothing was computed."""
    torch.manual_seed(0)
    used, idle = nn.Linear(3, 2), nn.Linear(2, 2)
    parameters = [*used.parameters(), *idle.parameters()]
    made: torch.optim.Optimizer = {
        "sgd": lambda: torch.optim.SGD(parameters, 0.1, 0.9),
        "plain": lambda: torch.optim.SGD(parameters, 0.1),
        "adamw": lambda: torch.optim.AdamW(parameters, 0.1),
    }[kind]()
    used(torch.randn(4, 3)).sum().backward()
    made.step()
    return made, copy.deepcopy(made.state_dict())


@pytest.mark.parametrize("kind", ["sgd", "plain", "adamw"])
def test_a_state_is_loaded_as_it_is(kind: str) -> None:
    made, state = stepped(kind)
    made.step()
    optimizers.load(made, state)
    again = made.state_dict()
    assert again["param_groups"] == state["param_groups"]
    assert again["state"].keys() == state["state"].keys()
    for index, held in state["state"].items():
        for name, value in held.items():
            assert value is None or torch.equal(value, again["state"][index][name])


CHANGES: dict[str, tuple[str, Callable[[Kept], object], str]] = {
    "bool": ("adamw", lambda s: s.update(step=True), "step of parameter 0 is True"),
    "text": ("adamw", lambda s: s.update(step="x"), "step of parameter 0 is 'x'"),
    "long": ("adamw", lambda s: s.update(step=torch.ones(2)), r"is \[2\] for \[\]"),
    "below": ("adamw", lambda s: s.update(step=torch.tensor(-1.0)), "is below 0"),
    "nan": ("adamw", lambda s: s.update(step=float("nan")), "is not of finite numbers"),
    "list": ("adamw", lambda s: s.update(exp_avg_sq=[]), r"exp_avg_sq of parameter 0 is \[\]"),
    "number": ("adamw", lambda s: s.update(exp_avg=0.0), "exp_avg of parameter 0 is 0.0"),
    "scalar": ("sgd", lambda s: s.update(momentum_buffer=torch.tensor(1.0)), r"is \[\] for \[2, 3"),
    "negative": ("adamw", lambda s: s["exp_avg_sq"].neg_(), "exp_avg_sq of parameter 0 is below 0"),
    "gone": ("adamw", lambda s: s.pop("exp_avg"), "the optimizer has no exp_avg of parameter 0"),
    "none": ("sgd", lambda s: s.update(momentum_buffer=None), "no momentum_buffer of parameter 0"),
    "empty": ("sgd", lambda s: s.clear(), "no momentum_buffer of parameter 0"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_no_optimizer_could_continue_with(name: str) -> None:
    kind, change, told = CHANGES[name]
    made, state = stepped(kind)
    change(state["state"][0])
    with pytest.raises(ValueError, match=told):
        optimizers.load(made, state)
