"""Which layers a variant changes: names, globs, groups, max pools; what it refuses by name."""

import copy
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import prune

import rfbench
from rfbench import rf
from rfbench.config import load
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import variants
from rfbench.schemas.cls import ClsConfig


def resnet() -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.resnet18().eval()


# --- layers and groups ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("1x1+3x3:layers=layer2.*", ["layer2.0.conv1", "layer2.0.downsample.0"]),
        ("1x1+3x3:layers=layer2", ["layer2.0.conv1", "layer2.0.downsample.0"]),
        ("1x1:layers=layer[34].*", ["layer3.0.downsample.0", "layer4.0.downsample.0"]),
        ("3x3:layers=layer4+layer2.0.conv1", ["layer2.0.conv1", "layer4.0.conv1"]),
        ("3x3:layers=*.conv?", [f"layer{i}.0.conv1" for i in (2, 3, 4)]),
        ("maxpool:layers=maxpool", ["maxpool"]),
        ("3x3:groups=dense", [f"layer{i}.0.conv1" for i in (2, 3, 4)]),
    ],
)
def test_what_is_chosen_in_resnet18(name: str, changed: list[str]) -> None:
    assert variants.apply(resnet(), name) == changed


def test_python_chooses_by_arguments() -> None:
    model = rfbench.fix(resnet(), "1x1+3x3", layers=["layer2.*", "layer4.*"])
    by_name = rfbench.fix(resnet(), "1x1+3x3:layers=layer4.*+layer2.*")
    assert repr(model) == repr(by_name)
    with pytest.raises(UsageError, match="says layers already: leave out layers="):
        rfbench.fix(resnet(), "1x1:layers=layer2", layers="layer3")
    with pytest.raises(UsageError, match="layers and groups choose among kernels"):
        rfbench.fix(resnet(), "baseline", layers="layer3")


def test_depthwise_and_dense_are_all() -> None:
    def mobile() -> nn.Module:
        with torch.device("meta"):
            return torchvision.models.mobilenet_v2().eval()

    both = variants.apply(mobile(), "3x3")
    dense = variants.apply(mobile(), "3x3:groups=dense")
    depthwise = variants.apply(mobile(), "3x3:groups=depthwise")
    assert dense == ["features.0.0"] and len(depthwise) == 4
    assert sorted([*dense, *depthwise]) == sorted(both)
    grouped = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=4), nn.Conv2d(8, 16, 3, 2, 1, groups=8))
    assert variants.apply(grouped, "3x3", label="x") == ["0", "1"]


def test_a_shared_layer_is_chosen_by_any_of_its_names() -> None:
    conv = nn.Conv2d(3, 3, 3, stride=2, padding=1)
    model = nn.ModuleDict({"a": conv, "b": conv})
    assert variants.apply(model, "3x3:layers=b") == ["a"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1x1:layers=layre2.*", r"'layre2\.\*' selects no layer in ResNet\. Did you mean: layer2"),
        (
            "1x1:layers=layer1.*",
            r"selects no layer that the variant changes .* It changes: layer2\.0\.downsample\.0,",
        ),
        ("1x1:layers=layer2+layer9", r"'layer9' selects no layer in ResNet\. Did you mean: layer"),
        ("1x1:layer=layer2", "unknown key 'layer'. Did you mean: layers"),
        ("1x1:groups=deep", "groups is dense or depthwise, not 'deep'"),
        ("1x1:layers=a:layers=b", "layers is given twice"),
        ("1x1:layers=", "layers is a glob"),
        ("1x1:groups=depthwise", "replaces no convolution in ResNet"),
        ("maxpool:kernels=3", "unknown key 'kernels'. There are: layers, groups"),
        ("maxpol", "Did you mean: maxpool"),
    ],
)
def test_what_chooses_nothing(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        variants.apply(resnet(), name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"kernels": [3, 1], "layers": "b.*"}, "1x1+3x3:layers=b.*"),
        ({"kernels": [3], "layers": ["b", "a"], "groups": "dense"}, "3x3:layers=a+b:groups=dense"),
        ({"maxpool": True}, "maxpool"),
        ({"kernels": [7], "maxpool": True, "pool": "blur"}, "blur:7x7+maxpool"),
        ("blur_after:3x3:groups=dense:layers=a", "blur_after:3x3:layers=a:groups=dense"),
        ("maxpool+3x3", "3x3+maxpool"),
    ],
)
def test_names_say_all_and_are_read_back(given: Any, name: str) -> None:
    assert variants.get(given).name == name
    assert variants.get(name) == variants.get(given) == variants.get(variants.get(given))


@pytest.mark.parametrize(
    "text",
    [
        "1x1+3x3:layers=layer2.*+layer3.*:groups=dense",
        "{kernels: [1, 3], pool: avg, layers: [layer2.*, layer3.*], groups: dense}",
    ],
)
def test_in_a_configuration(text: str) -> None:
    config = load(ClsConfig, None, [f"variant={text}"])
    data: Any = config.variant
    found = variants.get(data if isinstance(data, str) else data.model_dump())
    assert found.name == "1x1+3x3:layers=layer2.*+layer3.*:groups=dense"
    json.dumps(config.model_dump(mode="json"))


