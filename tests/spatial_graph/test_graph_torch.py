"""The forms that torch gives a network: arguments, weights, functions and programs of its own."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import rfbench
from rfbench import rf
from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import A, Net, conv, examine

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

KERNEL = torch.ones(4, 4, 3, 3, dtype=torch.float64)
LISTS: dict[str, nn.Module] = {
    "valid": nn.Conv2d(3, 4, 3, stride=2, padding="valid"),
    "same": nn.Conv2d(3, 4, 4, padding="same", dilation=2),
    "padding": nn.Conv2d(3, 4, 3, padding=(1,)),  # type: ignore[arg-type]
    "stride": nn.Conv2d(3, 4, (3, 5), stride=(2,)),  # type: ignore[arg-type]
    "dilation": nn.Conv2d(3, 4, (3, 2), dilation=(2,), padding=(1,)),  # type: ignore[arg-type]
    "transposed": nn.Sequential(
        conv(), nn.ConvTranspose2d(4, 4, 3, (2,), (1,), (1,)),  # type: ignore[arg-type]
    ),
    "pools": nn.Sequential(conv(), nn.MaxPool2d([2], [1]), nn.AvgPool2d((3,), (2,), (1,))),  # type: ignore
    "function": Net(lambda n, x: F.conv2d(n.a(x), KERNEL, None, [2], (1,), (2,)), **A),
    "transposed_function": Net(
        lambda n, x: F.conv_transpose2d(n.a(x), KERNEL, None, (2,), (1,)), **A
    ),
    "aten": Net(
        lambda n, x: torch.ops.aten.convolution(n.a(x), KERNEL, None, [2], [1], [1], False, [0], 1),
        **A,
    ),
    "aten_padding": Net(
        lambda n, x: torch.ops.aten.conv2d.padding(n.a(x), KERNEL, None, [1], "valid", [2]), **A
    ),
    "backend": Net(
        lambda n, x: torch._convolution(  # type: ignore[attr-defined]
            n.a(x), KERNEL, None, [2], [1], [1], False, [0], 1, False, False, True, True
        ),
        **A,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_one_number_for_all_axes(name: str) -> None:
    module = LISTS[name]
    verdict = examine(module)
    assert verdict.reach == Reach.LOCAL and not verdict.wrong, (verdict.witness, verdict.wrong)


# -- weights that are computed ---------------------------------------------------------------------


def _with(change: Callable[[nn.Conv2d], Any]) -> nn.Module:
    module = nn.Sequential(conv(s=2), nn.ReLU(), conv(4, 4))
    change(module[0])  # type: ignore[arg-type]
    return module


WEIGHTS = {
    "old_weight_norm": nn.utils.weight_norm,
    "old_spectral_norm": nn.utils.spectral_norm,
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "orthogonal": nn.utils.parametrizations.orthogonal,
    "channels_pruned": lambda c: prune.ln_structured(c, "weight", 0.5, n=1, dim=0),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_computed(name: str) -> None:
    module = _with(WEIGHTS[name])  # type: ignore[arg-type]
    module(torch.zeros(1, 3, 16, 20))  # old spectral_norm keeps what it computed
    before = dict(module.state_dict())
    figures = rf.theory(rf.record(module, 32))["y"]
    assert (figures["size"], figures["stride"]) == (7, 2)
    counts, _ = rf.path_counts(rf.record(module, 32))
    assert (counts > 0).sum() == 49
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not any(p.is_meta for p in module.parameters())


# -- functions -------------------------------------------------------------------------------------


class OldStyle(torch.autograd.Function):
    """Without setup_context, as in most code."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, power: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x * x.abs() ** power

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * x, None


