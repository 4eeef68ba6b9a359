"""Networks and heads: what they return, what initialises them, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones
from rfbench.models.weight_files import FORMAT
from rfbench.schemas.seg import SegConfig
from rfbench.segment import losses, network, plan
from tests.segment import runs

RESNET14 = "rfbench.classify.nets:resnet14"
OWN = "tests.segment.test_network"


def config(**values: Any) -> SegConfig:
    return SegConfig.model_validate({"model": RESNET14, "head": "fcn", **values})


def scores(classes: int = 5, size: tuple[int, int] = (64, 80), **values: Any) -> torch.Tensor:
    settings = config(**values)
    module = network.build(settings, classes).module.eval()
    with torch.no_grad():
        return network.outputs(module(torch.randn(1, 3, *size)), settings, classes)["out"]


@pytest.mark.parametrize("head", ["fcn", "fpn"])
@pytest.mark.parametrize("model", [RESNET14, "timm:mobilenetv3_small_050", "timm:resnet10t"])
def test_a_classifier_below_a_head(model: str, head: str) -> None:
    assert scores(model=model, head=head, size=(65, 90)).shape == (1, 5, 65, 90)


def test_the_heads_read_the_maps_that_they_say() -> None:
    """fcn: the coarsest alone. Zero its weights, and what is left is its bias, everywhere."""
    own: Any = network.build(config(), 5).module
    assert own._read == ["layer4"] and own.head.classifier.weight.shape == (5, 256, 1, 1)
    pyramid: Any = network.build(config(head="fpn", channels=16), 5).module
    assert pyramid._read == ["layer2", "layer3", "layer4"]
    named: Any = network.build(config(head="fpn", features=["layer1", "layer3"]), 5).module
    assert named._read == ["layer1", "layer3"]
    with pytest.raises(UsageError, match="has no map 'layer9'"):
        network.build(config(features=["layer9"]), 5)


def test_bilinear_upsampling_keeps_a_plane() -> None:
    """Between the centres of units: a score that grows with its position grows evenly."""
    from rfbench.segment.heads import upsampled

    plane = torch.arange(4.0)[None, None, None].repeat(1, 1, 4, 1)
    row = upsampled(plane, (16, 16))[0, 0, 8]
    expected = (torch.arange(16) + 0.5) / 4 - 0.5  # unit u is centred on (u + 0.5) S - 0.5
    torch.testing.assert_close(row, expected.clamp(0, 3))


def test_output_strides() -> None:
    for stride in (16, 8, 4):
        settings = config(model_args={"output_stride": stride})
        own: Any = network.build(settings, 5).module
        maps: list[torch.Tensor] = []
        own.head.register_forward_hook(lambda _m, _i, out, maps=maps: maps.append(out))
        own.eval()(torch.zeros(1, 3, 64, 64))
        assert maps[0].shape[-1] == 64 // stride
    with pytest.raises(UsageError, match="output_stride of 4, 8 or 16, not 3"):
        network.build(config(model_args={"output_stride": 3}), 5)
    for model, stride, message in (
        ("resnet18", 8, "resnet18 takes no argument 'output_stride'"),
        ("timm:resnet18", 3, "timm:resnet18 cannot have an output_stride of 3"),
        ("timm:mobilenetv2_035", 64, "cannot have an output_stride of 64: its coarsest map would"),
    ):
        with pytest.raises(UsageError, match=message):
            network.build(config(model=model, model_args={"output_stride": stride}), 5, meta=True)
    dilated = config(model="timm:mobilenetv2_035", model_args={"output_stride": 8})
    assert network.build(dilated, 5, meta=True).name == "timm:mobilenetv2_035(output_stride=8)"


@pytest.mark.parametrize("stride", [16, 8])
def test_a_variant_changes_the_classifier_alone(stride: int) -> None:
    args = {"output_stride": stride}
    plain = network.build(config(head="fpn", model_args=args), 5)
    changed = network.build(config(head="fpn", model_args=args, variant="1x1+3x3"), 5)
    assert plain.module.state_dict().keys() == changed.module.state_dict().keys()
    assert len(changed.replaced) == (6 if stride == 16 else 4)


def test_torchvisions_own(tmp_path: Path) -> None:
    found = network.build(config(model="lraspp_mobilenet_v3_large", head="own"), 5)
    assert found.name == "torchvision:lraspp_mobilenet_v3_large"
    settings = config(
        model="fcn_resnet50", head="own", model_args={"aux_loss": True}, variant="1x1+3x3"
    )
    found = network.build(settings, 5, meta=True)
    output = found.module(torch.zeros(1, 3, 64, 64, device="meta"))
    assert {name: one.shape[1] for name, one in output.items()} == {"out": 5, "aux": 5}
    assert found.replaced
    with pytest.raises(UsageError, match="fcn_resnet50 has a head of its own: set head: own"):
        network.build(config(model="fcn_resnet50"), 5)


class Returns(nn.Module):
    """A network that returns what it is told to."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.conv, self.what = nn.Conv2d(3, 7, 1), what

    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return {"map": y, "scores": y.mean((2, 3)), "dict": {"logits": y}, "list": [y]}[self.what]


