"""N' with autograd, against counts by hand, paths taken one by one and networks rewritten."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.autograd.path_counts import path_counts


class Net(nn.Module):
    """Layers by name and a forward pass as a function of them."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def conv(
    kernel: int, stride: int = 1, padding: int = 0, c_in: int = 1, c_out: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, padding)


def counts(module: nn.Module, side: int, unit: int = 0, to: str = "", **more: Any) -> np.ndarray:
    return path_counts(module, (side, side), to=to, unit=(unit, unit), **more)


def functional(
    run: Callable[[Tensor], Any], side: int = 4, unit: int = 0, **more: Any
) -> np.ndarray:
    """The map of a function of one channel."""
    return counts(Net(lambda net, x: run(x)), side, unit, in_channels=1, **more)


def centre(counts: np.ndarray) -> tuple[float, float]:
    rows, columns = counts.sum(1), counts.sum(0)
    height, width = counts.shape
    return rows @ np.arange(height) / rows.sum(), columns @ np.arange(width) / columns.sum()


# --- small networks, counted by hand ---


def test_hand_check_of_the_paper() -> None:
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = 1
    assert (counts(conv(3, padding=1), 5, 2) == expected).all()


def test_strided_kernels_read_what_they_read() -> None:
    one = counts(conv(1, 2), 6, 1)
    assert one[2, 2] == 1 and one.sum() == 1
    two = counts(nn.Sequential(conv(3, 2, 1), conv(3, 2, 1)), 16, 2, to="1")
    # per axis: the windows of units 3, 4, 5 of the first map, around pixels 6, 8 and 10
    row = np.zeros(16)
    row[5:12] = [1, 1, 2, 1, 2, 1, 1]
    assert (two == np.outer(row, row)).all()


def test_a_chain_counts_the_product_of_its_kernels() -> None:
    layers = [
        conv(3, 2, 0, 3, 4),
        nn.ReLU(True),
        nn.MaxPool2d(2),
        conv(5, 1, 0, 4, 8),
        nn.BatchNorm2d(8),
    ]
    net = nn.Sequential(*layers)
    assert counts(net, 40, 1).sum() == pytest.approx(9 * 4 * 25)
    assert counts(net, 40, 1, channels="real").sum() == 9 * 4 * 25 * 3 * 4 * 8


def test_branches_add_also_in_place() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        kept = x
        out = F.relu(net.a(x))
        out += kept
        return net.relu(out) - x  # a difference counts both sides: paths, not values

    net = Net(run, a=conv(3, padding=1), relu=nn.ReLU(inplace=True))
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = 1
    expected[2, 2] = 3
    assert (counts(net, 5, 2) == expected).all()


def test_out_of_place_activations_do_not_alias() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = F.relu(x)
        y += net.a(x)
        return y + x  # x is as it was

    assert counts(Net(run, a=conv(1)), 2)[0, 0] == 3


def test_concatenated_channels_count_by_their_share() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        return torch.cat([net.a(x), net.b(x)], 1)

    net = Net(run, a=conv(1, c_out=3), b=conv(3, padding=1, c_out=1))
    expected = np.full((3, 3), 0.25)
    expected[1, 1] = 1
    assert (counts(net, 3, 1) == expected).all()
    real = counts(net, 3, 1, channels="real")
    assert real[1, 1] == 4 and real[0, 0] == 1


def test_depthwise_grouped_and_transposed_convolutions_keep_the_count() -> None:
    depthwise = nn.Conv2d(4, 4, 3, groups=4)
    grouped = nn.Conv2d(4, 6, 3, groups=2)
    up = nn.ConvTranspose2d(6, 4, 2, 2, groups=2)
    net = nn.Sequential(depthwise, grouped, up)
    assert counts(net, 9, 3).sum() == pytest.approx(81)
    # each unit of the upsampled map comes from one below
    assert (counts(net, 9, 2) == counts(net, 9, 3)).all()


