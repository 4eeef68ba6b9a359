"""Networks of sequences (1-D) and volumes (3-D): theory and path counts against gradients."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor, nn

from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.autograd.path_counts import path_counts as autograd_counts
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.graph import is_map
from tests.spatial_graph.cases import Net, examine


def causal(n: Net, x: Tensor) -> Tensor:
    """A temporal convolutional network: each layer sees what came before (Bai et al., 2018)."""
    for i, layer in enumerate(n.children()):
        x = torch.relu(layer(F.pad(x, (2 * 2**i, 0))))
    return x


def tcn() -> nn.Module:
    layers = {f"l{i}": nn.Conv1d(4 if i else 1, 4, 3, dilation=2**i) for i in range(5)}
    return Net(causal, **layers)


class WaveNet(nn.Module):
    """Gated causal convolutions with residuals and skips (van den Oord et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, 4, 1)
        rates = [1, 2, 4, 1, 2, 4]
        self.filters = nn.ModuleList(nn.Conv1d(4, 8, 2, dilation=d) for d in rates)
        self.mix = nn.ModuleList(nn.Conv1d(4, 4, 1) for _ in rates)
        self.skip = nn.ModuleList(nn.Conv1d(4, 6, 1) for _ in rates)
        self.end = nn.Conv1d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.start(x), torch.zeros(())
        for filters, mix, skip in zip(self.filters, self.mix, self.skip, strict=True):
            signal, gate = filters(F.pad(x, (filters.dilation[0], 0))).chunk(2, 1)
            y = torch.tanh(signal) * torch.sigmoid(gate)
            total = total + skip(y)
            x = x + mix(y)
        return self.end(torch.relu(total))


def m5() -> nn.Module:
    """Raw audio: a long first kernel, then pools (Dai et al., 2017)."""

    def block(i: int, o: int, k: int, s: int = 1) -> list[nn.Module]:
        return [nn.Conv1d(i, o, k, s), nn.BatchNorm1d(o), nn.ReLU(), nn.MaxPool1d(4)]

    return nn.Sequential(*block(1, 8, 80, 16), *block(8, 8, 3), *block(8, 16, 3))