def returns(what: str) -> nn.Module:
    return Returns(what)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("map", "returns 7 channels; the data has 5 classes. If its function takes"),
        ("scores", r"returns \[1, 7\], not a map of scores .* head: fcn, or fpn, stands above it"),
        ("dict", "returns a dict of logits; its scores must be 'out'"),
        ("list", "returns list, not a map of scores"),
    ],
)
def test_outputs_that_are_no_scores(what: str, message: str) -> None:
    with pytest.raises(RfbenchError, match=message):
        scores(model=f"{OWN}:returns", model_args={"what": what}, head="own")


def checkpoint(path: Path, variant: str = "baseline", **more: Any) -> str:
    """A classifier's, as train-cls writes it."""
    found = backbones.build(RESNET14, variant)
    state = found.module.state_dict()
    held = {"format": FORMAT, "model": RESNET14, "variant": variant, "state_dict": state}
    torch.save({**held, "classes": ["a"], **more}, path)
    return str(path)


def test_a_classifiers_checkpoint_initialises_it(tmp_path: Path) -> None:
    torch.manual_seed(3)
    path = checkpoint(tmp_path / "best.pth", "1x1+3x3")
    settings = config(weights=path, variant="1x1+3x3")
    found = network.build(settings, 5)
    network.load_start(found, settings)
    held = torch.load(path, weights_only=True)["state_dict"]
    own = found.module.state_dict()
    below = [key for key in own if key.startswith("backbone.") and "num_batches" not in key]
    assert len(below) > 60
    assert all(torch.equal(own[key], held[key.removeprefix("backbone.")]) for key in below)
    network.load_start(found, settings, check=True)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "best.pth")
    for values, message in (
        ({"variant": "3x3"}, "holds .* / baseline; this run is .* / 3x3"),
        ({"model_args": {"output_stride": 8}}, r"this run is .*resnet14\(output_stride=8\)"),
    ):
        settings = config(weights=path, **values)
        with pytest.raises(RfbenchError, match=message):
            network.load_start(network.build(settings, 5), settings)
    segmenter = network.build(config(), 5).module.state_dict()
    torch.save({"state_dict": segmenter}, tmp_path / "seg.pth")
    settings = config(weights=str(tmp_path / "seg.pth"))
    with pytest.raises(RfbenchError, match="holds a segmenter; a backbone takes a classifier's"):
        network.load_start(network.build(settings, 5), settings)
    own = {"format": network.FORMAT, "model": RESNET14, "variant": "1x1", "state_dict": segmenter}
    torch.save(
        {**own, "classes": ["a"]}, tmp_path / "seg.pth"
    )  # also where it is read as plain weights
    with pytest.raises(RfbenchError, match="holds .* / 1x1; this run is .* / baseline"):
        backbones.build(RESNET14, weights=str(tmp_path / "seg.pth"))
    settings = config(weights="pretrained")
    with pytest.raises(UsageError, match="has no pretrained weights"):
        network.load_start(network.build(settings, 5), settings, check=True)


def test_weights_of_classes() -> None:
    found = network.weights_of_classes(config(loss={"class_weights": {"b": 2}}), ["a", "b"])
    assert found is not None and found.tolist() == [1, 2]
    with pytest.raises(UsageError, match="no class 'x'. There are: a, b."):
        network.weights_of_classes(config(loss={"class_weights": {"x": 2}}), ["a", "b"])


@pytest.mark.parametrize(
    ("model", "head"), [("timm:resnet18(in_chans=1)", "fcn"), ("grey.py:build", "own")]
)
def test_a_network_of_one_channel_says_so(
    model: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey images are read as three channels alike; torch would only tell of shapes."""
    monkeypatch.chdir(tmp_path)
    Path("grey.py").write_text(
        "from torch import nn\ndef build(): return nn.Conv2d(1, 11, 3, padding=1)\n"
    )
    values = {**runs.config(model=model, head=head), "model_args": {}}
    with pytest.raises(RfbenchError, match="it takes images of 1 channel, and all images are read"):
        plan.describe(SegConfig.model_validate(values), tmp_path / "out")


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_a_list_of_pixels_is_that_of_the_map(
    reduction: str, smoothing: float, weighted: bool
) -> None:
    """On GPUs that of the map is not deterministic."""
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 6, 7, generator=draw, requires_grad=True)
    truth = torch.randint(0, 5, (2, 6, 7), generator=draw)
    truth[0, :2] = 255
    weights = torch.rand(5, generator=draw) if weighted else None
    found = []
    for as_list in (False, True):
        loss = losses.of_pixels(maps, truth, reduction, weights, smoothing, as_list)
        found.append((loss.detach(), *torch.autograd.grad(loss.sum(), maps)))
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other)
