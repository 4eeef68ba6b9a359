"""`rfbench rf registration`: known places of ResNet-50's fields, configurations of both kinds."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from rfbench.cli import main

pytest.importorskip("detectron2", reason="Detectron2 is not installed: make install-det")
from rfbench.detect.config import stock_folder

ROOT = Path(__file__).parents[2]
MASK = ROOT / "configs/det/mask_rcnn_R_50_FPN_1x.yaml"


def run(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["rf", "registration", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def test_anchors_stand_where_the_shifted_network_looks(tmp_path: Path) -> None:
    out = tmp_path / "out"
    variants = ("--variant", "baseline", "--variant", "1x1+3x3")
    code, shown, said = run(MASK, *variants, "--output", out)
    assert code == 0, said
    found = json.loads((out / "result.json").read_text())["variants"]
    names = [row["level"] for row in found["baseline"]]
    assert names == ["p2", "p3", "p4", "p5", "p6"]
    # the stem's half pixel at every level; half a stride less the stem's 1.5 px once fixed
    assert [row["field"] for row in found["baseline"]] == pytest.approx([0.5] * 5, abs=1e-3)
    fixed = [0.5, 2.5, 6.5, 14.5, 14.5]
    assert [row["field"] for row in found["1x1+3x3"]] == pytest.approx(fixed, abs=1e-3)
    for variant, rows in found.items():
        assert [row["field_minus_anchors"] for row in rows] == [row["field"] for row in rows]
        missed = [row["field_minus_roi_align"] for row in rows[:4]]
        expected = [row["field"] - row["stride"] / 2 for row in rows[:4]]
        assert missed == expected and "roi_align" not in rows[4], variant
    assert "1x1+3x3   p5     32      +14.50        +14.50         -1.50" in shown
    assert (out / "registration.png").exists()


def test_objects_beside_the_fields(tmp_path: Path) -> None:
    held = tmp_path / "held.json"
    boxes = [[0, 0, n, n] for n in (10, 50, 300)]
    objects = [{"id": i, "image_id": 1, "bbox": box} for i, box in enumerate(boxes)]
    images = [{"id": 1, "width": 800, "height": 400}]
    held.write_text(json.dumps({"images": images, "annotations": objects}))
    args = (MASK, "--variant", "baseline", "--objects", held)
    code, shown, said = run(*args, "--size", "400", "--output", tmp_path / "out")
    assert code == 0, said
    assert "3 objects in 1 images, resized to 400 px, at most 1333 px" in shown
    lines = [line.split() for line in shown.splitlines() if line.startswith("  baseline")]
    # stride and theoretical field of ResNet-50's stages
    assert lines[0] == ["baseline", "p2", "4", "35", "0.0%", "66.7%"]
    assert lines[3] == ["baseline", "p5", "32", "427", "33.3%", "0.0%"]
    record = json.loads((tmp_path / "out/result.json").read_text())
    assert record["objects"]["quantiles"]["width"]["0.5"] == 50
    assert (tmp_path / "out/objects.png").exists()
    code, _, said = run(*args, "--size", "4x4")
    assert code == 2 and "--size 4x4: expected the shorter side in px, with --objects" in said
    code, _, said = run(MASK, "--objects", tmp_path / "none.json")
    assert code == 2 and "none.json" in said


def test_the_offset_moves_the_anchors() -> None:
    offset = ("-o", "opts.MODEL.ANCHOR_GENERATOR.OFFSET=0.5")
    code, shown, said = run(MASK, "--variant", "1x1+3x3", *offset, "--json")
    assert code == 0, said
    record = json.loads(shown)
    assert record["offset"] == 0.5
    missed = [row["field_minus_anchors"] for row in record["variants"]["1x1+3x3"]]
    assert missed[:4] == pytest.approx([-1.5] * 4, abs=1e-3)


def test_detectron2s_own_configuration(tmp_path: Path) -> None:
    stock = stock_folder() / "COCO-Detection/retinanet_R_50_FPN_1x.yaml"
    code, shown, said = run(stock, "--json")
    assert code == 0, said
    (rows,) = json.loads(shown)["variants"].values()
    assert [row["level"] for row in rows] == ["p3", "p4", "p5", "p6", "p7"]
    # Detectron2's stride is in the 1x1: another block, the same shift
    assert [row["field"] for row in rows[:3]] == pytest.approx([0.5] * 3, abs=1e-2)
    code, _, said = run(stock, "--variant", "1x1")
    assert code == 2 and "variants need MODEL.BACKBONE.NAME build_rfbench_" in said
    own = tmp_path / "mine.yaml"
    own.write_text(f"_BASE_: {stock}\nMODEL: {{ANCHOR_GENERATOR: {{OFFSET: 0.5}}}}\n")
    code, shown, said = run(own, "--json")
    assert code == 0 and json.loads(shown)["offset"] == 0.5, said
    # on a backbone of rfbench it is measured in its own variant, or in those asked for
    backbone = "BACKBONE: {NAME: build_rfbench_retinanet_fpn_backbone}"
    names = "RFBENCH: {NAME: resnet18, VARIANT: 3x3}"
    own.write_text(f"_BASE_: {stock}\nMODEL: {{{backbone}, {names}}}\n")
    for more, wanted in (
        ([], ["3x3"]),
        (["--variant", "baseline", "--variant", "1x1"], ["baseline", "1x1"]),
    ):
        code, shown, said = run(own, "--json", *more)
        assert code == 0 and [*json.loads(shown)["variants"]] == wanted, said


def test_the_configuration_s_own_variant_is_measured() -> None:
    digits = ROOT / "configs/det/digits.yaml"
    code, shown, said = run(digits, "-o", "variant=3x3", "--json")
    assert code == 0 and [*json.loads(shown)["variants"]] == ["baseline", "3x3"], said


def test_a_name_of_detectron2s_model_zoo() -> None:
    code, shown, said = run("COCO-Detection/retinanet_R_50_FPN_1x.yaml", "--json")
    assert code == 0 and [*json.loads(shown)["variants"]] == ["as it is"], said
    code, _, said = run("COCO-Detection/retinanet_R_50_FPN.yaml")
    assert code == 2 and "Did you mean: COCO-Detection/retinanet_R_50_FPN_" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("MODEL: {BACKBONE: {NAME: build_resnet_backbone}}", "has no FPN"),
        ("MODEL: {BACKBON: {}}", "BACKBON"),
        ("_BASE_: nowhere.yaml\nMODEL: {}", "does not exist"),
        ("model: resnet5", "unknown model 'resnet5'"),
        ("modell: resnet50", "did you mean 'model'?"),
        ("MODEL: [", "mine.yaml: "),
        ("MODEL: !!python/object/apply:os.system ['true']", "mine.yaml: "),
    ],
)
def test_bad_input_is_one_line(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    code, shown, said = run(path)
    assert code in (1, 2) and message in said and "Traceback" not in said and not shown, said
    assert "internal error" not in said
