"""What the numbers of a training's record must agree in; else it was changed."""

import contextlib
from collections.abc import Mapping
from typing import Any

from rfbench import metric_ranges
from rfbench.config import flat
from rfbench.errors import RfbenchError, one_line
from rfbench.models import arguments, identity
from rfbench.models import variant as variants

# what a record tells once more -> its key in the configuration
TOLD = {key: key for key in ("seed", "detector", "head", "eval")}
TOLD["dataset"] = "data.name"
UNTOLD = ("eval",)  # by older versions


def check(record: Any) -> None:
    """Raise ValueError for metrics that no evaluation gives, and for counts that disagree.

    record: a `records.TrainingRecord`. What an older version did not write is not compared.
    """
    best, kept = record.best or {}, flat(record.config)
    for name, metrics in (("metrics", record.metrics), ("best", best)):
        metric_ranges.check(metrics, name)
        most = record.images.get("val")
        for one in (metrics, metrics.get("ema", {})):
            if isinstance(one, dict) and _above(one.get("images"), most):
                raise ValueError(f"{name}.images is {one['images']}; there were {most} to evaluate")
    check_same(record)
    for key in ("steps", "seconds", "images_per_s", "parameters"):
        if (value := getattr(record, key)) is not None and value < 0:
            raise ValueError(f"{key} is {value}")
    by_class = record.metrics.get("iou") or {}
    if record.kind == "seg" and by_class and len(by_class) != record.classes:
        raise ValueError(f"metrics.iou is of {len(by_class)} of {record.classes} classes")
    if record.kind == "det":
        _check_iterations(record, kept)
    else:
        _check_epochs(record, kept, best)


def check_same(record: Any) -> None:
    """Raise ValueError where a record, or its parent, tells another thing than its configuration.

    Runs are grouped by what the record tells, and repeated from its configuration.
    """
    kept = flat(record.config)
    for key, of in TOLD.items():
        told = getattr(record, key, None)
        if of in kept and told != kept[of] and not (told is None and key in UNTOLD):
            raise ValueError(f"{key} is {_short(told)}; its config says {_short(kept[of])}")
    name, given = getattr(record, "variant", None), record.config.get("variant")
    if None not in (name, given) and name != given and name != _variant(given):
        raise ValueError(f"variant is {_short(name)}; its config says {_short(given)}")
    if "model" in kept and (model := getattr(record, "model", None)) is not None:
        _check_model(model, record.config)
    given = getattr(record, "input", None)
    for key, told in (given if isinstance(given, dict) else {}).items():
        wanted = kept.get(f"data.{'image_size' if key == 'size' else key}")
        if wanted is not None and told != wanted:
            where = f"input.{one_line(key, 60)}"
            raise ValueError(f"{where} is {_short(told)}; its config says {_short(wanted)}")
    for group in ("batch", "images", "objects"):
        counts = getattr(record, group, None) or {}
        if not isinstance(counts, dict):
            raise ValueError(f"{group} is {_short(counts)}")
        for key, value in counts.items():
            if value is not None and (type(value) is not int or value < 0):
                raise ValueError(f"{group}.{one_line(key, 60)} is {_short(value)}, not a count")
    if (
        "batch_size" in kept
        and record.batch.get("global", kept["batch_size"]) != kept["batch_size"]
    ):
        told = f"batch.global is {record.batch['global']}"
        raise ValueError(f"{told}; its config says batch_size = {_short(kept['batch_size'])}")


def _variant(given: Any) -> str | None:
    """The name of a variant that a configuration writes in another order, or as a mapping.

    None: it is none, or of a pool of one's own.
    """
    with contextlib.suppress(RfbenchError, AttributeError, TypeError, ValueError):
        return variants.get(given).name
    return None


def _check_model(told: Any, config: Mapping[str, Any]) -> None:
    """The name of the record is that of the configuration, with its arguments and its library."""
    try:
        name, args = arguments.split(str(told))
        wanted, held = arguments.split(arguments.named(config["model"], config.get("model_args")))
    except (RfbenchError, AttributeError, TypeError) as error:
        raise ValueError(f"model: {one_line(error)}") from None
    # a configuration need not name the library
    library, _, plain = name.rpartition(":")
    names = (name, plain) if library in identity.LIBRARIES else (name,)
    if wanted not in names or args != held:
        raise ValueError(f"model is {_short(told)}; its config says {_short(config['model'])}")


def _short(value: Any) -> str:
    return one_line(repr(value), 60)


def _check_epochs(record: Any, kept: dict[str, Any], best: dict[str, Any]) -> None:
    planned = kept.get("schedule.epochs", record.epochs)
    if not isinstance(planned, int | None):
        raise ValueError(f"schedule.epochs is {_short(planned)}")
    last = record.metrics.get("epoch")
    # of a segmentation: those that it had
    done = record.kind == "seg" and record.stopped_early and isinstance(last, int)
    wanted, what = (last + 1, "metrics.epoch + 1") if done else (planned, "schedule.epochs")
    if "epochs" in record.model_fields_set and record.epochs != wanted:
        raise ValueError(f"epochs is {record.epochs}, not {what} = {wanted}")
    if not isinstance(last, int):
        return
    if _above(best.get("epoch"), last) or _above(last, planned and planned - 1):
        told = f"metrics.epoch is {last}, best.epoch {best.get('epoch')}"
        raise ValueError(f"{told}, of {planned} epochs")
    if record.stopped_early is False and last + 1 != planned:
        raise ValueError(f"metrics.epoch is {last}, the last of {planned}")
    images, batch = record.images.get("train"), record.batch.get("global")
    if isinstance(images, int) and isinstance(batch, int) and images >= batch > 0:
        steps = (last + 1) * (images // batch)
        if record.steps != steps:
            raise ValueError(f"steps is {record.steps}; {last + 1} epochs have {steps}")


def _check_iterations(record: Any, kept: dict[str, Any]) -> None:
    planned = kept.get("opts.SOLVER.MAX_ITER")
    if not isinstance(planned, int) or record.scaled:  # for another number of GPUs
        return
    if record.steps > planned or (record.stopped_early is False and record.steps != planned):
        raise ValueError(f"steps is {record.steps}, of opts.SOLVER.MAX_ITER = {planned}")


def _above(value: Any, most: Any) -> bool:
    numbers = all(isinstance(one, int | float) for one in (value, most))
    return numbers and value > most
