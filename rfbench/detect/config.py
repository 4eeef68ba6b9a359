"""From a run's configuration to Detectron2's: a stock file, and what differs from it."""

import contextlib
import difflib
import json
import logging
import math
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import detectron2
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import DefaultTrainer

from rfbench.config import flat
from rfbench.errors import UsageError, one_line, suggest
from rfbench.models import variants
from rfbench.schemas.det import DetConfig

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

# smallest values that a run can use
LEAST = {
    "SOLVER.MAX_ITER": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "DATALOADER.NUM_WORKERS": 0,
}

# type of a value in Detectron2's configuration -> what it must be, in words
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
KINDS |= {list: "a list", tuple: "a list"}


def stock_folder() -> Path:
    """The folder of Detectron2's own configurations, in the package or beside it in a checkout."""
    # not through detectron2.model_zoo, which imports a module that setuptools has dropped
    package = Path(detectron2.__path__[0])
    for folder in (package / "model_zoo" / "configs", package.parent / "configs"):
        if (folder / "Base-RetinaNet.yaml").exists():
            return folder
    raise UsageError(f"the Detectron2 at {package} has no configurations (model_zoo/configs).")


def stock(name: str) -> CfgNode:
    """Detectron2's configuration `name`, such as COCO-Detection/retinanet_R_50_FPN_1x.yaml.

    Raises UsageError for an unknown name. No other files are read, since they may contain Python.
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
    """Suppress fvcore's warning that a file may contain Python: it is the package's own."""
    logger = logging.getLogger("fvcore.common.config")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


# what Detectron2 and torch raise on options that they cannot use
DETECTRONS = (AssertionError, LookupError, ValueError, RuntimeError, TypeError)


@contextlib.contextmanager
def as_usage_error(doing: str) -> Iterator[None]:
    """A context in which what Detectron2 and torch raise on `opts` becomes a UsageError."""
    try:
        yield
    except (*DETECTRONS, AttributeError, ArithmeticError) as error:
        raise UsageError(f"opts: Detectron2 cannot {doing}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """What an error of Detectron2 says; of an assertion without words, the condition."""
    if isinstance(error, KeyError) and error.args:  # its text would be in quotes
        what = one_line(error.args[0], 300)
        return what if " " in what else f"there is no '{what}'"
    if not str(error):
        return one_line(traceback.extract_tb(error.__traceback__)[-1].line or type(error).__name__)
    return one_line(error, 300)


def resolve(
    config: DetConfig, classes: int, folder: Path, device: str = "cpu", world: int = 1
) -> CfgNode:
    """Detectron2's configuration of the run, frozen.

    classes: their number in the data set. world: number of processes; with `reference_world_size`,
    Detectron2 scales batch, learning rate and periods to it. Raises UsageError with every wrong
    key of `opts`.
    """
    cfg = stock(config.detector)
    if "fpn" not in cfg.MODEL.BACKBONE.NAME:
        raise UsageError(f"detector: {config.detector} has no FPN for a backbone.")
    retina = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    if config.fpn:
        cfg.MODEL.BACKBONE.NAME = f"build_rfbench_{'retinanet_' * retina}fpn_backbone"
    elif not retina:
        raise UsageError("fpn: false is for RetinaNet; other heads tell levels by their strides.")
    else:
        cfg.MODEL.BACKBONE.NAME = "build_rfbench_fields_backbone"
        cfg.MODEL.BACKBONE.FREEZE_AT = 0
        levels = [f"f{number}" for number in range(1, len(config.features) + 1)]
        cfg.MODEL.RETINANET.IN_FEATURES = levels
    cfg.MODEL.RFBENCH.NAME = config.network
    cfg.MODEL.RFBENCH.VARIANT = variant_name(config)
    cfg.MODEL.RFBENCH.FEATURES = list(config.features)
    cfg.MODEL.WEIGHTS = ""  # the run's own, see `weights`
    cfg.MODEL.DEVICE = device
    # the paper's normalization, with channels in the classifier's order
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = list(config.pixel_mean)
    cfg.MODEL.PIXEL_STD = list(config.pixel_std)
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (TRAIN,), (VAL,)
    cfg.SOLVER.AMP.ENABLED = config.precision in ("fp16", "bf16")
    cfg.SOLVER.REFERENCE_WORLD_SIZE = config.reference_world_size
    cfg.OUTPUT_DIR = str(folder)
    cfg.SEED = config.seed
    set_opts(cfg, config.opts)
    _check_numbers(cfg)
    if not config.fpn and cfg.MODEL.BACKBONE.FREEZE_AT:
        raise UsageError("opts.MODEL.BACKBONE.FREEZE_AT: must be 0 without an FPN; nothing freezes")
    if config.best_metric.startswith("segm") and not cfg.MODEL.MASK_ON:
        raise UsageError(f"best_metric: {config.detector} has no masks; use bbox/AP.")
    cfg = DefaultTrainer.auto_scale_workers(cfg, world)
    _check_numbers(cfg)  # scaling may round few iterations on many GPUs to 0
    _check_device(cfg, world, device)
    cfg.freeze()
    return cfg


def variant_name(config: DetConfig) -> str:
    """The canonical name of the run's variant."""
    variant = config.variant if isinstance(config.variant, str) else config.variant.model_dump()
    return variants.get(variant).name


