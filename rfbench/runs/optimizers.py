"""The state of an optimizer in a checkpoint, checked before it is loaded."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rfbench.config import flat
from rfbench.errors import one_line

RATES = ("lr", "initial_lr")  # options of an optimizer that change while it trains
# what an optimizer keeps of each parameter that it has changed
KEPT: dict[type[torch.optim.Optimizer], set[str]] = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


def load(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of an optimizer after a check of its contents, which torch does not make.

    Options, but for the learning rate, stay those of the configuration. Raises ValueError.
    """
    own = optimizer.state_dict()
    numbers = [group["params"] for group in own["param_groups"]]
    if [group["params"] for group in state["param_groups"]] != numbers:
        raise ValueError("the optimizer has other parameters")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    needed = next((names for kind, names in KEPT.items() if isinstance(optimizer, kind)), set())
    if not optimizer.defaults.get("momentum", True):
        needed = set()
    for index, held in state["state"].items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise ValueError(f"the optimizer has no parameter {one_line(repr(index), 40)}")
        if lacking := sorted(needed - {n for n in held if held[n] is not None}):
            raise ValueError(f"the optimizer has no {lacking[0]} of parameter {index}")
        for name, value in held.items():
            _check_state(name, f"{one_line(name)} of parameter {index}", value, parameters[index])
    for group in state["param_groups"]:
        check_finite({key: group[key] for key in RATES if key in group}, "learning rate")
    optimizer.load_state_dict(dict(state))
    for group, before in zip(optimizer.param_groups, own["param_groups"], strict=True):
        group.update({k: v for k, v in before.items() if k not in (*RATES, "params")})


def _check_state(name: str, told: str, value: Any, parameter: Tensor) -> None:
    """Raise ValueError for what an optimizer cannot keep of a parameter. told: name it so."""
    if value is None:
        return
    if name == "step" and type(value) in (int, float):
        value = torch.tensor(float(value))
    if not isinstance(value, Tensor):
        raise ValueError(f"{told} is {one_line(repr(value), 60)}")
    shape = torch.Size() if name == "step" else parameter.shape
    if value.shape != shape:
        raise ValueError(f"{told} is {list(value.shape)} for {list(shape)}")
    if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
        raise ValueError(f"{told} is not of finite numbers")
    if name in ("step", "exp_avg_sq") and bool((value < 0).any()):
        raise ValueError(f"{told} is below 0")


def check_finite(state: Mapping[str, Any], what: str) -> None:
    """Raise ValueError for a number that is not finite in a state of plain values."""
    for name, value in flat(state).items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(f"{what}: {name} is {one}")
