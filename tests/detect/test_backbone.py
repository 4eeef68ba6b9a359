"""Backbones for Detectron2: the same network as its own, in any variant, for any classifier."""

import copy
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_backbone, build_model
from torch import Tensor, nn

import rfbench.detect  # noqa: F401 (registers the backbones)
from rfbench.detect import config
from rfbench.detect.backbone import FeatureBackbone, freeze_norms
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones, pyramid, variants

RETINANET = "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
# unmodified Detectron2's: parameters, trainable ones
COUNTS = {RETINANET: (37_915_572, 37_693_172), MASK_RCNN: (44_343_216, 44_120_816)}


def cfg_of(stock: str = RETINANET, ours: bool = True, **node: Any) -> CfgNode:
    cfg = config.stock(stock)
    cfg.MODEL.DEVICE = "cpu"
    if ours:
        retina = "retinanet_" if stock == RETINANET else ""
        cfg.MODEL.BACKBONE.NAME = f"build_rfbench_{retina}fpn_backbone"
    for key, value in node.items():
        cfg.MODEL.RFBENCH[key] = value
    return cfg


def randomise(module: nn.Module) -> None:
    """Norms with statistics and parameters of their own."""
    generator = torch.Generator().manual_seed(0)
    for m in module.modules():
        if "running_var" in getattr(m, "_buffers", {}):
            for tensor in (m.weight, m.bias, m.running_mean, m.running_var):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5)


def to_theirs(key: str) -> str:
    """A parameter of torchvision's ResNet by Detectron2's name."""
    key = key.removeprefix("net.")
    if not key.startswith("layer"):
        return key.replace("conv1", "stem.conv1").replace("bn1", "stem.conv1.norm")
    stage, block, layer, *rest = key.split(".")
    name = f"res{int(stage[-1]) + 1}.{block}"
    if layer == "downsample":
        return ".".join([name, "shortcut", *(["norm"] if rest[0] == "1" else []), rest[-1]])
    return ".".join([name, f"conv{layer[-1]}", *(["norm"] if layer[:2] == "bn" else []), *rest])