def test_channels_last_linear_is_a_1x1_convolution() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        x = net.a(x).permute(0, 2, 3, 1)
        x = net.linear(F.layer_norm(x, (4,)))
        return x.permute(0, 3, 1, 2)

    net = Net(run, a=conv(3, c_out=4), linear=nn.Linear(4, 7))
    assert counts(net, 6, 2).sum() == pytest.approx(9)
    # a layer in between whose channels come last is read as the map that it is
    inner = counts(net, 6, 2, to="linear")
    assert inner.sum() == pytest.approx(9) and inner[2:5, 2:5].all()
    assert counts(net, 6, 2, source="linear") == pytest.approx(np.diag([0.0, 0, 1, 0]))


def paths_of_pool(side: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> Callable:
    def count(unit: int) -> np.ndarray:
        row = np.zeros(side)
        for tap in range(kernel):
            place = unit * stride - padding + tap * dilation
            if 0 <= place < side:
                row[place] += 1
        return np.outer(row, row)

    return count


@pytest.mark.parametrize("side", [5, 6, 7, 8])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"),
    [(2, 2, 0, True), (3, 2, 1, False), (3, 2, 0, True), (3, 2, 1, True), (3, 3, 1, True)],
)
def test_pools_count_their_windows(
    side: int, kernel: int, stride: int, padding: int, ceil: bool
) -> None:
    count = paths_of_pool(side, kernel, stride, padding)
    for pool in (nn.MaxPool2d, nn.AvgPool2d):
        layer = pool(kernel, stride, padding, ceil_mode=ceil)
        for unit in range(layer(torch.zeros(1, 1, side, side)).shape[-1]):
            assert (counts(layer, side, unit, in_channels=1) == count(unit)).all()


def test_pools_of_every_kind() -> None:
    dilated = counts(nn.MaxPool2d(3, 2, 1, dilation=2), 9, 1, in_channels=1)
    assert (dilated == paths_of_pool(9, 3, 2, 1, 2)(1)).all()
    # an average that does not count its padding divides by what the window holds
    corner = functional(
        lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False), 5, 2, pool="mean"
    )
    assert corner[4, 4] == 1 and corner.sum() == 1
    assert functional(lambda x: F.adaptive_avg_pool2d(x, 2), 6, 1).sum() == 9
    assert functional(lambda x: F.adaptive_avg_pool2d(x, (2, None)), 6, 1, pool="mean").sum() == 1
    assert functional(lambda x: x.mean((2, 3), keepdim=True)).sum() == 16
    assert functional(lambda x: x.mean((2, 3), keepdim=True), pool="mean").sum() == 1
    assert functional(lambda x: torch.amax(x, (2, 3), True), pool="mean").sum() == 16
    with pytest.raises(RfbenchError, match="5 x 5 to 2 x 2"):
        functional(lambda x: F.adaptive_avg_pool2d(x, 2), 5)


def test_fixed_kernels_keep_their_shape() -> None:
    blur = timm.layers.BlurPool2d(2, filt_size=3, stride=2)
    binomial = np.outer([1, 2, 1], [1, 2, 1])
    assert (counts(blur, 8, 1, in_channels=2)[1:4, 1:4] == binomial).all()
    assert (counts(blur, 8, 1, in_channels=2, pool="mean")[1:4, 1:4] == binomial / 16).all()
    anyone = timm.layers.BlurPool2d(None, filt_size=3, stride=2)  # expands its buffer
    assert (counts(anyone, 8, 1, in_channels=2)[1:4, 1:4] == binomial).all()
    with pytest.raises(RfbenchError, match="fixed kernel"):
        counts(copy.deepcopy(blur).to("meta"), 8, in_channels=2)


# --- gates ---


def gated(net: Any, x: Tensor) -> Tensor:
    gate = torch.sigmoid(net.excite(F.relu(net.squeeze(x.mean((2, 3), keepdim=True)))))
    return x * gate


