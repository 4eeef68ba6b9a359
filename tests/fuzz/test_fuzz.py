"""Whatever a file or an option holds: one of our errors, or a result; never more than 10 s."""

import contextlib
import io
import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from rfbench.cli import main
from rfbench.config import load
from rfbench.data import coco, decode
from rfbench.errors import RfbenchError
from rfbench.schemas.cls import ClsConfig
from rfbench.schemas.det import DetConfig
from rfbench.schemas.grid import GridConfig
from rfbench.schemas.seg import SegConfig
from tests.fuzz import mutate

ROOT = Path(__file__).parents[2]
LIMIT = 10  # s of this process's own time; other processes may keep a small machine busy
WAIT = 120  # s, for what waits and does not compute
SCHEMAS: dict[str, Any] = {
    "cls": ClsConfig,
    "seg": SegConfig,
    "det": DetConfig,
    "grids": GridConfig,
}
FILES = sorted(path for name in SCHEMAS for path in (ROOT / "configs" / name).glob("*.yaml"))

Try = Callable[[Path, random.Random], object]


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """A context that fails after LIMIT seconds."""

    def late(*_: object) -> None:
        raise AssertionError(f"more than {LIMIT} s")

    timers = (
        (signal.SIGPROF, signal.ITIMER_PROF, LIMIT),
        (signal.SIGALRM, signal.ITIMER_REAL, WAIT),
    )
    before = [signal.signal(number, late) for number, *_ in timers]
    try:
        for _, timer, seconds in timers:
            signal.setitimer(timer, seconds)
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def try_yaml(folder: Path, rng: random.Random) -> None:
    source = rng.choice(FILES)
    values = yaml.safe_load(source.read_text())
    changed = source.read_bytes()
    if rng.random() < 0.5:  # also what is YAML still
        with contextlib.suppress(yaml.YAMLError, UnicodeError, RecursionError, ValueError):
            changed = yaml.safe_dump(mutate.value(values, rng), allow_unicode=True).encode()
    else:
        changed = mutate.data(changed, rng)
    path = folder / "x.yaml"
    path.write_bytes(changed)
    load(SCHEMAS[source.parent.name], str(path))


def try_overrides(folder: Path, rng: random.Random) -> None:
    keys = ["optim.lr", "data.name", "schedule", "seed", "data.options.x", "batch_size", "variant"]
    given = []
    for _ in range(rng.randint(1, 3)):
        nasty = str(rng.choice(mutate.NASTY))[:100]
        text = f"{rng.choice(keys)}={rng.choice(['1', '0.5', '{a: 1}', '[1, 2]', 'null', nasty])}"
        changed = mutate.data(text.encode("utf-8", "replace"), rng).decode("utf-8", "replace")
        given.append(changed if rng.random() < 0.5 else text)
    load(ClsConfig, None, given)


def try_record(folder: Path, rng: random.Random) -> None:
    """A folder of results with one record from the documentation, changed."""
    source = rng.choice(sorted((ROOT / "docs" / "runs").rglob("result.json")))
    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / "runs" / "one").mkdir(parents=True)
    held = json.loads(source.read_text())
    raw = rng.random() < 0.3
    changed = mutate.data(source.read_bytes(), rng) if raw else None
    path = folder / "runs" / "one" / "result.json"
    path.write_bytes(changed or mutate.as_json(mutate.value(held, rng)))
    result = CliRunner().invoke(main, ["compare", str(folder / "runs")])
    assert result.exit_code in (0, 1, 2), result.output
    assert "internal error" not in result.output and "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output


