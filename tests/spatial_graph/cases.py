"""Small networks to judge the spatial graph by: layers by name, a forward function, a verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm.layers
import torch
from torch import Tensor, nn

from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Reach, Witness
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.oracle import Size, box, channels_of, gradients, reached, sampled


class Net(nn.Module):
    """Layers by name and a forward pass as a function of them."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def conv(i: int = 3, o: int = 4, k: Any = 3, s: Any = 1, p: Any = None, **more: Any) -> nn.Conv2d:
    half = k // 2 if isinstance(k, int) else tuple(n // 2 for n in k)
    return nn.Conv2d(i, o, k, s, half if p is None else p, **more)


def same(i: int, o: int, k: int, **more: Any) -> nn.Module:
    return timm.layers.create_conv2d(i, o, k, padding="same", **more)


A = {"a": conv(), "b": conv(4, 4)}
TWO = {"a": conv(), "c": conv(3, 4, 1)}  # two classes of channels
STRIDED = {"a": conv(), "b": conv(4, 4, 3, 2)}
DEPTHWISE = {**TWO, "b": conv(8, 8, 1, groups=8)}


def classes(n: Net, x: Tensor) -> Tensor:
    return torch.cat([n.a(x), n.c(x)], 1)


@dataclass
class Verdict:
    """What the graph says of a module, and where it is wrong (empty: nowhere looked at)."""

    witness: Witness
    wrong: list[str]
    graph: SpatialGraph

    @property
    def reach(self) -> Reach:
        return self.witness.reach


def examine(
    module: nn.Module, size: Size = (18, 21), channels: int | None = None, units: int = 14
) -> Verdict:
    """Compare the graph's support with autograd's at sampled entries of the first output."""
    graph = spatial_graph(module, size, channels)
    witness = graph.witness(graph.output)
    if witness.reach > Reach.CONTEXT:
        return Verdict(witness, [], graph)
    value = graph.output
    assert isinstance(value, Value)
    c_in = channels or channels_of(module)
    at = sampled(value, units)
    wrong = []
    for index, truth in zip(at, gradients(module, size, c_in, at), strict=True):
        mine = reached(graph, value, index, gates="count", pool="mean") != 0
        if not np.array_equal(mine, truth):
            wrong.append(f"{index}: graph {box(mine)}, autograd {box(truth)}")
    return Verdict(witness, wrong, graph)


@dataclass
class Case:
    """A network, its input, and what the graph must say of it: the reach, and who is to blame."""

    module: nn.Module
    size: Size
    channels: int | None
    reach: Reach
    op: str

    def check(self) -> None:
        """Right, or refused by the name of the operation."""
        verdict = examine(self.module, self.size, self.channels)
        assert verdict.reach == self.reach, verdict.witness
        assert not verdict.wrong, verdict.wrong
        assert self.op in verdict.witness.op, verdict.witness


class Cases(dict[str, Case]):
    """Networks by name; a decorator of their forward functions fills it."""

    def add(
        self,
        reach: Reach = Reach.LOCAL,
        op: str = "",
        size: Size = (18, 21),
        channels: int | None = None,
        **layers: nn.Module,
    ) -> Callable:
        """The decorated function is the forward pass of `layers`: run(net, x)."""

        def decorate(run: Callable[[Any, Tensor], Any]) -> Callable[[Any, Tensor], Any]:
            assert run.__name__ not in self, run.__name__
            self[run.__name__] = Case(Net(run, **layers), size, channels, reach, op)
            return run

        return decorate

    def each(self, values: dict[str, Any], **options: Any) -> Callable:
        """One case for every value, which the function takes as its third argument."""

        def decorate(run: Callable) -> Callable:
            for name, value in values.items():

                def one(net: Any, x: Tensor, value: Any = value) -> Any:
                    return run(net, x, value)

                one.__name__ = f"{run.__name__}_{name}"
                self.add(**options)(one)
            return run

        return decorate
