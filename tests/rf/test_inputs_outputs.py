"""Inputs, outputs and failures as users meet them: the commands and rfbench.rf."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError, UsageError

NETS = """
import torch
from torch import nn

class Levels(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 5, 2, 2)
    def forward(self, x):
        a = self.a(x)
        return {"fine": a, "coarse": self.b(a), "score": a.mean((1, 2, 3))}

class Values(Levels):
    def forward(self, x):
        return self.b(self.a(x)).sum().item()

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(5, 4, 3, 2, 1)
    def forward(self, x, y):
        return self.c(torch.cat([x, y], 1))

class Finer(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.up = nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)
    def forward(self, x):
        return self.up(self.a(x)) + nn.functional.interpolate(x, scale_factor=2, mode="bicubic")

class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(1, 4, 5, 2, 2)
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)
    def forward(self, x, y):
        a, b = self.a(x), self.b(y)
        tokens = a.flatten(2).transpose(1, 2)
        mixed = self.heads(tokens, tokens, tokens)[0].transpose(1, 2).reshape(a.shape)
        return {"first": a, "mixed": mixed, "sorted": b.sort(-1)[0], "both": a + b, "second": b}

class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(1, 4, 3, 2, 1)
    def forward(self, x):
        x = nn.functional.interpolate(x, size=(96, 96), mode="bilinear")
        return torch.nonzero(self.a(x) > 0)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)


def theory(*args: str) -> Result:
    return CliRunner().invoke(main, ["rf", "theory", *args])


def test_theory_prints_every_output() -> None:
    records = json.loads(theory("own.py:Levels", "--size", "64", "--json").stdout)
    assert [(r["to"], r["y"]["size"]) for r in records] == [
        ("output.fine", 3),
        ("output.coarse", 11),
    ]
    listed = theory("own.py:Levels", "--list-layers").stdout
    assert "output.fine" in listed and "output.coarse" in listed
    done = CliRunner().invoke(main, ["rf", "audit", "own.py:Levels", "--size", "64"])
    assert done.exit_code and "output.fine, output.coarse" in done.stderr


def test_a_failure_names_the_last_map() -> None:
    refused = theory("own.py:Values", "--size", "64")
    assert refused.exit_code == 1
    assert "item()" in refused.stderr and "'b'. Choose it with --to" in refused.stderr
    told = theory("own.py:Values", "--size", "64", "--to", "b")
    assert told.exit_code == 0 and told.stderr.count("not measured") == 1
    assert "11" in told.stdout
    assert "a" in theory("own.py:Values", "--list-layers").stdout


def test_a_failure_ahead_of_all_maps_offers_no_layer() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.choice, self.a = nn.Linear(3, 2), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if self.choice(x.mean((2, 3))).argmax() else x

    with pytest.raises(RfbenchError, match="a trace has shapes only$"):
        rf.theory(rf.record(Experts(), size=16))


def test_a_network_that_resizes_its_input_and_looks_at_values() -> None:
    told = theory("own.py:Detector", "--size", "64", "--to", "a")
    assert "48x48 units at 64x64 px, 1 channel: local" in told.stdout
    assert "It resizes its input to 96x96 first; pixels are those of the input" in told.stdout
    assert "depends on values: torch.nonzero" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    record = json.loads(theory("own.py:Levels", "--to", "b", "--json").stdout)
    assert record[0]["resized_input"] is None and record[0]["input_channels"] == [3]


def test_a_resized_input_beside_the_input_itself_is_not_said_to_come_first() -> None:
    told = theory("own.py:Finer", "--size", "16").stdout
    assert "to output, 32x32 units at 16x16 px" in told and "resizes" not in told


def test_several_inputs() -> None:
    given = ("--input", "3x64x64", "--input", "2x64x64")
    records = json.loads(theory("own.py:Pair", *given, "--json").stdout)
    assert [(r["from"], r["y"]["size"]) for r in records] == [("input.0", 3), ("input.1", 3)]
    one = json.loads(theory("own.py:Pair", *given, "--from", "input.1", "--json").stdout)
    assert [r["from"] for r in one] == ["input.1"]
    assert "--input" in theory("own.py:Pair").stderr
    assert "leave out --size" in theory("own.py:Pair", *given, "--size", "64").stderr


SEVERAL = ("own.py:Several", "--input", "3x16x16", "--input", "1x16x16")


def test_an_output_that_cannot_be_measured_hides_no_other() -> None:
    done = theory(*SEVERAL)
    assert done.exit_code == 0, done.output
    heads = [line.split(" / ")[1] for line in done.stdout.splitlines() if " / " in line]
    ends = [head.removeprefix("baseline from ").partition(",")[0] for head in heads]
    assert ends == [
        "input.0 to output.first",
        "input.0 to output.both",
        "input.1 to output.both",
        "input.1 to output.second",
    ]
    left = [line for line in done.stderr.splitlines() if line.startswith("left out ")]
    assert [line.removeprefix("left out output.").partition(":")[0] for line in left] == [
        "first from input.1",
        "mixed from input.0",
        "mixed from input.1",
        "sorted from input.0",
        "sorted from input.1",
        "second from input.0",
    ]
    assert "global: aten.bmm.default in layer heads" in left[1]
    assert "positions are put in the order of their values" in left[3]


