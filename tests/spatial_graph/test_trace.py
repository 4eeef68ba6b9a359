"""What a trace holds: inputs, outputs, the part before a failure, and other input sizes."""

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench import rf
from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core.network import Network
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.inputs import trace_as_fits
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.reader import read, spatial_graph
from rfbench.spatial_graph.trace import trace_module
from tests.spatial_graph.cases import Net, conv
from tests.spatial_graph.oracle import reached, sampled
from tests.spatial_graph.programs import Program


@dataclass
class Pair:
    """A dataclass that torch's pytree does not know."""

    near: Tensor
    far: list[Tensor]


Named = namedtuple("Named", "near far")


class Plain:
    """An object of no kind that anyone knows."""

    def __init__(self, near: Tensor, far: Tensor) -> None:
        self.near, self.far, self.name = near, far, "plain"


OUTPUTS: dict[str, tuple[Callable, list[str]]] = {
    "dict": (lambda a, b: {"aux": a, "main": b}, ["aux", "main"]),
    "list": (lambda a, b: [a, b], ["0", "1"]),
    "nested": (lambda a, b: {"out": [a, (b, None)], "n": 3}, ["out.0", "out.1.0"]),
    "dataclass": (lambda a, b: Pair(a, [b]), ["near", "far.0"]),
    "named tuple": (Named, ["near", "far"]),
    "object": (Plain, ["near", "far"]),
}


def two(join: Callable) -> nn.Module:
    """3 px and 7 px, returned together."""
    parts = {"a": conv(3, 4), "b": conv(4, 4, 5)}
    return Net(lambda n, x: join(n.a(x), n.b(n.a(x))), **parts)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_tensor_of_an_output_has_a_name(kind: str) -> None:
    join, names = OUTPUTS[kind]
    graph = spatial_graph(two(join), (20, 20))
    assert list(graph.outputs) == [f"output.{n}" for n in names]
    sizes = [Target(graph, n).fields[0].size for n in graph.outputs]  # type: ignore[union-attr]
    assert sizes == [3, 7]
    inside = spatial_graph(nn.Sequential(two(join)), (20, 20), 3)
    assert set(inside.layers) == {"0.a", "0.a#2", "0.b", *(f"0.{n}" for n in names)}


def test_an_output_is_never_called_as_another_layer_is() -> None:
    class Blocks(nn.ModuleList):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [self[0](x), self[1](self[0](x))]

    net = Net(lambda n, x: n.blocks(x)[1], blocks=Blocks([conv(3, 4), conv(4, 4, 5)]))
    graph = spatial_graph(net, (20, 20))
    # the second call is of the same convolution: its own output, then that of the pair
    assert list(graph.layers) == ["blocks.0", "blocks.0#2", "blocks.1", "blocks.output.0",
                                  "blocks.output.1"]  # fmt: skip


def test_which_output_is_taken() -> None:
    graph = spatial_graph(two(lambda a, b: {"aux": a, "out": b}), (20, 20))
    assert graph.target == "output.out"
    with pytest.raises(UsageError, match=r"several outputs.+output\.aux, output\.main"):
        _ = Target(spatial_graph(two(lambda a, b: {"aux": a, "main": b}), (20, 20))).value
    with pytest.raises(UsageError, match=r"unknown layer 'output.auks'.+output\.aux"):
        graph.layer("output.auks")
    net = two(lambda a, b: [a, b])
    net.feature_info = [1, 2]  # timm's features_only
    assert spatial_graph(net, (20, 20)).target == "output.1"


def test_an_output_without_positions_names_the_last_map() -> None:
    graph = spatial_graph(two(lambda a, b: {"map": a, "queries": b.mean((2, 3))}), (20, 20))
    with pytest.raises(UsageError, match="'output.queries' has no positions.+'b'"):
        Target(graph, "output.queries").value  # noqa: B018