def test_a_gate_is_ignored_or_counted() -> None:
    gate = Net(gated, squeeze=conv(1, c_in=4, c_out=2), excite=conv(1, c_in=2, c_out=4))
    net = nn.Sequential(conv(1, c_in=1, c_out=4), gate)
    ignored = counts(net, 3, 1)
    assert ignored[1, 1] == 1 and ignored.sum() == 1
    counted = np.ones((3, 3))
    counted[1, 1] = 2
    assert counts(net, 3, 1, gates="count") == pytest.approx(counted)
    mean = counts(net, 3, 1, gates="count", pool="mean")
    assert mean[1, 1] == pytest.approx(1 + 1 / 9) and mean[0, 0] == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x * F.adaptive_avg_pool2d(x, 1),
        lambda x: x.mul_(x.mean((2, 3), keepdim=True)),
        lambda x: x + F.avg_pool2d(x, 4),  # a plain window, but without positions
        lambda x: x * x.mean((2, 3), keepdim=True).expand_as(x),
        lambda x: x + F.interpolate(F.adaptive_avg_pool2d(x, 1), x.shape[-2:], mode="bilinear"),
        lambda x: x * F.adaptive_max_pool2d(x, 1).flatten(1).softmax(1)[:, :, None, None],
        lambda x: x / (1e-6 + x.flatten(2).norm(dim=2)[..., None, None]),
        lambda x: x / x.var((2, 3), keepdim=True).add(1e-5).sqrt(),
        lambda x: x * F.conv1d(x.mean((2, 3))[:, None], torch.rand(1, 1, 3), padding=1)[..., None],
    ],
)
def test_contexts_of_every_form(run: Callable[[Tensor], Tensor]) -> None:
    ignored, counted = functional(run), functional(run, gates="count")
    assert ignored[0, 0] == 1 and ignored.sum() == 1
    assert counted.sum() == pytest.approx(17) and counted[3, 3] == pytest.approx(1)


def test_contexts_that_join_by_concatenation() -> None:
    def run(x: Tensor) -> Tensor:
        context = F.adaptive_avg_pool2d(x, 1)
        return torch.cat([x, x, context.expand(-1, -1, 4, 4)], 1)

    assert functional(run).sum() == pytest.approx(2 / 3)
    assert functional(run, gates="count").sum() == pytest.approx((2 + 16) / 3)


def test_two_maps_multiplied_count_both_paths() -> None:
    assert functional(lambda x: x * F.avg_pool2d(x, 3, 1, 1), 5, 2).sum() == 10


# --- forms of functions ---


@pytest.mark.parametrize(
    "run",
    [
        F.relu,
        torch.relu,
        lambda x: torch.relu_(x) * 0.5,
        lambda x: F.hardswish(x, inplace=True).clamp_(0, 6).neg(),
        lambda x: F.gelu(F.silu(x)) * torch.ones(1, 1, 4, 4),
        lambda x: 1 - x / 3,
        lambda x: torch.ops.aten.relu.default(x.float()),
        lambda x: F.dropout(F.batch_norm(x, torch.zeros(1), torch.ones(1)), 0.5, training=False),
        lambda x: F.instance_norm(x.contiguous().detach()),
        lambda x: x.unsqueeze(1).flatten(1, 2)[:, :, :],
        lambda x: torch.stack(list(x.unbind(2)), 2),
        lambda x: F.pixel_unshuffle(F.interpolate(x, scale_factor=2), 2),
    ],
)
def test_the_identity_in_many_forms(run: Callable[[Tensor], Tensor]) -> None:
    found = functional(run, unit=2)
    assert found[2, 2] == 1 and found.sum() == 1


def test_writes_into_views_and_fresh_tensors_count() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        out = x.new_zeros(1, 2, 5, 5)
        out[:, :1] = net.a(x)
        out[:, 1:] += x
        view = out[:, :1]
        view.add_(x)
        return out

    found = counts(Net(run, a=conv(3, padding=1)), 5, 2)
    assert found.sum() == pytest.approx((9 + 1 + 1) / 2)


def test_reflected_padding_counts_twice_what_it_repeats() -> None:
    found = counts(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), 4, 0)
    assert (found[:2, :2] == [[1, 2], [2, 4]]).all() and found.sum() == 9


class Stopped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2