def set_opts(cfg: CfgNode, opts: dict[str, Any]) -> None:
    """Set Detectron2's keys in place. Raises UsageError, one line for each wrong one."""
    known, problems = flat(cfg), []
    for key, value in _leaves(opts, cfg).items():
        own = next((name for name in OWN if f"{key}.".startswith(f"{name}.")), None)
        if own:
            problems.append(f"opts.{key}: is set by {OWN[own]}")
        elif key not in known:
            near = meant(key, cfg)
            did = f" Did you mean: {near}?" if near else ""
            problems.append(f"opts: Detectron2 has no key '{key}'.{did}")
        else:
            # a whole number is a valid learning rate
            whole = isinstance(known[key], float) and type(value) is int
            try:
                cfg.merge_from_list([key, float(value) if whole else value])
            except (ValueError, AssertionError, KeyError) as error:
                what = one_line(error)
                if what.startswith("Type mismatch"):
                    kind = KINDS.get(type(known[key]), "of another kind")
                    what = f"must be {kind} (it is {json.dumps(value)})"
                problems.append(f"opts.{key}: {what}")
    if problems:
        raise UsageError(*problems)


def meant(key: str, cfg: CfgNode) -> str:
    """The key of Detectron2 that an unknown one may have meant; "" if none is near.

    The nearest in the same section, else one of that name in another section.
    """
    last = {known.rpartition(".")[2]: known for known in reversed(list(flat(cfg)))}
    elsewhere = difflib.get_close_matches(key.rpartition(".")[2], last, n=1)
    # difflib rates abbreviations as distant, but they are better guesses than other sections
    return (
        _in_section(key, cfg, 0.6)
        or (last[elsewhere[0]] if elsewhere else "")
        or _in_section(key, cfg, 0.4)
    )


def _in_section(key: str, cfg: CfgNode, cutoff: float) -> str:
    """The nearest key, part by part from the left."""
    node: Any = cfg
    nearest = ""
    for part in key.split("."):
        names = list(node) if isinstance(node, CfgNode) else []
        theirs = [name for name in names if name != "RFBENCH"]  # this package's own section
        near = difflib.get_close_matches(part, theirs, n=1, cutoff=cutoff)
        if not near:
            return ""
        nearest += f"{near[0]}."
        node = node[near[0]]
    return nearest.removesuffix(".")


def _leaves(opts: dict[str, Any], cfg: Any, key: str = "") -> dict[str, Any]:
    """{"SOLVER": {"GAMMA": 1}} as {"SOLVER.GAMMA": 1}; a value may be a mapping itself."""
    dotted: dict[str, Any] = {}
    for name, value in opts.items():
        below = cfg.get(name) if isinstance(cfg, CfgNode) else None
        if isinstance(value, dict) and (isinstance(below, CfgNode) or below is None):
            dotted |= _leaves(value, below, f"{key}{name}.")
        else:
            dotted[f"{key}{name}"] = value
    return dotted


def _check_numbers(cfg: CfgNode) -> None:
    """Raise UsageError with every number that Detectron2 accepts but no run can use."""
    known = flat(cfg)
    problems = [
        f"opts.{key}: must be at least {least} (it is {known[key]})"
        for key, least in LEAST.items()
        if known[key] < least
    ]
    solver = cfg.SOLVER
    if not 0 < solver.BASE_LR < math.inf:
        problems.append(f"opts.SOLVER.BASE_LR: must be above 0 (it is {solver.BASE_LR:g})")
    if (before := solver.REFERENCE_WORLD_SIZE) and solver.IMS_PER_BATCH % before:
        problems.append(
            f"opts.SOLVER.IMS_PER_BATCH: {solver.IMS_PER_BATCH} does not divide by the {before} "
            "GPUs of reference_world_size"
        )
    if problems:
        raise UsageError(*problems)


def _check_device(cfg: CfgNode, world: int, device: str) -> None:
    """Raise UsageError for what would fail an assertion of Detectron2 during the run."""
    if cfg.SOLVER.IMS_PER_BATCH % world:
        raise UsageError(
            f"opts.SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} does not divide by {world} "
            "processes. reference_world_size=8 (the model zoo's number of GPUs) scales batch, "
            "learning rate and periods to any number."
        )
    if cfg.SOLVER.AMP.ENABLED and device == "cpu":
        raise UsageError("precision: fp16 and bf16 need a GPU; a CPU computes in fp32.")


def difference(cfg: CfgNode, base: CfgNode) -> dict[str, tuple[Any, Any]]:
    """Detectron2's keys in which two configurations differ, as (value in `base`, in `cfg`)."""
    ours, theirs = flat(cfg), flat(base)
    return {
        key: (theirs.get(key), value)
        for key, value in ours.items()
        if _plain(value) != _plain(theirs.get(key))
    }


def _plain(value: Any) -> Any:
    """Tuples as lists, since Detectron2's files mix them."""
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def scaling(cfg: CfgNode, config: DetConfig) -> dict[str, Any] | None:
    """The keys that Detectron2 scaled to the number of processes, for the record; None: none."""
    before, now = config.reference_world_size, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if before == now:
        return None
    solver = {key: cfg.SOLVER[key] for key in ("IMS_PER_BATCH", "BASE_LR", "MAX_ITER", "STEPS")}
    return {"from": before, "to": now, **solver, "WARMUP_ITERS": cfg.SOLVER.WARMUP_ITERS}
