"""Backbones for Detectron2: the feature pyramid of any classifier, in any variant, under an FPN.

After `import rfbench.detect` any Detectron2 configuration may say

    MODEL.BACKBONE.NAME: build_rfbench_fpn_backbone   # RetinaNet's: build_rfbench_retinanet_fpn_...
    MODEL.RFBENCH.NAME: resnet50
    MODEL.RFBENCH.VARIANT: 1x1+3x3

with INPUT.FORMAT RGB and the PIXEL_MEAN and PIXEL_STD that the network was trained with. The
variant is applied before the FPN is added, so the stride-2 convolutions of P6 and P7 stay plain.
"""

import math
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.config.defaults import _C as DEFAULTS
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from torch import Tensor, nn

from rfbench.errors import UsageError, suggest
from rfbench.models import backbones, features, pyramid

NORMS = ("FrozenBN", "BN", "SyncBN")

DEFAULTS.MODEL.RFBENCH = CfgNode()
DEFAULTS.MODEL.RFBENCH.NAME = "resnet50"  # of torchvision, timm, or FILE.py:function
DEFAULTS.MODEL.RFBENCH.VARIANT = "baseline"
DEFAULTS.MODEL.RFBENCH.FEATURES = []  # paths of the feature maps; []: the last of every stride


class FeatureBackbone(Backbone):
    """A classifier without its head: "res2" is its map (N, C, H / 4, W / 4), "res3" H / 8, ..."""

    def __init__(
        self,
        network: backbones.Backbone,
        out_features: Sequence[str],
        freeze_at: int = 0,
        norm: str = "FrozenBN",
        names: Sequence[str] = (),
    ) -> None:
        """Take the features `out_features` of `network`.

        freeze_at: as Detectron2's MODEL.BACKBONE.FREEZE_AT, 1: the stem, 2: and the first stage,
        and so on. norm: replaces BatchNorm, as MODEL.RESNETS.NORM. names: of the maps, see
        `pyramid.find`. Raises UsageError for an unknown feature or norm.
        """
        super().__init__()
        self.net = network.module
        self.net.train()  # one of its own may return nothing
        self.name, self.replaced = network.name, network.replaced
        found = pyramid.find(network.module, network.name, names)
        levels = {f"res{int(math.log2(stride))}": part for stride, part in found.levels.items()}
        if missing := [name for name in out_features if name not in levels]:
            known = ", ".join(f"{name} ({part.path})" for name, part in levels.items())
            raise UsageError(f"{network.name} has no feature {missing[0]}; it has: {known}.")
        self._out_features = list(out_features)
        self._out_feature_strides = {name: levels[name].stride for name in out_features}
        self._out_feature_channels = {name: levels[name].channels for name in out_features}
        self._maps = features.keep(self.net, {name: levels[name] for name in out_features})
        features.cut(self.net, found.chain, levels[out_features[-1]])
        frozen = found.chain[: found.stem if freeze_at else 0]
        for name, part in levels.items():
            if int(name.removeprefix("res")) <= freeze_at:
                frozen = found.chain[: found.chain.index(part) + 1]
        for part in frozen:
            self.net.get_submodule(part.path).requires_grad_(False)
            features.put(self.net, part.path, freeze_norms(self.net.get_submodule(part.path)))
        self.net = with_norm(self.net, norm)

    @property
    def size_divisibility(self) -> int:
        """Images are padded to multiples of the coarsest stride."""
        return max(self._out_feature_strides.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W), normalised, to the maps by name."""
        self._maps.clear()
        self.net(x)
        maps = {name: self._maps[name] for name in self._out_features}
        self._maps.clear()  # or they would stay in memory until the next images
        return maps


def with_norm(module: nn.Module, norm: str) -> nn.Module:
    """`module` with its BatchNorms as MODEL.RESNETS.NORM says. Raises UsageError if unknown."""
    if norm not in NORMS:
        raise UsageError(
            f"MODEL.RESNETS.NORM: must be one of {', '.join(NORMS)}, not '{norm}'."
            f"{suggest(norm, NORMS)}"
        )
    if norm == "FrozenBN":
        return freeze_norms(module)
    if norm == "SyncBN":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    return module


class FrozenNormAct(FrozenBatchNorm2d):
    """Detectron2's frozen norm, followed by dropout and activation as in timm's BatchNormAct2d."""

    def __init__(self, norm: Any) -> None:
        super().__init__(norm.num_features, norm.eps)
        self.drop, self.act = norm.drop, norm.act

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return self.act(self.drop(super().forward(x)))


def freeze_norms(module: nn.Module) -> nn.Module:
    """`module` with every BatchNorm frozen: statistics and parameters become constants.

    Detectron2's own conversion drops the activation in timm's BatchNormAct2d; timm's own casts half
    precision to single. This one uses Detectron2's norms and keeps the activations.
    """
    from timm.layers import BatchNormAct2d

    if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        acts = isinstance(module, BatchNormAct2d)
        kept = FrozenNormAct(module) if acts else FrozenBatchNorm2d(module.num_features, module.eps)
        own = {key: v for key, v in module.state_dict().items() if key in kept.state_dict()}
        kept.load_state_dict({**kept.state_dict(), **own})
        return kept
    for name, child in module.named_children():
        if (new := freeze_norms(child)) is not child:
            setattr(module, name, new)
    return module


@BACKBONE_REGISTRY.register()
def build_rfbench_backbone(cfg: CfgNode, _input_shape: ShapeSpec) -> FeatureBackbone:
    """The features, without an FPN."""
    node = cfg.MODEL.RFBENCH
    network = backbones.build(node.NAME, node.VARIANT)
    return FeatureBackbone(
        network,
        cfg.MODEL.FPN.IN_FEATURES,
        cfg.MODEL.BACKBONE.FREEZE_AT,
        cfg.MODEL.RESNETS.NORM,
        node.FEATURES,
    )


@BACKBONE_REGISTRY.register()
def build_rfbench_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """An FPN with one more level by subsampling, as in Mask R-CNN."""
    return _fpn(cfg, build_rfbench_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_rfbench_retinanet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """An FPN with two more levels by stride-2 convolutions, as in RetinaNet."""
    bottom = build_rfbench_backbone(cfg, input_shape)
    channels = bottom.output_shape()[cfg.MODEL.FPN.IN_FEATURES[-1]].channels
    return _fpn(cfg, bottom, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS))


def _fpn(cfg: CfgNode, bottom: FeatureBackbone, top: nn.Module) -> FPN:
    last = cfg.MODEL.FPN.IN_FEATURES[-1]
    # the top block reads the coarsest level: res5 or p5 if the total stride is 32
    top.in_feature = last if isinstance(top, LastLevelP6P7) else last.replace("res", "p")
    return FPN(
        bottom_up=bottom,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
