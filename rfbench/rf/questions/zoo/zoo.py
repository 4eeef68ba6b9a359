"""Every architecture of a library, a row each: what kind, how large, shifted, what a fix does."""

import contextlib
import fnmatch
import io
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from rfbench import files, json_text, manifest
from rfbench.copies import whole_copy
from rfbench.data.workers import end_with_parent
from rfbench.errors import RfbenchError, UsageError, one_line, suggest
from rfbench.models import backbones, variants
from rfbench.plotting.columns import natural
from rfbench.plotting.palette import MAPS, SHARE
from rfbench.rf.core.metric import Metric, Use
from rfbench.rf.core.metrics import measure, used
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_map import PathMap
from rfbench.rf.core.target import Target
from rfbench.runs import records
from rfbench.spatial_graph.node import Reach

Row = dict[str, Any]
FIX = "1x1+3x3"
FIXED = "fixed_"  # before the columns of a network with it
SIDE = 128  # px of the figure of a map
PUBLISHED = "IMAGENET1K_V1"  # torchvision's weights whose accuracy is told
TASKS = 150  # of a process
ROWS, THUMBNAILS = "rows.jsonl", "maps"
OLDER = {"picture": "map_box", "fixed_picture": "fixed_map_box"}  # columns of earlier versions


def columns() -> dict[str, str]:
    """Columns of the table, and what they say; metrics as in rf/core/metrics."""
    judged = {
        m.name: f"{m.meaning}{' (larger axis)' if m.pair else ''}{_unit(m)}"
        for m in used(Use.AUDIT)
    }
    ranked = {f"fixed_{m.name}": f"{m.name} with {FIX}{_unit(m)}" for m in used(Use.RANK)}
    return {
        "model": "library and name",
        "top1": f"published with torchvision's {PUBLISHED} weights at this input size, %",
        "status": "local, local + global context, windowed, global; unsupported: see witness",
        "input": "its own input size, px",
        "map": "units of its last map",
        "size": "theoretical field along y and x, px",
        "stride": "effective stride",
        "padding": "effective padding, px",
        **judged,
        "parameters": "of the whole network",
        "macs": "of an image of its own size",
        "changed": f"convolutions that {FIX} changes",
        **ranked,
        "map_box": "top, left, side of its map in maps/, px of the input from the unit",
        "offset": "centroid (y, x) of that map from the unit, px",
        "fixed_map_box": f"map_box with {FIX}",
        "fixed_offset": f"offset with {FIX}",
        "witness": "why it is not local, or not understood",
        "seconds": "CPU time of this row",
    }


def _unit(metric: Metric) -> str:
    return f", {metric.unit}" if metric.unit else ""


def names(libraries: Sequence[str], pattern: str = "*") -> list[str]:
    """All names of the libraries that fit a shell pattern, in natural order.

    Raises UsageError where none does.
    """
    every = [
        f"{library}:{name}"
        for library in libraries
        for name in sorted(backbones.names(library), key=natural)
    ]
    fit = [n for n in every if fnmatch.fnmatch(n.partition(":")[2], pattern)]
    if not fit:
        near = suggest(pattern, [n.partition(":")[2] for n in every])
        raise UsageError(f"no architecture is called '{pattern}'.{near}")
    return fit


def row(name: str) -> tuple[Row, dict[str, bytes]]:
    """A model's row, and its maps as PNG by variant, '' as it is.

    What fails is unsupported, with the reason as witness.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    began = time.process_time()
    out = _empty(name)
    network = None
    drawings: dict[str, bytes] = {}
    try:
        backbone = backbones.build(name, meta=True)
        out["input"] = list(backbone.input_size)
        out["parameters"] = sum(p.numel() for p in backbone.module.parameters())
        out["top1"] = published(name, backbone.input_size)
        network = Network(backbone.module, backbone.input_size)
        target = network.target(backbone.input_size)
        own = target.graph
        witness = own.status()
        out["status"] = str(witness.reach)
        out["map"] = list(own.maps().get(own.target, ())) or None
        if witness.reach in (Reach.LOCAL, Reach.CONTEXT):
            if any(target.geometry.stretched):
                target.geometry.check_all()  # a larger input has other fields, not whole ones
            shape, drawings = _shape(network.uncut(target), "")
            fixed, more = _fixed(backbone, network)
            out, drawings = out | shape | fixed, drawings | more
        else:
            out["witness"] = str(witness)
    except RfbenchError as error:
        out["witness"] = one_line(error, 1000)
    if network is not None:
        with contextlib.suppress(RfbenchError):  # told already
            out["macs"] = network.cost(network.native).macs
    out["seconds"] = round(time.process_time() - began, 2)
    return out, drawings


def published(name: str, size: Sequence[int]) -> float | None:
    """The top-1 that torchvision's weights claim, in percent; None at another input size."""
    library, _, bare = name.partition(":")
    if library != "torchvision":
        return None
    from torchvision.models import get_model_weights

    weights = getattr(get_model_weights(bare), PUBLISHED, None)
    if weights is None or {*size} != {weights.transforms().crop_size[0]}:
        return None
    top1 = weights.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
    return None if top1 is None else float(top1)


