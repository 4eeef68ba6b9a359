"""Sets, settings and networks that would train to a wrong figure, or end in a crash: one line."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from rfbench.cli import main
from rfbench.data.segmentation import masks
from rfbench.data.segmentation.pairs import SegSet, none
from rfbench.errors import RfbenchError
from rfbench.runs.processes import Processes
from rfbench.segment import evaluate, show, tries
from tests.data.segmentation import trees

HERE = "tests.segment.test_hostile_input"


def run(root: Path, *args: object) -> Result:
    own = ("seg/folder", "-o", f"data.root={root}", "-o", "device=cpu", "-o", "batch_size=2")
    small = ("-o", "data.crop=[16,16]", "-o", "schedule.epochs=1", "-o", "data.workers=0")
    return CliRunner().invoke(main, ["train-seg", *map(str, (*own, *small, *args))])


def message(result: Result) -> str:
    """The one line of an error."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert result.exit_code in (1, 2) and len(errors) == 1, result.output
    return errors[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("classes: abc", "data.options.classes: must be a list (it is 'abc')"),
        ("classes: {tree: 1, ground: 0}", "data.options.classes: must be a list"),
        ("classes: [ground, null, tree]", "data.options.classes[1]: must be a valid"),
        ("ignored: 255", "data.options.ignored: must be a list (it is 255)"),
        ("val_share: '0.2'", "data.options.val_share: must be a valid number (it is '0.2')"),
        ("root: elsewhere", "has no option 'root'"),
        ("eval_only: true", "has no option 'eval_only'"),
        ("val_share: 0.3", "is already split into images/train/ and images/val/"),
    ],
)
def test_options_of_another_type(options: str, told: str, tmp_path: Path) -> None:
    """A text is no list of letters, and a mapping has no order that anyone wrote down."""
    root = trees.folder(tmp_path / "data", count=2)
    assert told in message(run(root, "-o", f"data.options={{{options}}}", "--dry-run"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ground\n\ntree\nhouse\n", "line 2 is empty"),
        ("ground\ntree\ntree\n", "'tree' is there twice"),
        ("ground\n", "they are 1"),
        ("1 ground\n2 tree\n3 house\n", "line 1 is '1 ground', but it names the class of index 0"),
        ("0: ground\n2: house\n1: tree\n", "line 2 is '2: house', but it names"),
        ("ground,0\ntree,2\nhouse,1\n", "line 2 is 'tree,2', but it names"),
    ],
)
def test_names_of_classes(text: str, told: str, tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=2)
    (root / "classes.txt").write_text(text)
    assert told in message(run(root, "--dry-run"))


@pytest.mark.parametrize("names", ["0 a|1 b|2 c", "2|1|0", "level 1|level 2|level 3"])
def test_numbers_that_belong_to_names(names: str, tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=2)
    (root / "classes.txt").write_text(names.replace("|", "\n"))
    result = run(root, "--dry-run")
    assert f"classes: {names.replace('|', ', ')}\n" in result.stdout


def test_names_that_people_take_for_one(tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=2)
    (root / "classes.txt").write_text("ground\nTree\ntree\n")
    assert "the classes 'Tree' and 'tree' differ only in case" in run(root, "--dry-run").stderr


def test_names_end_with_empty_lines_and_are_separated_by_line_breaks_alone(tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=2)
    (root / "classes.txt").write_bytes("\ufeffground\r\ntree\u2028s\r\nhouse\r\n\r\n".encode())
    result = run(root, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "classes: ground, tree\\u2028s, house\n" in result.stdout


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("loss.class_weights={ground: 0, tree: 0, house: 0}", "are all 0"),
        ("loss.class_weights={ground: 1.0e+300}", "are too large"),
        ("best_metric=foreground_mIoU", "has no background"),
        ("data.crop=[100000,100000]", "more than 128 million pixels"),
        ("data.scale=[0.00001,1]", "more than 128 million pixels"),
        ("ema=true", "ema needs weights"),
    ],
)
def test_settings_that_lead_nowhere(settings: str, told: str, tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=2)
    assert told in message(run(root, "-o", settings, "--dry-run"))


