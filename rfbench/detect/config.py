"""From a run's configuration to Detectron2's: a stock file, and what differs from it."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import detectron2
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultTrainer

from rfbench import variants
from rfbench.errors import UsageError, suggest
from rfbench.schemas import DetConfig

TRAIN, VAL = "rfbench_train", "rfbench_val"  # the names of a run's data sets in Detectron2

# Detectron2's key -> the key of a run's configuration that sets it
OWN = {
    "MODEL.BACKBONE.NAME": "model",
    "MODEL.RFBENCH": "model, variant and features",
    "MODEL.WEIGHTS": "weights",
    "MODEL.DEVICE": "device",
    "MODEL.PIXEL_MEAN": "pixel_mean",
    "MODEL.PIXEL_STD": "pixel_std",
    "DATASETS.TRAIN": "data",
    "DATASETS.TEST": "data",
    "SOLVER.AMP.ENABLED": "precision",
    "SOLVER.REFERENCE_WORLD_SIZE": "reference_world_size",
    "OUTPUT_DIR": "--output",
    "SEED": "seed",
}


def stock_folder() -> Path:
    """Where Detectron2's own configurations lie: in the package, or beside it in a checkout."""
    # not by detectron2.model_zoo, which imports what setuptools no longer has
    package = Path(detectron2.__path__[0])
    for folder in (package / "model_zoo" / "configs", package.parent / "configs"):
        if (folder / "Base-RetinaNet.yaml").exists():
            return folder
    raise UsageError(f"the Detectron2 at {package} has no configurations (model_zoo/configs).")


def stock(name: str) -> CfgNode:
    """Detectron2's configuration `name`, such as COCO-Detection/retinanet_R_50_FPN_1x.yaml.

    Raises UsageError for a name that it does not have. Only its own are read: they may hold Python.
    """
    folder = stock_folder()
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*.yaml")]
    if name not in names:
        raise UsageError(f"detector: Detectron2 has no '{name}'.{suggest(name, names)}")
    cfg = get_cfg()
    with quiet():
        cfg.merge_from_file(str(folder / name))
    return cfg


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without fvcore's warning that the file holds Python: it is the package's own."""
    logger = logging.getLogger("fvcore.common.config")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def resolve(
    config: DetConfig, classes: int, folder: Path, device: str = "cpu", world: int = 1
) -> CfgNode:
    """Detectron2's configuration of the run, frozen.

    classes: how many the data set has. world: processes; with `reference_world_size`, Detectron2
    scales batch, rate and periods to it. Raises UsageError with every wrong key of `opts`.
    """
    cfg = stock(config.detector)
    if "fpn" not in cfg.MODEL.BACKBONE.NAME:
        raise UsageError(f"detector: {config.detector} has no FPN to put a backbone under.")
    retina = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = f"build_rfbench_{'retinanet_' * retina}fpn_backbone"
    cfg.MODEL.RFBENCH.NAME = config.model
    cfg.MODEL.RFBENCH.VARIANT = variant_name(config)
    cfg.MODEL.RFBENCH.FEATURES = list(config.features)
    cfg.MODEL.WEIGHTS = ""  # the run's own, see `weights`
    cfg.MODEL.DEVICE = device
    # the paper's normalisation, in the classifier's order of colours
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = list(config.pixel_mean)
    cfg.MODEL.PIXEL_STD = list(config.pixel_std)
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (TRAIN,), (VAL,)
    cfg.SOLVER.AMP.ENABLED = config.precision != "fp32"
    cfg.SOLVER.REFERENCE_WORLD_SIZE = config.reference_world_size
    cfg.OUTPUT_DIR = str(folder)
    cfg.SEED = config.seed
    set_opts(cfg, config.opts)
    cfg = DefaultTrainer.auto_scale_workers(cfg, world)
    _check(cfg, world, device)
    cfg.freeze()
    return cfg


def variant_name(config: DetConfig) -> str:
    """The canonical name of the run's variant."""
    variant = config.variant if isinstance(config.variant, str) else config.variant.model_dump()
    return variants.get(variant).name