class NewStyle(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        return F.avg_pool2d(x, 3, 2, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        shape = x.shape
        with torch.enable_grad():
            y = torch.zeros(shape, dtype=x.dtype, requires_grad=True)
            return torch.autograd.grad(F.avg_pool2d(y, 3, 2, 1), y, grad)[0]


bound_early = OldStyle.apply
FUNCTIONS = {
    "old": lambda n, x: n.b(OldStyle.apply(n.a(x), 1.0)),
    "bound_early": lambda n, x: n.b(bound_early(n.a(x), 1.0)),
    "new": lambda n, x: n.b(NewStyle.apply(n.a(x))),
    "in_place": lambda n, x: n.b(bound_early(n.a(x).relu_(), 1.0).mul_(2) + n.a(x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_with_gradients_of_their_own(name: str) -> None:
    verdict = examine(Net(FUNCTIONS[name], **A))
    assert verdict.reach == Reach.LOCAL and not verdict.wrong, (verdict.witness, verdict.wrong)
    assert list(verdict.graph.layers)[:2] == ["a", "b"] or name == "in_place"


def test_a_write_to_a_view_beside_such_a_function_is_refused() -> None:
    def run(n: Net, x: Tensor) -> Tensor:
        y = bound_early(n.a(x), 1.0)
        y[:, :, :4] = n.b(y)[:, :, 4:8]
        return y

    verdict = examine(Net(run, **A))
    assert verdict.reach == Reach.UNSUPPORTED and "writes to a view" in verdict.witness.reason


# -- programs --------------------------------------------------------------------------------------


def _plain() -> nn.Module:
    return nn.Sequential(conv(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8, 1, 2)).eval()


IMAGE = torch.zeros(1, 3, 32, 48)
PROGRAMS: dict[str, Callable[[], Any]] = {
    "scripted": lambda: torch.jit.script(_plain()),
    "traced": lambda: torch.jit.trace(_plain(), IMAGE),
    "frozen": lambda: torch.jit.freeze(torch.jit.trace(_plain(), IMAGE)),  # type: ignore[arg-type]
    "in_part": lambda: nn.Sequential(torch.jit.script(_plain())),
    "training": lambda: torch.jit.script(_plain()).train(),
    "exported": lambda: torch.export.export(_plain(), (IMAGE,)).module(),
    "program": lambda: torch.export.export(_plain(), (IMAGE,)),
    "fx": lambda: torch.fx.symbolic_trace(_plain()),
    "compiled": lambda: torch.compile(_plain()),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    graph = rf.record(PROGRAMS[name](), (32, 48))
    figures = rf.theory(graph)["y"]
    assert (figures["size"], figures["stride"], figures["padding"]) == (3, 4, 1)
    assert (rf.path_counts(graph)[0] > 0).sum() == 9


@pytest.mark.parametrize(
    ("name", "why"),
    [("scripted", "before torch.jit.script"), ("exported", "before torch.export")],
)
def test_programs_are_not_fixed(name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        rfbench.fix(PROGRAMS[name]())


def test_quantised_layers_are_refused_by_name() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = nn.Sequential(conv(), nn.Flatten(), nn.Linear(4 * 9 * 12, 3))
        module = torch.ao.quantization.quantize_dynamic(whole, {nn.Linear})
    with pytest.raises(RfbenchError, match="layer 2 that is quantised.+its receptive field is the"):
        spatial_graph(module, (9, 12))


def test_deformable_convolutions_are_refused_by_name() -> None:
    layers = {"offset": conv(4, 18), "deform": torchvision.ops.DeformConv2d(4, 4, 3, padding=1)}
    net = Net(lambda n, x: n.deform(y := n.a(x), n.offset(y)), a=conv(3, 4), **layers)
    graph = spatial_graph(net, (9, 12))
    assert "its offsets depend on the values" in str(graph.witness(graph.output))
    assert (rf.path_counts(graph, "offset")[0] > 0).sum() == 25


# -- memory ----------------------------------------------------------------------------------------


class _Made(TorchDispatchMode):
    """The bytes of every new tensor that is not on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and not t.is_meta:
                self.bytes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return out


def test_no_weights_are_copied() -> None:
    module = torchvision.models.resnet50(weights=None)
    known = {t.untyped_storage().data_ptr() for t in module.state_dict().values()}
    with _Made() as made:
        graph = rf.record(module)
    assert sum(n for at, n in made.bytes.items() if at not in known) < 20e6
    assert Target(graph).units == (7, 7) and not module.conv1.weight.is_meta