class Separator(nn.Module):
    """Encoder, blocks of growing dilation with global norms, mask, decoder (Conv-TasNet, 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Conv1d(1, 8, 16, 8), nn.ConvTranspose1d(8, 1, 16, 8)
        self.wide = nn.ModuleList(nn.Conv1d(8, 12, 1) for _ in range(3))
        self.depth = nn.ModuleList(
            nn.Conv1d(12, 12, 3, padding=2**i, dilation=2**i, groups=12) for i in range(3)
        )
        self.norm = nn.ModuleList(nn.GroupNorm(1, 12) for _ in range(3))
        self.back = nn.ModuleList(nn.Conv1d(12, 8, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        codes = x = self.encode(x)
        for wide, depth, norm, back in zip(
            self.wide, self.depth, self.norm, self.back, strict=True
        ):
            x = x + back(norm(F.relu(depth(wide(x)))))
        return self.decode(codes * torch.sigmoid(x))


class UNet3(nn.Module):
    """Strided encoder, residual units, transposed convolutions and skips, as MONAI's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(1, 4, 3, 2, 1), nn.Conv3d(4, 8, 3, (1, 2, 2), 1)
        self.unit, self.way = nn.Conv3d(8, 8, 3, 1, 1), nn.Conv3d(8, 8, 1)
        self.norm = nn.InstanceNorm3d(8)
        self.up = nn.ConvTranspose3d(8, 4, 3, (1, 2, 2), 1, (0, 1, 1))
        self.out = nn.ConvTranspose3d(8, 2, 3, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.prelu(self.a(x), torch.tensor(0.2, dtype=x.dtype, device=x.device))
        b = self.b(a)
        b = F.relu(self.norm(self.unit(b))) + self.way(b)
        return self.out(torch.cat([a, self.up(b)], 1))


class VNet(nn.Module):
    """Kernels of 5, learned down- and up-sampling by 2 (Milletari et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.down = nn.Conv3d(1, 4, 5, 1, 2), nn.Conv3d(4, 8, 2, 2)
        self.b, self.up = nn.Conv3d(8, 8, 5, 1, 2), nn.ConvTranspose3d(8, 4, 2, 2)
        self.c = nn.Conv3d(8, 2, 5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = F.elu(self.a(x) + x)
        b = self.down(a)
        b = F.elu(self.b(b) + b)
        return self.c(torch.cat([F.elu(self.up(b)), a], 1))


def slow_fast() -> nn.Module:
    """What else volumes are put through: pools, resizing, padding by pixels."""
    return nn.Sequential(
        nn.ReflectionPad3d((1, 1, 1, 1, 0, 0)),
        nn.Conv3d(1, 4, (1, 3, 3), (1, 2, 2)),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0), groups=4),
        nn.Upsample(scale_factor=(1, 2, 2), mode="trilinear"),
        nn.AvgPool3d(2, 2, ceil_mode=True),
    )


def sounds() -> nn.Module:
    """What else sequences are put through."""
    return nn.Sequential(
        nn.ReplicationPad1d((3, 1)),
        nn.Conv1d(2, 4, 5, 2),
        nn.AvgPool1d(3, 2, 1),
        nn.Upsample(scale_factor=2, mode="linear"),
        nn.Conv1d(4, 4, 3, padding="same", padding_mode="circular"),
        nn.ReflectionPad1d(1),
        nn.AdaptiveAvgPool1d(6),
        nn.Upsample(scale_factor=3),
    )


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "tcn": (tcn, (96,)),
    "wavenet": (WaveNet, (64,)),
    "m5": (m5, (3200,)),
    "separator": (Separator, (144,)),
    "sounds": (sounds, (48,)),
    "unet3": (UNet3, (8, 16, 16)),
    "vnet": (VNet, (8, 12, 10)),
    "slow_fast": (slow_fast, (4, 16, 20)),
}


def channels_of(net: nn.Module) -> int:
    return next(m.in_channels for m in net.modules() if isinstance(m, nn.Conv1d | nn.Conv3d))


@pytest.mark.parametrize("name", NETS)
def test_the_graph_reads_what_gradients_say(name: str) -> None:
    build, size = NETS[name]
    net = build()
    verdict = examine(net, size, channels_of(net))
    assert not verdict.wrong, verdict.wrong
    assert str(verdict.reach) == "local", verdict.witness


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("pool", ["count", "mean"])
def test_both_engines_count_alike(name: str, pool: str) -> None:
    if name in ("sounds", "slow_fast") and pool == "count":
        pytest.skip("the engines count an interpolation's taps in two ways")
    build, size = NETS[name]
    net = build()
    graph = rf.record(net, size)
    # the autograd engine takes no pools with windows of unequal sizes
    target = Target(graph, "5" if name == "sounds" else None)
    for unit in (target.center, tuple(n - 1 for n in target.units)):
        ours = target.counts(unit, Convention("single", pool, "count"))
        theirs = autograd_counts(
            net, size, to=target.name, unit=unit, channels="single", pool=pool, gates="count"
        )
        assert np.allclose(np.ldexp(ours.counts, ours.exponent), theirs, rtol=1e-9), unit


@pytest.mark.parametrize("name", ["tcn", "wavenet", "m5", "unet3", "vnet"])
def test_theory_holds_what_paths_reach(name: str) -> None:
    build, size = NETS[name]
    graph = rf.record(build(), size)
    target, names = Target(graph), graph.names
    for unit in (target.center, tuple(0 for _ in size)):
        counts = target.counts(unit).counts
        box = target.geometry.box(unit)
        reached = [(int(at.min()), int(at.max())) for at in np.nonzero(counts)]
        if name in ("tcn", "wavenet", "m5"):
            assert reached == list(box)
        assert all(a <= lo and hi <= b for (lo, hi), (a, b) in zip(reached, box, strict=True))
    assert [k for k in rf.theory(graph) if k != "misaligned"] == list(names)


def test_a_causal_network_sees_only_what_came_before() -> None:
    graph = rf.record(tcn(), 256)
    x = rf.theory(graph)["x"]
    assert (x["size"], x["stride"], x["region"]) == (63, 1, (-62, 0))
    counts, figures = rf.path_counts(graph, unit=(127,))
    assert counts.shape == (256,)
    assert figures["support"] == {"left": 65, "right": 127}
    assert figures["shift"] == pytest.approx((-31,))


def test_a_volume_has_three_axes() -> None:
    net = nn.Sequential(nn.Conv3d(1, 4, 3, 2, 1), nn.Conv3d(4, 4, (5, 3, 3), (1, 2, 2), (2, 1, 1)))
    graph = rf.record(net, inputs=[torch.zeros(1, 1, 32, 32, 32)])
    theory = rf.theory(graph)
    assert [(theory[a]["size"], theory[a]["stride"]) for a in "zyx"] == [(11, 2), (7, 4), (7, 4)]
    counts, figures = rf.path_counts(graph, unit=(7, 3, 3))
    ends = [(int(at.min()), int(at.max())) for at in np.nonzero(counts)]
    assert ends == [(9, 19), (9, 15), (9, 15)]
    assert figures["size"] == [11, 7, 7] and figures["read"] == 1


def test_as_many_axes_as_the_first_convolution_has() -> None:
    assert rf.record(tcn()).size == (16384,)
    assert rf.record(UNet3(), 16).size == (16, 16, 16)
    assert rf.record(nn.Sequential(nn.Conv2d(3, 4, 3))).size == (224, 224)

    def flat(n: Net, x: Tensor) -> Tensor:
        return n.a(x[:, :1, 0])

    # a network of images whose only convolution is one of sequences
    assert rf.record(Net(flat, a=nn.Conv1d(1, 2, 3)), 64).size == (64, 64)


def test_a_volume_is_never_an_image_without_a_batch() -> None:
    net = nn.Sequential(nn.Conv3d(1, 4, (5, 3, 3), padding=(2, 1, 1)))
    assert net(torch.zeros(1, 9, 9, 9)).shape == (4, 9, 9, 9)  # torch takes it
    with pytest.raises(UsageError, match=r"N x C x D x H x W"):
        rf.record(net, size=(32, 32), in_channels=1)
    with pytest.raises(RfbenchError, match="without a batch"):
        rf.record(nn.Sequential(nn.Conv2d(1, 4, 3)), inputs=[torch.zeros(1, 1, 32)])


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_nor_in_scripted_code() -> None:
    net = torch.jit.script(nn.Sequential(nn.Conv3d(1, 4, (5, 3, 3), padding=(2, 1, 1))))
    with pytest.raises(RfbenchError, match="without a batch"):
        rf.record(net, size=(32, 32), in_channels=1)
    theory = rf.theory(rf.record(net, 16))  # of volumes, as its convolution says
    assert [theory[axis]["size"] for axis in "zyx"] == [5, 3, 3]


def test_units_and_sizes_have_as_many_numbers_as_axes() -> None:
    graph = rf.record(tcn(), 256)
    with pytest.raises(UsageError, match="its map is 256, so a unit is x"):
        rf.path_counts(graph, unit=(1, 2))
    with pytest.raises(UsageError, match="units are 0 to 255"):
        rf.path_counts(graph, unit=(256,))
    for size in ((1, 2, 3, 4), (), 0, (8, 0)):
        with pytest.raises(UsageError, match="a size is"):
            rf.record(tcn(), size)


def test_of_inputs_of_different_axes_those_with_the_most_are_measured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A sound beside an image: the mean over all of it is a value of each channel."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(1, 2, 3), nn.Conv2d(1, 2, 5)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.a(x).mean(-1)[:, :, None, None] + self.b(y)

    graph = rf.record(Both(), inputs=[torch.zeros(1, 1, 8), torch.zeros(1, 1, 8, 8)])
    assert rf.theory(graph)["y"]["size"] == 5 and not graph.inputs
    assert "input.0 (1x8) is no map but a condition: any values" in caplog.text
    with pytest.raises(RfbenchError, match="It takes fewer inputs than are given"):
        rf.record(Both(), inputs=[torch.zeros(1, 1, 8), *[torch.zeros(1, 1, 8, 8)] * 2])


# -- reach along one axis --------------------------------------------------------------------------


def mixed(n: Net, x: Tensor) -> Tensor:
    return n.b(n.columns(n.a(x)))


def test_learned_mixing_along_x_leaves_y_measured() -> None:
    net = Net(mixed, a=nn.Conv2d(3, 4, 7, 2, 3), columns=nn.Linear(16, 16), b=nn.Conv2d(4, 4, 1))
    graph = rf.record(net, 32)
    theory = rf.theory(graph)
    assert theory["global_along"] == "x"
    assert (theory["y"]["size"], theory["y"]["stride"]) == (7, 2)
    assert (theory["x"]["size"], theory["x"]["stride"], theory["x"]["region"]) == (
        32,
        None,
        (0, 31),
    )
    verdict = examine(net, (32, 32), 3)
    assert not verdict.wrong, verdict.wrong
    counts, figures = rf.path_counts(graph, unit=(8, 3))
    support = figures["support"]
    assert (support["top"], support["bottom"], support["left"], support["right"]) == (13, 19, 0, 31)
    assert (counts == counts[13]).all(1)[13:20].all()
    ours = Target(graph).counts((8, 3))
    theirs = autograd_counts(net, (32, 32), to="b", unit=(8, 3))
    assert np.allclose(np.ldexp(ours.counts, ours.exponent), theirs)
    assert "along x" in figures["why_none"]
    assert figures["shift"] == (-0.5, None) and figures["stride"] == [2, None]
    assert figures["gridding"] == pytest.approx(1 / 7)  # 7 rows: 4 of one phase, 3 of the other
    assert figures["size"] == [7, 32] and figures["read"] == 1 and not figures["cut"]


def test_a_residual_around_mixing_adds_nothing_along_its_axis() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        x = n.a(x)
        return n.b(x + n.rows(x.transpose(2, 3)).transpose(2, 3))

    net = Net(run, a=nn.Conv2d(1, 4, 3, 1, 1), rows=nn.Linear(12, 12), b=nn.Conv2d(4, 4, 3, 1, 1))
    graph = rf.record(net, (12, 20), in_channels=1)
    theory = rf.theory(graph)
    assert theory["global_along"] == "y"
    assert theory["y"]["region"] == (0, 11) and theory["x"]["size"] == 5
    verdict = examine(net, (12, 20), 1)
    assert not verdict.wrong, verdict.wrong


def test_mixing_that_misses_the_border_has_no_field_beside_a_residual() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        return x[..., :8] + n.columns(x[..., :4]).mean(1, keepdim=True)

    graph = rf.record(Net(run, columns=nn.Linear(4, 8)), (6, 10), in_channels=1)
    x = rf.theory(graph)["x"]
    assert x["size"] is None  # unit 7 sees columns 0 to 3, and 7


def test_mixing_of_time_alone_is_a_vector() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.Linear(16, 5))
    graph = rf.record(net, (16,))
    assert not is_map(graph.output)  # as behind a flattened map: no positions are left


# -- on the command line ---------------------------------------------------------------------------

OWN = """
from torch import nn
def sequence():
    return nn.Sequential(nn.ZeroPad1d((4, 0)), nn.Conv1d(1, 2, 3, dilation=2))
def volume():
    return nn.Sequential(nn.Conv3d(1, 2, (3, 5, 1), 2, (1, 2, 0)))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)