def set_opts(cfg: CfgNode, opts: dict[str, Any]) -> None:
    """Set Detectron2's keys in place. Raises UsageError, one line for each wrong one."""
    known, problems = _flat(cfg), []
    for key, value in _leaves(opts, cfg).items():
        own = next((name for name in OWN if f"{key}.".startswith(f"{name}.")), None)
        if own:
            problems.append(f"opts.{key}: is set by {OWN[own]}")
        elif key not in known:
            near = suggest(key, known, 1) or suggest(key.rpartition(".")[2], _last(known), 1)
            problems.append(f"opts: Detectron2 has no key '{key}'.{near}")
        else:
            # a whole number is a rate too
            whole = isinstance(known[key], float) and type(value) is int
            try:
                cfg.merge_from_list([key, float(value) if whole else value])
            except (ValueError, AssertionError, KeyError) as error:
                what = " ".join(str(error).split())[:200]
                problems.append(f"opts.{key}: {what}")
    if problems:
        raise UsageError("\n".join(problems))


def _leaves(opts: dict[str, Any], cfg: Any, key: str = "") -> dict[str, Any]:
    """{"SOLVER": {"GAMMA": 1}} as {"SOLVER.GAMMA": 1}; a value may be a mapping itself."""
    found: dict[str, Any] = {}
    for name, value in opts.items():
        below = cfg.get(name) if isinstance(cfg, CfgNode) else None
        if isinstance(value, dict) and (isinstance(below, CfgNode) or below is None):
            found |= _leaves(value, below, f"{key}{name}.")
        else:
            found[f"{key}{name}"] = value
    return found


def _flat(cfg: CfgNode, key: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in cfg.items():
        node = isinstance(value, CfgNode)
        found |= _flat(value, f"{key}{name}.") if node else {f"{key}{name}": value}
    return found


def _last(keys: dict[str, Any]) -> list[str]:
    return [key.rpartition(".")[2] for key in keys]


def _check(cfg: CfgNode, world: int, device: str) -> None:
    """Raise UsageError for what Detectron2 would tell by an assertion in the middle of a run."""
    if cfg.SOLVER.IMS_PER_BATCH < 1:
        raise UsageError(
            f"opts.SOLVER.IMS_PER_BATCH must be at least 1 ({cfg.SOLVER.IMS_PER_BATCH})."
        )
    if cfg.SOLVER.IMS_PER_BATCH % world:
        raise UsageError(
            f"opts.SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} does not divide by {world} "
            f"processes."
        )
    if cfg.SOLVER.AMP.ENABLED and device == "cpu":
        raise UsageError("precision: fp16 and bf16 need a GPU; a CPU computes in fp32.")


def difference(cfg: CfgNode, base: CfgNode) -> dict[str, tuple[Any, Any]]:
    """Detectron2's keys in which two configurations differ, as (value in `base`, in `cfg`)."""
    ours, theirs = _flat(cfg), _flat(base)
    return {
        key: (theirs.get(key), value)
        for key, value in ours.items()
        if _plain(value) != _plain(theirs.get(key))
    }


def _plain(value: Any) -> Any:
    """Tuples as lists: Detectron2's files mix them."""
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def scaling(cfg: CfgNode, config: DetConfig) -> dict[str, Any] | None:
    """What Detectron2 scaled to the number of processes, for the record; None: nothing."""
    before, now = config.reference_world_size, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if before == now:
        return None
    solver = {key: cfg.SOLVER[key] for key in ("IMS_PER_BATCH", "BASE_LR", "MAX_ITER", "STEPS")}
    return {"from": before, "to": now, **solver, "WARMUP_ITERS": cfg.SOLVER.WARMUP_ITERS}
