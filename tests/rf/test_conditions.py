"""Inputs that are no maps: a time, a class, a latent vector, tokens, a number."""

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from torch import Tensor, nn

import rfbench
from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError, UsageError
from rfbench.spatial_graph.hooks import input_names

SIDE = 32
IMAGE, LATENT, CLASS = torch.randn(1, 3, SIDE, SIDE), torch.randn(1, 6), torch.tensor([3])


class Conditional(nn.Module):
    """Two strided convolutions, with a condition between them."""

    def __init__(self, own: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(channels, 8, 3, 2, 1), nn.Conv2d(8, 4, 5, 2, 2)
        self.own = own


class Film(Conditional):
    """A scale and a bias for each channel, from a vector."""

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        scale, bias = self.own(z)[:, :, None, None].chunk(2, 1)
        return self.b(F.relu(self.a(x) * scale + bias))


class Class(Conditional):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.b(self.a(x) + self.own(y)[:, :, None, None])


class Time(Conditional):
    """Sines of a time, padded to an odd number of features."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        rate = torch.exp(-math.log(1e4) * torch.arange(2, device=x.device) / 2)
        angle = t[:, None].float() * rate[None]
        sines = F.pad(torch.cat([angle.sin(), angle.cos()], 1), (0, 1))
        return self.b(self.a(x) + self.own(sines.to(x))[:, :, None, None])


class OneHot(Conditional):
    """A class as ten more channels of the image."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        planes = F.one_hot(y, 10).to(x)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.b(self.a(torch.cat([x, planes], 1)))


class Styled(Conditional):
    """Kernels that a vector modulates (StyleGAN2), as a grouped convolution."""

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        n, c, h, w = x.shape
        kernel = self.a.weight[None] * self.own(z)[:, None, :, None, None]
        kernel = kernel * torch.rsqrt(kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        y = F.conv2d(x.reshape(1, n * c, h, w), kernel.flatten(0, 1), None, 2, 1, groups=n)
        return self.b(y.reshape(n, 8, h // 2, w // 2))


class Repeated(Conditional):
    """As many convolutions as a number says."""

    def forward(self, x: Tensor, times: int) -> Tensor:
        for _ in range(times):
            x = self.own(x)
        return self.b(self.a(x))


def film() -> nn.Module:
    return Film(nn.Linear(6, 16))


NETS: dict[str, tuple[nn.Module, list[Any]]] = {
    "film": (film(), [IMAGE, LATENT]),
    "class": (Class(nn.Embedding(10, 8)), [IMAGE, CLASS]),
    "time": (Time(nn.Linear(5, 8)), [IMAGE, CLASS]),
    "one_hot": (OneHot(nn.Identity(), 13), [IMAGE, CLASS]),
    "styled": (Styled(nn.Linear(6, 3)), [IMAGE, LATENT]),
    "number": (Repeated(nn.Conv2d(3, 3, 3, padding=1)), [IMAGE, 3]),
}


def _gradient(net: nn.Module, inputs: list[Any], number: int, unit: tuple[int, int]) -> np.ndarray:
    """Which pixels a unit's value changes with, for weights that are all positive."""
    draw = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data = torch.rand(p.shape, generator=draw) + 0.5
    given = [x.abs() if isinstance(x, Tensor) else x for x in inputs]
    given[number] = given[number].clone().requires_grad_()
    net(*given)[0, :, unit[0], unit[1]].sum().backward()
    return (given[number].grad[0] != 0).any(0).numpy()


@pytest.mark.parametrize("name", NETS)
def test_what_is_read_is_what_gradients_reach(name: str) -> None:
    net, inputs = NETS[name]
    for unit in [(4, 4), (0, 0), (7, 2)]:
        counts, _ = rf.path_counts(rf.record(net, inputs=inputs), unit=unit)
        assert np.array_equal(counts > 0, _gradient(net, inputs, 0, unit))


class Tokens(nn.Module):
    """Cross-attention: every position looks at the tokens, none at another position."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True, kdim=5, vdim=5)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x = self.a(x)
        queries = x.flatten(2).transpose(1, 2)
        seen = self.cross(queries, tokens, tokens)[0]
        return self.b(x + seen.transpose(1, 2).reshape(x.shape))


def test_what_has_fewer_axes_than_the_map_is_a_condition() -> None:
    """Tokens (1, 7, 5) beside an image: 7x5 fits no image."""
    net, inputs = Tokens().double(), [IMAGE.double(), torch.randn(1, 7, 5).double()]
    seen = inputs[0].clone().requires_grad_()
    net(seen, inputs[1])[0, :, 6, 6].sum().backward()
    assert seen.grad is not None
    counts, _ = rf.path_counts(rf.record(net, inputs=inputs), unit=(6, 6))
    assert np.array_equal(counts > 0, (seen.grad[0] != 0).any(0).numpy())


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.own = (
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.Conv2d(3, 4, 5, 2, 2),
            nn.Embedding(9, 4),
        )

    def forward(self, t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + self.b(y) + self.own(t)[:, :, None, None]


def test_maps_keep_the_names_of_their_places_among_the_arguments() -> None:
    net, inputs = TimeFirst(), [CLASS, IMAGE, IMAGE]
    graph = rf.record(net, inputs=inputs)
    assert [*graph.inputs] == ["input.1", "input.2"]
    for number, size in [(1, 3), (2, 5)]:
        source = f"input.{number}"
        assert rf.theory(graph, source=source)["y"]["size"] == size
        seen = _gradient(net, inputs, number, (4, 4))
        assert np.array_equal(rf.path_counts(graph, unit=(4, 4), source=source)[0] > 0, seen)
        found, _ = rf.effective(net, inputs=inputs, source=source, unit=(4, 4))
        assert np.array_equal(found.magnitude > 0, seen)
    with pytest.raises(UsageError, match="choose one with source= \\(input.1, input.2\\)"):
        rf.effective(net, inputs=inputs)


def test_effective_fields_with_a_condition() -> None:
    """The same as by hand, for each image; one condition for all."""
    net, images = film(), torch.randn(3, 3, SIDE, SIDE)
    found, _ = rf.effective(net, inputs=[images, LATENT], unit=(4, 4))
    total = torch.zeros(SIDE, SIDE)
    for image in images:
        seen = image[None].clone().requires_grad_()
        net(seen, LATENT)[0, :, 4, 4].abs().sum().backward()
        assert seen.grad is not None
        total += seen.grad.abs().sum((0, 1))
    assert np.allclose(found.magnitude, total / 3, atol=1e-6)
    same, _ = rf.effective(net, inputs=[images, LATENT.expand(3, -1)], unit=(4, 4))
    assert np.array_equal(same.magnitude, found.magnitude)
    with pytest.raises(UsageError, match=r"input.1 is no map: give one for all images, \(1, ...\)"):
        rf.effective(net, inputs=[images, torch.randn(3, 6)])


def test_a_condition_of_several_images_is_that_of_one() -> None:
    graph = rf.record(film(), inputs=[torch.randn(4, 3, SIDE, SIDE), torch.randn(4, 6)])
    assert rf.theory(graph)["y"]["size"] == 11 and not graph.inputs


def test_conditions_take_the_precision_of_the_network() -> None:
    net = film().half()
    assert rf.theory(rf.record(net, inputs=[IMAGE, LATENT]))["y"]["size"] == 11
    found, _ = rf.effective(film().double(), inputs=[IMAGE.double(), LATENT], unit=(4, 4))
    assert np.isfinite(found.magnitude).all()


def test_scripted_and_channels_last_networks_take_conditions() -> None:
    scripted = torch.jit.script(film().eval())
    assert rf.theory(rf.record(scripted, inputs=[IMAGE, LATENT]))["y"]["size"] == 11

    class Last(Film):
        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            return super().forward(x.permute(0, 3, 1, 2), z)

    last = Last(nn.Linear(6, 16))
    graph = rf.record(last, inputs=[IMAGE.permute(0, 2, 3, 1), LATENT])
    assert graph.size == (SIDE, SIDE) and rf.theory(graph)["y"]["size"] == 11


class Generator(nn.Module):
    """A vector, laid out as a map of 4x4 in one of several ways, and what makes an image of it."""

    def __init__(self, way: str, last: nn.Module | None = None) -> None:
        super().__init__()
        self.way, self.own = way, nn.Linear(6, 8 * 4 * 4)
        self.body = nn.Sequential(
            nn.BatchNorm2d(8),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, 4, 3, padding=1),
            last or nn.ConvTranspose2d(4, 3, 3, 2, 1, 1),
        )

    def laid_out(self, z: Tensor) -> Tensor:
        z = self.own(z)
        if self.way == "view":
            return z.view(z.shape[0], 8, 4, 4)
        if self.way == "unflatten":
            return z.unflatten(1, (8, 16)).unflatten(2, (4, 4))
        return z[:, :, None].reshape(-1, 4, 4, 8).permute(0, 3, 1, 2).contiguous()

    def forward(self, z: Tensor) -> Tensor:
        return self.body(self.laid_out(z)).tanh()


@pytest.mark.parametrize("way", ["view", "unflatten", "permute"])
def test_fields_of_generators_begin_at_the_map_that_they_make(way: str) -> None:
    """As those of the part behind it, by itself."""
    net = Generator(way)
    graph = rf.record(net, inputs=[LATENT])
    alone = rf.record(nn.Sequential(net.body, nn.Tanh()), inputs=[torch.zeros(1, 8, 4, 4)])
    assert graph.size == (4, 4) and rf.theory(graph) == rf.theory(alone)
    for unit in [(7, 7), (0, 3)]:
        assert np.array_equal(*(rf.path_counts(g, unit=unit)[0] for g in (graph, alone)))
    assert rf.audit(net, inputs=[LATENT])["checkerboard"] == pytest.approx(0.484, abs=1e-3)
    assert rf.mirror(net, inputs=[LATENT]) and rf.tiles(net, inputs=[LATENT])
    assert net(LATENT).shape == (1, 3, 16, 16)  # it is left as it was


class Styled2(Generator):
    """Scales of a vector, and a learned table, stand ahead of the map."""

    def __init__(self) -> None:
        super().__init__("view")
        self.table = nn.Parameter(torch.randn(6, 4))

    def forward(self, z: Tensor) -> Tensor:
        own = self.table[None].tanh().sum(2) + z
        return super().forward(own * z[:, :, None, None].sigmoid()[:, :, 0, 0])


def test_neither_scales_nor_weights_are_taken_for_the_first_map() -> None:
    graph = rf.record(Styled2(), inputs=[LATENT])
    assert graph.size == (4, 4)
    assert rf.theory(graph) == rf.theory(rf.record(Generator("view"), inputs=[LATENT]))
    with pytest.raises(RfbenchError, match=r"\(1, 7\). Generator fails on them: .*"):
        rf.record(Generator("view"), inputs=[torch.zeros(1, 7)])


def test_a_generator_that_fails_behind_its_map_can_be_run_again() -> None:
    net = Generator("view", nn.Conv2d(5, 3, 3))
    for _ in range(2):
        graph = rf.record(net, inputs=[LATENT])
        assert "in layer body.3" in str(graph.failure) and rf.theory(graph, "body.2")
    assert Generator("view")(LATENT).shape == (1, 3, 16, 16)


class InPlace(Generator):
    """Writes through a view, which asks for a second pass; one of them may be interrupted."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__("view")
        self.error = error

    def laid_out(self, z: Tensor) -> Tensor:
        z = z * 2
        z[:, :3].mul_(2)
        return super().laid_out(z)

    def forward(self, z: Tensor) -> Tensor:
        y = self.laid_out(z)
        y[:, :3].add_(1)
        if self.error is not None:
            raise self.error
        return self.body(y)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), ValueError("x")], ids=str)
def test_nothing_of_a_generator_goes_on_behind_its_pass(error: BaseException | None) -> None:
    """The map would be given to whatever network runs next."""
    with contextlib.suppress(type(error)) if error else contextlib.nullcontext():
        graph = rf.record(InPlace(error), inputs=[LATENT])
        assert error is not None or rf.theory(graph) == rf.theory(
            rf.record(Generator("view"), inputs=[LATENT])
        )
    assert torch.overrides._get_current_function_mode_stack() == []  # type: ignore[attr-defined]


def test_without_a_map_there_is_no_field() -> None:
    with pytest.raises(UsageError, match=r"no input has channels and pos.*: \(1, 6\), \(1,\)"):
        rf.record(film(), inputs=[LATENT, CLASS])
    flat = nn.Sequential(nn.Linear(6, 16), nn.Unflatten(1, (1, 4, 4)))
    with pytest.raises(UsageError, match="No layer reads a map that is made of vectors"):
        rf.record(flat, inputs=[LATENT])
    with pytest.raises(UsageError, match="an input is a tensor or a number; this one is a ndarray"):
        rf.record(film(), inputs=[IMAGE, np.zeros((1, 6))])
    with pytest.raises(RfbenchError, match=r"fails on an input of 3 x 32x32 in layer own"):
        rf.theory(rf.record(film(), inputs=[IMAGE, torch.zeros(1, 7)]))


class Text(nn.Module):
    """Tokens, and convolutions over what stands for each, with what may lie between."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.table, self.place = nn.Embedding(20, 6), nn.Embedding(40, 6)
        self.between = between
        self.body = nn.Sequential(nn.Conv1d(6, 4, 3, 2, 1), nn.ReLU(), nn.Conv1d(4, 4, 5, 2, 2))
        self.head = nn.Linear(4, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.place(torch.arange(tokens.shape[1])) + self.table(tokens)
        x = F.dropout(x, training=self.training)
        x = x if self.between is None else self.between(x)
        return self.head(self.body(x.transpose(1, 2)).amax(-1))


class Residual(nn.Module):
    """Attention beside the tokens themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x, x, x)[0]


