"""The spatial graph is right, or refuses by name: gates, pooled branches, attention, reductions.

A network whose units look farther than windows is judged by its reach: context, windowed, global.
"""

from typing import Any

import pytest
import timm.layers
import torch
import torch.nn.functional as F
import torchvision
from timm.layers import cbam, coord_attn, evo_norm, filter_response_norm, halo_attn, non_local_attn
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from rfbench.spatial_graph.node import Reach
from tests.spatial_graph.cases import TWO, A, Cases, Net, classes, conv, examine

CASES = Cases()
CONTEXT, WINDOWED, GLOBAL, UNSUPPORTED = Reach(1), Reach(2), Reach(3), Reach(4)
GATED = {"a": conv(), "b": conv(4, 4, 1), "c": conv(4, 4, 1)}


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


# -- gates -----------------------------------------------------------------------------------------


@CASES.add(CONTEXT, "aten.mul", **GATED)
def squeeze_excitation(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    return x * n.c(n.b(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


@CASES.add(CONTEXT, "aten.mul", a=conv(), b=nn.Linear(4, 2), c=nn.Linear(2, 4))
def squeeze_excitation_by_linear(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    gate = n.c(n.b(x.flatten(2).mean(2)).relu()).sigmoid()
    return x * gate[:, :, None, None].expand_as(x)


@CASES.add(a=conv(), b=conv(2, 1, 7))
def spatial_gate(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    pooled = [x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]]
    return x * n.b(torch.cat(pooled, 1)).sigmoid()


@CASES.add(CONTEXT, "aten.mul", a=conv(), b=conv(4, 4, (3, 1)), c=conv(4, 4, (1, 5)))
def gates_along_one_axis(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    return x * n.b(x.mean(3, keepdim=True)) * n.c(x.mean(2, keepdim=True)).sigmoid()


@CASES.add(CONTEXT, "aten.mul", **GATED)
def coordinate_attention(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
    rows, columns = n.b(torch.cat([rows, columns], 2)).split([x.shape[2], x.shape[3]], 2)
    return x * rows * columns.transpose(2, 3)


@CASES.add(CONTEXT, "aten.mul", a=conv(), b=conv(4, 4, 1), n=nn.BatchNorm2d(4))
def coordinate_attention_cut_by_slices(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)
    joined = F.hardswish(n.n(n.b(torch.cat([columns, rows], 2)))).transpose(2, 3)
    columns, rows = joined[..., : x.shape[3]], joined[..., x.shape[3] :]
    return x * rows.transpose(2, 3) * columns


@CASES.add(a=conv(s=2), b=conv(4, 4, 1), size=(18, 18))
def rows_and_columns_of_two_maps_convolved_as_one(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    both = n.b(torch.cat([x, x.transpose(2, 3)], 2))
    return both[:, :, : x.shape[2]]


@CASES.add(UNSUPPORTED, "aten.cat", a=conv(), b=conv(4, 4, (3, 1)))
def rows_and_columns_that_meet(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
    return x * n.b(torch.cat([rows, columns], 2))[:, :, : x.shape[2]]


@CASES.add(UNSUPPORTED, "aten.cat", a=conv(), b=conv(4, 4, 1), size=(16, 16))
def rows_cut_where_columns_begin(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
    return x * n.b(torch.cat([rows, columns], 2))[:, :, 8:24]


@CASES.add(CONTEXT, "aten.mul", a=conv(), b=conv(2, 1, 7), c=conv(2, 1, 7), d=conv(2, 1, 7))
def triplet_attention(n: Net, x: Tensor) -> Tensor:
    """Each pair of channels, rows and columns convolved, pooled over the third."""

    def gated(x: Tensor, layer: nn.Module) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * layer(pooled).sigmoid()

    x = n.a(x)
    rows = gated(x.permute(0, 2, 1, 3), n.b).permute(0, 2, 1, 3)
    columns = gated(x.permute(0, 3, 2, 1), n.c).permute(0, 3, 2, 1)
    return gated(x, n.d) + rows + columns


@CASES.add(CONTEXT, "aten.mul", **A)
def gate_of_one_pixel(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    return n.b(x) * x[:, :, 5, 7][:, :, None, None] + x[:, :, 3:4]


@CASES.add(CONTEXT, "aten.mul", a=conv())
def global_response_norm(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    norm = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x + x * (norm / (norm.mean(1, keepdim=True) + 1e-6))


@CASES.add(CONTEXT, "aten._softmax", a=conv(), b=conv(4, 1, 1), c=conv(4, 4, 1))
def global_context_block(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    weights = n.b(x).view(1, 1, -1).softmax(-1)
    context = torch.matmul(x.view(1, 1, 4, -1), weights.unsqueeze(-1))
    return x + n.c(context.view(1, 4, 1, 1))


class DynamicWeights(nn.Module):
    """CondConv: the weights of the convolution are chosen by the image."""

    def __init__(self) -> None:
        super().__init__()
        self.route, self.experts = nn.Linear(4, 3), nn.Parameter(torch.rand(3, 4 * 4 * 9))

    def forward(self, x: Tensor) -> Tensor:
        routes = self.route(F.adaptive_avg_pool2d(x, 1).flatten(1)).sigmoid()
        return F.conv2d(x, (routes @ self.experts).view(4, 4, 3, 3), padding=1)


class LocalWeights(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        kernel = x[:, :, 2:5, 3:6].mean(1)
        return F.conv2d(x, kernel[:, None].expand(4, 1, 3, 3), padding=1, groups=4)


@CASES.add(CONTEXT, "aten.convolution", a=conv(), dynamic=DynamicWeights(), b=conv(4, 4))
def weights_by_the_image(n: Net, x: Tensor) -> Tensor:
    return n.b(n.dynamic(n.a(x)))


@CASES.add(UNSUPPORTED, "aten.convolution", a=conv(), dynamic=LocalWeights(), b=conv(4, 4))
def weights_by_positions(n: Net, x: Tensor) -> Tensor:
    return n.b(n.dynamic(n.a(x)))


@CASES.add(CONTEXT, "aten.mul", **TWO, eca=nn.Conv1d(1, 1, 3, padding=1))
def gates_across_channels(n: Net, x: Tensor) -> Tensor:
    y = classes(n, x)
    return y * n.eca(y.mean((2, 3)).unsqueeze(1)).sigmoid().view(1, -1, 1, 1)


@CASES.add(
    CONTEXT, "aten.cat", a=conv(), b=conv(4, 4, 3, 1, 2, dilation=2), c=conv(4, 4, 1), d=conv(12, 4)
)
def pooled_branch(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    pooled = F.interpolate(n.c(F.adaptive_avg_pool2d(x, 1)), x.shape[2:], mode="bilinear")
    return n.d(torch.cat([n.b(x), n.c(x), pooled], 1))


@CASES.add(CONTEXT, "aten.convolution", a=conv(), b=conv(4, 4), c=conv(4, 4, 1))
def convolution_of_a_pooled_branch(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    return x * n.b(n.c(F.adaptive_avg_pool2d(x, 1)).expand(1, 4, 18, 21))


@CASES.add(CONTEXT, "aten.cat", a=conv(), b=conv(4, 4, 1), c=conv(20, 4))
def pyramid_pooling(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    levels = [n.b(F.adaptive_avg_pool2d(x, k)) for k in (1, 2, 3, 6)]
    return n.c(torch.cat([x, *(F.interpolate(p, (18, 21), mode="bilinear") for p in levels)], 1))


@CASES.add(size=(9, 9), a=conv(), b=conv(4, 9))
def involution(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return (F.unfold(y, 3, padding=1).view(1, 4, 9, 9, 9) * n.b(y).unsqueeze(1)).sum(2)


# -- attention -------------------------------------------------------------------------------------


@CASES.add(WINDOWED, "aten.bmm", a=conv())
def window_attention(n: Net, x: Tensor) -> Tensor:
    t = n.a(x).view(1, 4, 6, 3, 7, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, 4)
    return attend(t, t, t).view(6, 7, 3, 3, 4).permute(4, 0, 2, 1, 3).reshape(1, 4, 18, 21)


@CASES.add(WINDOWED, "aten.sub", **A)
def normalised_by_window(n: Net, x: Tensor) -> Tensor:
    y = n.a(x).view(1, 4, 3, 6, 3, 7)
    return n.b((y - 0.3 * y.mean((3, 5), keepdim=True)).reshape(1, 4, 18, 21))


def tokens(n: Net, x: Tensor) -> Tensor:
    return n.a(x).flatten(2).transpose(1, 2)


ATTENTIONS = {
    "full": lambda n, x: attend(*[tokens(n, x)] * 3),
    "sdpa": lambda n, x: F.scaled_dot_product_attention(*[tokens(n, x)] * 3),
    "channels": lambda n, x: attend(*[n.a(x).flatten(2)] * 3),
    "linear": lambda n, x: (n.a(x) @ n.a(x).transpose(-1, -2)) @ n.a(x),
    "outer": lambda n, x: n.a(x).mean(3, keepdim=True) @ n.a(x).mean(2, keepdim=True),
    "einsum": lambda n, x: torch.einsum("bchw,bchv->bcwv", n.a(x), n.a(x)),
}


@CASES.each(ATTENTIONS, reach=GLOBAL, op="aten.bmm", a=conv())
def attention(n: Net, x: Tensor, run: Any) -> Tensor:
    return run(n, x)


AXIAL = {
    "along_x": lambda n, x: attend(*[n.a(x).permute(0, 2, 3, 1)] * 3),
    "along_y": lambda n, x: attend(*[n.a(x).permute(0, 3, 2, 1)] * 3),
}


@CASES.each(AXIAL, reach=WINDOWED, op="aten.bmm", a=conv())
def axial(n: Net, x: Tensor, run: Any) -> Tensor:
    return run(n, x)


@CASES.add(GLOBAL, "aten.bmm", a=conv())
def axial_along_both(n: Net, x: Tensor) -> Tensor:
    y = attend(*[n.a(x).permute(0, 2, 3, 1)] * 3)
    return attend(*[y.permute(0, 2, 1, 3)] * 3)


@pytest.mark.parametrize(("name", "along"), [("axial_along_x", "x"), ("axial_along_y", "y")])
def test_attention_along_an_axis_names_it(name: str, along: str) -> None:
    witness = examine(CASES[name].module, (18, 21), 3).witness
    assert witness.extent == f"windowed, global along {along}"


class Frames(nn.Module):
    """Windows of all four frames and 3x3 positions of a volume, as video transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv3d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        t = self.a(x).view(1, 4, 4, 6, 3, 7, 3).permute(0, 3, 5, 2, 4, 6, 1).reshape(42, 36, 4)
        t = attend(t, t, t).view(6, 7, 4, 3, 3, 4).permute(5, 2, 0, 3, 1, 4)
        return t.reshape(1, 4, 4, 18, 21)


def test_windows_that_hold_all_frames_are_windows_all_the_same() -> None:
    verdict = examine(Frames(), (4, 18, 21), 3)
    assert verdict.witness.extent == "windowed, global along depth" and not verdict.wrong


@CASES.add(GLOBAL, "aten.bmm", a=conv(), b=nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
def transformer_layer(n: Net, x: Tensor) -> Tensor:
    return n.b(tokens(n, x))


@CASES.add(GLOBAL, "recurrence", a=conv(), b=nn.LSTM(4, 5, batch_first=True))
def recurrence(n: Net, x: Tensor) -> Tensor:
    return n.b(n.a(x).mean(2).transpose(1, 2))[0]


@CASES.add(GLOBAL, "aten.add", a=conv(), mix=nn.Linear(18 * 21, 18 * 21))
def mixer(n: Net, x: Tensor) -> Tensor:
    x = n.a(x)
    return x + n.mix(x.flatten(2)).view(x.shape)


@CASES.add(UNSUPPORTED, "aten.cat", a=conv(), token=nn.Linear(4, 1))
def class_token(n: Net, x: Tensor) -> Tensor:
    return torch.cat([n.token.weight[None], tokens(n, x)], 1)[:, 1:]


# -- reductions and products -----------------------------------------------------------------------


@CASES.add(**TWO, b=conv(8, 8, groups=8))
def over_channels(n: Net, x: Tensor) -> Tensor:
    y = classes(n, x)
    return n.b(F.normalize(y, dim=1) * y.softmax(1) / (y.var(1, keepdim=True) + 1))


@CASES.add(CONTEXT, "aten.mul", **A)
def over_all_positions(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y * y.std((2, 3), keepdim=True)) - 0.1 * y.mean() + F.normalize(y, dim=3)


@CASES.add(CONTEXT, "aten._softmax", **A)
def softmax_of_positions(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    return y * n.b(y).flatten(2).softmax(-1).view(y.shape)


@CASES.add(a=conv(), b=conv(4, 4, (1, 3)))
def over_one_axis(n: Net, x: Tensor) -> Tensor:
    y = n.b(n.a(x))
    return y.mean(2) + y.amax(2) + y.sum(2)


@CASES.add(a=conv(), b=conv(4, 4), c=nn.Linear(4, 5))
def products_with_constants(n: Net, x: Tensor) -> Tensor:
    return torch.einsum("bchw,oc->bohw", n.b(n.a(x)), n.c.weight)


@CASES.add(a=conv(), b=nn.Linear(18, 18), c=nn.Linear(4, 5))
def products_over_rows(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    rows = n.b(y.transpose(2, 3)).transpose(2, 3)
    return torch.einsum("bchw,oc->bohw", rows, n.c.weight) + torch.einsum(
        "bchw,kh->bckw", y, n.b.weight
    ).mean(1, keepdim=True)


@CASES.add(**A)
def products_of_maps(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    pairs = torch.einsum("bchw,bdhw->bcdhw", y, n.b(y)).flatten(1, 2)
    return pairs[:, :4] + torch.addcmul(y, n.b(y), y) + torch.lerp(y, n.b(y), 0.3) + n.b(y) ** y


@CASES.add(**A)
def constants_of_positions(n: Net, x: Tensor) -> Tensor:
    y = n.a(x)
    rows = torch.linspace(0, 1, 18, dtype=x.dtype, device=x.device)[:, None].expand(18, 21)
    return torch.where(rows > 0.5, n.b(y + rows), n.b(y)).masked_fill(rows > 2, 1.0) + y.detach()


UNKNOWN = {
    "sort": ("aten.sort", lambda x: x.sort(2)[0]),
    "topk": ("aten.topk", lambda x: x.flatten(2).topk(5)[0]),
    "gather": ("aten.gather", lambda x: x.gather(2, x.argmax(2, keepdim=True))),
    "grid_sample": (
        "aten.grid_sampler",
        lambda x: F.grid_sample(x, x.permute(0, 2, 3, 1)[..., :2], align_corners=False),
    ),
    "fractional": ("aten.fractional", lambda x: F.fractional_max_pool2d(x, 2, (5, 5))),
}
for _name, (_op, _run) in UNKNOWN.items():

    @CASES.add(UNSUPPORTED, _op, **A)
    def unknown(n: Net, x: Tensor, run: Any = _run) -> Tensor:
        return run(n.a(x))

    CASES[f"unknown_{_name}"] = CASES.pop("unknown")


@CASES.add(GLOBAL, "aten._fft_r2c", a=conv())
def fourier(n: Net, x: Tensor) -> Tensor:
    return torch.fft.rfft2(n.a(x)).abs()


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    CASES[name].check()


BLOCKS = {
    "SEModule": (timm.layers.SEModule(16), CONTEXT),
    "EcaModule": (timm.layers.EcaModule(16), CONTEXT),
    "CecaModule": (timm.layers.CecaModule(16), CONTEXT),
    "GlobalContext": (timm.layers.GlobalContext(16), CONTEXT),
    "SplitAttn": (timm.layers.SplitAttn(16), CONTEXT),
    "SelectiveKernel": (timm.layers.SelectiveKernel(16, 16), CONTEXT),
    "CbamModule": (cbam.CbamModule(16), CONTEXT),
    "SimpleCoordAttn": (coord_attn.SimpleCoordAttn(16), CONTEXT),
    "CoordAttn": (coord_attn.CoordAttn(16), CONTEXT),
    "FilterResponseNorm": (filter_response_norm.FilterResponseNormTlu2d(16), CONTEXT),
    "EvoNorm2dB0": (evo_norm.EvoNorm2dB0(16), CONTEXT),
    "EvoNorm2dS0": (evo_norm.EvoNorm2dS0(16, groups=4), CONTEXT),
    "BlurPool2d": (timm.layers.BlurPool2d(16, filt_size=4), Reach.LOCAL),
    "MixedConv2d": (timm.layers.MixedConv2d(16, 16, [3, 5, 7]), Reach.LOCAL),
    "NonLocalAttn": (non_local_attn.NonLocalAttn(16), GLOBAL),
    "HaloAttn": (halo_attn.HaloAttn(16, feat_size=(16, 16), block_size=4, halo_size=1), WINDOWED),
    "ASPP": (ASPP(16, [2, 3, 5], 16), CONTEXT),
    "tv_SqueezeExcitation": (torchvision.ops.SqueezeExcitation(16, 4), CONTEXT),
    "tv_FrozenBatchNorm2d": (torchvision.ops.FrozenBatchNorm2d(16), Reach.LOCAL),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_libraries(name: str) -> None:
    block, reach = BLOCKS[name]
    verdict = examine(nn.Sequential(conv(3, 16), block, conv(16, 4)), (16, 16))
    assert verdict.reach == reach and not verdict.wrong, verdict
    assert reach == Reach.LOCAL or verdict.witness.layer.startswith("1")


class Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c2, self.c3, self.c4 = conv(3, 4, 3, 2), conv(4, 8, 3, 2), conv(8, 8, 3, 2)
        self.fpn = torchvision.ops.FeaturePyramidNetwork([4, 8, 8], 6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        c2 = self.c2(x)
        c3 = self.c3(c2)
        return self.fpn({"p2": c2, "p3": c3, "p4": self.c4(c3)})


@pytest.mark.parametrize("level", ["p2", "p3", "p4"])
def test_feature_pyramid(level: str) -> None:
    verdict = examine(Net(lambda n, x: n.p(x)[level], p=Pyramid()), (33, 38))
    assert verdict.reach == Reach.LOCAL and not verdict.wrong, verdict.wrong
