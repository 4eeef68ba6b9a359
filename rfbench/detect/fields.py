"""A backbone without an FPN: maps of one resolution and several fields, a level of the heads each.

    MODEL.BACKBONE.NAME: build_rfbench_fields_backbone
    MODEL.RFBENCH.NAME: rfbench.classify.nets:three_fields
    MODEL.RFBENCH.FEATURES: [branches.0, branches.1, branches.2]
    MODEL.RETINANET.IN_FEATURES: [f1, f2, f3]

Small, medium and large objects are told apart by the field that a level has, not by its stride, as
in TridentNet (Li et al., 2019). Nothing has to be up-sampled. MODEL.BACKBONE.FREEZE_AT does not
apply: there is no stem.
"""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from rfbench.detect.backbone import with_norm
from rfbench.errors import UsageError
from rfbench.models import backbones, features, pyramid


class Layers(Backbone):
    """Layers of a network as "f1", "f2", ..., each with its own stride and channels."""

    def __init__(self, network: backbones.Backbone, paths: Sequence[str], norm: str) -> None:
        """Take the outputs of the layers `paths`, from small to large fields.

        norm: as MODEL.RESNETS.NORM. Raises UsageError without paths and for an unknown one.
        """
        super().__init__()
        if not paths:
            raise UsageError("features: name the layers of the heads, from small to large fields")
        self.name, self.replaced = network.name, network.replaced
        found = [pyramid.find(network.module, network.name, [path]) for path in paths]
        parts = [next(iter(levels.levels.values())) for levels in found]
        self.layers = {f"f{number}": part for number, part in enumerate(parts, start=1)}
        self.net = network.module
        self.net.train()  # one of its own may return nothing
        self._maps = features.keep(self.net, self.layers)
        chain = pyramid.find(network.module, network.name, paths).chain
        last = max(parts, key=chain.index)
        after = chain[chain.index(last) + 1 :]
        # what is left has no parameters: it joins the layers, which a classifier's head wants
        unused = [p for p in after if list(self.net.get_submodule(p.path).parameters())]
        features.cut(self.net, [last, *unused], last)
        self.net = with_norm(self.net, norm)
        self._out_features = list(self.layers)
        self._out_feature_strides = {name: part.stride for name, part in self.layers.items()}
        self._out_feature_channels = {name: part.channels for name, part in self.layers.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W), normalised, to the maps by name."""
        self._maps.clear()
        self.net(x)
        maps = {name: self._maps[name] for name in self._out_features}
        self._maps.clear()  # or they would stay in memory until the next images
        return maps


class FieldsBackbone(Backbone):
    """The layers of `bottom_up`, through a 1x1 convolution of their own each."""

    def __init__(self, bottom_up: Layers, channels: int) -> None:
        """channels: of every map, as heads that levels share want it."""
        super().__init__()
        self.bottom_up = bottom_up
        shapes = bottom_up.output_shape()
        self.lateral = nn.ModuleDict(
            {name: nn.Conv2d(shape.channels, channels, 1) for name, shape in shapes.items()}
        )
        self._out_features = list(shapes)
        self._out_feature_strides = {name: shape.stride for name, shape in shapes.items()}
        self._out_feature_channels = dict.fromkeys(shapes, channels)

    @property
    def size_divisibility(self) -> int:
        """Images are padded to multiples of the coarsest stride."""
        return max(self._out_feature_strides.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W), normalised, to maps (N, channels, H / stride, W / stride)."""
        return {name: self.lateral[name](m) for name, m in self.bottom_up(x).items()}


@BACKBONE_REGISTRY.register()
def build_rfbench_fields_backbone(cfg: CfgNode, _input_shape: ShapeSpec) -> FieldsBackbone:
    """The layers MODEL.RFBENCH.FEATURES with MODEL.FPN.OUT_CHANNELS channels each."""
    node = cfg.MODEL.RFBENCH
    network = backbones.build(node.NAME, node.VARIANT)
    bottom_up = Layers(network, node.FEATURES, cfg.MODEL.RESNETS.NORM)
    return FieldsBackbone(bottom_up, cfg.MODEL.FPN.OUT_CHANNELS)
