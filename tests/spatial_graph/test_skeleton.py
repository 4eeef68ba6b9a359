"""A skeleton is what copy.deepcopy makes, without the weights."""

import copy
import warnings
from collections import OrderedDict, namedtuple
from typing import Any

import torch
from torch import Tensor, nn

from rfbench.spatial_graph.skeleton import skeleton, without_weights

Pair = namedtuple("Pair", "a b")


class Part(nn.Module):
    """Attributes of many kinds, some of them held twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.twice = self.conv
        self.act = nn.ReLU()
        self.table = nn.Parameter(torch.ones(2, 3))
        self.register_buffer("kernel", torch.arange(4.0), persistent=False)
        self.loose = [torch.ones(2), {"x": torch.zeros(3)}]
        self.names = {"a", "b"}
        self.sizes, self.pair = (3, (4, [5])), Pair(1, [2])
        self.options = OrderedDict(k=[1, 2], m=self.act)
        self.same_options = self.options
        self.by_number = {1: self.conv, (2, 3): "x"}
        self.call = self.act.forward
        self.conv.register_forward_hook(hook)


def hook(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:
    return out + 1


class Own(nn.Module):
    """Copies in a way of its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Own":
        made = Own()
        made.copied = True
        return made


class Passing(nn.Module):
    """Hands on the attributes of another module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def described(value: Any, seen: dict[int, int]) -> Any:
    """A value as plain data; what is held twice is told by its number."""
    if isinstance(value, str | int | float | None | torch.dtype | type):
        return value
    if id(value) in seen:
        return "again", seen[id(value)]
    seen[id(value)] = len(seen)
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return kind, tuple(value.shape), value.dtype
    if isinstance(value, nn.Module):
        return kind, described(vars(value), seen)
    if isinstance(value, dict):
        return kind, [(str(k), described(v, seen)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return kind, [described(v, seen) for v in value]
    if isinstance(value, set):
        return kind, sorted(value)
    return kind, getattr(value, "__qualname__", "")


def network() -> nn.Module:
    part = Part()
    return nn.Sequential(part, Own(), Passing(Part()), part, nn.BatchNorm2d(4), nn.LSTM(3, 4))


def test_as_deepcopy() -> None:
    module = network().eval()
    made, _ = skeleton(module)
    kept = [module, made]  # an id() is only unique while its object lives
    assert described(made, {}) == described(copy.deepcopy(module).eval(), {})
    assert made[0] is made[3] and made[0].conv is made[0].twice
    assert made[0].call.__self__ is made[0].act
    assert made[1].copied
    mine, theirs = ({id(part) for part in m.modules()} for m in kept)
    assert mine.isdisjoint(theirs)


def test_without_weights() -> None:
    module = network()
    made, buffers = skeleton(module)
    assert all(t.is_meta for t in [*made.parameters(), *made.buffers()])
    assert not made.training and module.training
    assert made[0].loose[0].is_meta and made[0].loose[1]["x"].is_meta
    assert buffers[id(made[0].kernel)] == (made[0].kernel, module[0].kernel)
    shared = without_weights(module)
    assert shared[0].kernel is module[0].kernel and shared[0].conv.weight.is_meta


def test_objects_of_the_moment_are_not_taken_for_others() -> None:
    """A copy of many modules: their states are dictionaries that live for a moment only."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = nn.Sequential(*(Part() for _ in range(60)), nn.ReLU())
        made, _ = skeleton(module)
    assert described(made, {}) == described(copy.deepcopy(module).eval(), {})


class Shares:
    """An object with tables of zeros, of which copies are itself."""

    def __init__(self) -> None:
        self.tables = [torch.zeros(4, 3, 3, 3) for _ in range(64)]

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Shares":
        return self


def test_tensors_whose_values_are_known_live_as_long_as_these() -> None:
    """Another tensor would have their id() otherwise, and be taken for one of known values."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    vars(module[0])["held"] = Shares()
    made, buffers = skeleton(module)
    del made, module
    assert len(buffers) == 64
    assert all(key == id(meta) and meta.is_meta for key, (meta, _) in buffers.items())