def scripted(x: Tensor) -> Tensor:
    with warnings.catch_warnings():  # TorchScript is deprecated, and still met
        warnings.simplefilter("ignore")
        return torch.jit.trace(torch.square, torch.zeros(1, 1, 4, 4))(x)


def ungraded(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda x: x.softmax(-1), "torch.softmax"),
        (lambda x: x @ x, "torch.matmul"),
        (lambda x: torch.einsum("bchw,bcij->bchw", x, x), "torch.einsum"),
        (lambda x: F.scaled_dot_product_attention(x, x, x), "torch.scaled_dot_product_attention"),
        (lambda x: torch.sort(x)[0], "torch.sort"),
        (lambda x: x * x[0, 0, 0, 0].item(), "torch.item"),
        (lambda x: torch.fft.fft2(x), "torch.fft"),
        (lambda x: F.conv2d(x, x[:, :, :2, :2]), "computed from the map"),
        (lambda x: Stopped.apply(x) + 1, "autograd.Function"),
        (lambda x: scripted(x) + 1, "TorchScript"),
        (ungraded, "no_grad"),
        (lambda x: x + torch.sqrt(x.mean(1).cumsum(1)), "torch.cumsum"),
    ],
)
def test_what_is_not_known_is_refused_by_name(run: Callable[[Tensor], Tensor], name: str) -> None:
    inner = nn.Sequential(nn.Identity(), Net(lambda net, x: run(x)))
    with pytest.raises(RfbenchError, match=f"{name}.* in layer 1|in layer 1 .*{name}"):
        counts(inner, 4, in_channels=1)


# --- layers and errors ---


def test_a_map_between_two_layers() -> None:
    def run(net: Any, x: Tensor) -> Tensor:
        y = net.relu(net.a(x))
        y += x
        y = net.relu(net.b(y))
        return net.c(y)

    layers = {"a": conv(3, padding=1), "b": conv(3, padding=1), "c": conv(5, padding=2)}
    net = Net(run, relu=nn.ReLU(inplace=True), **layers)
    assert counts(net, 9, 4, source="relu").sum() == 9 * 25  # at the relu's output, before `y += x`
    assert counts(net, 9, 4, source="relu#2").sum() == 25
    assert counts(net, 9, 4, to="relu#2").sum() == 9 * (9 + 1)
    assert counts(net, 9, 4, source="a", to="a").sum() == 1
    with pytest.raises(UsageError, match=r"relu#3.*called 2 times"):
        counts(net, 9, 4, to="relu#3")
    with pytest.raises(UsageError, match="'c' is not reached"):
        counts(net, 9, 4, source="c", to="b")
    with pytest.raises(UsageError, match="Did you mean: relu"):
        counts(net, 9, 4, to="rellu")
    with pytest.raises(UsageError, match=r"unit \(9, 9\) is outside 'b', which is 9 x 9"):
        counts(net, 9, 9, to="b")


def test_errors_name_the_thing() -> None:
    parallel = Net(lambda net, x: (net.a(x), net.b(x))[1], a=conv(1), b=conv(1))
    with pytest.raises(RfbenchError, match="no path leads from 'a' to 'b'"):
        counts(parallel, 4, source="a", to="b")
    with pytest.raises(UsageError, match=r"'0' is not a map .* but \(1, 16\)"):
        counts(nn.Sequential(nn.Flatten(), nn.Identity()), 4, to="0", in_channels=1)
    with pytest.raises(RfbenchError, match="layer 0 fails on an input of 1 x 1 x 2 x 2"):
        counts(nn.Sequential(conv(3), conv(3)), 2, to="1")
    with torch.device("meta"):
        deep = nn.Sequential(*[conv(3, padding=1, c_in=256, c_out=256) for _ in range(110)])
    with pytest.raises(RfbenchError, match="overflowed; use the graph engine"):
        counts(deep, 4, channels="real")


