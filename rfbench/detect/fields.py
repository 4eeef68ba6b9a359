"""A backbone without a pyramid: maps of one resolution and several fields, a head's level each.

    MODEL.BACKBONE.NAME: build_rfbench_fields_backbone
    MODEL.RFBENCH.NAME: rfbench.classify.nets:three_fields
    MODEL.RFBENCH.FEATURES: [branches.0, branches.1, branches.2]
    MODEL.RETINANET.IN_FEATURES: [f1, f2, f3]

Small, medium and large objects are told apart by the field that a level has, not by its stride, as
in TridentNet (Li et al., 2019). There is no FPN: nothing has to be up-sampled.
"""

import functools
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from rfbench.errors import UsageError
from rfbench.models import backbones, pyramid


class FieldsBackbone(Backbone):
    """Layers of a network as "f1", "f2", ..., through a 1x1 convolution of their own each."""

    def __init__(self, network: backbones.Backbone, paths: Sequence[str], channels: int) -> None:
        """Take the outputs of the layers `paths`, from small to large fields.

        channels: of every map, as heads that levels share want it. Raises UsageError without paths
        and for an unknown one.
        """
        super().__init__()
        if not paths:
            raise UsageError(
                "MODEL.RFBENCH.FEATURES: name the layers of the heads, from small to large fields"
            )
        self.net = network.module.train()
        parts = [
            next(iter(pyramid.find(network.module, network.name, [path]).levels.values()))
            for path in paths
        ]
        self._out_features = [f"f{number}" for number in range(1, len(parts) + 1)]
        named = dict(zip(self._out_features, parts, strict=True))
        self._out_feature_strides = {name: part.stride for name, part in named.items()}
        self._out_feature_channels = dict.fromkeys(named, channels)
        self.lateral = nn.ModuleDict(
            {name: nn.Conv2d(part.channels, channels, 1) for name, part in named.items()}
        )
        self._maps: dict[str, Tensor] = {}
        for name, part in named.items():
            module = self.net.get_submodule(part.path)
            module.register_forward_hook(functools.partial(_keep, self._maps, name))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W), normalised, to maps (N, channels, H / stride, W / stride)."""
        self._maps.clear()
        self.net(x)
        maps = {name: self.lateral[name](self._maps[name]) for name in self._out_features}
        self._maps.clear()  # or they would stay in memory until the next images
        return maps


def _keep(
    maps: dict[str, Tensor], name: str, _module: object, _inputs: object, out: Tensor
) -> None:
    maps[name] = out


@BACKBONE_REGISTRY.register()
def build_rfbench_fields_backbone(cfg: CfgNode, _input_shape: ShapeSpec) -> FieldsBackbone:
    """The layers MODEL.RFBENCH.FEATURES with MODEL.FPN.OUT_CHANNELS channels each."""
    node = cfg.MODEL.RFBENCH
    network = backbones.build(node.NAME, node.VARIANT)
    return FieldsBackbone(network, node.FEATURES, cfg.MODEL.FPN.OUT_CHANNELS)
