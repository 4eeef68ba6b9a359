"""Inputs whose channels are not in dimension 1: found by the first convolution, said, or refused.

The oracle is the gradient of the module that the user has, on the tensor that it takes.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError, UsageError
from rfbench.spatial_graph.node import Reach


class Net(nn.Module):
    """Layers, and what runs them."""

    def __init__(self, run: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def frames(n: Net, x: Tensor) -> Tensor:
    """N x T x C x H x W, frame by frame."""
    return n.a(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def frame_by_frame(n: Net, x: Tensor) -> Tensor:
    """N x T x C x H x W, every frame taken out of it, and all put together."""
    return n.b(torch.cat([n.a(x[:, i]) for i in range(x.shape[1])], 1)).unsqueeze(2)


def normalised(n: Net, x: Tensor) -> Tensor:
    """The same, after every colour has got a mean of its own."""
    colours = [x[:, :, i] - mean for i, mean in enumerate((0.4, 0.5, 0.6))]
    return frame_by_frame(n, torch.stack(colours, 2))


def turned(n: Net, x: Tensor) -> Tensor:
    """From RGB to BGR as well, which mixes up whose axis it is."""
    colours = [x[:, :, i] - mean for i, mean in enumerate((0.4, 0.5, 0.6))]
    return frame_by_frame(n, torch.stack(colours[::-1], 2))


def rows_for_channels(n: Net, x: Tensor) -> Tensor:
    """N x 1 x H x W: every column is a vector of rows."""
    return n.a(x.squeeze(1)).unsqueeze(1)


VIDEO = {"a": nn.Conv2d(3, 4, 3, 2, 1), "b": nn.Conv2d(20, 4, 3)}
CASES: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {  # network, shape, channels' dimension
    "NTCHW, taken apart": (Net(frame_by_frame, **VIDEO), (5, 3, 12, 14), 2),
    "NTCHW, normalised": (Net(normalised, **VIDEO), (5, 3, 12, 14), 2),
    "NLC": (
        Net(
            lambda n, x: n.b(n.a(x.transpose(1, 2))).transpose(1, 2),
            a=nn.Conv1d(3, 4, 3, stride=2, padding=1),
            b=nn.Conv1d(4, 4, 5, padding=2),
        ),
        (24, 3),
        2,
    ),
    "NLC, as many positions as channels": (
        Net(lambda n, x: n.a(x.transpose(1, 2)), a=nn.Conv1d(8, 4, 3, padding=1)),
        (8, 8),
        2,
    ),
    "NLC, widened first": (
        Net(
            lambda n, x: n.b(n.a(x).transpose(1, 2)),
            a=nn.Linear(3, 4),
            b=nn.Conv1d(4, 4, 3, padding=1),
        ),
        (16, 3),
        2,
    ),
    "NHWC": (
        Net(
            lambda n, x: n.a(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1),
            a=nn.Conv2d(3, 4, (3, 5), padding=(1, 2)),
        ),
        (12, 10, 3),
        3,
    ),
    "NTCHW": (Net(frames, a=nn.Conv2d(3, 4, 3, padding=1)), (5, 3, 8, 6), 2),
    "NTCHW to 3-D": (
        Net(lambda n, x: n.a(x.transpose(1, 2)), a=nn.Conv3d(3, 4, 3, padding=1)),
        (5, 3, 6, 7),
        2,
    ),
    "NDHWC": (
        Net(lambda n, x: n.a(x.movedim(-1, 1)), a=nn.Conv3d(2, 4, 3, padding=1)),
        (5, 6, 7, 2),
        4,
    ),
    "NCL": (nn.Conv1d(8, 4, 3, padding=1), (8, 24), 1),
    "one channel last": (
        Net(lambda n, x: n.a(x.movedim(-1, 1)), a=nn.Conv2d(1, 4, 3, padding=1)),
        (9, 8, 1),
        3,
    ),
}


def gradient(net: nn.Module, shape: tuple[int, ...], dim: int, unit: tuple[int, ...]) -> np.ndarray:
    """|gradient| of a unit, summed over channels; those of the output are the only 4 in it."""
    own = copy.deepcopy(net).double()
    with torch.no_grad():
        for p in own.parameters():
            p.copy_(torch.rand(p.shape) + 0.5)
    x = torch.rand(1, *shape, dtype=torch.float64).requires_grad_()
    out = own(x)
    out.movedim(out.shape.index(4, 1), 1)[(0, slice(None), *unit)].sum().backward()
    assert x.grad is not None
    return x.grad[0].movedim(dim - 1, 0).sum(0).numpy()


@pytest.mark.parametrize("name", CASES)
def test_the_first_convolution_tells(name: str) -> None:
    net, shape, dim = CASES[name]
    graph = rf.record(net, inputs=[torch.empty(1, *shape)])
    assert graph.size == tuple(n for i, n in enumerate(shape, 1) if i != dim)
    unit = tuple((n - 1) // 2 for n in graph.map_size(graph.output))
    counts, _ = rf.path_counts(graph, unit=unit)
    seen = gradient(net, shape, dim, unit)
    assert counts.shape == seen.shape
    assert ((counts > 0) == (seen > 0)).all()


def test_the_user_may_say_the_axes() -> None:
    net = Net(lambda n, x: n.b(torch.relu(n.a(x))), a=nn.Linear(6, 6), b=nn.Linear(6, 2))
    shown = [torch.empty(1, 24, 6)]
    with pytest.raises(UsageError, match="input-axes NCL or NLC"):
        rf.record(net, inputs=shown)
    assert rf.record(net, inputs=shown, input_axes="NLC").size == (24,)
    counts, _ = rf.path_counts(rf.record(net, inputs=shown, input_axes="nlc"), unit=(5,))
    assert np.flatnonzero(counts).tolist() == [5]
    for wrong in ("NHWC", "LC", "NLL", "CNL"):
        with pytest.raises(UsageError, match="input-axes"):
            rf.record(net, inputs=shown, input_axes=wrong)


def test_rows_for_channels_of_an_image_of_one_channel() -> None:
    net = Net(rows_for_channels, a=nn.Conv1d(12, 4, 3, padding=1))
    assert rf.record(net, inputs=[torch.empty(1, 1, 12, 16)]).size == (12, 16)
    net.run = lambda n, x: n.a(x[:, 0]).unsqueeze(1)  # of the first channel alone
    assert rf.record(net, inputs=[torch.empty(1, 3, 12, 16)]).size == (12, 16)


def test_a_size_alone_does_not_make_positions_of_channels() -> None:
    net = CASES["NLC, as many positions as channels"][0]
    with pytest.raises(UsageError, match="takes positions of the input for its channels"):
        rf.record(net, size=(8,), in_channels=8)


def test_effective_fields_of_channels_last() -> None:
    net, _, _ = CASES["NHWC"]
    seen, _ = rf.effective(net, torch.randn(2, 12, 10, 3))
    assert seen.magnitude.shape == (12, 10) and (seen.magnitude > 0).sum() == 15


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=(1, 0), stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


SHAPE = (18, 22, 3)
MADE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "script": torch.jit.script,
    "trace": lambda net: torch.jit.trace(net, torch.zeros(1, *SHAPE)),
    "fx": torch.fx.symbolic_trace,
    "export": lambda net: torch.export.export(net, (torch.zeros(1, *SHAPE),)),
}


@pytest.mark.parametrize("make", MADE)
def test_channels_last_of_every_make(make: str) -> None:
    net = ChannelsLast().eval()
    made = MADE[make](net)
    for axes in (None, "NHWC"):
        graph = rf.record(made, inputs=[torch.empty(1, *SHAPE)], input_axes=axes)
        counts, _ = rf.path_counts(graph)
        np.testing.assert_array_equal(counts > 0, gradient(net, SHAPE, 3, (4, 4)) > 0)


def test_a_networks_own_hook_sees_the_input_that_it_takes() -> None:
    net = ChannelsLast()
    net.register_forward_pre_hook(lambda _module, args: (args[0][:, 1:, 3:],))  # rows, columns
    field = rf.theory(rf.record(net, inputs=[torch.empty(1, *SHAPE)]))
    assert [field[a]["center"] for a in "yx"] == [1, 4]


OWN = """
import torch
from torch import nn

