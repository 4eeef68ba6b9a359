"""Networks without downsampling: parameters counted by hand, fields by the gradient of a unit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rfbench import rf
from rfbench.classify import nets as small
from rfbench.classify import network
from rfbench.classify.nets import residual
from rfbench.errors import UsageError
from rfbench.models import backbones

WIDE = {"widths": [64, 128, 256, 512]}


def conv(a: int, b: int, k: int = 3) -> int:
    """Weights and biases of a convolution, scale and shift of its norm."""
    return a * b * k * k + b + 2 * b


def depthwise(c: int) -> int:
    return 9 * c + c + 2 * c


FOUR = conv(3, 16) + conv(16, 24) + conv(24, 32) + conv(32, 48)
TEN = FOUR + conv(16, 16) + 2 * conv(24, 24) + 3 * conv(32, 32)
WIDE_FOUR = conv(3, 64) + conv(64, 128) + conv(128, 256) + conv(256, 512)
EXCHANGES = 2 * (16 * 24) + 2 * (16 + 24) + 2 * (16 * 24 + 16 * 32 + 24 * 32) + 4 * (16 + 24 + 32)
BRANCHES = 3 * conv(16, 16) + 2 * conv(24, 24) + conv(32, 32)

# name, arguments, parameters, field in px, effective stride
CASES: list[tuple[str, dict[str, Any], int, int, int]] = [
    ("strided", {}, 25_474, 31, 16),
    ("dilated", {}, 25_474, 31, 1),
    ("large_kernels", {}, 172_930, 21, 1),
    ("cascade", {}, TEN + 490, 21, 1),
    ("cascade_depthwise", {}, FOUR + depthwise(16) + 2 * depthwise(24) + 3 * depthwise(32) + 490,
     21, 1),
    ("max_pooled", {}, 25_474, 37, 1),
    ("skips", {}, FOUR + 120 * 10 + 10, 31, 1),
    ("three_fields", {}, FOUR + 2 * conv(32, 48) + 3 * 48 * 10 + 10, 31, 1),
    ("hrnet", {}, conv(3, 16) + BRANCHES + conv(16, 24) + conv(24, 32) + EXCHANGES + 730, 29, 1),
    ("dilated_dense", {}, FOUR + 2 * conv(48, 48) + 48 * 11 + 11, 127, 1),
    ("cascade_dense", {}, TEN + 539, 21, 1),
    ("large_kernels_dense", {}, 172_930 - 490 + 539, 21, 1),
    ("dilated", WIDE, WIDE_FOUR + 5130, 31, 1),
    ("cascade", WIDE, WIDE_FOUR + conv(64, 64) + 2 * conv(128, 128) + 3 * conv(256, 256) + 5130,
     21, 1),
    ("cascade_depthwise", WIDE,
     WIDE_FOUR + depthwise(64) + 2 * depthwise(128) + 3 * depthwise(256) + 5130, 21, 1),
]  # fmt: skip
IDS = [name + "-wide" * bool(args) for name, args, *_ in CASES]


def features(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """What gives the map in front of the head, of the network as the paper's N'.

    A maximum has the gradient of a mean, which reaches the whole window.
    """
    if isinstance(module, nn.Sequential):
        for number, part in enumerate(module.features):  # type: ignore[arg-type]
            if isinstance(part, nn.MaxPool2d):
                module.features[number] = nn.AvgPool2d(3, stride=1, padding=1)  # type: ignore
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias) if part.bias is not None else None
    kept: list[Tensor] = []
    last = module.features if isinstance(module, nn.Sequential) else module.join
    last.register_forward_hook(lambda _m, _i, out: kept.append(out))  # type: ignore

    def run(x: Tensor) -> Tensor:
        kept.clear()
        module(x)
        return kept[0]

    return run


@pytest.mark.parametrize(("name", "args", "parameters", "field", "stride"), CASES, ids=IDS)
def test_counts_and_fields(
    name: str, args: dict[str, Any], parameters: int, field: int, stride: int
) -> None:
    module = getattr(small, name)(**args)
    assert sum(p.numel() for p in module.parameters()) == parameters
    theory = rf.theory(rf.record(module, size=192))["y"]
    assert (theory["size"], theory["stride"]) == (field, stride)


@pytest.mark.parametrize(
    ("name", "field"), [(n, f) for n, args, _, f, _ in CASES if not args and f < 60]
)
def test_the_gradient_of_a_unit_is_as_wide_as_the_field(name: str, field: int) -> None:
    """No weight is negative, so that no path can cancel another, nor a ReLU stop one."""
    run = features(getattr(small, name)().eval())
    image = torch.ones(1, 3, 97, 97, requires_grad=True)
    out = run(image)
    middle = out.shape[2] // 2
    out[0, -1, middle, middle].backward()  # the last channels have the largest field
    assert image.grad is not None
    rows = image.grad[0].abs().sum(0).sum(1).nonzero()
    assert int(rows.max() - rows.min()) + 1 == field


def test_resnet18_keeps_its_field_without_strides() -> None:
    """As timm dilates it down to stride 8, which is the least that timm offers."""
    plain, dilated = small.resnet18_32px(), small.resnet18_dilated()
    ours, theirs = (rf.theory(rf.record(m, size=64))["y"] for m in (dilated, plain))
    assert (ours["size"], ours["stride"]) == (theirs["size"], 1)
    assert [*plain.state_dict()] == [*dilated.state_dict()]

    import timm

    wanted = timm.create_model("resnet18", output_stride=8)
    found = timm.create_model("resnet18")
    for stage, dilation in ((found.layer3, 1), (found.layer4, 2)):
        residual.without_strides(stage, dilation)
    image = torch.randn(1, 3, 64, 64)
    found.load_state_dict(wanted.state_dict())
    with torch.no_grad():
        assert torch.equal(found.eval()(image), wanted.eval()(image))


def test_images_of_any_size_channels_and_classes() -> None:
    for name in small.__all__:
        if name.startswith("resnet"):
            continue
        made = getattr(small, name)(classes=7, in_chans=1).eval()
        out = made(torch.zeros(2, 1, 19, 26))
        assert out.shape == ((2, 7, 19, 26) if name.endswith("_dense") else (2, 7)), name


@pytest.mark.parametrize("name", ["hrnet", "dilated_dense"])
def test_other_classes_change_the_head_alone(name: str) -> None:
    module = getattr(small, name)()
    before = {key: v.shape for key, v in module.state_dict().items()}
    network.set_classes(module, 4, name)
    after = {key: v.shape for key, v in module.state_dict().items()}
    assert [key for key in after if after[key] != before[key]] == ["head.weight", "head.bias"]


def test_a_wrong_number_of_widths_is_named() -> None:
    with pytest.raises(UsageError, match=r"widths: expected 4 numbers above 0, got \[8, 8\]"):
        backbones.build("rfbench.classify.nets:cascade(widths=[8,8])")
    with pytest.raises(UsageError, match=r"widths: expected 6 numbers"):
        backbones.build("rfbench.classify.nets:dilated_dense(widths=[8,8,8,8,8,0])")


def test_the_depthwise_resnet_is_the_dense_one_but_for_its_3x3s() -> None:
    name = "rfbench.classify.nets:resnet14"
    dense, own = small.resnet14(), small.resnet14_depthwise()
    of = lambda net: {key: value.shape for key, value in net.state_dict().items()}  # noqa: E731
    different = {key for key, shape in of(dense).items() if of(own)[key] != shape}
    assert of(dense).keys() == of(own).keys()
    assert different == {f"layer{i}.0.conv2.weight" for i in (1, 2, 3, 4)}
    changed = [w * w * 9 - w * 9 for w in (8, 16, 32, 64)]
    count = lambda net: sum(p.numel() for p in net.parameters())  # noqa: E731
    assert count(dense) - count(own) == sum(changed)
    # what a unit gets is of the size that ReLU keeps, whatever the width
    for i in (1, 2, 3, 4):
        weight = own.get_submodule(f"layer{i}.0.conv2").weight
        assert weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.35)
    strided = [f"layer{i}.0.{what}" for i in (2, 3, 4) for what in ("conv2", "downsample.0")]
    for groups, expected in (("", strided), (":groups=depthwise", strided[::2]),
                             (":groups=dense", strided[1::2])):  # fmt: skip
        found = backbones.build(f"{name}_depthwise", f"1x1+3x3{groups}", meta=True)
        assert found.replaced == expected
    assert backbones.build(name, "1x1+3x3:groups=dense", meta=True).replaced == strided


def plain(a: int, b: int, k: int) -> int:
    """Weights of a convolution without biases, scale and shift of its norm."""
    return a * b * k * k + 2 * b


def bottleneck(a: int, width: int) -> int:
    return plain(a, width, 1) + plain(width, width, 3) + plain(width, 4 * width, 1)


def test_17_blocks_for_small_images() -> None:
    module = small.resnet17_blocks()
    expected = plain(3, 16, 3) + 256 * 10 + 10
    for before, width, count in ((16, 16, 6), (64, 32, 6), (128, 64, 5)):
        expected += bottleneck(before, width) + plain(before, 4 * width, 1)
        expected += (count - 1) * bottleneck(4 * width, width)
    assert sum(p.numel() for p in module.parameters()) == expected
    # 1 + stem 2 + 6 x 2 + (2 + 5 x 4) + (4 + 4 x 8)
    theory = rf.theory(rf.record(module, size=32), "layer3")["y"]
    assert (theory["size"], theory["stride"]) == (73, 4)


def test_16_blocks_and_a_class_for_every_pixel() -> None:
    module = small.resnet16_blocks_dense(classes=5).eval()
    expected = plain(3, 16, 3) + 128 * 5 + 5
    for before, width in ((16, 16), (16, 32), (32, 64), (64, 128)):
        expected += plain(before, width, 3) + plain(width, width, 3) + plain(before, width, 1)
        expected += 6 * plain(width, width, 3)
    assert sum(p.numel() for p in module.parameters()) == expected
    # 1 + stem 2 + (2 + 7 x 4) + (4 + 7 x 8) + (8 + 7 x 16) + (16 + 7 x 32)
    theory = rf.theory(rf.record(module, size=256), "net.classifier")["y"]
    assert (theory["size"], theory["stride"]) == (453, 16)
    assert module(torch.zeros(1, 3, 50, 67)).shape == (1, 5, 50, 67)