def test_an_output_asked_for_that_cannot_be_measured_is_an_error() -> None:
    done = theory(*SEVERAL, "--to", "output.first", "--from", "input.1")
    assert (done.exit_code, done.stderr) == (
        2,
        "Error: no path leads from 'input.1' to 'output.first'\n",
    )
    none = theory(*SEVERAL, "--to", "output.mixed")
    assert none.exit_code == 1 and none.stderr.startswith("Error: receptive-field arithmetic")


BOTH = (*SEVERAL, "--to", "output.both")


def test_maps_and_audits_are_of_each_input() -> None:
    """Counts by hand: a 3x3 kernel for the one input, a 5x5 for the other, in one sum."""
    drawn = CliRunner().invoke(main, ["visualize-rf", *BOTH, "--output", "drawn", "--json"])
    assert drawn.exit_code == 0, drawn.output
    panels = json.loads(drawn.stdout)["panels"]
    plain = [p for p in panels if p["variant"] == "baseline"]
    assert [(p["from"], p["metrics"]["size"]) for p in plain] == [
        ("input.0", [3, 3]),
        ("input.1", [5, 5]),
    ]
    assert [p["metrics"]["bypass"] for p in plain] == [0, 0]  # neither is on the other's way
    maps = np.load("drawn/maps.npz")
    sums = [maps[f"own.py:Several baseline from input.{i}"].sum() for i in range(2)]
    assert sums == [9, 25]
    done = CliRunner().invoke(main, ["rf", "audit", *BOTH, "--output", "audited", "--json"])
    assert [r["from"] for r in json.loads(done.stdout)] == ["input.0", "input.1"]
    assert len(list(Path("audited").glob("*.png"))) == 2
    one = CliRunner().invoke(main, ["rf", "audit", *SEVERAL, "--to", "output.second"])
    assert one.exit_code == 0 and "from input.1 to output.second" in one.stdout
    assert "left out output.second from input.0: no path" in one.stderr


def test_paths_that_bypass_a_layer_come_from_all_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 5, padding=2)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.a(x) + self.b(y)

    graph = rf.record(Sum(), inputs=[torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)])
    assert rf.path_counts(graph, source="a").figures["bypass"] == pytest.approx(25 / 34)
    assert rf.path_counts(graph, source="b").figures["bypass"] == pytest.approx(9 / 34)
    assert rf.path_counts(graph, source="input.1").figures["bypass"] == 0


def test_the_list_of_layers_tells_those_that_look_everywhere() -> None:
    listed = theory(*SEVERAL, "--list-layers").stdout.splitlines()
    rows = dict(line.split(None, 1) for line in listed)
    assert rows["output.mixed"].split() == ["8x8", "stride", "2", "global"]
    assert rows["output.both"].split() == ["8x8", "stride", "2"]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        t = x.flatten(2)
        return (t @ (t.transpose(1, 2) @ t).softmax(-1)).view(x.shape) + x


def test_python_refuses_attention_as_the_command_does() -> None:
    with pytest.raises(RfbenchError, match="arithmetic needs a convolutional"):
        rf.theory(rf.record(Attention(), size=32))


def test_examples_of_inputs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1))
    graph = rf.record(net, inputs=(torch.zeros(2, 3, 40, 50),))
    assert graph.size == (40, 50) and rf.theory(graph)["y"]["size"] == 3
    with pytest.raises(UsageError, match="leave out size="):
        rf.record(net, size=3, inputs=(torch.zeros(2, 3, 40, 50),))
    with pytest.raises(RfbenchError, match="fails on an input of 3 x 40x50x50 in layer 0"):
        rf.record(net, inputs=(torch.zeros(1, 3, 40, 50, 50),))
    with pytest.raises(UsageError, match=r"no input has channels .*: \(3, 40\)"):
        rf.record(net, inputs=(torch.zeros(3, 40),))
    with pytest.raises(RfbenchError, match="5 x 32x32"):
        rf.record(net, size=32, in_channels=5)