class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1, stride=2)
    def forward(self, x):
        return self.a(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(4, 4, 3, padding=1)
    def forward(self, x):
        return self.a(x.transpose(1, 2)).transpose(1, 2)
"""


def test_every_command_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    image = ["own.py:Last", "--input", "40x32x3"]
    for args in (
        ["rf", "theory", *image],
        ["rf", "audit", *image],
        ["rf", "mirror", *image],
        ["rf", "tiles", *image],
        ["rf", "effective", *image, "--count", "2", "--output", "effective"],
        ["visualize-rf", *image, "--engine", "autograd", "--output", "maps"],
    ):
        done = CliRunner().invoke(main, args)
        assert done.exit_code == 0, done.stderr
        assert "N x H x W x C: 3 channels, 40x32 positions" in done.stderr + done.stdout
    told = CliRunner().invoke(main, ["rf", "tiles", "own.py:Sequence", "--input", "64x4"]).stdout
    assert "halo x " in told and "64 samples" in told and "px" not in told
    for wrong in (["--input-axes", "NLC"], ["--input", "40x32x3", "--input-axes", "NLC"]):
        done = CliRunner().invoke(main, ["rf", "theory", "own.py:Last", *wrong])
        assert done.exit_code == 2 and done.stderr.count("\n") == 1


class Cells(nn.Module):
    """A recurrent cell, step by step, behind a convolution."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.first, self.cell = nn.Conv1d(2, 4, 3, padding=1), cell

    def forward(self, x: Tensor) -> Tensor:
        x, held, out = self.first(x), None, []
        for t in range(x.shape[2]):
            held = self.cell(x[:, :, t], held)
            out.append(held[0] if isinstance(held, tuple) else held)
        return torch.stack(out, 2)


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_over_a_sequence_are_no_map_of_the_layer_before(cell: type) -> None:
    graph = rf.record(Cells(cell(4, 4)), inputs=[torch.empty(1, 2, 12)])
    with pytest.raises(RfbenchError, match="entries along dimension 2 were made one by one"):
        rf.theory(graph)
    assert rf.theory(graph, "first")["x"]["size"] == 3


def test_heads_of_their_own_over_one_vector_are_no_loop() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        y = n.a(x).mean((2, 3))
        return torch.stack([n.b(y), n.d(n.c(y))], 1)

    layers = {"b": nn.Linear(4, 3), "c": nn.Linear(4, 6), "d": nn.Linear(6, 3)}
    graph = rf.record(Net(run, a=nn.Conv2d(3, 4, 3), **layers), size=16)
    assert graph.target == "a"


def test_a_complex_map_made_real_keeps_its_real_part() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        return torch.complex(n.a(x), n.b(x)).to(torch.float32)

    net = Net(run, a=nn.Conv2d(1, 4, 3, padding=1), b=nn.Conv2d(1, 4, 7, padding=3))
    assert rf.theory(rf.record(net, size=32))["y"]["size"] == 3


def test_a_matrix_made_larger_by_ones_and_zeros_mixes_all_rows() -> None:
    """As timm's bilinear attention does (bat_resnext26ts): each row of every block of rows."""

    def run(n: Net, x: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(n.a(x), (3, 1))  # 3 blocks of rows
        small = n.b(means).view(1, 9, 1, 1).sigmoid()
        large = (small * torch.eye(4)).view(1, 3, 3, 4, 4).permute(0, 1, 3, 2, 4)
        return large.reshape(1, 1, 12, 12).matmul(n.a(x))

    net = Net(run, a=nn.Conv2d(1, 4, 1), b=nn.Conv2d(4, 9, (3, 1)))
    graph = rf.record(net, size=12)
    assert graph.witness(graph.output).reach in (Reach.WINDOWED, Reach.GLOBAL)
    x = torch.rand(1, 1, 12, 12).requires_grad_()
    run(net, x)[0, 0, 5, 5].backward()
    assert x.grad is not None and set(np.flatnonzero(x.grad[0, 0, :, 5].numpy())) >= {1, 5, 9}


def test_a_video_whose_axes_nothing_tells_is_asked_for_them() -> None:
    net, shape = Net(turned, **VIDEO), (5, 3, 12, 14)
    inputs = [torch.zeros(1, *shape)]
    with pytest.raises(UsageError, match=r"of 5x3x12x14 holds .+ --input-axes NCDHW, NTCHW or"):
        rf.record(net, inputs=inputs)
    graph = rf.record(net, inputs=inputs, input_axes="NTCHW")
    assert rf.theory(graph)["y"]["size"] == 7
