"""Small networks, built from torch's and timm's parts; named like any user's function.

`model: rfbench.classify.nets:cascade` in YAML, their arguments under `model_args`.

residual: ResNets for small images. chains: one layer after another, most of them without
downsampling. branches: several fields side by side at full resolution.
"""

from rfbench.classify.nets.branches import hrnet, skips, three_fields
from rfbench.classify.nets.chains import (
    cascade,
    cascade_dense,
    cascade_depthwise,
    dilated,
    dilated_dense,
    large_kernels,
    large_kernels_dense,
    max_pooled,
    strided,
)
from rfbench.classify.nets.residual import (
    resnet14,
    resnet14_depthwise,
    resnet16_blocks_dense,
    resnet17_blocks,
    resnet18_32px,
    resnet18_dilated,
)

__all__ = [
    "cascade",
    "cascade_dense",
    "cascade_depthwise",
    "dilated",
    "dilated_dense",
    "hrnet",
    "large_kernels",
    "large_kernels_dense",
    "max_pooled",
    "resnet14",
    "resnet14_depthwise",
    "resnet16_blocks_dense",
    "resnet17_blocks",
    "resnet18_32px",
    "resnet18_dilated",
    "skips",
    "strided",
    "three_fields",
]