class Pairs(nn.Module):
    """Each token with the next."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :-1] + x[:, 1:]


class Folded(nn.Module):
    """Two tokens side by side at one position."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, 6, 40).transpose(1, 2)


TOKENS = torch.zeros(1, 40, dtype=torch.long)


def test_fields_of_texts_are_told_in_tokens() -> None:
    net = Text()
    graph = rf.record(net, inputs=[TOKENS])
    alone = rf.record(net.body, inputs=[torch.zeros(1, 6, 40)])
    assert graph.size == (40,) and rf.theory(graph, "body.2")["x"]["size"] == 3 + 4 * 2
    assert np.array_equal(rf.path_counts(graph, "body.2")[0], rf.path_counts(alone)[0])
    assert net(TOKENS).shape == (1, 2)


class OneHot2d(nn.Module):
    """Kim's, over an image of tokens by the entries of their vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, (3, 20))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.conv(F.one_hot(tokens, 20).float().unsqueeze(1))


def test_one_hot_tokens_are_a_map_as_well() -> None:
    graph = rf.record(OneHot2d(), inputs=[TOKENS])
    assert graph.size == (40, 20) and rf.theory(graph)["y"]["size"] == 3


MIXED = (
    nn.Linear(6, 6), nn.LayerNorm(6), nn.TransformerEncoderLayer(6, 2, 6), Residual(), Pairs(),
    Folded(),
)  # fmt: skip


@pytest.mark.parametrize("between", MIXED, ids=lambda m: type(m).__name__)
def test_what_may_mix_tokens_ahead_of_the_convolutions_is_no_start(between: nn.Module) -> None:
    """Fields from behind attention, say, would not be those of the tokens."""
    with pytest.raises(UsageError, match="no convolution one of tokens"):
        rf.record(Text(between), inputs=[TOKENS])


def test_without_tokens_it_is_said_how_to_give_them() -> None:
    with pytest.raises(RfbenchError, match=r"Tokens are given as --input 64xint"):
        rf.audit(Text())


def test_names_of_inputs() -> None:
    assert input_names(nn.ReLU(), 2) == ["input.0", "input.1"]


OWN = """
import torch
from torch import nn

