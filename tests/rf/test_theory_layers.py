"""`rf theory --layers`: both recursions against torch, against the graph and against each other."""

import json
import random
from collections.abc import Sequence

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from rfbench.cli import main
from rfbench.errors import UsageError
from rfbench.rf.core.target import Target
from rfbench.rf.questions.theory.layers import Layer, parse, report
from rfbench.rf.questions.theory.layers_table import text
from rfbench.spatial_graph.reader import spatial_graph


def network(layers: Sequence[Layer]) -> nn.Sequential:
    """The same layers of torch, one channel each, all weights 1."""
    modules: list[nn.Module] = []
    for a in layers:
        sizes = (a.kernel, a.stride, a.padding)
        if a.transposed:
            module: nn.Module = nn.ConvTranspose2d(
                1, 1, *sizes, a.output_padding, dilation=a.dilation, bias=False
            )
        else:
            module = nn.Conv2d(1, 1, *sizes, a.dilation, bias=False)
        modules.append(module)
    net = nn.Sequential(*modules).double()
    for p in net.parameters():
        nn.init.ones_(p)
    return net


def seen(net: nn.Module, size: int, unit: int) -> tuple[int, int, int]:
    """The first and last pixel of a unit by its gradient, and how many units there are."""
    x = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    y: Tensor = net(x)
    (grad,) = torch.autograd.grad(y[0, 0, unit, unit], x)
    hit = grad[0, 0].sum(1).nonzero().flatten()
    return int(hit[0]), int(hit[-1]), y.shape[2]


PLAIN = ["3", "7s2p3,3s2p1,3d2p2", "1s2,3p1,2s2,5s3p2d2", "3s2,3,3s4", "11s4p2,3s2,5p2,3s2"]
TRANSPOSED = [
    "4s2p1t",
    "3s2p1o1t",
    "7s2p3,4s2p1t,3p1",
    "3s2p1,3s2p1,2s2t,3p1,4s2p1t",
    "5s3d2p4t,3p1",
]


@pytest.mark.parametrize("given", PLAIN + TRANSPOSED)
def test_against_gradients_and_the_graph(given: str) -> None:
    layers, size = parse(given), 120
    found, net = report(layers, [size]), network(parse(given))
    first, last, units = seen(net, size, found["unit"])
    assert found["region"] == (first, last) and found["map_size"] == [units]
    assert first > 0 and last < size - 1  # nothing is cut
    turns = len(found["phases"])
    for unit in range(found["unit"], found["unit"] + turns):
        around, phase = divmod(unit, turns)
        move = round(around * turns * found["stride"])
        assert seen(net, size, unit)[:2] == tuple(p + move for p in found["phases"][phase])
    (field, _) = Target(spatial_graph(net, (size, size), 1)).fields
    if field is None:  # the graph makes nothing of a dilated transposed convolution
        assert "d2p4t" in given or "p4d2t" in given
        return
    assert [tuple(p) for p in found["phases"]] == list(field.phases)
    assert (
        found["stride"] == pytest.approx(float(field.stride)) and found["padding"] == field.padding
    )
    sizes = [b - a + 1 for a, b in field.phases]
    assert found["size"] == (sizes[0] if len({*sizes}) == 1 else [min(sizes), max(sizes)])


@pytest.mark.parametrize("seed", range(8))
def test_both_recursions_agree(seed: int) -> None:
    rng = random.Random(seed)
    layers = [
        Layer(rng.randint(1, 5), rng.randint(1, 3), rng.randint(0, 3), rng.randint(1, 3))
        for _ in range(rng.randint(1, 6))
    ]
    found = report(layers)
    assert parse(",".join(map(str, layers))) == layers
    forward, backward = found["forward"][-1], found["backward"][-1]
    for key in ("size", "stride"):
        assert forward[key] == backward[key]
    assert forward["phases"] == [backward["region"]]
    assert forward["center"] == (backward["size"] - 1) / 2 - backward["padding"]
    for i, part in enumerate(found["forward"]):  # each row stands for the layers up to it
        assert part["size"] == report(layers[:i])["size"]
    for i, part in enumerate(found["backward"]):
        assert part["size"] == report(layers[len(layers) - i :])["size"]


