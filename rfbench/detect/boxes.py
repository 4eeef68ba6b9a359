"""How well a detector localizes: signed errors, AP at an IoU of 0.90, jitter.

Boxes are COCO's: dicts with image_id, category_id, bbox [x, y, width, height] in px, score.
Matching and AP are pycocotools' own, computed again for what its summary leaves out.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Boxes = Sequence[dict[str, Any]]
Figures = dict[str, float | int | None]

MATCH_IOU, STRICT_IOU = 0.5, 0.9
MIN_SCORE = 0.3  # of a detection that counts for jitter
BORDER = 2.0  # px; a shift changes which part of an object a box nearer to the edge shows


def registration(truth: Boxes, detections: Boxes) -> Figures:
    """How far detections are from their objects, and AP at an IoU of 0.90.

    Returns means over matched pairs (IoU of 0.5, see `match`) in px, detection minus truth: dx, dy
    of the centres, dw, dh of the sizes, each with a standard error (`dx_se`) clustered by
    image; "pairs"; "AP90" in percent. None if nothing is matched.
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
    """How far boxes move, beyond the image's own shift, when it is shifted by 1 px.

    predict: from an image (H, W, 3) to its detections in px (image_id is not needed). Each image is
    evaluated twice: unchanged, and shifted 1 px right and down. Its size stays the same, so that
    both are resampled alike: the last row and column are cut off, the first ones are repeated.
    Detections of one category with an IoU of 0.5 after shifting back count as one box; those that
    score less than `min_score` or lie within 2 px of an edge are ignored.

    Returns means in px over all pairs: "jitter", the distance between the centres after shifting
    back; dx, dy, its signed components; each with a standard error as in `registration`; "pairs".
    """
    still: list[dict[str, Any]] = []
    shifted: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        other = np.pad(image, ((1, 0), (1, 0), (0, 0)), mode="edge")[:-1, :-1]
        views = ((image, 0, still), (np.ascontiguousarray(other), 1, shifted))
        for view, shift, boxes in views:
            for one in predict(view):
                if one["score"] >= min_score and _is_inside(one["bbox"], view):
                    x, y, w, h = one["bbox"]
                    boxes.append({**one, "image_id": number, "bbox": [x - shift, y - shift, w, h]})
    pairs = match(still, shifted)
    offsets = _centers(shifted, pairs[:, 1])[:, :2] - _centers(still, pairs[:, 0])[:, :2]
    distances = np.hypot(offsets[:, :1], offsets[:, 1:])
    numbers = [still[i]["image_id"] for i in pairs[:, 0].tolist()]
    figures = means(("jitter", "dx", "dy"), np.hstack([distances, offsets]), numbers)
    return {"pairs": len(pairs), **figures}


def match(truth: Boxes, detections: Boxes) -> np.ndarray:
    """(n, 2): indices into `truth` and `detections` of the boxes that COCO matches.

    Both are of one image and category, with an IoU of at least 0.5; detections choose in order of
    score, each the remaining object with the largest overlap; up to 100 per image and category;
    crowds are excluded.
    """
    return _pairs(_evaluate(truth, detections, [MATCH_IOU]))


def means(names: Sequence[str], values: np.ndarray, groups: Sequence[Any]) -> Figures:
    """The mean of each column of `values` (n, len(names)) and its standard error, as `name_se`.

    Values of one group may be dependent (cluster-robust; with one value per group it is the usual
    standard error). None if there are no values; error None if there is one group.
    """
    n = len(values)
    if not n:
        return {name + end: None for name in names for end in ("", "_se")}
    mean = values.mean(0)
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(group.max()) + 1
    sums = np.zeros((count, len(names)))
    np.add.at(sums, group, values - mean)
    error = np.sqrt((sums**2).sum(0) * count / max(1, count - 1)) / n
    figures: Figures = {}
    for i, name in enumerate(names):
        figures[name] = float(mean[i])
        figures[f"{name}_se"] = float(error[i]) if count > 1 else None
    return figures


def _evaluate(truth: Boxes, detections: Boxes, ious: list[float]) -> Any:
    """pycocotools' evaluation, accumulated, over boxes of all sizes; ids are indices + 1."""
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
                # ids from 1: pycocotools reads 0 as "no match"
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
    """(n, 2): indices of the matched boxes at the first threshold."""
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
    """(n, 4): centres x, y and sizes w, h of the boxes at the indices `which` (n,)."""
    chosen = [boxes[i]["bbox"] for i in which.tolist()]
    xywh = np.array(chosen, dtype=np.float64).reshape(-1, 4)
    return np.hstack([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]])


def _is_inside(box: Sequence[float], image: np.ndarray) -> bool:
    x, y, w, h = box
    height, width = image.shape[:2]
    return min(x, y, width - x - w, height - y - h) >= BORDER