class Film(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 5, 2, 2)
        self.own = nn.Linear(6, 8)
    def forward(self, x, z):
        return self.b(self.a(x) * self.own(z)[:, :, None, None])

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.own, self.up = nn.Linear(6, 128), nn.ConvTranspose2d(8, 3, 6, 4, 1)
    def forward(self, z):
        return self.up(self.own(z).view(-1, 8, 4, 4))

class Class(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.own = nn.Conv2d(3, 8, 3, 2, 1), nn.Embedding(1, 8)
    def forward(self, x, y):
        return self.a(x) + self.own(y)[:, :, None, None]
"""
GENERATOR = ("own.py:Generator", "--input", "6")
VECTOR = ("own.py:Film", "--input", "3x32x32", "--input", "6")
LABEL = ("own.py:Class", "--input", "3x32x32", "--input", "int")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)


def _run(*args: str) -> Result:
    return CliRunner().invoke(main, args, catch_exceptions=False)


def test_a_generator_on_the_command_line() -> None:
    said = _run("rf", "theory", *GENERATOR)
    assert "16x16 units at 4x4 px" in said.stdout
    assert "fields begin at the map of 8 x 4x4 that it makes of vectors" in said.stderr
    for command in (["rf", "audit"], ["rf", "mirror"], ["rf", "tiles"], ["rf", "effective"]):
        assert _run(*command, *GENERATOR).exit_code == 0


@pytest.mark.parametrize(("given", "size", "text"), [(VECTOR, 11, "6"), (LABEL, 3, "int")])
def test_on_the_command_line(given: tuple[str, ...], size: int, text: str) -> None:
    said = _run("rf", "theory", *given, "--json")
    assert json.loads(said.stdout)[0]["y"]["size"] == size
    assert f"input.1 ({text}) is no map but a condition" in said.stderr
    for command in (["rf", "audit"], ["rf", "mirror"], ["rf", "tiles"]):
        assert _run(*command, *given).exit_code == 0
    more = ("--variant", "baseline", "--output")
    assert _run("visualize-rf", *given, *more, "graph").exit_code == 0
    assert _run("visualize-rf", *given, "--engine", "autograd", *more, "engine").exit_code == 0
    graph, engine = (json.loads(Path(f, "result.json").read_text()) for f in ("graph", "engine"))
    assert graph["panels"][0]["metrics"]["shift"] == engine["panels"][0]["metrics"]["shift"]
    effective = _run("rf", "effective", *given, "--count", "2", "--output", "effective", "--json")
    assert json.loads(effective.stdout)["fields"][0]["theoretical"] == [size, size]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("foo", "--input foo: expected CxHxW"),
        ("0", "--input 0: must be 1 or more"),
        ("2x2xint", "--input 2x2xint: expected CxHxW"),
        ("xint", "--input xint: expected CxHxW"),
        ("7", "fails on an input of 3 x 32x32 in layer own"),
    ],
)
def test_other_forms_are_refused(form: str, message: str) -> None:
    said = _run("rf", "theory", "own.py:Film", "--input", "3x32x32", "--input", form)
    assert message in said.stderr and said.exit_code


@pytest.mark.parametrize("variant", ["alt:3x3+5x5", "blur_after:3x3+5x5", "3x3+5x5"])
def test_variants_that_run_the_network_run_it_on_its_inputs(variant: str) -> None:
    net = film()
    if not variant.startswith("3x3"):
        with pytest.raises(RfbenchError, match=r"missing 1 required positional argument: 'z'"):
            rfbench.fix(film(), variant)
    graph = rf.record(net, inputs=[IMAGE, LATENT], variant=variant)
    fixed = rfbench.fix(film(), variant, inputs=[IMAGE, LATENT])
    assert fixed(IMAGE, LATENT).shape == net(IMAGE, LATENT).shape
    assert rf.theory(graph) == rf.theory(rf.record(fixed, inputs=[IMAGE, LATENT]))


class LooksAtStrides(Film):
    """Its output is as large as the strides of its layers say."""

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return super().forward(x, z).repeat_interleave(self.a.stride[0], 2)


def test_a_network_whose_code_looks_at_strides_is_refused_with_its_inputs() -> None:
    with pytest.raises(UsageError, match="its code looks at the strides of its layers"):
        rfbench.fix(LooksAtStrides(nn.Linear(6, 16)), "3x3", inputs=[IMAGE, LATENT])


class Late(Conditional):
    """One layer more for late times."""

    def forward(self, x: Tensor, t: Tensor | int) -> Tensor:
        return self.b(self.own(self.a(x)) if t > 3 else self.a(x))


class Late5(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, 5)


def test_a_condition_that_the_code_looks_at_is_to_be_fixed() -> None:
    net = Late(nn.Conv2d(8, 8, 3, padding=1))
    with pytest.raises(RfbenchError, match="shapes only. If it looks at a condition .*forward.x"):
        rf.theory(rf.record(net, inputs=[IMAGE, torch.tensor([5])]))
    # what the refusal says to do; by hand: 3 + 2 x 2 + 4 x 2
    assert rf.theory(rf.record(Late5(net), size=SIDE))["y"]["size"] == 3 + 4 + 8


class Scaled(Conditional):
    """A number of the command line is a tensor; the code wants one of Python's."""

    def forward(self, x: Tensor, t: Tensor | float) -> Tensor:
        return nn.functional.interpolate(self.a(x), scale_factor=t)  # type: ignore[arg-type]


def test_a_condition_that_torch_takes_for_no_number_is_to_be_fixed() -> None:
    net = Scaled(nn.Identity())
    with pytest.raises(RfbenchError, match=r"takes no arguments of the kinds .*net\(x, 5\)"):
        rf.theory(rf.record(net, inputs=[IMAGE, torch.tensor(2.0)]))
    assert rf.theory(rf.record(net, inputs=[IMAGE, 2.0]))["y"]["stride"] == 1