def _empty(name: str) -> Row:
    """A row of which nothing is known."""
    return dict.fromkeys(columns()) | {"model": name, "status": str(Reach.UNSUPPORTED)}


def _shape(target: Target, prefix: str) -> tuple[Row, dict[str, bytes]]:
    """What is measured of a map, and its figure. prefix: of the columns of the figure."""
    counts = target.counts()
    record = measure(counts, target.geometry)
    shape = {key: record[key] for key in ("size", "stride", "padding")}
    shape |= {m.name: _scalar(m, record[m.name]) for m in used(Use.AUDIT)}
    offset = record["unit_shift"]
    if offset is None or None in offset:
        return shape, {}
    unit = [middle - away for middle, away in zip(record["centroid"], offset, strict=True)]
    figure, box = thumbnail(counts, unit)
    shape |= {f"{prefix}map_box": box, f"{prefix}offset": [round(o, 4) + 0.0 for o in offset]}
    return shape, {prefix: figure}


def _scalar(metric: Metric, value: Any) -> float:
    """One number, without the last digits, which only rounding made."""
    number = metric.scalar(value)
    return number if isinstance(number, int) else round(number, 9) + 0.0


def _fixed(held: backbones.Backbone, own: Network) -> tuple[Row, dict[str, bytes]]:
    """What the paper's change would leave; nothing where it does not apply."""
    module = whole_copy(held.module)
    try:
        replaced = variants.apply(module, FIX, held.name, held.input_size)
    except UsageError:
        return {"changed": 0}, {}
    network = own.with_layers(module, replaced)
    then, drawings = _shape(network.uncut(network.target(held.input_size)), FIXED)
    kept = {f"{FIXED}{m.name}": then[m.name] for m in used(Use.RANK)}
    kept |= {key: then[key] for key in then if key.startswith(FIXED)}
    return {"changed": len(replaced), **kept}, drawings


