"""The levels of a detector's pyramid: the layers they come from, and where anchors assume them."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import Tensor, nn

from rfbench import shipped
from rfbench.config import for_a_network, load
from rfbench.copies import evaluating
from rfbench.detect import config as configs
from rfbench.detect.backbone import FeatureBackbone
from rfbench.detect.fields import Layers
from rfbench.errors import RfbenchError, UsageError, one_line, suggest
from rfbench.models import pyramid, variants
from rfbench.rf.core.levels import Level
from rfbench.schemas.det import DetConfig

log = logging.getLogger("rfbench")


@dataclass(frozen=True)
class Detector:
    """A pyramid in one variant; levels are layers of `module`. offset: of anchors, in strides.

    resize: of test images, the shorter side and the most of the longer one; 0: not resized.
    """

    title: str
    variant: str
    module: nn.Module
    offset: float
    levels: list[Level]
    resize: tuple[int, int] = (0, 0)


def read(path: str, wanted: list[str], overrides: list[str]) -> list[Detector]:
    """The detector of a configuration in every variant.

    path: a configuration of train-det, or one of Detectron2, of its model zoo by name. wanted:
    names of variants; []: the baseline and the configuration's own, or the paper's four if it sets
    none; for a backbone without variants, the backbone as it is. Raises UsageError.
    """
    path = _file(path)
    try:
        held = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {one_line(error)}") from None
    if isinstance(held, dict) and any(str(key).isupper() for key in held):
        return _of_detectron2(path, held, wanted, overrides)
    own = configs.variant_name(load(DetConfig, path, overrides))
    names = wanted or (["baseline", own] if own != "baseline" else list(variants.PAPER))
    detectors = []
    for name in names:
        config = load(DetConfig, path, [*overrides, f"variant={name}"])
        title = f"{Path(config.detector).stem} on {config.network}"
        try:
            detectors.append(_detector(configs.resolve(config, 80, Path("results")), title, name))
        except UsageError:
            if wanted or name in ("baseline", own):
                raise
            log.info(f"{title}: left out {name} (nothing to change)")
    return detectors


def _file(path: str) -> str:
    """The file `path`, rfbench's own or Detectron2's own configuration of that name."""
    path = shipped.path_of(path)
    if Path(path).exists():
        return path
    folder = configs.stock_folder()
    names = [own.relative_to(folder).as_posix() for own in folder.glob("*/*.yaml")]
    if path not in names:
        near = suggest(path, names) or for_a_network(path)
        raise UsageError(f"{path}: no such file.{near}")
    return str(folder / path)


def _of_detectron2(
    path: str, held: dict[str, Any], wanted: list[str], overrides: list[str]
) -> list[Detector]:
    """The detectors of a configuration in Detectron2's own format."""
    if overrides:
        raise UsageError(f"{path} is Detectron2's: -o is for configurations of train-det")
    cfg = get_cfg()
    _merge(cfg, Path(path), held)
    if not any(kind in cfg.MODEL.BACKBONE.NAME for kind in ("fpn", "rfbench_fields")):
        raise UsageError(f"{path}: MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME} has no FPN")
    if "rfbench" not in cfg.MODEL.BACKBONE.NAME:
        if wanted:
            raise UsageError(
                f"{path}: variants need MODEL.BACKBONE.NAME build_rfbench_fpn_backbone or "
                f"build_rfbench_retinanet_fpn_backbone; it is {cfg.MODEL.BACKBONE.NAME}"
            )
        return [_detector(cfg, Path(path).stem, "as it is")]
    detectors = []
    for name in wanted or [cfg.MODEL.RFBENCH.VARIANT]:
        cfg.MODEL.RFBENCH.VARIANT = variants.get(name).name
        detectors.append(_detector(cfg, f"{Path(path).stem} on {cfg.MODEL.RFBENCH.NAME}", name))
    return detectors


def _merge(cfg: CfgNode, path: Path, held: dict[str, Any]) -> None:
    """Merge a file and its _BASE_; only Detectron2's own files may contain Python."""
    if "_BASE_" in held:
        base = (path.parent / str(held.pop("_BASE_"))).resolve()
        if base.is_relative_to(configs.stock_folder().resolve()):
            with configs.quiet():
                cfg.merge_from_file(str(base))
        elif base.exists():
            _merge(cfg, base, yaml.safe_load(base.read_text("utf-8")))
        else:
            raise UsageError(f"{path}: _BASE_ {base} does not exist")
    try:
        cfg.merge_from_other_cfg(CfgNode(held))
    except (KeyError, ValueError, AssertionError) as error:
        raise UsageError(f"{path}: {one_line(error)}") from None


def _detector(cfg: CfgNode, title: str, variant: str) -> Detector:
    """Build the pyramid and describe its levels."""
    try:
        fpn: Any = build_backbone(cfg, ShapeSpec(channels=3))
    except (AssertionError, KeyError, ValueError, RuntimeError) as error:
        raise RfbenchError(f"{title}: its backbone cannot be built: {one_line(error)}") from error
    retina = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    anchors = cfg.MODEL.RETINANET.IN_FEATURES if retina else cfg.MODEL.RPN.IN_FEATURES
    rois = [] if retina else cfg.MODEL.ROI_HEADS.IN_FEATURES
    features = _features(cfg, fpn.bottom_up)
    levels = []
    for name, shape in fpn.output_shape().items():
        # an FPN's level is known by its stride; the topmost have no lateral connection: they come
        # from the level below
        below = features.get(name) or features.get(f"res{int(math.log2(shape.stride))}")
        feature = below or f"levels.{name}"
        on, read = name in anchors, name in rois
        levels.append(Level(name, shape.stride, feature, f"levels.{name}", on, read))
    offset = float(cfg.MODEL.ANCHOR_GENERATOR.OFFSET)
    resize = int(cfg.INPUT.MIN_SIZE_TEST), int(cfg.INPUT.MAX_SIZE_TEST)
    return Detector(title, variant, Named(fpn), offset, levels, resize)


class Named(nn.Module):
    """A pyramid with a named layer for every level, also for those computed without a module."""

    def __init__(self, fpn: nn.Module) -> None:
        super().__init__()
        self.fpn = evaluating(fpn)
        names = fpn.output_shape()  # type: ignore[operator]
        self.levels = nn.ModuleDict({name: nn.Identity() for name in names})

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.levels[name](level) for name, level in self.fpn(x).items()]


def _features(cfg: CfgNode, bottom: nn.Module) -> dict[str, str]:
    """The layer of each feature of the bottom-up network."""
    if isinstance(bottom, Layers):
        return {name: f"fpn.bottom_up.net.{part.path}" for name, part in bottom.layers.items()}
    if isinstance(bottom, FeatureBackbone):
        levels = pyramid.find(bottom.net, bottom.name, cfg.MODEL.RFBENCH.FEATURES).levels
        return {
            f"res{int(math.log2(stride))}": f"fpn.bottom_up.net.{part.path}"
            for stride, part in levels.items()
        }
    return {name: f"fpn.bottom_up.{name}" for name in cfg.MODEL.FPN.IN_FEATURES}
