"""A run's Detectron2 configuration: stock, but for what the file says."""

import re
from pathlib import Path
from typing import Any

import pytest

from rfbench.config import AVERAGED, RESUMED, flat, load, marked
from rfbench.detect import config
from rfbench.errors import UsageError
from rfbench.schemas.det import DetConfig

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs" / "det"
PAPER = sorted(path.stem for path in CONFIGS.glob("*_1x.yaml"))
BLOCK = re.compile(r"(<!-- table: differences -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def resolved(name: str, *overrides: str, classes: int = 80, world: int = 1) -> Any:
    settings = load(DetConfig, str(CONFIGS / f"{name}.yaml"), overrides)
    cfg = config.resolve(settings, classes, Path("results/x"), "cpu", world)
    return settings, cfg


def differences(name: str) -> dict[str, tuple[Any, Any]]:
    """Without what says only where and on what the run is made."""
    settings, cfg = resolved(name)
    found = config.difference(cfg, config.stock(settings.detector))
    return {k: v for k, v in found.items() if k not in ("OUTPUT_DIR", "MODEL.DEVICE", "SEED")}


def test_the_table_of_differences_is_the_real_one(overwrite: bool) -> None:
    columns = {name: differences(name) for name in PAPER}
    rows = [f"| key | stock | {' | '.join(PAPER)} |", "|---" * (len(PAPER) + 2) + "|"]
    for key in sorted({key for found in columns.values() for key in found}):
        stock = {str(found[key][0]) for found in columns.values() if key in found}
        cells = [
            (str(found[key][1]) or "the run's `weights`") if key in found else "as stock"
            for found in columns.values()
        ]
        rows.append(f"| `{key}` | {' or '.join(sorted(stock))} | {' | '.join(cells)} |")
    table = "\n".join(rows) + "\n"
    page = REPOSITORY / "docs" / "detection.md"
    if overwrite:
        page.write_text(BLOCK.sub(lambda m: m[1] + table + m[3], page.read_text()))
    match = BLOCK.search(page.read_text())
    assert match and match[2] == table


@pytest.mark.parametrize("name", PAPER)
def test_only_backbone_weights_and_normalisation_differ(name: str) -> None:
    allowed = {
        *("MODEL.BACKBONE.NAME", "MODEL.RFBENCH.NAME", "MODEL.WEIGHTS"),
        *("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
        *("DATASETS.TRAIN", "DATASETS.TEST"),
    }
    assert differences(name).keys() <= allowed
    settings, cfg = resolved(name, "variant=1x1+3x3")
    assert cfg.MODEL.RFBENCH.VARIANT == "1x1+3x3"
    assert cfg.SOLVER.MAX_ITER == 90_000 and cfg.SOLVER.STEPS == (60_000, 80_000)
    assert (0.02 if "mask" in name else 0.01) == cfg.SOLVER.BASE_LR
    assert cfg.MODEL.ANCHOR_GENERATOR.OFFSET == 0.0
    assert config.scaling(cfg, settings) is None


def test_fewer_gpus() -> None:
    settings, cfg = resolved("retinanet_R_50_FPN_1x", "reference_world_size=8", world=2)
    assert config.scaling(cfg, settings) == {
        **{"from": 8, "to": 2, "IMS_PER_BATCH": 4, "BASE_LR": 0.0025, "MAX_ITER": 360_000},
        **{"STEPS": (240_000, 320_000), "WARMUP_ITERS": 4000},
    }
    assert cfg.SOLVER.CHECKPOINT_PERIOD == 20_000


def test_every_file_resolves() -> None:
    for path in CONFIGS.glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert f"train-det configs/det/{path.name}" in first
        resolved(path.stem, classes=10)


def test_overrides_of_detectron2s_keys() -> None:
    given = ["SOLVER.BASE_LR=1", "SOLVER.STEPS=[10, 20]", "MODEL.ANCHOR_GENERATOR.OFFSET=0.5"]
    _, cfg = resolved("retinanet_R_50_FPN_1x", *(f"opts.{text}" for text in given))
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS) == (1.0, (10, 20))
    assert cfg.MODEL.ANCHOR_GENERATOR.OFFSET == 0.5


def test_all_wrong_keys_are_reported_at_once() -> None:
    given = ["SOLVER.MAXITER=3", "SOLVER.STEPS=abc", "SEED=1", "MODEL.RFBENCH.NAME=x"]
    with pytest.raises(UsageError) as caught:
        resolved("retinanet_R_50_FPN_1x", *(f"opts.{text}" for text in given))
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "opts: Detectron2 has no key 'SOLVER.MAXITER'. Did you mean: SOLVER.MAX_ITER?"
    )
    assert lines[1] == 'opts.SOLVER.STEPS: must be a list (it is "abc")'
    assert lines[2:] == [
        "opts.SEED: is set by seed",
        "opts.MODEL.RFBENCH.NAME: is set by model, variant and features",
    ]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("MODEL.ANCHR", "MODEL.ANCHOR_GENERATOR"),
        ("SOLVR.MAX_ITR", "SOLVER.MAX_ITER"),
        ("MAX_ITER", "SOLVER.MAX_ITER"),
        ("MODEL.SIZES", "MODEL.ANCHOR_GENERATOR.SIZES"),
        ("QQQ", ""),
    ],
)
def test_the_key_that_was_meant(key: str, near: str) -> None:
    assert config.meant(key, config.stock("COCO-Detection/retinanet_R_50_FPN_1x.yaml")) == near


