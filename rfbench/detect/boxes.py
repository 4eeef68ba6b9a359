"""Where a detector's boxes lie: signed errors, AP at an IoU of 0.90, jitter.

Boxes are COCO's: dicts with image_id, category_id, bbox [x, y, width, height] in px, score.
Matching and AP are pycocotools' own, computed a second time for what its summary does not tell.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Boxes = Sequence[dict[str, Any]]
Figures = dict[str, float | int | None]

MATCH_IOU, STRICT_IOU = 0.5, 0.9
MIN_SCORE = 0.3  # of a detection whose jitter counts
BORDER = 2.0  # px; a box nearer to the image's edge shows another part of its object when moved


def registration(truth: Boxes, detections: Boxes) -> Figures:
    """How far detections lie from what they detect, and AP at an IoU of 0.90.

    Returns means over matched pairs (IoU of 0.5, see `match`) in px, detection minus truth: dx, dy
    of the centres, dw, dh of the sizes, each with a standard error (`dx_se`) that takes the boxes
    of an image as dependent; "pairs"; "AP90" in percent. None where nothing is matched.
    """
    evaluation = _evaluate(truth, detections, [MATCH_IOU, STRICT_IOU])
    pairs = _pairs(evaluation)
    names = ("dx", "dy", "dw", "dh")
    errors = _centers(detections, pairs[:, 1]) - _centers(truth, pairs[:, 0])
    images = [truth[i]["image_id"] for i in pairs[:, 0].tolist()]
    precision = evaluation.eval["precision"][1, :, :, 0, -1]
    known = precision[precision > -1]  # -1: a category without objects
    ap = 100 * float(known.mean()) if known.size else None
    return {"pairs": len(pairs), **means(names, errors, images), "AP90": ap}


def jitter(
    predict: Callable[[np.ndarray], Boxes],
    images: Iterable[np.ndarray],
    min_score: float = MIN_SCORE,
) -> Figures:
    """How far boxes move, beyond the image's own movement, when it moves by 1 px.

    predict: from an image (H, W, 3) to its detections (image_id is not needed) in px of it. Each
    image is shown twice: as it is, and moved 1 px right and down. It keeps its size, so that it
    is not resampled otherwise: the last row and column fall out, the first ones come twice.
    Detections of one category with an IoU of 0.5 after moving back are one box; what scores less
    than `min_score` or comes within 2 px of an edge is left out.

    Returns means in px over all pairs: "jitter", the distance between the centres after moving
    back; dx, dy, its signed parts; each with a standard error as in `registration`; "pairs".
    """
    still: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        other = np.pad(image, ((1, 0), (1, 0), (0, 0)), mode="edge")[:-1, :-1]
        views = ((image, 0, still), (np.ascontiguousarray(other), 1, moved))
        for view, shift, boxes in views:
            for one in predict(view):
                if one["score"] >= min_score and _is_inside(one["bbox"], view):
                    x, y, w, h = one["bbox"]
                    boxes.append({**one, "image_id": number, "bbox": [x - shift, y - shift, w, h]})
    pairs = match(still, moved)
    offsets = _centers(moved, pairs[:, 1])[:, :2] - _centers(still, pairs[:, 0])[:, :2]
    distances = np.hypot(offsets[:, :1], offsets[:, 1:])
    numbers = [still[i]["image_id"] for i in pairs[:, 0].tolist()]
    found = means(("jitter", "dx", "dy"), np.hstack([distances, offsets]), numbers)
    return {"pairs": len(pairs), **found}


def match(truth: Boxes, detections: Boxes) -> np.ndarray:
    """(n, 2): places in `truth` and in `detections` of boxes that COCO takes for the same.

    Of one image and category; an IoU of 0.5 at the least; the best score chooses first, of what
    is left what overlaps most; up to 100 an image and category; not with crowds.
    """
    return _pairs(_evaluate(truth, detections, [MATCH_IOU]))


def means(names: Sequence[str], values: np.ndarray, groups: Sequence[Any]) -> Figures:
    """The mean of each column of `values` (n, len(names)) and its standard error, as `name_se`.

    Values of one group may depend on each other (cluster-robust; with one value a group it is the
    usual standard error). None where there are no values; of the error, where there is one group.
    """
    n = len(values)
    if not n:
        return {name + end: None for name in names for end in ("", "_se")}
    mean = values.mean(0)
    place = np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(place.max()) + 1
    sums = np.zeros((count, len(names)))
    np.add.at(sums, place, values - mean)
    error = np.sqrt((sums**2).sum(0) * count / max(1, count - 1)) / n
    figures: Figures = {}
    for i, name in enumerate(names):
        figures[name] = float(mean[i])
        figures[f"{name}_se"] = float(error[i]) if count > 1 else None
    return figures


def _evaluate(truth: Boxes, detections: Boxes, ious: list[float]) -> Any:
    """pycocotools' evaluation, accumulated, of boxes of all sizes; ids are places + 1."""
    from pycocotools.cocoeval import COCOeval

    images = {one["image_id"] for boxes in (truth, detections) for one in boxes}
    categories = {one["category_id"] for one in truth}
    tools = [_coco(boxes, images, categories) for boxes in (truth, detections)]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(*tools, "bbox")
        parameters = evaluation.params
        parameters.iouThrs = np.array(ious)
        parameters.areaRng, parameters.areaRngLbl = [[0, 1e10]], ["all"]
        parameters.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _coco(boxes: Boxes, images: Iterable[Any], categories: Iterable[Any]) -> Any:
    from pycocotools.coco import COCO

    tool = COCO()
    tool.dataset = {
        "images": [{"id": i} for i in images],
        "categories": [{"id": i} for i in categories],
        "annotations": [
            {
                # pycocotools takes an id of 0 for "no match"
                **{"id": i, "image_id": one["image_id"], "category_id": one["category_id"]},
                **{"bbox": one["bbox"], "area": one["bbox"][2] * one["bbox"][3]},
                **{"iscrowd": one.get("iscrowd", 0), "score": one.get("score", 1.0)},
            }
            for i, one in enumerate(boxes, start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        tool.createIndex()
    return tool


def _pairs(evaluation: Any) -> np.ndarray:
    """(n, 2): places of matched boxes at the first threshold."""
    pairs = [
        (int(matched) - 1, number - 1)
        for one in evaluation.evalImgs
        if one is not None
        for matched, number, ignored in zip(
            one["dtMatches"][0], one["dtIds"], one["dtIgnore"][0], strict=True
        )
        if matched and not ignored
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _centers(boxes: Boxes, which: np.ndarray) -> np.ndarray:
    """(n, 4): centres x, y, and sizes, of the boxes at the places `which` (n,)."""
    chosen = [boxes[i]["bbox"] for i in which.tolist()]
    found = np.array(chosen, dtype=np.float64).reshape(-1, 4)
    return np.hstack([found[:, :2] + found[:, 2:] / 2, found[:, 2:]])


def _is_inside(box: Sequence[float], image: np.ndarray) -> bool:
    x, y, w, h = box
    height, width = image.shape[:2]
    return min(x, y, width - x - w, height - y - h) >= BORDER