class Fails(nn.Module):
    """A program, then something that a trace cannot follow."""

    def __init__(self, program: nn.Module, how: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.program, self.how = program, how

    def forward(self, x: Tensor) -> Any:
        return self.how(self.program(x))


def _raises(x: Tensor) -> Tensor:
    raise KeyError("head")


TAILS = {
    "item": lambda x: x if x.sum().item() > 0 else -x,
    "nonzero": lambda x: x.nonzero(),
    "branch": lambda x: x if x.sum() > 0 else -x,
    "mask": lambda x: x[x > 0],
    "python": _raises,
}


@pytest.mark.parametrize("tail", TAILS)
def test_a_failing_tail_hides_nothing(tail: str) -> None:
    """The graph up to the tail is that of the program alone, for every output entry."""
    for seed in range(20):
        program = Program(seed)
        alone = spatial_graph(program, program.size, 3)
        cut = read(trace_module(Fails(program, TAILS[tail]), program.size, 3))
        assert cut.failure is not None and cut.outputs == {}
        with pytest.raises(RfbenchError, match=r"Fails fails on an input of 3 x"):
            Target(cut).value  # noqa: B018
        here, there = alone.output, cut.layers.get("program")
        if not isinstance(here, Value):
            assert not isinstance(there, Value)
            continue
        assert isinstance(there, Value)
        for index in sampled(here, 4):
            assert np.array_equal(reached(alone, here, index), reached(cut, there, index))


def test_programs_with_several_outputs() -> None:
    """Each output is that of the program which ends there."""
    for seed in range(40):
        program = Program(seed)
        ends = list(range(1, len(program.steps) + 1))

        def run(steps: list, x: Tensor) -> list[Tensor]:
            results = [x]
            for step in steps:
                results.append(step(results))
            return results

        whole = Net(lambda n, x, p=program: {"r": run(p.steps, x)[1:]})
        graph = spatial_graph(whole, program.size, 3)
        for end in ends:
            part = Net(lambda n, x, p=program, e=end: run(p.steps[:e], x)[-1])
            alone = spatial_graph(part, program.size, 3)
            name = f"output.r.{end - 1}" if len(ends) > 0 else "output"
            here, there = alone.output, graph.outputs.get(name)
            assert isinstance(here, Value) == isinstance(there, Value), (seed, end)
            if isinstance(here, Value) and isinstance(there, Value):
                for index in sampled(here, 2):
                    assert np.array_equal(reached(alone, here, index), reached(graph, there, index))


def test_a_trunk_is_one_that_takes_the_image() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body, self.tail = conv(3, 4, 7, 2), conv(4, 4), conv(4, 4, 5)

        def forward_features(self, x: Tensor) -> Tensor:
            return self.body(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.tail(self.forward_features(self.stem(x)))

    graph = spatial_graph(Inner(), (32, 32))
    assert list(graph.layers) == ["stem", "body", "tail"] and graph.target == "tail"
    assert Target(graph).fields[0].size == 7 + 2 * 2 + 2 * 4  # type: ignore[union-attr]


class Until(nn.Module):
    """Halves until it is small."""

    def __init__(self) -> None:
        super().__init__()
        self.c = conv(3, 3, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        while x.shape[-1] > 8:
            x = self.c(x)
        return x


class Padded(nn.Module):
    """Pads to a multiple of 8 first."""

    def __init__(self) -> None:
        super().__init__()
        self.c = conv(3, 3, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        if more := -x.size(3) % 8:
            x = F.pad(x, (more // 2, more - more // 2, more // 2, more - more // 2))
        return self.c(x)


@pytest.mark.parametrize("make", [Until, Padded])
def test_a_network_that_looks_at_its_size_is_traced_at_each(make: type[nn.Module]) -> None:
    network = Network(make(), (64, 64))
    for n in (64, 40, 45, 99, 130):
        field, own = (
            (t.fields, t.units)
            for t in (network.target((n, n)), Target(spatial_graph(make(), (n, n))))
        )
        assert field == own
        assert network.graph((n, n)).output is not None
        assert tuple(make()(torch.zeros(1, 3, n, n)).shape[2:]) == network.target((n, n)).units


def test_a_network_that_does_not_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(conv(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4))
    network = Network(net, (64, 64))
    network.graph((64, 64))
    monkeypatch.setattr("rfbench.rf.core.network.trace_module", None)
    assert network.target((65, 90)).units == (16, 22)


def test_sizes_that_the_network_refuses_are_refused() -> None:
    """Even sizes only: both branches halve, one rounds up."""
    net = Net(lambda n, x: n.a(x) + F.max_pool2d(x, 2), a=conv(3, 3, 3, 2))
    network = Network(net, (64, 64))
    assert network.target((66, 66)).units == (33, 33)
    with pytest.raises(RfbenchError, match="fails on an input of 3 x 65x65"):
        network.target((65, 65))


def test_channels_by_trying() -> None:
    space_to_depth = Net(lambda n, x: n.a(F.pixel_unshuffle(x, 2)), a=conv(12, 4))
    assert trace_as_fits(space_to_depth, (32, 32)).shapes[0] == (1, 3, 32, 32)
    grey = nn.Sequential(conv(1, 4))
    assert trace_as_fits(grey, (32, 32)).shapes[0] == (1, 1, 32, 32)
    four = nn.Sequential(conv(4, 4))
    assert trace_as_fits(four, (32, 32)).shapes[0] == (1, 4, 32, 32)
    either = Net(lambda n, x: n.b(x) if x.shape[1] == 1 else n.a(x), a=conv(3, 4), b=conv(1, 4, 5))
    with pytest.raises(UsageError, match="1, 3 channels.+--in-channels"):
        trace_as_fits(either, (32, 32))
    none = Net(lambda n, x: n.a(F.pixel_unshuffle(x, 2)), a=conv(20, 4))
    with pytest.raises(RfbenchError, match=r"tried, 3 x 32x32, 1 x 32x32, 20 x 32x32 in layer a: "):
        trace_as_fits(none, (32, 32))


def test_volumes_and_sequences_are_no_images() -> None:
    volume = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Conv3d(4, 4, 3))
    with pytest.raises(RfbenchError, match="volumes gets 1 x 3 x 32 x 32, .+ without a batch"):
        trace_as_fits(volume, (32, 32))
    with pytest.raises(RfbenchError, match=r"conv1d.+ got input of size: \[1, 1, 32, 32\]"):
        trace_as_fits(nn.Sequential(nn.Conv1d(1, 4, 3)), (32, 32))


def test_two_inputs_have_a_field_each() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = conv(3, 4), conv(1, 4, 5), conv(8, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.c(torch.cat([self.a(x), self.b(y)], 1))

    graph = spatial_graph(Both(), (20, 20), inputs=[(3, 20, 20), (1, 20, 20)])
    assert list(graph.inputs) == ["input.0", "input.1"]
    for name, size in (("input.0", 5), ("input.1", 7)):
        target = Target(graph, "c", name)
        assert target.fields[0].size == size  # type: ignore[union-attr]
        assert (target.counts((9, 9)).counts > 0).sum() == size**2
    with pytest.raises(UsageError, match=r"several inputs.+--from \(input.0, input.1\)"):
        Target(graph, "c").counts()


class Levels(nn.Module):
    """Returns a map of each level."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, self.a(x)]


def test_a_layer_with_several_maps_names_them() -> None:
    graph = spatial_graph(Net(lambda n, x: n.levels(x)[1], levels=Levels()), (16, 16), 3)
    with pytest.raises(UsageError, match=r"'levels' has no map of its own: choose one of levels"):
        graph.layer("levels")


def inverse_spectrogram(n: Net, x: Tensor) -> Tensor:
    window = torch.hann_window(8).to(x)
    seen = torch.stft(n.a(x)[:, 0, 0], 8, 4, window=window, return_complex=True)
    return torch.istft(seen, 8, 4, window=window)


ENDS: dict[str, tuple[Callable, str]] = {
    "a generator": (
        lambda n, x: (y for y in [n.a(x)]),
        "returns a generator, which holds no tensor",
    ),
    "None": (lambda n, x: [n.a(x)].clear(), "returns None, which holds no tensor"),
    "nested": (
        lambda n, x: torch.nested.nested_tensor([*n.a(x)]),
        "fails .+: a nested tensor holds values",
    ),
    "numbers": (inverse_spectrogram, "fails .+: aten::equal looks at values"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_end_that_cannot_be_traced_is_named_and_hides_nothing(end: str) -> None:
    run, why = ENDS[end]
    graph = read(trace_module(Net(run, a=conv()), (16, 16)))
    assert Target(graph, "a").fields[0].size == 3
    with pytest.raises(RfbenchError, match=rf"^Net {why}.+The last layer with a map is 'a'"):
        graph.check_end()


def test_a_script_made_for_cpus_is_refused_by_its_operation() -> None:
    script = torch.jit.script(nn.Sequential(conv(), nn.ReLU()).eval())
    made = torch.jit.optimize_for_inference(script)
    with pytest.raises(RfbenchError, match=r"16x16: aten.to_mkldnn.default: its layers are stored"):
        spatial_graph(made, (16, 16))


def test_where_no_output_is_a_map_the_last_map_is_named() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.box, self.score = conv(), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.conv(x).mean((2, 3))
            return self.box(y), self.score(y)

    graph = rf.record(Pair(), size=(14, 16))
    with pytest.raises(UsageError, match=r"none is a map\. The last layer with a map is 'conv'\."):
        rf.theory(graph)


def test_a_failure_ends_with_one_full_stop() -> None:
    """An input that is too small for what lies behind the stem."""
    module = nn.Sequential(conv(), nn.AvgPool2d(20))
    graph = rf.record(module, size=(14, 16))
    with pytest.raises(UsageError, match=r"[^.]\. The last layer with a map is '0'\. Choose it"):
        rf.theory(graph)