def thumbnail(counts: PathMap, unit: Sequence[float]) -> tuple[bytes, list[float]]:
    """The part of the source that the map holds as a small PNG, brightness its square root.

    Its top, left and side in px of the source, from the unit at (y, x) on a centred grid.
    """
    values = counts.counts.astype(float)
    # as in figures: what has less than a thousandth of the largest is not worth its place
    seen = values >= SHARE * values.max()
    rows, columns = (np.nonzero(seen.any(axis))[0] for axis in (1, 0))
    values = values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    side = max(values.shape)
    square = np.zeros((side, side))
    top, left = ((side - n) // 2 for n in values.shape)
    square[top : top + values.shape[0], left : left + values.shape[1]] = values / values.max()
    # pixel i covers i - 0.5 to i + 0.5
    edges = [rows[0] - top - 0.5 - unit[0], columns[0] - left - 0.5 - unit[1]]
    box = [round(float(edge), 4) for edge in edges] + [float(side)]
    image = Image.fromarray(np.sqrt(square).astype(np.float32))
    # means of pixels when smaller, whole pixels when larger
    how = Image.Resampling.BOX if side > SIDE else Image.Resampling.NEAREST
    small = np.asarray(image.resize((SIDE, SIDE), how))
    data = Image.fromarray((255 * small / small.max()).astype(np.uint8), "P")
    data.putpalette((colormaps[MAPS](range(256), bytes=True)[:, :3]).tobytes())
    out = io.BytesIO()
    data.save(out, "PNG", optimize=True)
    return out.getvalue(), box


def check_folder(folder: Path) -> None:
    """Raise UsageError where the folder holds what is not of a zoo, or cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Choose another folder with --output.")
    other = folder.is_dir() and manifest.others(folder) and not (folder / ROWS).exists()
    if other or (folder / records.RECORD).exists():
        raise UsageError(f"{folder} holds something else than a zoo. Choose another --output.")
    files.check_writable(folder)


def open_folder(folder: Path, overwrite: bool) -> None:
    """Begin in a folder, or go on with what it holds; see `check_folder`."""
    if overwrite and folder.is_dir() and manifest.others(folder):
        manifest.check_replaceable(folder)
    older = folder.is_dir() and manifest.read(folder) is None
    files.open_folder(folder, keep=not overwrite)
    if older:  # of an older version, which wrote no manifest
        for name in (ROWS, "index.html", "zoo.csv", "zoo.json"):
            if (folder / name).exists():
                files.claim(folder / name, made=True)
        for path in (folder / THUMBNAILS).glob("*.png"):
            files.claim(path, made=True)


def run(wanted: Sequence[str], folder: Path, jobs: int, done: Callable[[], object]) -> list[Row]:
    """The rows of all names, in their order; those in the folder are taken as they are.

    Every finished row is added to rows.jsonl at once: what is stopped or killed goes on from there.
    A model whose process dies (memory) is a row too. done: called once a new row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = read(folder)
    left = [name for name in wanted if name not in known]
    with files.append(folder / ROWS) as file:
        with files.naming(folder / THUMBNAILS):  # after the rows, which say that it is a zoo's
            (folder / THUMBNAILS).mkdir(exist_ok=True)
        for made, drawn in _in_parallel(left, jobs):
            for prefix, figure in drawn.items():
                files.write_bytes(_figure_path(folder, made["model"], prefix), figure)
            with files.naming(folder / ROWS):
                file.write(json_text.dumps(made) + "\n")
                file.flush()
            known[made["model"]] = made
            done()
    return [known[name] for name in wanted]


def read(folder: Path) -> dict[str, Row]:
    """The rows that are there already, by model; a line that a kill cut off is left out."""
    try:
        lines = files.read_bytes(folder / ROWS).splitlines()
    except FileNotFoundError:
        return {}
    rows = {}
    for text in lines:
        with contextlib.suppress(RfbenchError):
            held = json_text.parse(text, ROWS)
            if not isinstance(held, dict):
                continue
            held = {OLDER.get(key, key): value for key, value in held.items()}
            if held.keys() >= columns().keys():
                rows[str(held["model"])] = held
    return rows


def drawings(folder: Path, model: str) -> dict[str, bytes]:
    """The drawings of a model's maps, as `row` gives them."""
    paths = {prefix: _figure_path(folder, model, prefix) for prefix in ("", FIXED)}
    return {prefix: path.read_bytes() for prefix, path in paths.items() if path.exists()}


def _figure_path(folder: Path, model: str, prefix: str) -> Path:
    return folder / THUMBNAILS / f"{prefix}{model.replace(':', '-')}.png"


def _in_parallel(wanted: list[str], jobs: int) -> Iterator[tuple[Row, dict[str, bytes]]]:
    """The rows as they are finished; when a process has died, the next ones are done alone."""
    left = list(wanted)
    while left:
        try:
            for name, result in _pool([*left], jobs):
                left.remove(name)
                yield result
        except BrokenProcessPool:
            for name in left[: 2 * jobs]:
                left.remove(name)
                try:
                    yield from (result for _, result in _pool([name], 1))
                except BrokenProcessPool:
                    why = "its process died, most often for lack of memory"
                    yield {**_empty(name), "witness": why}, {}


def _pool(wanted: list[str], jobs: int) -> Iterator[tuple[str, tuple[Row, dict[str, bytes]]]]:
    """Rows in order of completion; processes are new ones every so often, as libraries leak."""
    context = multiprocessing.get_context("spawn")
    # not by max_tasks_per_child, with which Python 3.11's pool stands still
    for start in range(0, len(wanted), jobs * TASKS):
        part = wanted[start : start + jobs * TASKS]
        with ProcessPoolExecutor(jobs, context, initializer=end_with_parent) as pool:
            futures = {pool.submit(row, name): name for name in part}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                pool.shutdown(cancel_futures=True)


def summary(rows: Sequence[Row]) -> dict[str, int]:
    """How many ended how."""
    return {str(reach): sum(r["status"] == str(reach) for r in rows) for reach in Reach}