class Fused(nn.Module):
    """An image and a smaller map beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(2, 4, 5, padding=2)
        self.c = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x).tanh(), self.b(y)], 1))


PAIR = torch.randn(5, 3, 40, 48), torch.randn(5, 2, 20, 24)


@pytest.mark.parametrize("source", [0, 1])
def test_effective_fields_of_several_inputs(source: int) -> None:
    """As by hand, one image at a time."""
    net = Fused()
    found, figures = rf.effective(net, inputs=PAIR, source=f"input.{source}", unit=(3, 4))
    total = torch.zeros(PAIR[source].shape[2:], dtype=torch.float64)
    for pair in zip(*PAIR, strict=True):
        each = [x[None].clone().requires_grad_() for x in pair]
        net(*each)[0, :, 3, 4].abs().sum().backward()
        grad = each[source].grad
        assert grad is not None
        total += grad.double().abs().sum((0, 1))
    assert torch.allclose(torch.from_numpy(found.magnitude), total / 5, atol=1e-6)
    assert figures["from"] == f"input.{source}" and figures["layer"] == "c"
    assert figures["theoretical"] == [7, 7] and f"from input.{source}" in repr(figures)


def test_effective_fields_of_several_inputs_refused() -> None:
    with pytest.raises(UsageError, match=r"choose one with source= \(input.0, input.1\)"):
        rf.effective(Fused(), inputs=PAIR)
    with pytest.raises(UsageError, match="source='c' is none of input.0, input.1"):
        rf.effective(Fused(), inputs=PAIR, source="c")
    with pytest.raises(UsageError, match="the same N"):
        rf.effective(Fused(), inputs=(PAIR[0], PAIR[1][:2]), source="input.0")
    for given in ({}, {"images": PAIR[0], "inputs": PAIR}):
        with pytest.raises(UsageError, match="give images, or those of each input"):
            rf.effective(Fused(), **given)  # type: ignore[arg-type]
    with pytest.raises(RfbenchError, match="does not see the input"):
        rf.effective(Fused(), inputs=PAIR, source="input.0", layer="b")


def test_effective_fields_from_one_of_several_inputs_on_the_command_line(tmp_path: Path) -> None:
    def run(*more: str) -> Result:
        given = ("own.py:Pair", "--input", "3x32x32", "--input", "2x32x32", "--count", "2")
        return CliRunner().invoke(main, ["rf", "effective", *given, "--json", *more])

    def sources(*more: str) -> list[str]:
        return [f["from"] for f in json.loads(run(*more).stdout)["fields"]]

    assert sources("--output", "both") == ["input.0", "input.1"]
    assert sources("--output", "one", "--from", "input.1") == ["input.1"]
    assert "--from c is none of input.0, input.1" in run("--from", "c").stderr


class Counting(nn.Module):
    """Its forward pass changes two buffers, one of them in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, 2, 1)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.a(x)
        self.mean = 0.9 * self.mean + 0.1 * y.detach().mean((0, 2, 3))
        return y * self.calls


def test_effective_fields_leave_the_state_of_a_network_alone() -> None:
    net = Counting()
    before = {k: t.clone() for k, t in net.state_dict().items()}
    rf.effective(net, torch.randn(3, 3, 16, 16))
    assert all(torch.equal(before[k], t) for k, t in net.state_dict().items())


class Asks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 4, 3, 2, 1)


class OfDict(Asks):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.c(batch["image"])


class OfKeywords(Asks):
    def forward(self, *, pixels: Tensor) -> Tensor:
        return self.c(pixels)


def test_networks_of_dicts_and_keywords_are_told_to_be_wrapped() -> None:
    with pytest.raises(RfbenchError, match="asks the image for 'image', as a dict .* around it"):
        rf.record(OfDict(), size=32)
    with pytest.raises(RfbenchError, match=r"takes what it needs by other means: .*forward\(x\)"):
        rf.record(OfKeywords(), size=32)
    with pytest.raises(UsageError, match=r"no input has channels and positions, .*: \(1,\)"):
        rf.record(OfKeywords(), inputs=[torch.zeros(1)])
    for kind, call in ((OfDict, lambda n, x: n({"image": x})), (OfKeywords, _by_keyword)):
        graph = rf.record(Around(kind(), call), size=32)
        assert rf.theory(graph)["y"]["size"] == 3


def _by_keyword(net: nn.Module, x: Tensor) -> Tensor:
    return net(pixels=x)


class Around(nn.Module):
    def __init__(self, net: nn.Module, call: Any) -> None:
        super().__init__()
        self.net, self.call = net, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.net, x)


class Laid(nn.Module):
    """A convolution, a vector of all that it gives, and an output of some shape made of that."""

    def __init__(self, *shape: int, up: nn.Module | None = None) -> None:
        super().__init__()
        self.shape, self.a = shape, nn.Conv2d(3, 4, 3, 2, 1)
        self.own = nn.Linear(4 * 8 * 8, int(np.prod(shape)))
        self.up = up or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.own(self.a(x).flatten(1)).view(-1, *self.shape))


@pytest.mark.parametrize(
    "net",
    [
        Laid(7, 7, 30),  # YOLO's first version
        Laid(8, 4, 4, up=nn.ConvTranspose2d(8, 3, 4, 4)),  # an autoencoder
    ],
)
def test_a_map_that_is_laid_out_from_a_vector_is_no_map_before_it(net: Laid) -> None:
    """Each of its positions may see the whole image; a gradient says so."""
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    net(x)[0, 0, 0, 0].backward()
    assert x.grad is not None and (x.grad[0] != 0).any(0).all()
    graph = rf.record(net, size=16)
    with pytest.raises(RfbenchError, match="global: the output .it is laid out from a vector"):
        rf.theory(graph)
    assert rf.theory(graph, "a")["y"]["size"] == 3


def test_vectors_of_points_are_seen_from_the_last_map_as_classes_are() -> None:
    assert rf.theory(rf.record(Laid(17, 2), size=16))["y"]["size"] == 3