def test_classes_without_a_pixel_are_told(tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=2)
    with open(root / "classes.txt", "a") as file:
        file.write("bridge\n")
    result = run(root, "--dry-run")
    assert "no training mask has a pixel of bridge" in result.stderr
    for path in (root / "masks/val").rglob("*.png"):
        trees.mask(path, np.full((20, 30), 255))
    assert "every pixel of all 2 validation masks is ignored" in message(run(root, "--dry-run"))


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    """Of which 255 is ignored: a network of one class would be right everywhere."""
    root = trees.folder(tmp_path / "data", count=2)
    (root / "classes.txt").write_text("ground\ntree\n")
    for path in (root / "masks").rglob("*.png"):
        trees.mask(path, trees.halves(0, 255))
    told = message(run(root, "--dry-run"))
    assert "every pixel that counts of all 2 training masks is of ground" in told
    colors = "data.options.colors=[[0,0,0],[255,255,255]]"
    assert colors in told and run(root, "--dry-run", "-o", colors).exit_code == 0
    camvid = trees.camvid(tmp_path / "camvid", False)  # what others have drawn is not coded anew
    result = run(camvid, "--dry-run", "-o", "data.name=camvid")
    assert result.exit_code == 0 and "training masks is of road, so there is" in result.stderr


@pytest.mark.parametrize("orientation", [3, 6])
def test_images_that_exif_turns(orientation: int, tmp_path: Path) -> None:
    """Whether the mask was drawn on the turned image, only its author knows."""
    root, exif = trees.folder(tmp_path / "data", count=2), Image.Exif()
    exif[0x112] = orientation
    image = sorted((root / "images/train").rglob("*.*"))[0]
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, 15:] = 255  # the right half, where the mask holds another class
    Image.fromarray(pixels).save(image, "PNG", exif=exif)
    mask = sorted((root / "masks/train").rglob("*.png"))[0]
    drawn = trees.halves(0, 1)
    trees.mask(mask, drawn)
    assert f"orientation {orientation}" in message(run(root, "--dry-run"))
    assert run(root, "--dry-run", "-o", "data.options.upright=false").exit_code == 0
    trees.mask(mask, np.rot90(drawn, 2 if orientation == 3 else -1))
    own = ("-o", "data.options.upright=true")
    assert run(root, "--dry-run", *own).exit_code == 0
    from rfbench.data import sources
    from rfbench.data.segmentation.sources import SOURCES

    found = sources.open_set(SOURCES, "folder", str(root), options={"upright": True}).train.read(0)
    assert torch.equal(found[..., 0] == 255, found[..., 3] == 1)


def test_a_missing_mask_that_is_called_nearly_so(tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=2)
    mask = sorted((root / "masks/train").rglob("*.png"))[0]
    mask.rename(mask.with_suffix(".PNG"))
    assert f"(there is {mask.stem}.PNG)" in message(run(root, "--dry-run"))


def test_two_classes_of_one_name() -> None:
    empty = none(masks.indices(2))
    with pytest.raises(RfbenchError, match="two classes are called 'a'"):
        SegSet("own", ["a", "b", "a"], empty, empty)


