"""Networks that draw at random while they run: against gradients in many draws, or refused."""

import copy
import importlib
import os
import random
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from rfbench import rf
from rfbench.errors import RfbenchError
from rfbench.spatial_graph.graph import Value
from rfbench.spatial_graph.node import Opaque
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import Net, conv
from tests.spatial_graph.oracle import graph_counts, prepared

Run = Callable[[Any, Tensor], Tensor]
SIZE = (16, 17)
VALUES: dict[str, Run] = {}  # positions are the same in all draws
PLACES: dict[str, tuple[str, Run]] = {}  # they are not, and by what


def values(run: Run) -> Run:
    VALUES[run.__name__] = run
    return run


def places(source: str) -> Callable[[Run], Run]:
    def add(run: Run) -> Run:
        PLACES[run.__name__] = source, run
        return run

    return add


def net(run: Run) -> Net:
    return Net(run, a=conv(3, 4, 3, 2), b=conv(4, 4))


@values
def dropout(n: Any, x: Tensor) -> Tensor:
    return n.b(F.dropout(n.a(x), 0.5, training=True))


@values
def channels_dropped(n: Any, x: Tensor) -> Tensor:
    return n.b(F.dropout2d(n.a(x), 0.5, training=True))


@values
def a_mask_of_its_own(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)  # on the CPU, where a trace sees its values
    return n.b(y * (torch.rand(y.shape) > 0.5))


@values
def a_mask_by_where(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(torch.where(torch.rand(y.shape) > 0.5, y, torch.zeros_like(y)))


@values
def a_mask_of_ones_and_zeros(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y * torch.where(torch.rand_like(y) > 0.5, 1.0, 0.0))


@values
def a_mask_that_is_part_fixed(n: Any, x: Tensor) -> Tensor:
    """The left half is never read, the right one half the time."""
    y = n.a(x)
    mask = (torch.rand(y.shape[2:]) > 0.5).float()
    mask[:, :4] = 0
    return n.b(y * mask)


@values
def blocks_dropped(n: Any, x: Tensor) -> Tensor:
    return n.b(torchvision.ops.drop_block2d(n.a(x), 0.3, 3, training=True))


@values
def depth_by_product(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return y + torchvision.ops.stochastic_depth(n.b(y), 0.5, "row", True)


@values
def noise(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y + torch.randn_like(y) * 0.1)


@values
def strength_of_noise(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x) * (1 + torch.rand(1).item()))


@values
def soft_choice(n: Any, x: Tensor) -> Tensor:
    return n.b(F.gumbel_softmax(n.a(x), dim=1))


@values
def several_draws(n: Any, x: Tensor) -> Tensor:
    return sum(n.b(F.dropout(n.a(x), 0.5, True)) for _ in range(3))  # type: ignore[return-value]


@values
def order_of_channels(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x)[:, torch.randperm(4)])


