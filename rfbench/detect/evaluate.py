"""COCO metrics of a detector, by Detectron2's evaluator, and its localization errors."""

import contextlib
import importlib.util
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.evaluator import inference_context
from detectron2.utils import comm
from torch import nn

from rfbench import files
from rfbench.detect import boxes
from rfbench.detect import images as drawing
from rfbench.detect.apart import apart
from rfbench.detect.loaders import val_loader, with_plain_errors
from rfbench.errors import RfbenchError, UsageError
from rfbench.runs.processes import Processes
from rfbench.runs.progress import bar
from rfbench.schemas.det import DetConfig

FOLDER = "inference"
RESULTS = "coco_instances_results.json"  # Detectron2's name for predictions in COCO's format
WRITTEN = (RESULTS, "instances_predictions.pth")  # by Detectron2
MOVED = 200  # images that are evaluated again, shifted by 1 px
SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def evaluate(
    model: nn.Module,
    cfg: CfgNode,
    config: DetConfig,
    group: Processes,
    folder: Path,
    pause: Callable[[], object] = lambda: None,
    extras: bool = True,
) -> dict[str, Any]:
    """AP, AP50, AP75, APs, APm, APl in percent, for boxes ("bbox") and masks ("segm").

    Returned in all processes. Predictions stay in `folder`/inference. extras: add the metrics of
    `located`. pause: called by all processes between two images. Detectron2's NaN (no such
    objects) becomes None.
    """
    tasks = ("bbox", "segm") if cfg.MODEL.MASK_ON else ("bbox",)
    evaluator = evaluator_of(config.eval)(
        cfg.DATASETS.TEST[0], tasks, output_dir=str(folder / FOLDER), use_fast_impl=False
    )
    for name in WRITTEN:
        group.by_first(lambda name=name: files.claim(folder / FOLDER / name))  # type: ignore[misc]
    predict(model, cfg, evaluator, group, pause)
    gathered = comm.gather(evaluator._predictions, dst=0)
    evaluator._predictions, evaluator._distributed = [*itertools.chain(*gathered)], False
    metrics = apart(group, lambda: scored(evaluator, cfg, tasks, folder), pause, "evaluation")
    return {**metrics, **located(model, cfg, group, folder, pause)} if extras else metrics


def scored(
    evaluator: COCOEvaluator, cfg: CfgNode, tasks: Sequence[str], folder: Path
) -> dict[str, Any]:
    """The metrics of the predictions that the evaluator has been given."""
    begun = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):  # what pycocotools prints
        raw = evaluator.evaluate() or {}
    metrics: dict[str, Any] = {task: _known(raw.get(task, {})) for task in tasks}
    # without any prediction Detectron2 reports no metrics, or NaN
    if not json.loads((folder / FOLDER / RESULTS).read_text("utf-8")):
        truth = json.loads(Path(data_of(cfg).json_file).read_text("utf-8"))
        metrics = {task: no_predictions(truth["annotations"]) for task in tasks}
    metrics["seconds"] = {"coco": round(time.process_time() - begun, 2)}
    (folder / FOLDER / "instances_predictions.pth").unlink(missing_ok=True)
    return metrics


def predict(
    model: nn.Module, cfg: CfgNode, evaluator: Any, group: Processes, pause: Callable[[], object]
) -> None:
    """Run the model on the validation set, and give its predictions to the evaluator."""
    loader = val_loader(cfg)
    rounds = len(loader.dataset) // group.world  # the least that any process has
    evaluator.reset()
    progress = bar(len(loader), 0, "evaluating", group.first)
    try:
        with inference_context(model), torch.no_grad():
            for number, inputs in enumerate(with_plain_errors(loader)):
                if number < rounds:
                    pause()
                evaluator.process(inputs, model(inputs))
                progress.update()
    finally:
        progress.close()


def evaluator_of(name: str) -> type[COCOEvaluator]:
    """Detectron2's evaluator, which uses pycocotools, or one that uses faster-coco-eval."""
    if name == "pycocotools":
        return COCOEvaluator
    if not importlib.util.find_spec("faster_coco_eval"):
        raise UsageError(
            "eval: faster-coco-eval is not installed. pip install faster-coco-eval, "
            "or -o eval=pycocotools"
        )
    return FasterEvaluator


class FasterEvaluator(COCOEvaluator):
    """Detectron2's evaluator (0.6 and main) with faster-coco-eval instead of pycocotools."""

    def _eval_predictions(self, predictions: Any, img_ids: Any = None) -> None:
        from faster_coco_eval import COCOeval_faster

        # without metrics: only maps category ids and writes the file of predictions
        self._do_evaluation = False
        super()._eval_predictions(predictions, img_ids)
        instances = [one for image in predictions for one in image["instances"]]
        for task in sorted(self._tasks):
            # with a box present, the area of a mask would be taken from the box
            left_out = "bbox" if task == "segm" else ""
            rows = [{key: one[key] for key in one if key != left_out} for one in instances]
            evaluation = None
            if rows:
                answers = self._coco_api.loadRes(rows)
                evaluation = COCOeval_faster(self._coco_api, answers, task)
                evaluation.params.maxDets = [1, 10, 100]
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            names = self._metadata.get("thing_classes")
            self._results[task] = self._derive_coco_results(evaluation, task, class_names=names)