# --- max pools ------------------------------------------------------------------------------------


def test_a_dense_max_pool_is_averaged_by_hand() -> None:
    x = torch.randn(1, 2, 8, 9)
    pool = nn.Sequential(nn.MaxPool2d(3, 2, 1))
    expected = F.avg_pool2d(F.max_pool2d(x, 3, 1, 1), 2, ceil_mode=True, count_include_pad=False)
    conv = nn.Conv2d(2, 2, 1)
    model = rfbench.fix(nn.Sequential(conv, pool), "maxpool")
    torch.testing.assert_close(model[1](x), expected)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]


def test_a_max_pool_whose_stride_divides_its_kernel_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1))
    assert variants.apply(model, "3x3+maxpool") == ["0", "2"]
    assert type(model[1]) is nn.MaxPool2d


@pytest.mark.parametrize("pool", variants.POOLS)
def test_max_pools_of_every_kind_keep_the_map(pool: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.resnet18().eval()
    fixed = rfbench.fix(model, {"maxpool": True, "kernels": [1, 3, 7], "pool": pool})
    for size in (64, 65):
        assert (
            fixed.maxpool(torch.empty(1, 64, size, size, device="meta")).shape[2] == 32 + size % 2
        )


@pytest.mark.parametrize("pool", ["avg", "blur", "max"])
@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1", "googlenet"])
def test_pools_that_round_up_keep_every_map(name: str, pool: str) -> None:
    with torch.device("meta"):
        model = getattr(torchvision.models, name)(
            **({"aux_logits": False} if name == "googlenet" else {})
        )
    changed = copy.deepcopy(model).eval()
    layers = variants.apply(
        changed, {"maxpool": True, "kernels": [], "pool": pool}, size=(224, 224)
    )
    assert len(layers) == 3
    for size in (97, 98, 224, 225):
        image = torch.empty(1, 3, size, size, device="meta")
        assert maps_of(changed, layers, image) == maps_of(model.eval(), layers, image)


def maps_of(model: nn.Module, layers: list[str], image: torch.Tensor) -> list[torch.Size]:
    """What some layers return for an image."""
    shapes: list[torch.Size] = []
    for name in layers:
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda _m, _x, out: shapes.append(out.shape))
    model(image)
    return shapes


@pytest.mark.parametrize(("side", "shift"), [(32, (0.5, 0)), (33, (0, -0.5))])
def test_a_pool_that_rounds_up_is_centred_on_even_maps(side: int, shift: tuple) -> None:
    """Of 32 pixels the last window has two: by hand, 1 - (0 + 1) / 2 = 0.5 px from the centre."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(3, 2, ceil_mode=True))
    found = [
        rf.path_counts(rf.record(net, side, variant), unit=(7, 7))[1]
        for variant in ("baseline", "maxpool")
    ]
    assert [f["shift"][0] for f in found] == pytest.approx(shift)
    assert found[0]["gridding"] == pytest.approx(((1 + 1 / 9) ** 2 - 1) ** 0.5)
    assert found[1]["gridding"] < 1e-12
    x = torch.randn(1, 1, side, side)
    after = rfbench.fix(copy.deepcopy(net), "maxpool")[1](x)
    wide = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, 1)[..., :-1, :-1]
    by_hand = F.avg_pool2d(wide, 2, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(after, by_hand)


def test_a_max_pool_alone_is_measured() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, 1, 1), nn.MaxPool2d(3, 2, 1))
    _, figures = rf.path_counts(rf.record(net, 32, "maxpool"))
    assert figures["shift"] == pytest.approx([0, 0], abs=1e-12)


def test_every_fault_of_a_resnet_has_a_variant() -> None:
    """By gradients of ones: centred, and every phase of pixels weighs the same."""
    model = rfbench.fix(
        nn.Sequential(nn.Conv2d(1, 1, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)), "7x7+maxpool"
    )
    _, figures = rf.path_counts(rf.record(model, 64, in_channels=1))
    assert figures["shift"] == pytest.approx([0, 0], abs=1e-12)
    assert figures["gridding"] == pytest.approx(0, abs=1e-12)


# --- what cannot be changed is never skipped ------------------------------------------------------


class Functional(nn.Module):
    """A convolution and a max pool that are no layers."""

    def __init__(self, stride: int = 2, pooled: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.kernel = nn.Parameter(torch.ones(4, 4, 3, 3))
        self.stride, self.pooled = stride, pooled

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(self.first(x), self.kernel * 2, stride=self.stride, padding=1)
        return F.max_pool2d(x, 3, 2, 1) if self.pooled else x


def test_convolutions_in_functions_are_named() -> None:
    model = nn.Sequential(Functional())
    with pytest.raises(UsageError, match=r"cannot change what .* \(0: conv2d of stride 2\)"):
        rfbench.fix(model, "3x3")
    assert model[0].first.stride == (2, 2)
    assert variants.apply(nn.Sequential(Functional(stride=1)), "3x3") == ["0.first"]
    assert variants.apply(nn.Sequential(Functional()), "3x3:layers=0.first") == ["0.first"]


class Borrowed(nn.Module):
    """Uses the weights of a layer without calling it, or looks at its stride."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.a, self.b, self.run = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1, 2), run

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.run(self, x))