def try_run(folder: Path, rng: random.Random) -> None:
    """The config.yaml of a finished run, changed: never other figures, and no file is touched."""
    source = ROOT / "docs" / "runs" / "classification" / "baseline-s0" / "result.json"
    run = folder / "runs" / "one"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    (run / "result.json").write_bytes(source.read_bytes())
    values = json.loads(source.read_text())["config"]
    plain = yaml.safe_dump(values).encode()
    raw = rng.random() < 0.5
    changed = mutate.data(plain, rng) if raw else mutate.as_json(mutate.value(values, rng))
    (run / "config.yaml").write_bytes(changed)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    compared = ["compare", str(folder / "runs"), "--format", "csv"]
    again = ["train-cls", str(run / "config.yaml"), "--output", str(run), "--dry-run"]
    for command in (compared, [*again, "--resume"], again):
        result = CliRunner().invoke(main, command)
        assert result.exit_code in (0, 1, 2), result.output
        assert "internal error" not in result.output and "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        if command is compared and result.exit_code == 0:
            assert ",top1,1,0,84.8," in result.output
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def coco_set(folder: Path) -> dict[str, Any]:
    """A small set: polygons, run lengths, a crowd."""
    one = {"category_id": 1, "bbox": [2, 2, 10, 8], "area": 80.0, "iscrowd": 0}
    square = [2.0, 2.0, 12.0, 2.0, 12.0, 10.0, 2.0, 10.0]
    masks: list[Any] = [[square], {"size": [16, 20], "counts": [50, 8, 262]}, [square, square]]
    for i in range(3):
        Image.new("RGB", (20, 16)).save(folder / f"{i}.png")
    return {
        "info": {"year": 2020, "contributor": "x"},
        "licenses": [{"id": 1, "name": "x", "url": "x"}],
        "images": [
            {"id": i + 1, "file_name": f"{i}.png", "width": 20, "height": 16} for i in range(3)
        ],
        "annotations": [
            {**one, "id": i + 1, "image_id": i + 1, "segmentation": mask}
            for i, mask in enumerate(masks)
        ],
        "categories": [
            {"id": 1, "name": "one", "supercategory": "x", "keypoints": ["x"]},
            {"id": 5, "name": "two", "supercategory": "x", "skeleton": [[1, 2]]},
        ],
    }


def try_coco(folder: Path, rng: random.Random) -> None:
    """What the check lets through, pycocotools and Detectron2 must read."""
    found = coco_set(folder)
    raw = rng.random() < 0.2
    content = json.dumps(found).encode()
    content = mutate.data(content, rng) if raw else mutate.as_json(mutate.value(found, rng))
    path = folder / "x.json"
    path.write_bytes(content)
    coco.check(path, folder)
    evaluated(path, folder)


def evaluated(path: Path, folder: Path) -> None:
    """Read a set as training does, and evaluate its own objects as predictions."""
    tools = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    d2 = pytest.importorskip("detectron2.data.datasets.coco")
    d2.load_coco_json(str(path), str(folder))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = tools.COCO(str(path))
        rows = [
            {**{key: one[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.5}
            for one in truth.dataset["annotations"]
        ]
        tool = evaluation.COCOeval(truth, truth.loadRes(rows), "bbox")
        tool.evaluate()
        for one in truth.dataset["annotations"]:
            if one.get("segmentation"):
                truth.annToMask(one)


def encoded() -> list[bytes]:
    pixels = np.random.RandomState(0).randint(0, 256, (24, 32, 3), np.uint8)
    color, files = Image.fromarray(pixels), []
    grey16 = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    for image, kind in (
        *((color, kind) for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")),
        *((grey16, kind) for kind in ("PNG", "TIFF")),
    ):
        file = io.BytesIO()
        image.save(file, kind)
        files.append(file.getvalue())
    return files


IMAGES = encoded()


def try_image(folder: Path, rng: random.Random) -> None:
    pixels = decode.decode(mutate.data(rng.choice(IMAGES), rng), "x", upright=True)
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and str(pixels.dtype) == "torch.uint8"


TRIES: dict[str, Try] = {
    "yaml": try_yaml,
    "overrides": try_overrides,
    "record": try_record,
    "run": try_run,
    "coco": try_coco,
    "image": try_image,
}

# of about a hundred inputs; whole commands take longer than the others
SHARES = {"yaml": 25, "overrides": 25, "record": 5, "run": 5, "coco": 20, "image": 25}


def fuzz(name: str, folder: Path, seeds: range) -> None:
    kept = {"refused": 0, "taken": 0}
    for seed in seeds:
        try:
            with limited():
                TRIES[name](folder, random.Random(f"{name}/{seed}"))
            kept["taken"] += 1
        except RfbenchError as error:
            assert str(error).strip(), f"seed {seed}: an error without a text"
            kept["refused"] += 1
        except BaseException as error:
            error.add_note(f"{name}, seed {seed}")
            raise
    print(f"{name}: {len(seeds)} inputs, {kept['refused']} refused, {kept['taken']} taken")
    assert kept["refused"] or name in ("record", "run")


@pytest.mark.parametrize("name", TRIES)
def test_a_hundred_inputs(name: str, tmp_path: Path) -> None:
    fuzz(name, tmp_path, range(SHARES[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIES)
def test_two_thousand_inputs(name: str, tmp_path: Path) -> None:
    fuzz(name, tmp_path, range(SHARES[name], 21 * SHARES[name]))