def run(*args: str) -> str:
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("own")
def test_theory_tells_of_causality_and_time() -> None:
    text = run("rf", "theory", "own.py:sequence", "--size", "64", "--rate", "1000")
    assert "64 units at 64 samples, 1 channel: local" in text
    assert "Causal: nothing after a unit's position is read; looks back 4 samples (4 ms)." in text
    assert "At 1000 Hz: field 5 samples (5 ms), stride 1 sample (1 ms)." in text
    failed = CliRunner().invoke(main, ["rf", "theory", "own.py:volume", "--rate", "9"])
    assert failed.exit_code == 2 and "sampling rate of a sequence" in failed.output


@pytest.mark.usefixtures("own")
def test_theory_names_three_axes() -> None:
    text = run("rf", "theory", "own.py:volume", "--size", "16x20x24", "--unit", "3,4,5")
    rows = [line.split()[:3] for line in text.splitlines()[2:5]]
    assert rows == [["depth", "3", "2"], ["y", "5", "2"], ["x", "1", "2"]]
    assert "8x10x12 units at 16x20x24 voxels" in text
    listed = run("rf", "theory", "own.py:volume", "--input", "1x16x20x24", "--list-layers")
    assert listed.split() == ["0", "8x10x12", "stride", "2"]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(("name", "unit"), [("sequence", "samples"), ("volume", "voxels")])
def test_figures_of_sequences_and_volumes(name: str, unit: str) -> None:
    text = run("visualize-rf", f"own.py:{name}", "--size", "16", "--output", "out")
    assert f"({unit})" in text.splitlines()[0]
    assert Path("out/maps.png").stat().st_size > 10_000
    maps = np.load("out/maps.npz")
    assert all(maps[key].ndim == {"sequence": 1, "volume": 3}[name] for key in maps)