def test_weights_that_are_used_without_their_layer_are_named() -> None:
    net = Borrowed(lambda n, x: F.conv2d(x, n.a.weight, n.a.bias, 2, 1))
    with pytest.raises(UsageError, match=r"functions \(its forward\(\): conv2d of stride 2"):
        rfbench.fix(net, "3x3")
    assert net.a.stride == (2, 2) and not hasattr(net.a, "rf_pool")


def test_code_that_looks_at_strides_is_named() -> None:
    net = Borrowed(lambda n, x: F.interpolate(n.a(x), scale_factor=float(n.a.stride[0])))
    wanted = net(torch.ones(1, 3, 16, 16))
    with pytest.raises(UsageError, match=r"\(1, 4, 112, 112\) to \(1, 4, 56, 56\): its code looks"):
        rfbench.fix(net, "3x3")
    assert torch.equal(net(torch.ones(1, 3, 16, 16)), wanted)
    fixed = rfbench.fix(Borrowed(lambda n, x: F.interpolate(n.a(x), scale_factor=2.0)), "3x3")
    assert fixed(torch.ones(1, 3, 16, 16)).shape == wanted.shape


def test_max_pools_in_functions_are_named() -> None:
    with pytest.raises(UsageError, match=r"\(its forward\(\): max_pool2d of stride 2\)"):
        rfbench.fix(Functional(1, pooled=True), "3x3+maxpool")


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.ReLU()))


def traced() -> nn.Module:
    return torch.jit.trace(nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1)), torch.ones(1, 3, 8, 8))


def exported() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1))
    return torch.export.export(net, (torch.ones(1, 3, 8, 8),)).module()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (scripted, r"\(1\.0: it is scripted or traced; change the network before\)"),
        (traced, r"\(1\.0: it is scripted or traced; change the network before\)"),
        (exported, r"\(1: it is an exported program; change the network before torch.export\)"),
        (lambda: torchvision.ops.DeformConv2d(3, 3, 3, 2, 1), r"\(1: a DeformConv2d\)"),
        (lambda: nn.LazyConv2d(3, 3, 2, 1), r"\(1: it is lazy; run the network once before\)"),
        (
            lambda: torch.ao.nn.quantized.Conv2d(3, 3, 3, 2, 1),
            r"\(1: a Conv2d",
        ),
    ],
)
def test_what_cannot_change_is_named(make: Any, why: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), make())
    with pytest.raises(UsageError, match=r"cannot change all .* in Sequential " + why):
        rfbench.fix(model, "3x3")
    assert type(model[0]) is nn.Conv2d
    assert variants.apply(model, "3x3:layers=0") == ["0"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("make", [scripted, traced, exported])
def test_a_frozen_network_is_told_what_it_is(make: Any) -> None:
    with pytest.raises(UsageError, match="change the network before torch"):
        rfbench.fix(make(), "3x3")


def test_a_max_pool_that_returns_indices_is_named() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(3, 2, 1, return_indices=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(x)[0]

    with pytest.raises(UsageError, match=r"\(pool: it returns indices\)"):
        rfbench.fix(Net(), "maxpool")


def test_a_max_pool_needs_a_network_that_runs() -> None:
    model = nn.ModuleList([nn.MaxPool2d(3, 2, 1)])
    with pytest.raises(RfbenchError, match="run on 224x224 px to see what max pools read, and"):
        rfbench.fix(model, "maxpool")


# --- convolutions whose weights are computed ------------------------------------------------------


def pruned(conv: nn.Module) -> nn.Module:
    return prune.l1_unstructured(conv, "weight", 0.5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "make", [pruned, nn.utils.weight_norm, nn.utils.parametrizations.weight_norm]
)
@pytest.mark.parametrize("pool", ["avg", "blur_after"])
def test_computed_weights_stay(make: Any, pool: str) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 4, 3, 2, 1), torch.randn(1, 3, 9, 8)
    net = nn.Sequential(make(conv), nn.ReLU())
    weight, keys = conv.weight.detach().clone(), list(net.state_dict())
    found = rfbench.fix(net, f"{pool}:3x3")(x)
    if pool == "avg":
        x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
    expected = F.conv2d(x, weight, conv.bias, padding=1).relu()
    expected = expected if pool == "avg" else variants.POOLS["blur"](4, 2)(expected)
    torch.testing.assert_close(found, expected)
    assert list(net.state_dict()) == keys


@pytest.mark.parametrize("variant", ["3x3", "blur_after:3x3"])
def test_a_network_traced_by_fx(variant: str) -> None:
    plain, x = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()), torch.randn(1, 3, 9, 8)
    traced = torch.fx.symbolic_trace(copy.deepcopy(plain))
    assert torch.equal(rfbench.fix(traced, variant)(x), rfbench.fix(plain, variant)(x))
