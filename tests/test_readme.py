"""What the documents show is what the commands print: `pytest --overwrite` pastes it again."""

import functools
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.stats import ttest_1samp

from rfbench.cli import main
from rfbench.models import backbones, variants, weight_files
from rfbench.plotting.page import DPI as PAGE_DPI
from rfbench.report import sheets

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"
PAGES = (README, README.parent / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
# as it is printed, or Markdown as it is
BLOCK = re.compile(
    r"(?P<head><!-- (?:output|rendered): rfbench (?P<args>.*?) -->\n)"
    r"(?:```\n(?P<shown>.*?)```\n|(?P<rendered>.*?)<!-- end -->\n)",
    re.DOTALL,
)
# what a run printed, of which the record is kept
PRINTED = re.compile(
    r"(?P<head><!-- printed: (?P<path>\S+) -->\n```\n)(?P<shown>.*?)(?P<end>```\n)", re.DOTALL
)
BLOCKS = [(page, block) for page in PAGES for block in BLOCK.finditer(page.read_text())]


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[b["args"] for _, b in BLOCKS])
def test_shown_output_is_the_real_one(
    page: Path, block: re.Match, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    for name in ("configs", "docs"):
        (tmp_path / name).symlink_to(README.parent / name)
    monkeypatch.chdir(tmp_path)
    args = shlex.split(block["args"])
    if "registration" in args:
        pytest.importorskip("detectron2", reason="Detectron2 is not installed: make install-det")
    result = CliRunner().invoke(main, args, prog_name="rfbench", terminal_width=100)
    # the files written are told on stderr; an error is all there is to show
    printed = result.stdout or result.stderr.splitlines(keepends=True)[-1]
    shown = block["rendered"] if block["shown"] is None else block["shown"]
    if overwrite and printed != shown:
        fenced = (
            f"```\n{printed}```\n" if block["shown"] is not None else f"{printed}<!-- end -->\n"
        )
        page.write_text(page.read_text().replace(block[0], block["head"] + fenced))
        return
    assert printed == shown


def commands(group: click.Group, above: str = "") -> list[str]:
    """All commands by what one types; a group is one, too."""
    found, context = [], click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inside = commands(command, f"{above}{name} ") if isinstance(command, click.Group) else []
        found += [f"{above}{name}", *inside]
    return found


def test_the_page_of_commands_has_the_help_of_each() -> None:
    shown = {block["args"] for page, block in BLOCKS if page.name == "commands.md"}
    same = {"rf map"}  # `visualize-rf` by another name
    assert {f"{name} --help" for name in {*commands(main)} - same} == shown - {"--help"}


PRINTED_BLOCKS = [(page, block) for page in PAGES for block in PRINTED.finditer(page.read_text())]


@pytest.mark.parametrize(
    ("page", "block"), PRINTED_BLOCKS, ids=[b["path"] for _, b in PRINTED_BLOCKS]
)
def test_printed_records_are_the_real_ones(page: Path, block: re.Match, overwrite: bool) -> None:
    record = json.loads((README.parent / block["path"]).read_text())
    package = {"cls": "classify", "det": "detect"}[record["kind"]]
    printed = importlib.import_module(f"rfbench.{package}.table").table(record) + "\n"
    if overwrite and printed != block["shown"]:
        whole = block["head"] + printed + block["end"]
        page.write_text(page.read_text().replace(block[0], whole))
    else:
        assert printed == block["shown"]


SCRIPT = re.compile(
    r"(?P<head><!-- script: (?P<args>.*?) -->\n```\n)(?P<shown>.*?)(?P<end>```\n)", re.DOTALL
)
SCRIPT_BLOCKS = [(page, block) for page in PAGES for block in SCRIPT.finditer(page.read_text())]


@pytest.mark.parametrize(
    ("page", "block"), SCRIPT_BLOCKS, ids=[b["args"] for _, b in SCRIPT_BLOCKS]
)
def test_what_scripts_print_of_the_records_is_the_real_one(
    page: Path, block: re.Match, overwrite: bool
) -> None:
    script, *args = shlex.split(block["args"])
    command = [sys.executable, f"scripts/{script}", *args]
    printed = subprocess.run(command, cwd=README.parent, capture_output=True, text=True, check=True)
    if overwrite:
        whole = block["head"] + printed.stdout + block["end"]
        page.write_text(page.read_text().replace(block[0], whole))
    else:
        assert printed.stdout == block["shown"]


OFFSET = "opts.MODEL.ANCHOR_GENERATOR.OFFSET"
STOCK_ANCHORS, MOVED_ANCHORS = {OFFSET: "not set"}, {OFFSET: "0.5"}
# (what a row says, detector, data set, setting, metric); the paper's rows have no seeds
SIDE_BY_SIDE = [
    ("paper: ResNet-50 on ImageNet, top-1", "", "imagenet", {}, "top1"),
    ("ResNet-14 on digit scenes, 3 epochs, top-1", "", "digits", {"schedule.epochs": "3"}, "top1"),
    ("the same at 10 epochs", "", "digits", {"schedule.epochs": "10"}, "top1"),
    ("paper: RetinaNet on COCO, box AP", "retinanet", "coco", {}, "bbox.AP"),
    ("RetinaNet on digit scenes, box AP", "retinanet", "digits", STOCK_ANCHORS, "bbox.AP"),
    ("the same, anchors at 0.5", "retinanet", "digits", MOVED_ANCHORS, "bbox.AP"),
    ("paper: Mask R-CNN on COCO, mask AP", "mask_rcnn", "coco", {}, "segm.AP"),
    ("Mask R-CNN on digit scenes, mask AP", "mask_rcnn", "digits", {}, "segm.AP"),
    ("ResNet-14 below an FPN, segmentation of digit scenes, mIoU", "", "digits", {}, "mIoU"),
]
TABLE = re.compile(r"(?<=<!-- paper and here -->\n).*?(?=\n\n)", re.DOTALL)


def test_the_paper_and_the_runs_side_by_side(overwrite: bool) -> None:
    """The table has the figures that `compare --reference paper` gives."""
    page = DOCS / "findings.md"
    args = ["compare", str(README.parent / "docs/runs"), "--reference", "paper"]
    groups = json.loads(CliRunner().invoke(main, [*args, "--format", "json"]).stdout)["groups"]
    lines = [["", "seeds", *variants.PAPER], ["---"] * 6]
    for text, detector, data, keys, metric in SIDE_BY_SIDE:
        (rows,) = (
            setting["rows"]
            for group in groups
            if (group["detector"] or "").partition("_R_")[0] == detector
            and (group["kind"] == "seg") == (metric == "mIoU")
            and "output_stride" not in group["model"]
            and group["dataset"] == data
            for setting in group["settings"]
            if setting["keys"] == keys
        )
        source = "paper" if text.startswith("paper") else "ours"
        found = {row["variant"]: row for row in rows if row["source"] == source}
        seeds = str(len(found["baseline"]["runs"])) if source == "ours" else ""
        cells = [side_by_side_cell(found.get(name), metric) for name in variants.PAPER]
        lines.append([text, seeds, *cells])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    shown = TABLE.search(page.read_text())
    assert shown
    if overwrite:
        page.write_text(page.read_text().replace(shown[0], table))
    else:
        assert shown[0] == table


def side_by_side_cell(row: dict | None, metric: str) -> str:
    if row is None:
        return "not run"
    figure = row["metrics"][metric]
    if not figure["test"]:
        return f"{figure['mean']:.2f}"
    return f"{figure['test']['difference']:+.2f} {sheets.SIGNS[figure['test']['word']]}".strip()


EFFECTS = re.compile(r"(<!-- effects: (.*?) -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)
NAMES = {"cls": "ResNet-14", "seg": "ResNet-14 with FPN", "bbox.AP": "box AP", "segm.AP": "mask AP"}
NAMES |= {"retinanet": "RetinaNet", "mask_rcnn": "Mask R-CNN", "boundary_mIoU": "boundary mIoU"}
NAMES |= {"top1": "top-1", "train_top1": "top-1 in training"}
NAMES |= {"cls@resnet14_depthwise": "Depthwise ResNet-14"}


def test_the_effects_on_the_page_of_findings(overwrite: bool) -> None:
    """Each table of docs/findings.md has the tests of `compare`, by what its comment names."""
    page = DOCS / "findings.md"
    text, found = page.read_text(), [*EFFECTS.finditer(page.read_text())]
    assert len(found) >= 6
    for block in found:
        rows = [effect(spec.split()) for spec in block[2].split("; ")]
        heads = ("figure", "seeds", "baseline", "difference", "95 %", "p (Holm)", "verdict")
        lines = [heads, ["---"] * len(heads), *rows]
        table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        if overwrite:
            text = text.replace(block[1] + block[3], block[1] + table)
        else:
            assert block[3] == table
    if overwrite:
        page.write_text(text)


@functools.cache
def compared(folder: str) -> list[dict]:
    """The groups of the records in a folder of the docs."""
    names = ("top1", "train_top1", "mIoU", "boundary_mIoU", "AP")
    metrics = [f"--metric={name}" for name in names] if folder == "runs" else []  # else its own
    args = ["compare", str(DOCS / folder), "--format", "json", *metrics]
    return json.loads(CliRunner().invoke(main, args).stdout)["groups"]


def effect(spec: list[str]) -> list[str]:
    """A row: [GRID/]kind or detector (@model), setting ('-': none), variant and metric: one test.

    GRID: of docs/further_runs.
    """
    task, keys, variant, metric = spec
    grid, _, task = task.rpartition("/")
    groups = compared(f"further_runs/{grid}" if grid else "runs")
    kind, _, model = task.partition("@")
    wanted = {} if keys == "-" else dict([keys.replace("not_set", "not set").split("=")])
    (rows,) = (
        {row["variant"]: row for row in setting["rows"] if row["source"] == "ours"}
        for group in groups
        if kind in (group["kind"], (group["detector"] or "").partition("_R_")[0])
        and group["dataset"] == "digits"
        and group["model"].endswith(f":{model}" if model else "")
        and "(" not in group["model"]
        for setting in group["settings"]
        if setting["keys"] == wanted
    )
    test, base = (rows[name]["metrics"][metric] for name in (variant, "baseline"))
    names = {"schedule.epochs": "{} epochs", "input.size": "{} px"}
    told = names.get([*wanted, ""][0], "anchors {}")
    setting = f", {told.format(*wanted.values())}" if wanted else ""
    setting = setting.replace("anchors not set", "stock anchors").replace(
        "anchors 0", "anchors at 0"
    )
    held = test["test"]
    return [
        f"{NAMES[task]}{setting}: `{variant}`, {NAMES.get(metric, metric)}",
        str(len(rows[variant]["runs"])),
        f"{base['mean']:.2f}",
        f"{held['difference']:+.2f}",
        f"[{held['low']:+.2f},\u00a0{held['high']:+.2f}]",  # kept on one line
        f"{held['corrected']:.2g}",
        sheets.SIGNS[held["word"]] + " " + held["word"],
    ]


def test_the_versions_of_the_runs_are_told() -> None:
    """Trained figures depend on them."""
    names = ("torch", "torchvision", "timm")
    told = " ".join((DOCS / "reproduction.md").read_text().split())
    for path in [*DOCS.glob("runs/**/result.json"), *DOCS.glob("further_runs/**/result.json")]:
        versions = json.loads(path.read_text())["versions"]
        held = [f"{name} {versions[name]}" for name in names]
        assert "of {}, {} and {}".format(*held) in told, path
    shown = json.loads((DOCS / "runs/classification/baseline-s0/result.json").read_text())
    held = [f"{name} {shown['versions'][name]}" for name in names]
    training = " ".join((DOCS / "training.md").read_text().split())
    assert "of {}, {} and {}".format(*held) in training


def test_what_the_readme_says_was_found_is_in_the_records() -> None:
    told = " ".join(README.read_text().split())
    zoo = " ".join((DOCS / "zoo.md").read_text().split())
    counted = re.search(r"Of (\d+) with path counts (\d+) are shifted .* and (\d+) clean", zoo)
    assert counted
    assert f"Of {counted[1]} networks" in told and f"{counted[2]} are shifted" in told
    assert f"{counted[3]} are clean" in told

    args = ["compare", str(DOCS / "runs"), "--format", "json"]
    groups = json.loads(CliRunner().invoke(main, args).stdout)["groups"]
    settings = {
        setting["keys"]["schedule.epochs"]: {row["variant"]: row for row in setting["rows"]}
        for group in groups
        for setting in group["settings"]
        if "schedule.epochs" in setting["keys"]
    }
    short, long = settings["3"]["1x1+3x3"], settings["10"]["1x1+3x3"]
    tested = short["metrics"]["top1"]["test"]
    assert f"{tested['difference']:.2f} points of top-1 after 3 epochs" in told
    assert f"({len(short['runs'])} seeds, p = {tested['corrected']:.2g} by Holm)" in told
    gained = long["metrics"]["top1"]["test"]["difference"]
    assert f"{gained:.2f} after 10 ({len(long['runs'])} seeds)" in told
    blur = settings["3"]["blur:1x1+3x3"]["metrics"]["top1"]["test"]
    assert f"gains as much ({blur['difference']:.2f} points)" in told
    (rows,) = (
        {row["variant"]: row for row in group["settings"][0]["rows"]}
        for group in groups
        if group["kind"] == "seg" and "output_stride" not in group["model"]
    )
    masks = [rows[name]["metrics"]["mIoU"]["test"] for name in ("1x1+3x3", "blur:1x1+3x3")]
    (gain,) = {f"{test['difference']:.1f}" for test in masks}
    (seeds,) = {len(rows[name]["runs"]) for name in ("baseline", "1x1+3x3", "blur:1x1+3x3")}
    assert f"both gain {gain} points of mIoU ({seeds} seeds)" in told
    fields = (DOCS / "receptive_fields.md").read_text()
    assert re.search(r"^1x1\+3x3 +p5 +32 +\+14\.50 +\+14\.50", fields, re.MULTILINE)
    assert "looks 14.5 px off them at p5" in told
    # of classifiers and of detectors, in the order of their columns
    ranks = re.findall(r"^Spearman's rho +(.*)$", (DOCS / "reproduction.md").read_text(), re.M)
    (shift, grid, moves), (on_boxes, grid_on_boxes, jitter, *_) = (row.split() for row in ranks)
    assert f"(Spearman's rho {moves[1:]}), not with the shift ({shift[1:]})" in told
    findings = " ".join((DOCS / "findings.md").read_text().split())
    assert f"(Spearman's rho {moves[1:]})" in findings and f"box AP ({jitter})" in findings
    assert f"({shift} and {grid}, {on_boxes} and {grid_on_boxes})" in findings


TUTORIALS = ("receptive_fields", "training", "compare", "install", "detection")


MASKED = ("images", "masks")  # folders of a segmentation's set


@pytest.mark.parametrize("page", [README, *(DOCS / f"{name}.md" for name in TUTORIALS)])
def test_every_command_shown_exists(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands in code blocks parse: their options exist and their configurations are there."""
    text = page.read_text().replace("\\\n", " ")
    lines = [line.split("#")[0] for line in re.findall(r"^rfbench .*$", text, re.MULTILINE)]
    assert lines
    monkeypatch.chdir(README.parent)
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Conv2d(3, 8, 3, stride=2, padding=1)\n"
    )
    for place in ("train/a/1.JPEG", "train/b/1.JPEG", "val/a/2.JPEG", "val/b/2.JPEG"):
        (tmp_path / "IMAGENET" / place).parent.mkdir(parents=True)
        Image.new("RGB", (9, 8)).save(tmp_path / "IMAGENET" / place)
    for place in (
        f"{kind}/{name}.png" for kind in MASKED for name in ("train/1", "train/2", "val/3")
    ):
        (tmp_path / "IMAGES" / place).parent.mkdir(parents=True, exist_ok=True)
        mask = np.arange(72, dtype=np.uint8).reshape(8, 9) % 2
        Image.fromarray(mask).save(tmp_path / "IMAGES" / place)
    (tmp_path / "IMAGES/classes.txt").write_text("ground\nthing\n")
    for split in ("train", "val"):
        write_boxes(tmp_path / "BOXES", split)
    trained = "cls-digits-resnet14-baseline-s0"
    (tmp_path / trained).mkdir()
    held = {"model": "rfbench.classify.nets:resnet14", "variant": "baseline"}
    state = backbones.build(held["model"]).module.state_dict()
    torch.save(
        {"format": weight_files.FORMAT, **held, "classes": [*"0123456789"], "state_dict": state},
        tmp_path / trained / "last.pth",
    )
    for line in lines:
        line = line.replace(f"results/{trained}", str(tmp_path / trained))
        own = {"train-seg": "IMAGES", "train-det": "BOXES"}.get(line.split()[1], "IMAGENET")
        line = line.replace("data.root=PATH", f"data.root={own}")
        for name in ("mynets.py", "IMAGENET", "IMAGES", "BOXES", "report.html", "mine.yaml"):
            line = line.replace(name, str(tmp_path / name))
        args = shlex.split(line)[1:]
        if args[0] == "install-detectron2":  # changes the environment
            continue
        if args[0] == "compare":  # has nothing to be dry about
            args = [arg.replace("results/", "docs/runs") for arg in args]
        elif args[0] != "configs" and not {"registration", "--fail-on"} & set(args):
            args.append("--dry-run")
        if "IMAGENET" in line or "IMAGES" in line:
            args += ["-o", "batch_size=2"]  # two images to train on
        if args[0].startswith("train-"):  # the default folder may hold a run of one's own
            args += ["--output", str(tmp_path / "out")]
        if {"train-det", "registration"} & set(args) and not importlib.util.find_spec("detectron2"):
            continue
        result = CliRunner().invoke(main, args)
        # the network above grids, which the gate is there to say
        assert result.exit_code == ("--fail-on" in args), f"{line}: {result.output}"


def write_boxes(root: Path, split: str) -> None:
    """One image with one box, in COCO's layout."""
    for folder in ("annotations", f"{split}2017"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (90, 80)).save(root / f"{split}2017/1.jpg")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [9, 9, 30, 20], "area": 600}
    held = {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 80, "width": 90}],
        "annotations": [box | {"iscrowd": 0}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(held))


def test_files_named_exist() -> None:
    pattern = r"(?:\]\(|`(?=\w+/)|src=\")([\w./-]+)[)`\"]"
    found = re.findall(pattern, README.read_text())
    assert "docs/figures/hero.png" in found
    images = re.findall(r'^<img src="[^"]+" width="700" alt="[^"\n]+">$', README.read_text(), re.M)
    assert len(images) == README.read_text().count("<img") == 1
    for name in found:
        assert (README.parent / name).exists(), name


def test_what_the_page_says_of_anchors_is_what_the_records_say() -> None:
    """Differences between two settings, which `compare` does not test."""

    def box_ap(task: str, variant: str) -> np.ndarray:
        paths = [README.parent / f"docs/runs/{task}/{variant}-s{i}/result.json" for i in range(4)]
        return np.array([json.loads(p.read_text())["metrics"]["bbox"]["AP"] for p in paths])

    stock, moved = "retinanet", "retinanet-anchors-0.5"
    moved_gain = box_ap(moved, "1x1+3x3") - box_ap(stock, "1x1+3x3")
    plain = box_ap(moved, "baseline") - box_ap(stock, "baseline")
    blur = box_ap(stock, "blur-1x1+3x3") - box_ap(moved, "1x1+3x3")
    told = " ".join((DOCS / "reproduction.md").read_text().split())
    for values in (moved_gain, plain, moved_gain - plain, blur):
        assert f"({values.mean():+.2f} AP, p = {ttest_1samp(values, 0).pvalue:.2f}" in told
    assert f"{2 * ttest_1samp(moved_gain, 0).pvalue:.2f} by Holm" in told


def test_the_hero_shows_no_grid_of_its_own() -> None:
    """A pixel of the input is a whole number of dots, in the maps and in the strips."""
    spec = importlib.util.spec_from_file_location("hero", README.parent / "scripts/hero.py")
    assert spec and spec.loader
    hero = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hero)
    for around in (hero.AROUND, hero.NEAR):
        dots = hero.SIDE * hero.DPI / (2 * around)
        assert dots == pytest.approx(round(dots), abs=1e-9) and round(dots) >= 1
    for length in (hero.GAP, hero.TOP, hero.FOOT, hero.SIDE, hero.LOW):  # where the maps stand
        for dpi in (hero.DPI, PAGE_DPI):
            assert dpi * length == pytest.approx(round(dpi * length), abs=1e-9)
    with Image.open(DOCS / "figures/hero.png") as figure:  # drawn so
        assert figure.width == round(hero.WIDTH * hero.DPI)
