"""The networks that scripts/check_libraries.py looks at: how each is built, its input, its map."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from torch import nn

PACKAGES = (
    "torch torchvision timm segmentation-models-pytorch ultralytics transformers monai pytorchcv "
    "spandrel effdet torchaudio"
).split()

PAGE = """# Networks of other libraries

What rfbench says of networks that people bring, and whether it is true. For every one the map that
its users look at was asked for; where there is an answer, the pixels that the path counts reach
were compared with the gradient of the real network in float64 (positive random weights; norms and
activations as identities; maxima as means), for the central unit and unit 0,0. Written by
`python scripts/check_libraries.py --markdown docs/networks.md`; the top of that file says how to
install the libraries. No weights are downloaded.

{summary}

Versions: {versions}.

*size*: of the theoretical field in pixels, y x x; *stride*: input pixels a unit; *-*: the units
have none in common, or it was refused.

"""


@dataclass(frozen=True)
class Network:
    """A network: build makes it, shape is that of its input without the batch, to is its map.

    inputs: how many of that shape it takes; fields are those in the first.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 160, 160)
    to: str = ""
    inputs: int = 1


def versions() -> str:
    """Of all packages that take part."""
    return ", ".join(f"{p} {version(p)}" for p in PACKAGES)


def _call(path: str, *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    """A function of a library, called when the network is wanted: 'package.module:name'."""

    def build() -> nn.Module:
        module, _, name = path.partition(":")
        made: nn.Module = getattr(importlib.import_module(module), name)(*args, **kwargs)
        return made

    return build


def _torchvision(kind: str, name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return _call(f"torchvision.models.{kind}:{name}", weights=None, weights_backbone=None, **kwargs)


def _smp(name: str, encoder: str = "resnet18", **kwargs: Any) -> Callable[[], nn.Module]:
    return _call(
        f"segmentation_models_pytorch:{name}", encoder, encoder_weights=None, classes=5, **kwargs
    )


def _yolo(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from ultralytics.nn import tasks

        kind = {"seg": "SegmentationModel", "pose": "PoseModel", "cls": "ClassificationModel"}
        ending = name.removesuffix(".yaml").rpartition("-")[2]
        made = getattr(
            tasks,
            "RTDETRDetectionModel" if "rtdetr" in name else kind.get(ending, "DetectionModel"),
        )
        model: nn.Module = made(name, ch=3, verbose=False)
        return model

    return build


def _hf(model: str, config: str, **kwargs: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**kwargs))
        return made

    return build


def _cv(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return _call("pytorchcv.model_provider:get_model", name, pretrained=False, **kwargs)


def _spandrel(path: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return _call(f"spandrel.architectures.{path}", **kwargs)


def _monai(name: str, *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return _call(f"monai.networks.nets:{name}", *args, **kwargs)


VOLUME = (1, 64, 64, 64)
UNET = {"channels": (8, 16, 32, 64), "strides": (2, 2, 2)}
FPN = {"weights": None, "weights_backbone": None}

NETWORKS: dict[str, Network] = {
    # torchvision
    "torchvision fcn_resnet50": Network(
        _torchvision("segmentation", "fcn_resnet50"), to="output.out"
    ),
    "torchvision fcn_resnet50 aux": Network(
        _torchvision("segmentation", "fcn_resnet50", aux_loss=True), to="output.aux"
    ),
    "torchvision deeplabv3_resnet50": Network(
        _torchvision("segmentation", "deeplabv3_resnet50"), to="output.out"
    ),
    "torchvision deeplabv3_resnet50 classifier.0.convs.2": Network(
        _torchvision("segmentation", "deeplabv3_resnet50"), to="classifier.0.convs.2"
    ),
    "torchvision lraspp_mobilenet_v3_large": Network(
        _torchvision("segmentation", "lraspp_mobilenet_v3_large"), to="output.out"
    ),
    "torchvision retinanet_resnet50_fpn": Network(
        _torchvision("detection", "retinanet_resnet50_fpn"), to="backbone.0"
    ),
    "torchvision retinanet_resnet50_fpn_v2": Network(
        _torchvision("detection", "retinanet_resnet50_fpn_v2"), to="backbone.1"
    ),
    "torchvision fasterrcnn_resnet50_fpn": Network(
        _torchvision("detection", "fasterrcnn_resnet50_fpn"), to="backbone.2"
    ),
    "torchvision maskrcnn_resnet50_fpn": Network(
        _torchvision("detection", "maskrcnn_resnet50_fpn"), to="backbone.pool"
    ),
    "torchvision fcos_resnet50_fpn": Network(
        _torchvision("detection", "fcos_resnet50_fpn"), to="backbone.0"
    ),
    "torchvision ssd300_vgg16": Network(
        _torchvision("detection", "ssd300_vgg16"), (3, 300, 300), to="backbone.0"
    ),
    "torchvision ssdlite320_mobilenet_v3_large": Network(
        _torchvision("detection", "ssdlite320_mobilenet_v3_large"), (3, 320, 320), to="backbone.0"
    ),
    "torchvision raft_small": Network(
        _call("torchvision.models.optical_flow:raft_small"),
        (3, 128, 128),
        "context_encoder",
        inputs=2,
    ),
    "torchvision r3d_18": Network(
        _call("torchvision.models.video:r3d_18"), (3, 16, 112, 112), to="layer4"
    ),
    "torchvision r2plus1d_18": Network(
        _call("torchvision.models.video:r2plus1d_18"), (3, 16, 112, 112), to="layer4"
    ),
    "torchvision mc3_18": Network(
        _call("torchvision.models.video:mc3_18"), (3, 16, 112, 112), to="layer4"
    ),
    # timm
    "timm resnet50 features_only": Network(
        _call("timm:create_model", "resnet50", features_only=True), to="output.4"
    ),
    "timm resnet50 output_stride 8": Network(
        _call("timm:create_model", "resnet50", features_only=True, output_stride=8), to="output.4"
    ),
    "timm hrnet_w18 features_only": Network(
        _call("timm:create_model", "hrnet_w18", features_only=True), to="output.1"
    ),
    "timm convnext_tiny features_only": Network(
        _call("timm:create_model", "convnext_tiny", features_only=True), to="output.3"
    ),
    # segmentation_models_pytorch
    **{
        f"smp {name}": Network(_smp(name))
        for name in ("Unet", "UnetPlusPlus", "FPN", "PSPNet", "Linknet", "PAN", "MAnet", "UPerNet")
    },
    "smp DeepLabV3": Network(_smp("DeepLabV3")),
    "smp DeepLabV3Plus": Network(_smp("DeepLabV3Plus")),
    "smp Segformer": Network(_smp("Segformer")),
    "smp Unet mobilenet_v2": Network(_smp("Unet", "mobilenet_v2")),
    "smp Unet efficientnet-b0": Network(_smp("Unet", "efficientnet-b0")),
    "smp Unet scse": Network(_smp("Unet", decoder_attention_type="scse"), to="decoder"),
    "smp FPN densenet121": Network(_smp("FPN", "densenet121")),
    # ultralytics, from its own YAML files
    "ultralytics yolov8n": Network(_yolo("yolov8n.yaml"), (3, 192, 192), to="model.15"),
    "ultralytics yolov8n P5": Network(_yolo("yolov8n.yaml"), (3, 192, 192), to="model.21"),
    "ultralytics yolov8n-seg": Network(_yolo("yolov8n-seg.yaml"), (3, 192, 192), to="model.18"),
    "ultralytics yolov8n-pose": Network(_yolo("yolov8n-pose.yaml"), (3, 192, 192), to="model.21"),
    "ultralytics yolov5nu": Network(_yolo("yolov5n.yaml"), (3, 192, 192), to="model.17"),
    "ultralytics yolov9t": Network(_yolo("yolov9t.yaml"), (3, 192, 192), to="model.15"),
    "ultralytics yolov10n": Network(_yolo("yolov10n.yaml"), (3, 192, 192), to="model.16"),
    "ultralytics yolo11n": Network(_yolo("yolo11n.yaml"), (3, 192, 192), to="model.16"),
    "ultralytics yolo11n P5 backbone": Network(_yolo("yolo11n.yaml"), (3, 192, 192), to="model.8"),
    "ultralytics rtdetr-l": Network(_yolo("rtdetr-l.yaml"), (3, 192, 192), to="model.9"),
    # transformers
    "transformers ResNet": Network(
        _hf("ResNetModel", "ResNetConfig"), to="output.last_hidden_state"
    ),
    "transformers ConvNext": Network(
        _hf("ConvNextModel", "ConvNextConfig"), to="output.last_hidden_state"
    ),
    "transformers RegNet": Network(
        _hf("RegNetModel", "RegNetConfig"), to="output.last_hidden_state"
    ),
    "transformers Bit": Network(_hf("BitModel", "BitConfig"), to="output.last_hidden_state"),
    "transformers MobileNetV2": Network(
        _hf("MobileNetV2Model", "MobileNetV2Config"), to="output.last_hidden_state"
    ),
    "transformers MobileViT": Network(
        _hf("MobileViTModel", "MobileViTConfig"), (3, 256, 256), to="output.last_hidden_state"
    ),
    "transformers Segformer": Network(
        _hf("SegformerForSemanticSegmentation", "SegformerConfig"), to="output.logits"
    ),
    "transformers Swin": Network(_hf("SwinBackbone", "SwinConfig"), to="output.feature_maps.0"),
    "transformers PoolFormer": Network(
        _hf("PoolFormerModel", "PoolFormerConfig"), to="output.last_hidden_state"
    ),
    "transformers FocalNet": Network(
        _hf("FocalNetBackbone", "FocalNetConfig", hidden_sizes=[192, 384, 768, 768]),
        to="output.feature_maps.0",
    ),
    "transformers UperNet on ConvNext": Network(
        lambda: _upernet(), (3, 256, 256), to="output.logits"
    ),
    "transformers Swin2SR": Network(
        _hf(
            "Swin2SRForImageSuperResolution",
            "Swin2SRConfig",
            embed_dim=60,
            depths=[2, 2],
            num_heads=[6, 6],
        ),
        (3, 64, 64),
        to="output.reconstruction",
    ),
    "transformers VitMatte detail": Network(
        _hf("ResNetBackbone", "ResNetConfig", out_features=["stage2", "stage4"]),
        to="output.feature_maps.0",
    ),
    # MONAI
    "MONAI UNet 2-D": Network(_monai("UNet", 2, 1, 2, **UNET), (1, 128, 128)),
    "MONAI UNet 3-D": Network(_monai("UNet", 3, 1, 2, **UNET), VOLUME),
    "MONAI UNet 3-D residual": Network(_monai("UNet", 3, 1, 2, **UNET, num_res_units=2), VOLUME),
    "MONAI BasicUNet 2-D": Network(_monai("BasicUNet", 2, 1, 2), (1, 128, 128)),
    "MONAI AttentionUnet 2-D": Network(_monai("AttentionUnet", 2, 1, 2, **UNET), (1, 128, 128)),
    "MONAI SegResNet 3-D": Network(_monai("SegResNet", 3, 8), VOLUME),
    "MONAI VNet 3-D": Network(_monai("VNet", 3), VOLUME),
    "MONAI HighResNet 3-D": Network(_monai("HighResNet", 3), (1, 32, 32, 32)),
    "MONAI DynUNet 2-D": Network(
        _monai("DynUNet", 2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2]), (1, 128, 128)
    ),
    "MONAI DenseNet121 2-D": Network(_monai("DenseNet121", 2, 1, 2), (1, 128, 128), to="features"),
    "MONAI SEResNet50 2-D": Network(
        _monai("SEResNet50", spatial_dims=2, in_channels=3, num_classes=2),
        (3, 128, 128),
        to="layer4",
    ),
    "MONAI FlexibleUNet 2-D": Network(
        _monai("FlexibleUNet", 3, 2, "efficientnet-b0", pretrained=False), (3, 128, 128)
    ),
    # pytorchcv
    **{
        f"pytorchcv {name}": Network(_cv(name), shape, to)
        for name, shape, to in (
            ("resnet18", (3, 160, 160), "features.stage4"),
            ("mobilenet_w1", (3, 160, 160), "features.stage5"),
            ("shufflenetv2_w1", (3, 160, 160), "features.stage3"),
            ("senet16", (3, 160, 160), "features.stage4"),
            ("dla34", (3, 160, 160), "features.stage4"),
            ("bisenet_resnet18_celebamaskhq", (3, 640, 480), "output.0"),
            ("pspnet_resnetd50b_voc", (3, 480, 480), "output.0"),
            ("deeplabv3_resnetd50b_voc", (3, 480, 480), "output.0"),
            ("simplepose_resnet18_coco", (3, 256, 192), "decoder"),
            ("alphapose_fastseresnet101b_coco", (3, 256, 192), "decoder"),
            ("lwopenpose2d_mobilenet_cmupan_coco", (3, 184, 184), ""),
            ("centernet_resnet18_voc", (3, 256, 256), "decoder.heads.heapmap_block.head"),
        )
    },
    # super-resolution (spandrel's architectures)
    "spandrel ESRGAN": Network(
        _spandrel("ESRGAN.__arch.RRDB:RRDBNet", in_nc=3, out_nc=3, num_blocks=2, num_filters=16),
        (3, 64, 64),
    ),
    "spandrel Compact": Network(
        _spandrel("Compact.__arch.SRVGG:SRVGGNetCompact", num_conv=4), (3, 64, 64)
    ),
    "spandrel SPAN": Network(
        _spandrel("SPAN:SPAN", num_in_ch=3, num_out_ch=3, norm=False), (3, 64, 64)
    ),
    "spandrel SwinIR": Network(
        _spandrel(
            "SwinIR:SwinIR",
            depths=[2, 2],
            num_heads=[6, 6],
            embed_dim=60,
            window_size=8,
            upscale=2,
            upsampler="pixelshuffle",
        ),
        (3, 64, 64),
    ),
    "spandrel HAT": Network(
        _spandrel(
            "HAT:HAT",
            depths=(2,),
            num_heads=(6,),
            embed_dim=60,
            window_size=16,
            upscale=2,
            upsampler="pixelshuffle",
        ),
        (3, 64, 64),
        to="conv_first",
    ),
    "spandrel SAFMN": Network(_spandrel("SAFMN:SAFMN", dim=36, n_blocks=2), (3, 64, 64)),
    "spandrel RealCUGAN": Network(_spandrel("RealCUGAN:UpCunet2x"), (3, 64, 64)),
    # effdet
    "effdet tf_efficientdet_d0": Network(
        _call(
            "effdet:create_model", "tf_efficientdet_d0", pretrained=False, pretrained_backbone=False
        ),
        (3, 512, 512),
        to="class_net.0",
    ),
    # torchaudio: one axis
    "torchaudio ConvTasNet": Network(
        _call("torchaudio.models:conv_tasnet_base"), (1, 8000), to="mask_generator"
    ),
    "torchaudio Wav2Letter": Network(
        _call("torchaudio.models:Wav2Letter", input_type="waveform"), (1, 16000)
    ),
}


def _upernet() -> nn.Module:
    import transformers

    backbone = transformers.ConvNextConfig(
        hidden_sizes=[96, 192, 384, 768], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = transformers.UperNetConfig(backbone_config=backbone, num_labels=5, hidden_size=64)
    model: nn.Module = transformers.UperNetForSemanticSegmentation(config)
    return model
