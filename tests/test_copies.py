"""What a module does by hooks, closures and functions of its own, its copies do as well.

Fields are compared with gradients of the module itself, of which no copy is made.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rfbench
from rfbench import rf
from rfbench.copies import copied, whole_copy
from rfbench.errors import RfbenchError, UsageError

SIZE = (24, 28)


def plain() -> nn.Sequential:
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 2, 3)]
    return nn.Sequential(*layers)


def blurred(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
    return F.avg_pool2d(out, 3, 1, 1)


class Taps(nn.Module):
    """A decoder of features that hooks keep; `keep` says how a hook comes to know the module."""

    def __init__(self, keep: Callable) -> None:
        super().__init__()
        self.body, self.head = plain(), nn.Conv2d(4, 2, 5, padding=2)
        self.features: list[Tensor] = []
        self.body[0].register_forward_hook(keep(self))

    def forward(self, x: Tensor) -> Tensor:
        self.features.clear()
        self.body(x)
        return self.head(self.features[0])

    def save(self, _name: str, _module: nn.Module, _args: Any, out: Tensor) -> None:
        self.features.append(out)


def by_closure(net: Taps) -> Callable:
    return lambda _module, _args, out: net.features.append(out)


def by_default(net: Taps) -> Callable:
    return lambda _module, _args, out, net=net: net.features.append(out)


def by_partial(net: Taps) -> Callable:
    return functools.partial(net.save, "low")


def by_list(net: Taps) -> Callable:
    features = net.features

    def hook(_module: nn.Module, _args: Any, out: Tensor, deep: int = 2) -> None:
        hook(_module, _args, out, deep - 1) if deep else features.append(out)

    return hook


class Kept:
    """fastai's: an object of its own holds the features."""

    def __init__(self, module: nn.Module) -> None:
        self.handle, self.stored = module.register_forward_hook(self.save), None

    def save(self, _module: nn.Module, _args: Any, out: Any) -> None:
        self.stored = out


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = plain(), nn.Conv2d(6, 2, 3, padding=1)
        self.kept = Kept(self.body[0])

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        low = self.kept.stored
        return self.head(torch.cat([low, F.interpolate(y, low.shape[2:])], 1))


class CopiesItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = plain()

    def __deepcopy__(self, _memo: dict) -> "CopiesItself":
        return CopiesItself()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def hooked(net: nn.Module, inner: str = "") -> nn.Module:
    net.get_submodule(inner).register_forward_hook(blurred)
    net.register_forward_pre_hook(lambda _module, args: (args[0][..., 1:, 2:],))
    return net


def own_forward() -> nn.Module:
    net = plain()
    before = net[2].forward
    net[2].forward = lambda x: F.interpolate(before(x), scale_factor=2)
    return net


def compiled_forward() -> nn.Module:
    net = plain()
    net[2].forward = torch.compile(net[2].forward, backend="eager")
    return net


def compiled_in_place() -> nn.Module:
    net = plain()
    net.compile(backend="eager")
    return net


MAKES: dict[str, Callable[[], nn.Module]] = {
    **{f.__name__: functools.partial(Taps, f) for f in (by_closure, by_default, by_partial)},
    "by_list": functools.partial(Taps, by_list),
    "by_an_object": Joined,
    "fx": lambda: hooked(torch.fx.symbolic_trace(plain())),
    "fx_inside": lambda: hooked(nn.Sequential(torch.fx.symbolic_trace(plain())), "0"),
    "fx_layer": lambda: hooked(torch.fx.symbolic_trace(plain()), "0"),
    "copies_itself": lambda: hooked(CopiesItself(), "body.2"),
    "own_forward": own_forward,
    "compiled_forward": compiled_forward,
    "compiled_in_place": compiled_in_place,
}


def read_by_central_unit(net: nn.Module) -> np.ndarray:
    """The pixels with a gradient, by torch: the module as it is, weights positive."""
    net.eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.rand_like(p) + 0.5)
    x = (torch.rand(1, 3, *SIZE) + 0.5).requires_grad_()
    out = net(x)
    unit = tuple((n - 1) // 2 for n in out.shape[2:])
    out[(0, slice(None), *unit)].sum().backward()
    return (x.grad[0] != 0).any(0).numpy()


@pytest.mark.parametrize("name", MAKES)
def test_fields_are_those_of_the_module_itself(name: str) -> None:
    net = MAKES[name]()
    counts, _ = rf.path_counts(rf.record(net, SIZE))
    np.testing.assert_array_equal(counts > 0, read_by_central_unit(net))


@pytest.mark.parametrize("name", MAKES)
def test_a_copy_computes_the_same_with_its_own_weights(name: str) -> None:
    net, x = MAKES[name]().eval(), torch.rand(1, 3, *SIZE)
    before = net(x).detach()
    if name == "copies_itself":  # its __deepcopy__ draws new weights
        other = copied(net, {})
        other.load_state_dict(net.state_dict())
    else:
        other = whole_copy(net)
    assert torch.equal(other(x), before)
    for p in other.parameters():
        nn.init.zeros_(p)
    assert not other(x).any()
    assert torch.equal(net(x), before)


def test_a_variant_is_not_lost() -> None:
    field = rf.theory(rf.record(compiled_in_place(), 64))["y"]
    changed = rf.theory(rf.record(compiled_in_place(), 64, variant="3x3"))["y"]
    assert changed["size"] > field["size"]
    assert changed["stride"] == field["stride"]


@pytest.mark.parametrize("name", ["compiled_forward", "own_forward"])
def test_a_variant_does_not_go_round_a_forward_method_of_a_layers_own(name: str) -> None:
    net = MAKES[name]()
    with pytest.raises(UsageError, match="had their forward method replaced: 2"):
        rfbench.fix(net, "3x3")
    assert type(net[0]) is type(net[2]) is nn.Conv2d


def test_tiles_of_features_that_hooks_keep() -> None:
    assert rf.tiles(Taps(by_closure), size=48)["shown"]


class Detections(torch.autograd.Function):
    """Kept as an object, as torch had it before 1.3."""


class Holding(nn.Module):
    def __init__(self, held: object) -> None:
        super().__init__()
        self.conv, self.held = nn.Conv2d(3, 4, 3), held

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")
@pytest.mark.parametrize("make", [Detections, threading.Lock, threading.RLock])
def test_what_cannot_be_copied_and_holds_nothing_is_shared(make: Callable[[], object]) -> None:
    held = make()
    module = Holding(held)
    assert rf.theory(module)["x"]["size"] == 3
    assert whole_copy(module).held is held


def test_what_cannot_be_copied_is_an_error_of_one_line() -> None:
    with pytest.raises(RfbenchError, match=r"^Holding cannot be copied: cannot pickle '.+lock'"):
        rf.theory(Holding(threading.Event()))
