"""Modules of every make, asked every question: an answer, or one true sentence."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.ao.quantization as quantization
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn
from torch.ao.quantization import quantize_fx
from torch.nn.utils import prune, weight_norm

from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 5, padding=2))


def pruned() -> nn.Module:
    net = plain()
    prune.ln_structured(net[2], "weight", 0.4, n=1, dim=3)
    return net


def normed() -> nn.Module:
    net = plain()
    net[0] = weight_norm(net[0])
    return net


class Casting(nn.Module):
    """Casts of its own, to numbers that its weights do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.ones(1, dtype=torch.float32)
        return self.net(x.float() * scale).half().float()


def trained_to_be_quantised() -> nn.Module:
    net = nn.Sequential(quantization.QuantStub(), *plain(), quantization.DeQuantStub())
    net.train().qconfig = quantization.get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
    net = quantization.prepare_qat(net)
    net(torch.randn(1, 3, 32, 48))
    return net


def observed() -> nn.Module:
    net = quantize_fx.prepare_fx(
        plain().eval(),
        quantization.get_default_qconfig_mapping("fbgemm"),
        (torch.randn(1, 3, 32, 48),),
    )
    net(torch.randn(1, 3, 32, 48))
    return net


MADE: dict[str, Callable[[], nn.Module]] = {
    "casting": Casting,
    "half": lambda: plain().half(),
    "quantisation-aware": trained_to_be_quantised,
    "observed": observed,
    "scripted": lambda: torch.jit.script(plain()),
    "traced": lambda: torch.jit.trace(plain().eval(), torch.zeros(1, 3, 32, 32)),
    "weight_norm": normed,
    "pruned": pruned,
    "parallel": lambda: nn.DataParallel(plain()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MADE)
def test_tiles_and_mirror_images_of_every_make(name: str) -> None:
    net = MADE[name]()
    found = rf.tiles(net, size=(32, 48))
    assert found["shown"]["difference"] < 1e-12 and found["align"] == [2, 2]
    assert rf.mirror(net, size=(32, 48))["axes"]["y"]["off"] == 1.0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ask", [rf.tiles, rf.mirror])
def test_a_frozen_script_is_not_run_in_other_numbers(ask: Callable) -> None:
    net = torch.jit.freeze(torch.jit.script(plain().eval()))
    assert rf.audit(net, size=32, in_channels=3)["shift"] == [-0.5, -0.5]
    with pytest.raises(RfbenchError, match="give the script as it was before torch.jit.freeze"):
        ask(net, size=(32, 48), in_channels=3)


@pytest.mark.filterwarnings("ignore")
def test_a_script_for_one_cpu_names_the_one_it_was_made_of() -> None:
    net = torch.jit.optimize_for_inference(torch.jit.script(plain().eval()))
    with pytest.raises(RfbenchError, match="measure the script that it was made of"):
        rf.record(net, size=32, in_channels=3)


class Decomposed(nn.Module):
    """As torchao and torch.export leave a quantised network: rounded to int8, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, x: Tensor) -> Tensor:
        ops = torch.ops.quantized_decomposed
        for layer in self.net:
            span = 0.02, 0, -128, 127, torch.int8
            x = layer(ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *span), *span))
        return x


def test_rounding_to_integers_and_back_leaves_positions_alone() -> None:
    assert import_module("torch.ao.quantization.fx._decomposed")  # which defines the operations
    whole, plainly = (rf.theory(rf.record(net, size=32)) for net in (Decomposed(), plain()))
    assert whole == plainly
    with pytest.raises(RfbenchError, match="values that are rounded"):
        rf.effective(Decomposed(), torch.randn(1, 3, 32, 32))


def test_an_exported_program_has_an_effective_field() -> None:
    net, x = plain().eval(), torch.randn(1, 3, 32, 48)
    wanted, _ = rf.effective(net, x)
    program = torch.export.export(net, (x,))
    for made in (program, program.module()):
        found, _ = rf.effective(made, x, unit=wanted.unit)
        assert np.allclose(found.magnitude, wanted.magnitude, atol=1e-6)
    with pytest.raises(RfbenchError, match="export it with dynamic_shapes"):
        rf.tiles(program)


@pytest.mark.parametrize("ask", [rf.record, rf.audit, rf.tiles, rf.mirror])
def test_lazy_layers_are_one_sentence(ask: Callable) -> None:
    with pytest.raises(RfbenchError, match="lazy and has no weights yet. Run the network once"):
        ask(nn.Sequential(nn.LazyConv2d(4, 3)), size=16, in_channels=3)


def test_an_audit_of_a_network_without_weights() -> None:
    assert rf.audit(nn.MaxPool2d(3, 2), size=33, in_channels=3)["shift"] == [0, 0]


class Cropped(nn.Module):
    """The original U-Net's skip: rows and then columns are cut off, by different amounts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.up, self.c = nn.ConvTranspose2d(4, 4, 3, 2), nn.Conv2d(8, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        up = self.up(self.b(F.max_pool2d(a, 2)))
        h, w = up.shape[2:]
        return self.c(torch.cat([a[..., 2 : 2 + h, 1 : 1 + w], up], 1))


def test_an_audit_of_a_skip_that_is_cropped_unevenly() -> None:
    found = rf.audit(Cropped(), size=(37, 35), in_channels=3)
    assert len(found["shift"]) == 2 and found["status"] == "local"


def test_tiles_where_windows_begin_beyond_the_last_unit() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(2, 3, ceil_mode=True, count_include_pad=False),
        nn.Conv2d(4, 4, 2),
    )
    try:
        assert rf.tiles(net, size=(40, 37))["shown"]["difference"] < 1e-12
    except RfbenchError as error:
        assert "tiles cannot equal" in str(error)