def test_the_users_module_is_left_alone() -> None:
    net = nn.Sequential(conv(3, c_out=2), nn.BatchNorm2d(2), nn.ReLU()).train()
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        counts(net, 8, 1)
    assert net.training and net[0].weight.requires_grad and net[0].weight.dtype is torch.float32
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not net[0]._forward_hooks
    again = counts(copy.deepcopy(net).to("meta"), 8, 1)
    assert (again == counts(net, 8, 1)).all()


# --- whole networks ---


def all_ones(net: nn.Module) -> nn.Module:
    """N' of a torchvision ResNet, made by hand from other modules."""
    for name, child in net.named_children():
        if isinstance(child, nn.Conv2d):
            nn.init.ones_(child.weight)
        elif isinstance(child, nn.MaxPool2d):
            pool = nn.Conv2d(64, 64, 3, 2, 1, groups=64, bias=False)
            setattr(net, name, all_ones(nn.Sequential(pool)))
        elif isinstance(child, (nn.BatchNorm2d, nn.ReLU)):
            setattr(net, name, nn.Identity())
        else:
            all_ones(child)
    return net


def test_resnet18_equals_the_network_rewritten_by_hand() -> None:
    net = torchvision.models.resnet18()
    found = counts(net, 64, 1, to="layer4", channels="real")
    trunk = nn.Sequential(*list(all_ones(net).double().children())[:-2])
    x = torch.zeros(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    trunk(x)[0, :, 1, 1].sum().backward()
    assert x.grad is not None
    assert found == pytest.approx(x.grad.sum((0, 1)).numpy(), rel=1e-12)
    # all branches agree in resnet18, so both conventions have one shape
    single = counts(net, 64, 1, to="layer4")
    assert centre(found) == pytest.approx(centre(single), abs=0.2)


def test_resnet18_is_shifted_after_its_stem_and_vgg_is_not() -> None:
    net = torchvision.models.resnet18()
    found = path_counts(net, (576, 32), to="layer4", source="maxpool", unit=(8, 0))
    assert centre(found)[0] - ((8 - 17 / 2) * 8 + 143 / 2) == pytest.approx(-3.5)
    assert found.any(1).sum() == 107  # (435 - 11) / 4 + 1
    clipped = counts(net, 224, 3, to="layer4")
    assert centre(clipped)[0] - 111.5 == pytest.approx(-11.8, abs=0.05)
    with torch.device("meta"):
        vgg = torchvision.models.vgg11()
    first, last = counts(vgg, 64, 0, to="features"), counts(vgg, 64, 1, to="features")
    assert first == pytest.approx(last[::-1, ::-1]) and first == pytest.approx(first.T)


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("shufflenet_v2_x0_5", "conv5"),  # channel split and shuffle
        ("squeezenet1_1", "features"),  # ceil_mode
        ("efficientnet_b0", "features"),  # gates
        ("convnext_tiny", "features"),  # channels-last
        ("googlenet", "inception5b"),
        ("densenet121", "features"),
    ],
)
def test_torchvision_networks(name: str, to: str) -> None:
    with torch.device("meta"):
        more = {"init_weights": False} if name == "googlenet" else {}
        net = getattr(torchvision.models, name)(**more)
    found = counts(net, 64, 0, to=to)
    assert (found >= 0).all() and found.any() and found == pytest.approx(found.T, rel=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "ghostnet_100",  # writes into views
        "resnetblur18",
        "poolformer_s12",
        "convnextv2_atto",
        "regnety_002",
        "ecaresnet26t",
        "skresnet18",
    ],
)
def test_timm_networks(name: str) -> None:
    net = timm.create_model(name)
    found = counts(net, 64, 0)
    counted = counts(net, 64, 0, gates="count", pool="mean")
    assert (found >= 0).all() and found.any() and found == pytest.approx(found.T, rel=1e-9)
    assert np.isfinite(counted).all() and counted.any()


@pytest.mark.parametrize(
    ("name", "why"), [("vit_tiny_patch16_224", "attention"), ("gcresnext26ts", "softmax")]
)
def test_attention_is_refused(name: str, why: str) -> None:
    with pytest.raises(RfbenchError, match=rf"torch\.\w*{why}.* in layer .* is not local"):
        counts(timm.create_model(name), 224)