@places("Python's random")
def depth_by_python(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return y if random.random() < 0.3 else y + n.b(y)


@places("numpy.random")
def depth_by_numpy(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return y if np.random.rand() < 0.3 else y + n.b(y)


@places("a NumPy generator without a seed")
def depth_by_a_generator(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return y if np.random.default_rng().random() < 0.3 else y + n.b(y)


@places("aten.rand.default")
def depth_by_torch(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return y if torch.rand(1) < 0.05 else y + n.b(y)


@places("aten.rand.default")
def depth_on_the_device(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return y if torch.rand(1, device=x.device).item() < 0.05 else y + n.b(y)


@places("aten.randint.low")
def rolled(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).roll(int(torch.randint(0, 5, ())), -1))


@places("aten.randint.low")
def cropped(n: Any, x: Tensor) -> Tensor:
    top, left = torch.randint(0, 3, (2,)).tolist()
    return n.b(n.a(x)[..., top : top + 6, left : left + 6])


@places("aten.randint.low")
def cropped_by_tensors(n: Any, x: Tensor) -> Tensor:
    i = torch.randint(0, 3, ())
    return n.b(n.a(x)[..., i : i + 6])


@places("aten.randint.low")
def resized(n: Any, x: Tensor) -> Tensor:
    return n.b(F.interpolate(n.a(x), size=(int(torch.randint(6, 12, ())), 9)))


@places("aten.rand.default")
def mirrored(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y.flip(-1) if torch.rand(()) < 0.5 else y)


@places("aten.randperm")
def shuffled(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y[..., torch.randperm(y.shape[-1])])


@places("aten.rand.default")
def jittered(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    grid = F.affine_grid(torch.eye(2, 3)[None], list(y.shape), align_corners=False)
    return n.b(F.grid_sample(y, grid + 0.1 * torch.rand(2), align_corners=False))


def union(module: nn.Module, unit: tuple[int, int], draws: int) -> np.ndarray:
    """The pixels that have a gradient in any draw."""
    model, seen = prepared(module), np.zeros(SIZE, bool)
    for draw in range(draws):
        torch.manual_seed(draw)
        x = torch.rand(1, 3, *SIZE, dtype=torch.float64, requires_grad=True)
        out = model(x)[0, :, unit[0], unit[1]].sum()
        if out.requires_grad:
            seen |= (torch.autograd.grad(out, x)[0][0] != 0).any(0).numpy()
    return seen


@pytest.mark.parametrize("name", VALUES)
def test_values_are_those_of_all_draws_together_and_said_so(name: str) -> None:
    module = net(VALUES[name])
    graph = rf.record(module, size=SIZE, in_channels=3)
    for unit in ((0, 0), (4, 5)):
        truth = union(module, unit, 40)
        if not truth.any():
            with pytest.raises(RfbenchError, match="reads nothing"):
                rf.path_counts(graph, unit=unit)
            continue
        counts, figures = rf.path_counts(graph, unit=unit)
        assert np.array_equal(counts > 0, truth), unit
    if name == "order_of_channels":  # which leaves all as it was
        return
    for report in (rf.theory(graph), figures):
        assert report["random"] and ("at random" in repr(report) or "numbers drawn" in repr(report))
    assert "random" not in rf.theory(graph, "a")


@pytest.mark.parametrize("name", PLACES)
def test_places_that_are_drawn_are_refused(name: str) -> None:
    source, run = PLACES[name]
    graph = rf.record(net(run), size=SIZE, in_channels=3)
    with pytest.raises(RfbenchError, match=source):
        rf.theory(graph)
    assert rf.theory(graph, "a")["x"]["size"] == 3


class Held(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self, generator: Any, shift: Callable[[Any], int]) -> None:
        super().__init__()
        self.a, self.generator, self.shift = conv(), generator, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).roll(self.shift(self.generator), -1)


OWN = {
    "torch": (torch.Generator(), lambda g: int(torch.randint(0, 9, (), generator=g))),
    "python": (random.Random(3), lambda g: g.randint(0, 8)),
    "numpy": (np.random.default_rng(3), lambda g: int(g.integers(0, 9))),
    "older numpy": (np.random.RandomState(3), lambda g: int(g.randint(0, 9))),
}


@pytest.mark.parametrize("name", OWN)
def test_generators_of_its_own(name: str) -> None:
    graph = spatial_graph(Held(*OWN[name]), SIZE)
    assert isinstance(graph.output, Opaque) and "decides what is read" in str(graph.output.witness)


SYSTEM = random.SystemRandom()  # has no state
TORCH, PYTHON, NUMPY = torch.Generator(), random.Random(4), np.random.default_rng(4)
GLOBAL: dict[str, Callable[[Any], int]] = {
    "torch": lambda _: int(torch.randint(0, 9, (), generator=TORCH)),
    "python": lambda _: PYTHON.randint(0, 8),
    "numpy": lambda _: int(NUMPY.integers(0, 9)),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_generators_of_the_file_of_a_network(name: str) -> None:
    """They draw, and have their states again when the network has been traced."""
    shift = GLOBAL[name]
    TORCH.manual_seed(7), PYTHON.seed(7), NUMPY.bit_generator.advance(3)
    held = copy.deepcopy(NUMPY)
    graph = spatial_graph(Held(None, shift), SIZE)
    assert isinstance(graph.output, Opaque) and "decides what is read" in str(graph.output.witness)
    assert int(torch.randint(0, 99, (), generator=TORCH)) == int(
        torch.randint(0, 99, (), generator=torch.Generator().manual_seed(7))
    )
    assert PYTHON.random() == random.Random(7).random() and NUMPY.random() == held.random()


ANEW = {
    "Random()": ("a Python generator without a seed", lambda _: random.Random().randint(0, 8)),
    "a subclass": (
        "a Python generator",
        lambda _: type("Own", (random.Random,), {})().randrange(9),
    ),
    "SystemRandom": ("the system's", lambda _: random.SystemRandom().randint(0, 8)),
    "SystemRandom.random": ("the system's", lambda _: int(9 * random.SystemRandom().random())),
    "SystemRandom of the file": ("the system's", lambda _: SYSTEM.randint(0, 8)),
    "secrets": ("the system's random numbers", lambda _: secrets.randbelow(9)),
    "urandom": ("the system's random numbers", lambda _: os.urandom(1)[0] % 9),
    "RandomState": ("a NumPy generator", lambda _: int(np.random.RandomState().randint(9))),
}


@pytest.mark.parametrize("name", ANEW)
def test_generators_made_anew_without_a_seed(name: str) -> None:
    source, shift = ANEW[name]
    graph = spatial_graph(Held(None, shift), SIZE)
    assert isinstance(graph.output, Opaque) and source in str(graph.output.witness)
    assert "decides what is read" in str(graph.output.witness)


def test_other_threads_keep_the_numbers_of_the_system() -> None:
    def elsewhere(_: None) -> int:
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(os.urandom, 8).result())
            pool.submit(random.Random).result()
        return 3

    found: list[bytes] = []
    graphs = [spatial_graph(Held(None, elsewhere), SIZE) for _ in range(2)]
    assert len({*found}) == len(found) == 2  # one trace each, since nothing is drawn in it
    assert all(isinstance(graph.output, Value) and not graph.chosen for graph in graphs)


def test_what_is_drawn_while_a_library_is_imported_is_no_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawing_library.py").write_text(
        "import os, random, uuid\nnames = random.Random().random(), os.urandom(2), uuid.uuid4()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def late(_: None) -> int:
        sys.modules.pop("drawing_library", None)
        return len(importlib.import_module("drawing_library").names)

    graph = spatial_graph(Held(None, late), SIZE)
    assert isinstance(graph.output, Value) and not graph.chosen
    seen = spatial_graph(Held(None, lambda _: late(_) + random.Random().randint(0, 5)), SIZE)
    assert isinstance(seen.output, Opaque)


SEEDED = {
    "numpy": lambda _: int(np.random.default_rng(3).integers(0, 9)),
    "python": lambda _: random.Random(3).randint(0, 8),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_generator_with_a_seed_draws_the_same_each_time(name: str) -> None:
    module = Held(None, SEEDED[name]).double()
    graph = spatial_graph(module, SIZE)
    assert isinstance(graph.output, Value)
    x = torch.rand(1, 3, *SIZE, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x)[0, :, 4, 4].abs().sum(), x)
    reached = graph_counts(graph, (4, 4), "single") > 0
    assert (reached == (gradient[0] != 0).any(0).numpy()).all()


def test_a_trace_leaves_all_generators_as_they_are() -> None:
    def drawn() -> list[float]:
        return [float(torch.rand(1)), random.random(), float(np.random.rand())]

    def seed() -> None:
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)

    names = ("depth_by_python", "depth_by_numpy", "depth_by_torch")
    nets = [net(PLACES[name][1]) for name in names]
    seed()
    wanted = drawn()
    seed()
    for one in nets:
        spatial_graph(one, SIZE)
    assert drawn() == wanted


def test_dropout_in_evaluation_is_no_draw() -> None:
    layers = [conv(), nn.Dropout(0.5), nn.RReLU(), nn.Dropout2d(0.5), nn.AlphaDropout(0.5)]
    graph = spatial_graph(nn.Sequential(*layers), SIZE)
    assert isinstance(graph.output, Value) and graph.drawn(graph.output) == ([], [])


def test_each_network_that_is_the_same_in_all_draws_has_one_trace_a_size() -> None:
    """Numbers that are read count from where they are read on."""

    def late(n: Any, x: Tensor) -> Tensor:
        y = n.b(n.a(x))
        return y * (1 + float(torch.rand(1)))

    graph = spatial_graph(net(late), SIZE)
    assert graph.drawn(graph.layers["b"]) == ([], [])
    assert [d.op for d in graph.drawn(graph.output)[1]] == ["aten.rand.default"]