class Area(nn.Module):
    """Its output is a map behind adaptive pooling, which resizing by area is."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.interpolate(self.a(x), size=(7, 8), mode="area"))


def test_an_output_that_is_a_map_is_the_last_map_behind_adaptive_pooling_too() -> None:
    net = Area().double()
    graph = rf.record(net, size=(14, 24), in_channels=3)
    assert graph.target == "b" and graph.maps()["b"] == (7, 8)
    counts, _ = rf.path_counts(graph, unit=(3, 3))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.rand(p.shape) + 0.5)
    x = torch.rand(1, 3, 14, 24, dtype=torch.float64, requires_grad=True)
    net(x)[0, :, 3, 3].sum().backward()
    assert x.grad is not None
    assert np.array_equal(counts > 0, (x.grad[0].sum(0) > 0).numpy())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MADE)
def test_effective_fields_of_every_make(name: str) -> None:
    seen, _ = rf.effective(MADE[name](), torch.randn(2, 3, 32, 32))
    assert seen.units == (16, 16) and seen.magnitude[:6].max() == 0 < seen.magnitude.max()


class OneImage(nn.Module):
    """It takes a batch of one image only."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x.reshape(1, 3, 12, 12))


def test_the_effective_field_of_a_network_that_takes_one_image_at_a_time() -> None:
    net, images = OneImage(), torch.randn(3, 3, 12, 12)
    seen, _ = rf.effective(net, images, of="sum")
    mine = images.clone().requires_grad_()
    for i in range(3):
        net(mine[i : i + 1])[0, :, 5, 5].sum().backward()
    assert mine.grad is not None
    expected = mine.grad.abs().sum((0, 1)).numpy() / 3
    np.testing.assert_allclose(seen.magnitude, expected, rtol=1e-5, atol=1e-9)


def test_lazy_layers_have_no_effective_field() -> None:
    with pytest.raises(RfbenchError, match="lazy and has no weights yet"):
        rf.effective(nn.Sequential(nn.LazyConv2d(4, 3)), torch.randn(1, 3, 8, 8))


def test_an_exported_program_says_its_own_input() -> None:
    """Also where its sizes are symbols, and of sequences."""
    shown = torch.zeros(2, 5, 32, 40)
    net = nn.Sequential(nn.Conv2d(5, 4, 3, 2, 1), nn.Conv2d(4, 2, 3)).eval()
    wide = ({0: torch.export.Dim("b"), 3: 2 * torch.export.Dim("w", min=8, max=64)},)
    fixed = torch.export.export(net, (shown[:1],))
    any_width = torch.export.export(net, (shown,), dynamic_shapes=wide)
    for program in (fixed, any_width):
        graph = rf.record(program)
        assert graph.size == (32, 40) and graph.channels == (5,)
        assert rf.theory(graph)["y"]["size"] == 7
    assert rf.record(any_width, (32, 56)).size == (32, 56)
    with pytest.raises(RfbenchError, match=r"for inputs with input.size\(\)\[3\] == 40: give"):
        rf.record(fixed, (32, 56))
    line = torch.export.export(nn.Conv1d(2, 4, 9, 4).eval(), (torch.zeros(1, 2, 64),))
    assert rf.record(line).size == (64,)


@pytest.mark.parametrize("command", ["theory", "effective", "tiles"])
def test_a_quantised_layer_is_one_sentence(command: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch import nn\nfrom torch.ao.nn.quantized import Conv2d\n"
        "def net():\n    return nn.Sequential(Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))\n"
    )
    done = CliRunner().invoke(main, ["rf", command, f"{tmp_path / 'own.py'}:net"])
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("Error: Sequential has a layer 0 that is quant")


LOADED = """
import torch
from pathlib import Path
HERE = Path(__file__).parent
def program():
    return torch.export.load(HERE / "net.pt2")
def script():
    return torch.jit.load(HERE / "net.pt")
def inside():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), script())
"""


@pytest.mark.parametrize("function", ["program", "script", "inside", "file"])
@pytest.mark.parametrize("command", ["theory", "mirror"])
def test_saved_networks_on_the_command_line(function: str, command: str, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 2, 3)).eval()
    program = torch.export.export(net, (torch.zeros(1, 3, 32, 32),))
    torch.export.save(program, tmp_path / "net.pt2")
    torch.jit.save(torch.jit.script(net), tmp_path / "net.pt")
    (tmp_path / "own.py").write_text(LOADED)
    size = ["--size", "32"] if function in ("script", "inside") else []
    own = tmp_path / "net.pt2" if function == "file" else f"{tmp_path / 'own.py'}:{function}"
    done = CliRunner().invoke(main, ["rf", command, str(own), *size])
    assert done.exit_code == 0, done.stderr
    told = {"theory": "  y, x  7     2       1", "mirror": "  y     -0.50 px  +1.00 px"}[command]
    assert told in done.stdout


def test_files_that_are_no_program(tmp_path: Path) -> None:
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    (tmp_path / "net.pt").write_bytes(b"no network")
    for name, why in (
        ("bad.pt2", "bad.pt2: "),
        ("other.pt2", "no such file"),
        ("net.pt", "is not read as a network. Write a function that builds it"),
    ):
        done = CliRunner().invoke(main, ["rf", "theory", str(tmp_path / name)])
        assert done.exit_code in (1, 2) and why in done.stderr
        assert done.stderr.splitlines()[-1].startswith("Error: ")
        assert "internal error" not in done.stderr