def test_numbers_that_no_run_can_use() -> None:
    given = ["MAX_ITER=-3", "IMS_PER_BATCH=0", "CHECKPOINT_PERIOD=0", "BASE_LR=0"]
    with pytest.raises(UsageError) as caught:
        resolved("retinanet_R_50_FPN_1x", *(f"opts.SOLVER.{text}" for text in given))
    assert str(caught.value).splitlines() == [
        "opts.SOLVER.MAX_ITER: must be at least 1 (it is -3)",
        "opts.SOLVER.IMS_PER_BATCH: must be at least 1 (it is 0)",
        "opts.SOLVER.CHECKPOINT_PERIOD: must be at least 1 (it is 0)",
        "opts.SOLVER.BASE_LR: must be above 0 (it is 0)",
    ]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("opts.SOLVER.BASE_LR=fast", 'opts.SOLVER.BASE_LR: must be a number (it is "fast")'),
        ("opts.SOLVER.BASE_LR=-0.1", "opts.SOLVER.BASE_LR: must be above 0 (it is -0.1)"),
        ("reference_world_size=3", "16 does not divide by the 3 GPUs of reference_world_size"),
        ("detector=COCO-Detection/retinanet_R_50_FPN_2x.yaml", "Did you mean: COCO-Detection/ret"),
        ("detector=COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", "has no FPN for a backbone"),
        ("opts.SOLVER.IMS_PER_BATCH=5", "5 does not divide by 2 processes"),
        ("precision=fp16", "fp16 and bf16 need a GPU"),
        ("variant=2x2+", "unknown variant '2x2+'"),
    ],
)
def test_what_cannot_be_run(override: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        resolved("retinanet_R_50_FPN_1x", override, world=2)


def test_marks_name_keys_that_detectron2_has() -> None:
    known = flat(config.stock(DetConfig().detector))
    named = {
        key.removeprefix("opts.")
        for mark in (RESUMED, AVERAGED)
        for key in marked(DetConfig, mark)
        if key.startswith("opts.")
    }
    assert named and named <= set(known)


@pytest.mark.parametrize("std", ["[0, 57, 57]", "[58, -57, 57]"])
def test_a_deviation_that_is_none_is_refused(std: str) -> None:
    """Division by it would make every pixel infinite."""
    with pytest.raises(UsageError, match="pixel_std"):
        load(DetConfig, None, [f"pixel_std={std}"])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("No object named 'X' found"), "No object named 'X' found"),
        (KeyError("p9"), "there is no 'p9'"),
        (IndexError("list index out of range"), "list index out of range"),
        (AssertionError("Got sizes of length 2"), "Got sizes of length 2"),
    ],
)
def test_what_detectron2_raises_is_told_in_its_words(error: Exception, words: str) -> None:
    said = f"opts: Detectron2 cannot build it: {words}"
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"), config.as_usage_error("build it"):
        raise error


def test_an_assertion_without_words_is_told_by_its_line() -> None:
    said = pytest.raises(UsageError, match="Detectron2 cannot build it: raise AssertionError$")
    with said, config.as_usage_error("build it"):
        raise AssertionError