class Fixed(nn.Module):
    """A network that takes images of 16 x 16 px, as a transformer of one size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.place = nn.Conv2d(3, 3, 1), nn.Parameter(torch.zeros(3, 16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.place


@pytest.mark.parametrize("args", [("--dry-run",), ()])
def test_validation_images_that_the_network_does_not_take(
    args: tuple[str, ...], tmp_path: Path
) -> None:
    """Crops fit it; after an epoch whole images would not."""
    root = trees.folder(tmp_path / "data", count=2)
    own = ("-o", f"model={HERE}:Fixed", "-o", "head=own", "--output", tmp_path / "run")
    told = message(run(root, *own, *args))
    assert "Fixed does not run on " in told and "of 30x20 px: The size of tensor a" in told
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    for path in [*(root / "images").rglob("*.*"), *(root / "masks").rglob("*.png")]:
        Image.open(path).crop((0, 0, 16, 16)).save(path)
    assert run(root, *own, *args).exit_code == 0


def test_sizes_that_are_tried() -> None:
    sizes = [(n, 100 - n) for n in range(1, 100)]
    found = tries.some(sizes)
    assert len(found) == tries.MOST and found[0] == (1, 99) and found[-1] == (50, 50)
    assert tries.some([(3, 4)]) == [(3, 4)] and tries.some([]) == []


def test_images_are_checked_before_training(tmp_path: Path) -> None:
    """Headers are whole, so that the check of masks passes."""
    root = trees.folder(tmp_path / "data", count=4)
    first, second, *_ = sorted((root / "images/val").rglob("*.*"))
    for path in (first, second):
        path.write_bytes(path.read_bytes()[:-200])
    assert run(root, "--dry-run").exit_code == 0
    result = run(root, "--check-images", "--output", tmp_path / "run")
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: 2 of 4 validation images cannot be read, more than data.max_b")
    assert "0 of 4 training images cannot be read" in result.stderr
    assert f"{first}: " in result.stderr and not (tmp_path / "run").exists()
    few = ("-o", "data.max_bad_share=0.5", "--dry-run")
    assert run(root, "--check-images", *few).exit_code == 0


class Odd(nn.Module):
    """A network that does what networks of others do."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.conv, self.what = nn.Conv2d(3, 3, 3, padding=1), what

    def forward(self, x: torch.Tensor) -> Any:
        if self.what == "changes its input":
            x.mul_(0.5)
        y = self.conv(x)
        if self.what == "NaN" and not self.training:
            y = y / 0 * 0
        return {"whole": y.round().int(), "empty": y[:, :, :0], "one": y[:1]}.get(self.what, y)


def odd(what: str) -> nn.Module:
    return Odd(what)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("whole", "returns int32 [1, 3, 16, 16], not a map of real scores"),
        ("empty", "returns float32 [1, 3, 0, 16], not a map of real scores"),
    ],
)
def test_scores_that_are_none(what: str, told: str, tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=2)
    own = ("-o", f"model={HERE}:odd", "-o", "head=own", "-o", f"model_args={{what: {what}}}")
    assert told in message(run(root, *own, "--dry-run"))


def figures_of(model: nn.Module) -> dict[str, Any]:
    empty = none(masks.indices(3))
    data = SegSet("own", ["a", "b", "c"], empty, empty)
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 12, 12, generator=rng)
    truth = torch.randint(3, (2, 12, 12), generator=rng)
    group = Processes(torch.device("cpu"))
    return evaluate.evaluate(model, [(images, truth)], 1, group, lambda x: {"out": model(x)}, data)


def test_scores_of_nan_have_no_figures() -> None:
    with pytest.raises(RfbenchError, match="scores of validation pixels are NaN"):
        figures_of(Odd("NaN"))


def test_a_network_that_changes_its_input_is_measured_on_the_image() -> None:
    """What it returns of an image is Conv(x / 2), also of the image moved by a pixel."""
    model, plain = Odd("changes its input"), Odd("")
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        plain.conv.weight.mul_(0.5)
    assert figures_of(model)["jitter"] == figures_of(plain)["jitter"]


def test_arguments_that_the_library_refuses(tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=2)
    for model, args, told in (
        ("lraspp_mobilenet_v3_large", "aux_loss: true", "does not use auxiliary loss"),
        ("fcn_resnet50", "num_classes: 3", "as many classes as the data has"),
        ("fcn_resnet50", "weights_backbone: DEFAULT", "weights_backbone cannot be set here"),
    ):
        own = ("-o", f"model={model}", "-o", "head=own", "-o", f"model_args={{{args}}}")
        assert told in message(run(root, *own, "--dry-run"))


def test_drawings_of_images_that_cannot_be_read_or_named(tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "data", count=3)
    first, second, _ = sorted((root / "images/val").rglob("*.*"))
    first.write_bytes(first.read_bytes()[:-200])
    long = os.fsdecode(b"n\xff" + b"x" * 230)
    mask = next(path for path in (root / "masks/val").rglob("*.png") if path.stem == second.stem)
    second.rename(second.with_name(long + second.suffix))
    mask.rename(mask.with_name(f"{long}.png"))
    out = tmp_path / "run"
    result = run(root, "--visualize", 3, "-o", "data.max_bad_share=1", "--output", out)
    assert result.exit_code == 0, result.output
    assert len(list((out / show.FOLDER).iterdir())) == 2 and (out / "result.json").exists()