@pytest.mark.parametrize("stock", [RETINANET, MASK_RCNN])
def test_unmodified_resnet_is_detectron2s_own(stock: str) -> None:
    theirs_cfg = cfg_of(stock, ours=False)
    theirs_cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False  # as torchvision's
    torch.manual_seed(0)
    ours, theirs = build_backbone(cfg_of(stock)), build_backbone(theirs_cfg)
    randomise(ours.bottom_up)
    state = {f"bottom_up.{to_theirs(k)}": v for k, v in ours.bottom_up.state_dict().items()}
    state |= {k: v for k, v in ours.state_dict().items() if not k.startswith("bottom_up.")}
    theirs.load_state_dict(state)
    images = torch.randn(1, 3, 96, 128)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found, wanted = ours(images), theirs(images)
        assert found.keys() == wanted.keys()
        for name in wanted:
            assert torch.equal(found[name], wanted[name]), name
    assert ours.output_shape() == theirs.output_shape()
    assert ours.size_divisibility == theirs.size_divisibility == 32
    frozen = {to_theirs(k) for k, p in ours.bottom_up.named_parameters() if not p.requires_grad}
    assert frozen == {k for k, p in theirs.bottom_up.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("stock", [RETINANET, MASK_RCNN])
@pytest.mark.parametrize(
    ("variant", "changed"), [("baseline", 0), ("1x1", 3), ("3x3", 3), ("1x1+3x3", 6)]
)
def test_parameters_and_changed_convolutions(stock: str, variant: str, changed: int) -> None:
    with torch.device("cpu"):
        model = build_model(cfg_of(stock, VARIANT=variant))
    parameters = list(model.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    assert (sum(p.numel() for p in parameters), trainable) == COUNTS[stock]
    pooled = [name for name, m in model.named_modules() if isinstance(m, variants.Pooled)]
    assert len(pooled) == len(model.backbone.bottom_up.replaced) == changed
    assert all(name.startswith("backbone.bottom_up.net.layer") for name in pooled)
    if stock == RETINANET:
        for conv in (model.backbone.top_block.p6, model.backbone.top_block.p7):
            assert type(conv) is nn.Conv2d and conv.stride == (2, 2)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("mobilenet_v2", [32, 96, 320]),
        ("efficientnet_b0", [40, 112, 320]),
        ("timm:efficientnet_b0", [40, 112, 320]),
        ("timm:resnet18", [128, 256, 512]),
    ],
)
def test_other_backbones(name: str, channels: list[int]) -> None:
    backbone = build_backbone(cfg_of(NAME=name, VARIANT="3x3")).eval()
    shapes = backbone.bottom_up.output_shape()
    assert [shapes[f"res{n}"].channels for n in (3, 4, 5)] == channels
    assert [shapes[f"res{n}"].stride for n in (3, 4, 5)] == [8, 16, 32]
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 96, 64))
    sizes = {key: (12 >> n, 8 >> n) for n, key in enumerate(["p3", "p4", "p5"])}
    assert {key: tuple(maps[key].shape[2:]) for key in sizes} == sizes
    assert not any(m for m in backbone.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("variant", ["baseline", "1x1+3x3"])
def test_odd_sizes(variant: str) -> None:
    """Images of any size: padded to 32 by Detectron2; and maps of odd sizes below it."""
    model = build_model(cfg_of(NAME="resnet18", VARIANT=variant.replace("1x1+", ""))).eval()
    pictures = [{"image": torch.rand(3, 97, 131)}, {"image": torch.rand(3, 63, 75)}]
    with torch.no_grad():
        assert len(model(pictures)) == 2
        for size in [(65, 97), (70, 90)]:
            shape = {
                k: v.shape[2:] for k, v in model.backbone.bottom_up(torch.rand(1, 3, *size)).items()
            }
            wanted = [(-(-size[0] // s), -(-size[1] // s)) for s in (8, 16, 32)]
            assert [tuple(s) for s in shape.values()] == wanted


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:efficientnet_b0", "resnet18"])
def test_frozen_norms_compute_the_same(name: str) -> None:
    """Detectron2's conversion drops the activation inside timm's norms; timm's own does not."""
    from timm.layers import freeze_batch_norm_2d

    plain = backbones.build(name).module.eval()
    randomise(plain)
    other = copy.deepcopy(plain)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = plain(images)
        for frozen in (freeze_norms(plain), freeze_batch_norm_2d(other)):
            torch.testing.assert_close(frozen(images), wanted, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())


def test_frozen_norms_keep_half_precision() -> None:
    norm = nn.BatchNorm2d(4)
    images = torch.randn(1, 4, 8, 8, dtype=torch.half, requires_grad=True)
    assert freeze_norms(norm)(images).dtype == torch.half


@pytest.mark.parametrize(
    ("freeze_at", "frozen"),
    [
        (0, []),
        (1, ["conv1", "bn1"]),
        (2, ["conv1", "bn1", "layer1"]),
        (3, ["conv1", "bn1", "layer1", "layer2"]),
        (5, ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]),
    ],
)
def test_freezing(freeze_at: int, frozen: list[str]) -> None:
    bottom = FeatureBackbone(backbones.build("resnet18"), ["res3", "res5"], freeze_at, norm="BN")
    for name, child in bottom.net.named_children():
        parameters = list(child.parameters())
        norms = [m for m in child.modules() if isinstance(m, nn.BatchNorm2d)]
        if name in frozen:
            assert not norms and not any(p.requires_grad for p in parameters), name
        else:
            assert all(p.requires_grad for p in parameters), name
    assert "fc" not in dict(bottom.net.named_parameters())


def test_synchronised_norms() -> None:
    bottom = FeatureBackbone(backbones.build("resnet18"), ["res5"], 0, norm="SyncBN")
    assert any(isinstance(m, nn.SyncBatchNorm) for m in bottom.modules())
    assert not any(type(m) is nn.BatchNorm2d for m in bottom.modules())


def test_a_copy_has_maps_of_its_own() -> None:
    first = FeatureBackbone(backbones.build("resnet18"), ["res3"]).eval()
    second = copy.deepcopy(first)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(first(images)["res3"], second(images)["res3"])
        nn.init.zeros_(second.net.layer2[1].bn2.weight)
        nn.init.zeros_(second.net.layer2[1].conv2.weight)
        assert not torch.equal(first(images)["res3"], second(images)["res3"])


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100", "efficientnet_b0", "resnet50d"])
def test_levels_are_those_that_timm_names(name: str) -> None:
    module = backbones.build(f"timm:{name}", meta=True).module
    levels = pyramid.find(module, name).levels
    for entry in module.feature_info:  # type: ignore[union-attr]
        part = levels[entry["reduction"]]  # type: ignore[index]
        assert (part.path, part.channels) == (entry["module"], entry["num_chs"])  # type: ignore[index]


def test_named_features() -> None:
    net = backbones.build("mobilenet_v2", meta=True).module
    names = ["features.4", "features.10", "features.18"]
    levels = pyramid.find(net, "mobilenet_v2", names).levels
    assert {s: (p.path, p.channels) for s, p in levels.items()} == {
        8: ("features.4", 32),
        16: ("features.10", 64),
        32: ("features.18", 1280),
    }
    with pytest.raises(UsageError, match="has no map 'features.1O'. Did you mean: features.1,"):
        pyramid.find(net, "mobilenet_v2", ["features.1O"])


def test_what_makes_no_backbone() -> None:
    with pytest.raises(UsageError, match="swin_t has no maps of strides"):
        pyramid.find(backbones.build("swin_t", meta=True).module, "swin_t")
    with pytest.raises(UsageError, match="has no feature res5; it has: res1 .layer1., res2"):
        build_backbone(cfg_of(NAME="rfbench.classify.nets:resnet14"))
    with pytest.raises(UsageError, match="FrozenBN, BN, SyncBN, not 'GN'"):
        FeatureBackbone(backbones.build("resnet18"), ["res3"], norm="GN")
    with pytest.raises(RfbenchError, match="does not run on 256x256 px images"):
        pyramid.find(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), "mine")


class Attending(nn.Module):
    """Convolutions to stride 4, then a stage of attention; `end` says what it returns.

    map: (N, C, H, W) at stride 8; tokens: (N, L, C); last: (N, H, W, C).
    """

    def __init__(self, end: str, side: int | None = None) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.attention = Stage(end)
        self.widen = nn.Conv2d(12, 40, 1) if end == "map" else nn.Identity()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        if self.side not in (None, x.shape[-1]):
            raise ValueError(f"takes {self.side} px only")
        y = self.widen(self.attention(self.stage(self.stem(x))))
        return y.flatten(1).mean(1)


class Stage(nn.Module):
    def __init__(self, end: str) -> None:
        super().__init__()
        self.reduce = nn.AvgPool2d(2)
        self.qkv, self.out = nn.Conv2d(8, 24, 1), nn.Conv2d(8, 12, 1)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        small = self.reduce(x)
        q, k, v = self.qkv(small).flatten(2).chunk(3, 1)
        mixed = (v @ (k.transpose(1, 2) @ q).softmax(1)).view_as(small)
        y = self.out(mixed)
        return {"map": y, "tokens": y.flatten(2).mT, "last": y.permute(0, 2, 3, 1)}[self.end]


def test_a_stage_of_attention_is_a_feature() -> None:
    """It has no convolution larger than 1x1, but it is not what widens for the classifier."""
    levels = pyramid.find(Attending("map"), "own").levels
    assert {s: p.path for s, p in levels.items()} == {2: "stem", 4: "stage", 8: "widen"}
    for name, path in (("botnet26t_256", "final_conv"), ("visformer_tiny", "norm")):
        found = backbones.build(f"timm:{name}", meta=True)
        last = pyramid.find(found.module, name, sizes=[found.input_size]).levels[32]
        assert last.path == path  # behind the last stage, of attention alone


@pytest.mark.parametrize(
    ("end", "shape"), [("tokens", r"\[1, 1024, 12\]"), ("last", r"\[1, 32, 32, 12\]")]
)
def test_a_head_does_not_read_in_front_of_tokens(end: str, shape: str) -> None:
    told = f"its last map .N, C, H, W. is that of stage, and attention behind it returns {shape}"
    with pytest.raises(UsageError, match=told):
        pyramid.find(Attending(end), "own")
    assert pyramid.find(Attending(end), "own", ["stage"]).levels[4].path == "stage"  # on purpose


def test_networks_of_one_size() -> None:
    own = Attending("map", 96)
    assert sorted(pyramid.find(own, "own", sizes=[(64, 64), (96, 96)]).levels) == [2, 4, 8]
    told = "own does not run on 256x256 or 64x64 px images: takes 96 px only"
    with pytest.raises(RfbenchError, match=told):
        pyramid.find(own, "own", sizes=[(64, 64)])


def test_anyones_own_configuration() -> None:
    """No rfbench but the import: Detectron2's own calls find builders and keys."""
    cfg = get_cfg()
    cfg.merge_from_list(
        ["MODEL.BACKBONE.NAME", "build_rfbench_backbone", "MODEL.RFBENCH.NAME", "resnet18"]
    )
    cfg.merge_from_list(["MODEL.FPN.IN_FEATURES", ["res4"], "MODEL.DEVICE", "cpu"])
    assert build_backbone(cfg).output_shape()["res4"].stride == 16


class Staged(nn.Module):
    """Stages in a ModuleList, as users often write them; one more list inside the last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.stages = nn.ModuleList(nn.Conv2d(8, 8, 3, 2, 1) for _ in range(3))
        self.blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(8, 8, 3, 2, 1)])])
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for stage in [*self.stages, *self.blocks[0]]:
            x = stage(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("names", [[], ["stages.1", "blocks.0.0"]])
def test_stages_in_lists_are_a_pyramid(names: list[str]) -> None:
    found = pyramid.find(Staged(), "own", names)
    chain = ["stem", "stages.0", "stages.1", "stages.2", "blocks.0.0", "fc"]
    assert [part.path for part in found.chain] == chain
    every = dict(zip((2, 4, 8, 16, 32), chain, strict=False))
    wanted = {8: "stages.1", 32: "blocks.0.0"} if names else every
    assert {stride: part.path for stride, part in found.levels.items()} == wanted