def _known(values: dict[str, float]) -> dict[str, Any]:
    """The metrics, NaN as None; those of single classes ("AP-cat") under "classes"."""
    plain = {name: None if value != value else float(value) for name, value in values.items()}
    classes = {name.removeprefix("AP-"): plain.pop(name) for name in list(plain) if "-" in name}
    return {**plain, "classes": classes} if classes else plain


def data_of(cfg: CfgNode) -> Any:
    """Detectron2's metadata of the validation set: json_file, image_root."""
    return MetadataCatalog.get(cfg.DATASETS.TEST[0])


def no_predictions(truth: list[dict[str, Any]]) -> dict[str, float | None]:
    """The metrics without any prediction: 0, and None for sizes that no object has."""
    from pycocotools.cocoeval import Params

    areas = [one["area"] for one in truth if not one.get("iscrowd")]  # as pycocotools takes them
    parameters = Params("bbox")
    present = {
        name: any(low <= area <= high for area in areas)
        for name, (low, high) in zip(parameters.areaRngLbl, parameters.areaRng, strict=True)
    }
    sizes = {"APs": "small", "APm": "medium", "APl": "large"}
    return {name: 0.0 if present[sizes.get(name, "all")] else None for name in SHOWN}


def located(
    model: nn.Module,
    cfg: CfgNode,
    group: Processes,
    folder: Path,
    pause: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Localization errors in the last evaluation: "registration" and "jitter", see `boxes`.

    Jitter, how boxes move when the image is shifted by 1 px, is over the first `MOVED` images.
    pause: as in `evaluate`.
    """
    registration = apart(group, lambda: _registration(cfg, folder), pause, "evaluation")
    return {"registration": registration, "jitter": _jitter(model, cfg, group, pause)}


def _registration(cfg: CfgNode, folder: Path) -> boxes.Figures:
    truth = json.loads(Path(data_of(cfg).json_file).read_text("utf-8"))
    predictions = json.loads((folder / FOLDER / RESULTS).read_text("utf-8"))
    return boxes.registration(truth["annotations"], predictions)


def _jitter(
    model: nn.Module, cfg: CfgNode, group: Processes, pause: Callable[[], object]
) -> boxes.Figures:
    """The first process predicts; the others pause as often."""
    data, figures, error = data_of(cfg), None, None
    truth = json.loads(Path(data.json_file).read_text("utf-8"))
    names = [image["file_name"] for image in truth["images"][:MOVED]]
    turns = iter(names)

    def images() -> Iterator[np.ndarray]:
        for name in turns:
            pause()
            yield drawing.read(Path(data.image_root) / name)

    if group.first:
        try:
            with inference_context(model), torch.no_grad():
                figures = boxes.jitter(lambda image: detect(model, cfg, image), images())
        except (RfbenchError, OSError) as caught:
            error = caught
    for _ in turns:
        pause()
    group.fail_together(error)
    return group.gather(figures)[0]


def detect(model: nn.Module, cfg: CfgNode, image: np.ndarray) -> list[dict[str, Any]]:
    """Boxes [x, y, width, height] in px of an image (H, W, 3) RGB uint8, with class and score."""
    height, width = image.shape[:2]
    short = cfg.INPUT.MIN_SIZE_TEST
    resize = ResizeShortestEdge([short, short], cfg.INPUT.MAX_SIZE_TEST).get_transform(image)
    pixels = torch.as_tensor(resize.apply_image(image).transpose(2, 0, 1).copy())
    (output,) = model([{"image": pixels, "height": height, "width": width}])
    instances = output["instances"].to("cpu")
    corners = instances.pred_boxes.tensor
    sized = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()
    columns = (sized, instances.pred_classes.tolist(), instances.scores.tolist())
    return [
        {"bbox": box, "category_id": label, "score": score}
        for box, label, score in zip(*columns, strict=True)
    ]


def shown(metrics: dict[str, Any]) -> str:
    """The metrics on one line."""
    texts = []
    for task, name in (("bbox", "box"), ("segm", "mask")):
        if task in metrics:
            known = [f"{key} {_figure(metrics[task].get(key))}" for key in SHOWN]
            texts.append(f"{name} {', '.join(known)}")
    return "; ".join(texts)


def localization(metrics: dict[str, Any]) -> str:
    """Localization errors on one line."""
    errors, jitter = metrics["registration"], metrics["jitter"]
    if not errors["pairs"]:
        return "no box is matched"
    dx, dy = (f"{k} {errors[k]:+.2f} +- {_figure(errors[f'{k}_se'])}" for k in ("dx", "dy"))
    return (
        f"box centres off by {dx}, {dy} px, AP90 {_figure(errors['AP90'])}; "
        f"jitter {_figure(jitter['jitter'])} px when the image is shifted by 1 px"
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else format(value, ".2f")
