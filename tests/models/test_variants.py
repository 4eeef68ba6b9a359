"""Variants: what changes, what stays, and what is refused."""

import copy
import io
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from timm.layers import CondConv2d, Conv2dSame, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import Bottleneck, ResNet

import rfbench
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones, variants
from rfbench.models.variants import choose, sampled

CHANGING = [name for name in variants.VARIANTS if name != "baseline"]
RESNET50 = [f"layer{i}.0.{conv}" for i in (2, 3, 4) for conv in ("conv2", "downsample.0")]


def small() -> ResNet:
    """Every stride-2 convolution of ResNet-50 and a shortcut beside each, little else."""
    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=3, width_per_group=4).eval()


def on_meta(name: str, library: str = "torchvision") -> nn.Module:
    if library == "timm":  # not every version of timm can build all of them on meta
        return timm.create_model(name).to("meta").eval()
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None).eval()


def maps(model: nn.Module, names: list[str], size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Shapes of what the layers `names` and the model give on a meta input of `size`."""
    shapes = []
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda m, x, y: shapes.append(y.shape))
        for name in names
    ]
    with torch.no_grad():
        out = model(torch.empty(1, 3, *size, device="meta"))
    for hook in hooks:
        hook.remove()
    return [*map(tuple, shapes), tuple(out.shape)]


# --- which convolutions -------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "count"), [("baseline", 0), ("1x1", 3), ("3x3", 3)])
def test_counts_in_resnet50(variant: str, count: int) -> None:
    assert len(variants.apply(on_meta("resnet50"), variant)) == count


@pytest.mark.parametrize("variant", CHANGING)
def test_parameters_and_keys_of_resnet50_stay(variant: str) -> None:
    model = on_meta("resnet50")
    keys = list(model.state_dict())
    replaced = variants.apply(model, variant)
    assert replaced == [name for name in RESNET50 if set(replaced) & {name}]
    assert "+" not in variant or replaced == RESNET50
    assert list(model.state_dict()) == keys
    assert sum(p.numel() for p in model.parameters()) == 25_557_032


@pytest.mark.parametrize("variant", variants.PAPER)
def test_macs_of_resnet50_stay(variant: str) -> None:
    model = rfbench.fix(on_meta("resnet50"), variant)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2 == pytest.approx(4.089e9, rel=1e-3)


def test_strictly_strided_and_square() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 2, (1, 3), stride=2, padding=(0, 1)),
        nn.Conv2d(2, 2, 3, stride=1, padding=1),
        nn.Conv2d(2, 2, 5, stride=2, padding=2),
        nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1),
        nn.Conv2d(2, 2, 3, stride=2, padding=1),
    )
    assert variants.apply(model, "1x1+3x3") == ["4"]


def test_a_shared_convolution_is_changed_once() -> None:
    conv = nn.Conv2d(3, 3, 3, stride=2, padding=1)
    model = nn.ModuleDict({"a": conv, "b": conv})
    assert variants.apply(model, "3x3") == ["a"]
    assert model["b"](torch.ones(1, 3, 8, 8)).shape == (1, 3, 4, 4)


def test_fix_changes_in_place_and_takes_a_single_convolution() -> None:
    conv = nn.Conv2d(3, 3, 3, stride=2, padding=1)
    assert rfbench.fix(conv) is conv
    assert isinstance(conv, nn.Conv2d) and "stride=(1, 1)" in repr(conv)
    assert isinstance(conv.rf_pool, nn.AvgPool2d)


# --- refusals -----------------------------------------------------------------------------------


def test_nothing_to_replace() -> None:
    with pytest.raises(UsageError) as error:
        variants.apply(on_meta("densenet121"), "1x1+3x3", label="densenet121")
    assert str(error.value) == (
        "variant '1x1+3x3' replaces no convolution in densenet121 "
        "(no strided 1x1 or 3x3 convolution)."
    )
    with pytest.raises(UsageError, match=r"in DenseNet \(no strided 1x1 convolution\)"):
        variants.apply(on_meta("densenet121"), "1x1")


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_valid_convolutions_are_refused_by_name(library: str) -> None:
    name = {"torchvision": "inception_v3", "timm": "inception_v4"}[library]
    layer = {"torchvision": "Mixed_6a.branch3x3.conv", "timm": "features.0.conv"}[library]
    with torch.device("meta"):
        if library == "torchvision":
            model = torchvision.models.inception_v3(weights=None, init_weights=False)
        else:
            model = timm.create_model(name)
    before = repr(model)
    for variant in ("3x3", "1x1+3x3", "blur:3x3", "max:3x3"):
        with pytest.raises(UsageError, match=f"cannot keep the output size.* {layer}[,.]"):
            variants.apply(model, variant)
        assert repr(model) == before


@pytest.mark.parametrize("variant", ["3x3", "1x1+3x3", "7x7", "1x1+3x3+maxpool", "baseline"])
def test_what_would_change_is_told_without_a_change(variant: str) -> None:
    model = on_meta("resnet18")
    before = repr(model)
    layers = variants.changeable(model, variant)
    assert repr(model) == before
    assert layers == variants.apply(model, variant)
    with pytest.raises(UsageError, match="no strided 5x5"):
        variants.changeable(on_meta("resnet18"), {"kernels": [5]})


def test_one_unfit_convolution_leaves_the_fit_ones_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, 2, 0), nn.Conv2d(3, 3, 1, 2, 1)
    )
    with pytest.raises(UsageError, match=r"padding: 1, 2\.$"):
        variants.apply(model, "1x1+3x3")
    assert {type(layer) for layer in model} == {nn.Conv2d} and model[0].stride == (2, 2)


@pytest.mark.parametrize("variant", ["baseline", "3x3", "1x1+3x3"])
def test_a_changed_model_is_not_changed_again(variant: str) -> None:
    model = variants.fix(small(), "3x3")
    with pytest.raises(UsageError, match=r"ResNet has already been changed \(layer2.0.conv2 and 2"):
        variants.apply(model, variant)


@pytest.mark.parametrize(
    ("name", "method"),
    [("repvgg_a0", "reparameterize"), ("mobileone_s0", "reparameterize"), ("repvit_m1", "fuse")],
)
def test_reparametrising_is_refused(name: str, method: str) -> None:
    model = variants.fix(on_meta(name, "timm"), "1x1+3x3")
    for changed in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(RfbenchError, match=rf"{method}\(\) would drop .* variant '1x1\+3x3'"):
            timm.utils.reparameterize_model(changed)
    if name == "repvit_m1":  # the whole model's own method, too
        with pytest.raises(RfbenchError, match="fuse"):
            model.fuse()


def test_unchanged_models_still_reparametrise() -> None:
    model = variants.fix(timm.create_model("repvgg_a0").eval(), "baseline")
    assert not hasattr(timm.utils.reparameterize_model(model).stages[0][0], "conv_kxk")


# --- output sizes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected_sizes() -> dict[tuple[int, int], list]:
    # heights from 32 with widths from 321 on. The stem leaves ceil(size / 4), so that every fourth
    # stands for all of 32..321
    with torch.device("meta"):
        model = small()
    return {(h, 353 - h): maps(model, RESNET50, (h, 353 - h)) for h in range(32, 177, 4)}


@pytest.mark.parametrize("variant", CHANGING)
def test_every_size_keeps_its_maps_in_resnet50(variant: str, expected_sizes: dict) -> None:
    with torch.device("meta"):
        model = small()
    variants.apply(model, variant)
    # the shortcut meets the main path only where their sizes agree: one changed alone shows more
    sizes = list(expected_sizes)[:: 1 if variant in ("1x1", "3x3") else 6]
    # behind a convolution its own output is dense
    names = RESNET50 if not variant.startswith("blur_after") else ["layer2.0.downsample.0"]
    where = [RESNET50.index(name) for name in names]
    for size in sizes:
        expected = [expected_sizes[size][i] for i in [*where, -1]]
        assert maps(model, names, size) == expected


CONVS = {
    "plain": lambda k: nn.Conv2d(4, 6, k, stride=2, padding=k // 2),
    "grouped": lambda k: nn.Conv2d(4, 8, k, stride=2, padding=k // 2, groups=2, bias=False),
    "depthwise": lambda k: nn.Conv2d(4, 4, k, stride=2, padding=k // 2, groups=4),
    "reflect": lambda k: nn.Conv2d(4, 4, k, 2, k // 2, padding_mode="circular"),
    "same": lambda k: Conv2dSame(4, 6, k, stride=2),
    "std": lambda k: StdConv2d(4, 6, k, stride=2),
    "std-same": lambda k: StdConv2dSame(4, 6, k, stride=2),
    "scaled-std": lambda k: timm.layers.ScaledStdConv2d(4, 6, k, stride=2),
    "scaled-std-same": lambda k: ScaledStdConv2dSame(4, 6, k, stride=2),
}


@pytest.mark.parametrize("kind", CONVS)
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_size_keeps_its_map_in_every_kind_of_convolution(kind: str, kernel: int) -> None:
    conv = CONVS[kind](kernel)
    for pool in variants.POOLS:
        changed = copy.deepcopy(conv)
        sampled.swap(changed, pool, level=0)
        for size in [*range(2 if kind == "reflect" else 1, 20), 32, 33, 160, 161]:
            x = torch.empty(1, 4, size, size + 1)
            assert changed(x).shape[2:] == ((size + 1) // 2, (size + 2) // 2), (pool, size)


@pytest.mark.parametrize(
    "name",
    "torchvision:resnet18 torchvision:resnext50_32x4d torchvision:mobilenet_v2 "
    "torchvision:efficientnet_b0 timm:regnetx_002 timm:nf_resnet50 timm:tf_efficientnet_b0 "
    "timm:resnetv2_50 timm:dm_nfnet_f0 timm:tf_efficientnet_cc_b0_4e timm:skresnet18".split(),
)
def test_networks_keep_their_maps(name: str) -> None:
    library, _, name = name.partition(":")
    model = on_meta(name, library)
    keys = list(model.state_dict())
    names = [n for n, m in model.named_modules() if choose.matches(m, variants.get("1x1+3x3"))]
    sizes = [(32, 321), (225, 250)]
    expected = [maps(model, names, size) for size in sizes]
    assert variants.apply(model, "1x1+3x3") == names
    assert list(model.state_dict()) == keys
    assert [maps(model, names, size) for size in sizes] == expected


# --- numbers ------------------------------------------------------------------------------------

SHAPES = [(8, 8), (7, 9), (1, 6), (1, 1)]


@pytest.mark.parametrize("kind", [k for k in CONVS if "std" not in k and k != "reflect"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_average_then_convolve(kind: str, kernel: int) -> None:
    conv = CONVS[kind](kernel).double()
    options = {"bias": conv.bias, "padding": kernel // 2, "groups": conv.groups}
    weight = conv.weight.detach().clone()
    variants.fix(conv, {"kernels": [kernel]})
    for height, width in SHAPES:
        x = torch.randn(2, 4, height, width, dtype=torch.double)
        rows, columns = torch.arange(height) // 2, torch.arange(width) // 2
        pooled = torch.zeros(2, 4, int(rows[-1]) + 1, int(columns[-1]) + 1, dtype=torch.double)
        for y in range(pooled.shape[2]):
            for z in range(pooled.shape[3]):
                pooled[:, :, y, z] = x[:, :, rows == y][..., columns == z].mean((2, 3))
        torch.testing.assert_close(conv(x), F.conv2d(pooled, weight, **options))


@pytest.mark.parametrize("std", [StdConv2d, StdConv2dSame, ScaledStdConv2dSame])
def test_timms_standardised_weights_stay_standardised(std: type) -> None:
    conv, unstrided = std(4, 6, 3, stride=2), std(4, 6, 3, stride=1)
    unstrided.load_state_dict(conv.state_dict())
    x = torch.randn(2, 4, 7, 8)
    expected = unstrided(F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False))
    torch.testing.assert_close(variants.fix(conv, "3x3")(x), expected)


def test_blur_by_hand() -> None:
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1).double()
    x = torch.randn(1, 3, 7, 10, dtype=torch.double)
    padded = torch.cat([x[:, :, :1], x, x[:, :, -1:]], 2)
    padded = torch.cat([padded[..., :1], padded, padded[..., -1:]], 3)
    down = (padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]) / 4
    both = (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 4
    expected = F.conv2d(both[:, :, ::2, ::2], conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(variants.fix(conv, "blur:3x3")(x), expected)


def test_max_by_hand() -> None:
    conv, x = nn.Conv2d(3, 5, 1, stride=2), torch.randn(1, 3, 6, 6)
    largest = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
    expected = F.conv2d(largest, conv.weight, conv.bias)
    torch.testing.assert_close(variants.fix(conv, "max:1x1")(x), expected)


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (1, 1)])
def test_alternating_takes_the_odd_pixels(size: tuple[int, int]) -> None:
    odd, even, x = nn.Conv2d(1, 1, 1, 2), nn.Conv2d(1, 1, 1, 2), torch.rand(1, 1, *size) + 1
    even.load_state_dict(odd.state_dict())
    nn.init.zeros_(odd.bias), nn.init.ones_(odd.weight), even.load_state_dict(odd.state_dict())
    sampled.swap(odd, "alt", level=2)
    sampled.swap(even, "alt", level=1)
    torch.testing.assert_close(even(x), x[:, :, ::2, ::2])
    pixels = x[:, :, 1::2, 1::2]
    torch.testing.assert_close(odd(x)[:, :, : pixels.shape[2], : pixels.shape[3]], pixels)
    assert odd(x).shape == even(x).shape


def levels(model: nn.Module) -> dict[str, int]:
    return {n: m.rf_pool.level for n, m in model.named_modules() if isinstance(m, variants.Pooled)}


class Wrapped(nn.Module):
    """Something of one's own around a network, with a convolution that evaluation skips."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.auxiliary = nn.Conv2d(3, 3, 3, 2, 1)
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_alternating_agrees_within_a_block_whatever_is_around_it() -> None:
    model = variants.fix(on_meta("resnet50"), "alt:1x1+3x3")
    assert list(levels(model).values()) == [0, 0, 1, 1, 2, 2]
    wrapped = variants.fix(Wrapped(on_meta("resnet50")), "alt:1x1+3x3")
    assert list(levels(wrapped).values()) == [-1, 0, 0, 1, 1, 2, 2]
    # branches of one block that stand in a ModuleList
    branches = levels(variants.fix(on_meta("skresnet18", "timm"), "alt:1x1+3x3"))
    assert list(branches.values()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_alternating_needs_a_model_that_runs() -> None:
    model = nn.ModuleList([nn.Conv2d(3, 3, 3, 2, 1)])
    with pytest.raises(RfbenchError, match=r"ModuleList is run on 64x48 px .* NotImplementedError"):
        variants.apply(model, "alt:3x3", size=(64, 48))
    assert type(model[0]) is nn.Conv2d
    with pytest.raises(RfbenchError, match="none of them is reached"):
        variants.apply(Wrapped(nn.Identity()), "alt:3x3")


def test_convolutions_that_evaluation_skips_stay_as_they_are() -> None:
    model = variants.fix(Wrapped(nn.Conv2d(3, 3, 3, 2, 1)), "alt:3x3")
    assert levels(model) == {"auxiliary": -1, "inner": 0}
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(model.auxiliary(x), F.conv2d(x, *model.auxiliary.parameters(), 2, 1))


def test_mixed_weights_of_condconv() -> None:
    conv = CondConv2d(4, 6, 3, stride=2, num_experts=2)
    unstrided = CondConv2d(4, 6, 3, stride=1, num_experts=2)
    unstrided.load_state_dict(conv.state_dict())
    x, routing = torch.randn(2, 4, 7, 8), torch.rand(2, 2)
    expected = unstrided(F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False), routing)
    torch.testing.assert_close(variants.fix(conv)(x, routing), expected)
    assert repr(conv).startswith("PooledCondConv2d(\n  (rf_pool): AvgPool2d")


# --- weights and copies -------------------------------------------------------------------------


@pytest.mark.parametrize("variant", CHANGING)
def test_weights_load_strictly_both_ways(variant: str) -> None:
    plain, changed = small(), variants.fix(small(), variant)
    changed.load_state_dict(plain.state_dict(), strict=True)
    plain.load_state_dict(changed.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert not torch.equal(plain(x), changed(x))


@pytest.mark.parametrize("variant", CHANGING)
def test_copies_and_pickles_compute_the_same(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = variants.fix(small(), variant), torch.randn(1, 3, 65, 65)
    expected, file = model(x), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), torch.load(file, weights_only=False)]
    monkeypatch.setattr(sampled, "_CLASSES", {})  # as in another process
    copies.append(pickle.loads(pickle.dumps(model)))
    for other in copies:
        assert repr(other) == repr(model) and other is not model
        assert other.layer2[0].conv2.weight is not model.layer2[0].conv2.weight
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("variant", CHANGING)
def test_gradients_reach_every_pixel_and_weight(variant: str) -> None:
    model, x = variants.fix(small(), variant).train(), torch.randn(2, 3, 64, 64, requires_grad=True)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# --- variants as data ---------------------------------------------------------------------------


def test_the_list() -> None:
    rivals = ["blur:1x1+3x3", "max:1x1+3x3", "alt:1x1+3x3", "blur_after:1x1+3x3"]
    assert list(variants.VARIANTS) == [*variants.PAPER, *rivals]
    assert all(variants.get(name).name == name for name in variants.VARIANTS)
    assert variants.get("baseline") == variants.Variant("baseline", (), "avg")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"kernels": [1, 3]}, "1x1+3x3"),
        ({"kernels": [3, 1, 3], "pool": "avg"}, "1x1+3x3"),
        ({"kernels": [], "pool": "max"}, "baseline"),
        ({"kernels": (5,), "pool": "blur"}, "blur:5x5"),
        (variants.Variant("mine", (3,), "max"), "max:3x3"),
        ("3x3+1x1", "1x1+3x3"),
        ("avg:1x1", "1x1"),
        ("blur:3x3+5x5", "blur:3x3+5x5"),
    ],
)
def test_canonical_names(given: object, name: str) -> None:
    variant = variants.get(given)
    assert variant.name == name and variants.get(name) == variant
    assert variants.VARIANTS.get(name, variant) == variant


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1x1+3x", r"unknown variant '1x1\+3x'. Did you mean: 1x1\+3x3"),
        ("baselin", "unknown variant 'baselin'. Did you mean: baseline"),
        ("", "unknown variant ''. There are: baseline, 1x1"),
        ("11x1", "unknown variant '11x1'"),
        ("blurr:3x3", "unknown pool 'blurr'. Did you mean: blur"),
        ({"kernels": [3], "pool": "zzz"}, "unknown pool 'zzz'. There are: avg, blur, max, alt"),
        ({"kernels": [3], "pool": ["avg"]}, "unknown pool"),
        ({"kernel": [3]}, "unknown key 'kernel'. Did you mean: kernels"),
        ({"pool": "avg"}, "kernels is a list of sizes such as .*, not None"),
        ({"kernels": 3}, "not 3"),
        ({"kernels": ["3x3"]}, "kernels is a list"),
        ({"kernels": [0]}, "kernels is a list"),
        (None, "unknown variant 'None'"),
    ],
)
def test_what_is_no_variant(given: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        variants.get(given)


# --- every network of torchvision -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_network_keeps_keys_and_output(name: str) -> None:
    """In every variant that fits it; what does not fit is refused and leaves it as it was."""
    plain = backbones.build(name, meta=True)
    keys, size = list(plain.module.state_dict()), plain.input_size
    x = torch.empty(1, 3, *size, device="meta")
    expected, text = plain.module(x).shape, repr(plain.module)
    for variant in [*CHANGING, "1x1+3x3+7x7+maxpool", "blur_after:1x1+3x3+maxpool"]:
        model = variants.meta_copy(plain.module)
        try:
            variants.apply(model, variant, size=size)
        except UsageError:
            assert repr(model) == text
            continue
        assert list(model.state_dict()) == keys
        assert model(x).shape == expected