def test_the_steps_are_written_out() -> None:
    layers = parse("7s2p3, 3s2p1 ,3d2p2")
    assert text(layers, report(layers, [224])).splitlines() == [
        "7s2p3,3s2p1,3p2d2 at 224 px: 56 units",
        "  size 27, stride 4, padding 13, centre of unit u 0 + 4 u",
        "",
        "Forward, from the input: r + (k - 1) d S, c + ((k - 1) d / 2 - p) S, then S s",
        "  layer     size r           stride S   centre c of unit 0  map",
        "  input     1                1          0                   224",
        "  1: 7s2p3  1 + 6 x 1 = 7    1 x 2 = 2  0 + 0 x 1 = 0       112",
        "  2: 3s2p1  7 + 2 x 2 = 11   2 x 2 = 4  0 + 0 x 2 = 0       56",
        "  3: 3p2d2  11 + 4 x 4 = 27  4 x 1 = 4  0 + 0 x 4 = 0       56",
        "",
        "Backward, from a unit of the output: r s + (k - 1) d + 1 - s, P s + p, S s",
        "  layer     size r           stride S   padding P       unit 27 reads",
        "  output    1                1          0               27 to 27",
        "  3: 3p2d2  1 x 1 + 4 = 5    1 x 1 = 1  0 x 1 + 2 = 2   25 to 29",
        "  2: 3s2p1  5 x 2 + 1 = 11   1 x 2 = 2  2 x 2 + 1 = 5   49 to 59",
        "  1: 7s2p3  11 x 2 + 5 = 27  2 x 2 = 4  5 x 2 + 3 = 13  95 to 121",
    ]


def test_steps_that_shrink_and_move() -> None:
    layers = parse("1s2,2s2p1")
    lines = text(layers, report(layers)).splitlines()
    assert "  2: 2s2p1  1 + 1 x 2 = 3  2 x 2 = 4  0 - 0.5 x 2 = -1" in lines
    assert "  1: 1s2    2 x 2 - 1 = 3  2 x 2 = 4  1 x 2 + 0 = 2  -2 to 0" in lines


def test_units_take_turns_behind_a_transposed_convolution() -> None:
    layers = parse("3s2p1o1t")
    found = report(layers, [8])
    assert found["size"] == [1, 2] and found["stride"] == 0.5 and found["map_size"] == [16]
    assert found["padding"] is None
    assert "2 units take turns" in text(layers, found)


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["rf", "theory", *args])


def test_the_command_needs_no_model() -> None:
    result = run("--layers", "3s2p1,3p1", "--size", "32x48")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("3s2p1,3p1 at 32x48 px: 16x24 units\n  size 7, stride 2,")
    record = json.loads(run("--layers", "3s2p1,3p1", "--json").stdout)
    assert (record["size"], record["stride"], record["padding"]) == (7, 2, 3)
    assert record["layers"][0] == {
        "kernel": 3, "stride": 2, "padding": 1, "dilation": 1, "output_padding": 0,
        "transposed": False,
    }  # fmt: skip


BAD = [
    ("", "layer 1 '': expected layers such as 7s2p3"),
    ("3,,3", "layer 2 '': expected layers such as 7s2p3"),
    ("s2", "layer 1 's2': expected layers"),
    ("3s", "layer 1 '3s': expected layers"),
    ("3x3", "layer 1 '3x3': no 'x'; expected layers"),
    ("3s2s2", "layer 1 '3s2s2': 's' twice"),
    ("3,3s0", "layer 2 '3s0': stride must be 1 or more"),
    ("0", "layer 1 '0': kernel must be 1 or more"),
    ("3d0", "layer 1 '3d0': dilation must be 1 or more"),
    ("3p-1", "layer 1 '3p-1': expected layers"),
    ("999999", "numbers are at most 100000"),
    ("3o1", "output padding is of transposed convolutions"),
    ("3s2o2t", "torch wants an output padding less than stride or dilation"),
    ("2s3t", "some of its units read nothing"),
    ("3s2d2t", "some of its units read nothing"),
    ("9999t", "at most 1000 wide"),
]


@pytest.mark.parametrize(("layers", "message"), BAD)
def test_bad_layers_are_one_line(layers: str, message: str) -> None:
    with pytest.raises(UsageError, match="^--layers: ") as error:
        report(parse(layers))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_usage() -> None:
    result = run("--layers", "3s2,3", "--size", "4")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: --layers: nothing is left behind layer 2 '3', which reads 3 positions of 1. "
        "Choose a larger --size.\n",
    )
    result = run("--layers", "3", "resnet18")
    assert "MODEL does not go with it" in result.stderr and result.exit_code == 2
    result = run("--layers", "3", "--pixel", "1,1")
    assert "--pixel does not go with it" in result.stderr and result.exit_code == 2
    assert "Missing argument 'MODEL', or --layers" in run().stderr
