"""What stands in result.json and metrics.jsonl though no run writes it: one line, where it is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from rfbench import files
from rfbench.cli import main
from rfbench.errors import RfbenchError
from rfbench.runs import checkpoint, progress, records
from tests.report.records import RUNS, record, write

TRAIN = {"split": "train", "step": 2, "epoch": 0, "loss": 0.5, "top1": 75.0, "lr": 0.1}
VAL = {"split": "val", "step": 2, "epoch": 0, "loss": 0.6, "top1": 50.0}
LATER = {**TRAIN, "step": 4, "epoch": 1}
CLASSES = {"split": "val", "step": 2, "mIoU": 50.0, "iou/cat": 25.0, "iou/a/b": 75.0}


def lines_of(folder: Path, *lines: dict[str, Any] | str) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / progress.METRICS).write_text("".join(f"{text}\n" for text in texts))
    return folder


@pytest.mark.parametrize(
    "lines",
    [
        (TRAIN, VAL, LATER),
        (VAL, {**VAL, "step": 4}),
        ({**TRAIN, "loss": None}, {**VAL, "seconds/coco": 1.0, "seconds": 2.0, "bbox/AP": 0.0}),
        ({"split": "fix", "step": 0}, {"split": "fix", "step": 0}, TRAIN),
        (CLASSES, {**CLASSES, "step": 4, "foreground_mIoU": 75.0}),
    ],
)
def test_lines_of_a_run_are_read(tmp_path: Path, lines: tuple[Any, ...]) -> None:
    assert progress.read_metrics(lines_of(tmp_path, *lines)) == [*lines]


@pytest.mark.parametrize(
    ("number", "what", "lines"),
    [
        (2, "step 2 is there twice", (TRAIN, TRAIN)),
        (3, "step 2 comes after step 4", (TRAIN, LATER, VAL)),
        (1, "not a line of a run", ({**TRAIN, "step": True},)),
        (1, "not a line of a run", ({**TRAIN, "step": -2},)),
        (1, "val.top1 is 100.5, not from 0 to 100", ({**VAL, "top1": 100.5},)),
        (1, "val.ema.top1 is -1", ({**VAL, "ema/top1": -1},)),
        (1, "val.epoch is 0.5", ({**VAL, "epoch": 0.5},)),
        (1, "val.mIoU is 51.0, not the mean", ({**CLASSES, "mIoU": 51.0},)),
        (1, "train.loss is -1", ({**TRAIN, "loss": -1},)),
        (1, "lr is -0.1", ({**TRAIN, "lr": -0.1},)),
        (1, "seconds is 'x'", ({**TRAIN, "seconds": "x"},)),
        (
            1,
            "iou/cat is below a number",
            ({"split": "val", "step": 1, "iou": 1.0, "iou/cat": 1.0},),
        ),
        (1, "NaN is not a number of JSON", ('{"split": "train", "step": 1, "loss": NaN}',)),
        (1, "1e999 is not a number of JSON", ('{"split": "train", "step": 1, "loss": 1e999}',)),
    ],
)
def test_lines_that_no_run_writes(
    tmp_path: Path, number: int, what: str, lines: tuple[Any, ...]
) -> None:
    with pytest.raises(RfbenchError) as error:
        progress.read_metrics(lines_of(tmp_path, *lines))
    assert f"line {number}, is damaged: " in str(error.value) and what in str(error.value)
    assert "\n" not in str(error.value)


def test_lines_of_later_steps_do_not_fill_the_place_of_lost_ones(tmp_path: Path) -> None:
    """The checkpoint is of step 2, after two lines: of them one is lost, and one came later."""
    log = progress.Log(lines_of(tmp_path, VAL, LATER), 2, 2, False)
    log.write(LATER)
    log.close()
    assert progress.read_metrics(tmp_path) == [VAL, LATER]


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("seed", 7, "seed is 7; its config says 0"),
        ("variant", "1x1", "variant is '1x1'; its config says 'baseline'"),
        ("model", "resnet50", "model is 'resnet50'; its config says 'rfbench.classify.nets:"),
        ("model", "timm:rfbench.classify.nets:resnet14", "model is 'timm:rfbench"),
        ("model", "rfbench.classify.nets:resnet14(width=2)", "resnet14(width=2)'; its config"),
        ("dataset", "cifar10", "dataset is 'cifar10'; its config says 'digits'"),
        ("input__size", 47, "input.size is 47; its config says 48"),
        ("batch__global", 7, "batch.global is 7; its config says batch_size = "),
        ("epochs", None, "epochs is None, not schedule.epochs = 2"),
        ("batch__global", "x", "batch.global is 'x', not a count"),
        ("images__train", 0.5, "images.train is 0.5, not a count"),
        ("seconds", float("nan"), "NaN is not a number of JSON; what is undefined is null"),
        ("metrics__loss", float("-inf"), "-Infinity is not a number of JSON"),
    ],
)
def test_a_record_that_contradicts_itself(tmp_path: Path, key: str, value: Any, what: str) -> None:
    whole = record()
    said = {f"config__{name}": whole[name] for name in ("seed", "variant", "model")}
    said |= {"config__data__name": whole["dataset"], "config__data__image_size": 48}
    folder = write(tmp_path / "run", whole, **said, **{key: value})
    with pytest.raises(RfbenchError) as error:
        records.read_record(folder / "result.json")
    assert f"{folder / 'result.json'} is damaged: " in str(error.value)
    assert what in str(error.value)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("3x3+1x1", "1x1+3x3"),
        ("avg:3x3", "3x3"),
        ("1x1+1x1", "1x1"),
        ({"kernels": [3, 1], "pool": "blur"}, "blur:1x1+3x3"),
        ("mine:3x3", "mine:3x3"),  # a pool of one's own, which is not imported here
    ],
)
def test_a_variant_has_one_name_however_it_is_written(
    tmp_path: Path, given: Any, name: str
) -> None:
    """The record is written after the training: what is refused there is lost."""
    folder = write(tmp_path / "run", record(), variant=name, config__variant=given)
    assert records.read_training(folder / "result.json").variant == name
    write(folder, record(), variant="1x1+blur:3x3", config__variant=given)
    with pytest.raises(RfbenchError, match="variant is '1x1.blur:3x3'; its config says"):
        records.read_training(folder / "result.json")


def test_arguments_of_a_model_and_its_library_are_compared(tmp_path: Path) -> None:
    own = {"model": "resnet50", "model_args": {"in_chans": 1, "act": "a:b"}}
    named = "timm:resnet50(act='a\\x3ab',in_chans=1)"
    content = {**record(), "model": named, "config": {**record()["config"], **own}}
    folder = write(tmp_path / "run", content)
    assert records.read_training(folder / "result.json").model == named
    for wrong in (named.replace("=1", "=3"), "timm:resnet50", "timm:resnet50(", "resnet50(1=)"):
        write(folder, {**content, "model": wrong})
        with pytest.raises(RfbenchError, match="is damaged: cls: model"):
            records.read_training(folder / "result.json")
    content["config"]["model"] = "torchvision:resnet50"
    write(folder, content)
    with pytest.raises(RfbenchError, match="its config says 'torchvision:resnet50'"):
        records.read_training(folder / "result.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 5), ("variant", "3x3"), ("model", "resnet50"), ("dataset", "cifar10"), ("images", 5)],
)
def test_a_parent_that_contradicts_itself(tmp_path: Path, key: str, value: Any) -> None:
    content = record("tuned-baseline-s0")
    content["parent"][key] = value
    folder = write(tmp_path / "run", content)
    with pytest.raises(RfbenchError, match=f"is damaged: parent: {key} is {value!r}"):
        records.read_record(folder / "result.json")


def test_a_detection_of_another_detector(tmp_path: Path) -> None:
    path = RUNS.parent / "detectors/retinanet-baseline-s0/result.json"
    content = json.loads(path.read_text())
    folder = write(tmp_path / "run", content, detector="x.yaml")
    with pytest.raises(RfbenchError, match="detector is 'x.yaml'; its config says"):
        records.read_record(folder / "result.json")


def test_a_finished_run_whose_record_does_not_list_its_files(tmp_path: Path) -> None:
    content = record()
    del content["files"]
    folder = write(tmp_path / "run", content)
    command = ["train-cls", str(RUNS / "two-baseline-s0/config.yaml"), "--output", str(folder)]
    found = CliRunner().invoke(main, [*command, "--resume"])
    assert found.exit_code == 0 and "top-1" in found.stdout, found.stderr
    assert f"wrote {folder / 'result.json'}" in found.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("metrics"), "metrics: Field required"),
        (lambda content: content["best"].pop("top1"), "it has no 'top1'"),
        (lambda content: content["best"].update(top1="x"), "a value in it is of another kind"),
    ],
)
def test_a_finished_record_that_cannot_be_shown_is_refused_in_words(
    tmp_path: Path, change: Any, words: str
) -> None:
    content = record()
    change(content)
    folder = write(tmp_path / "run", content)
    config = str(RUNS / "two-baseline-s0/config.yaml")
    found = CliRunner().invoke(main, ["train-cls", config, "--output", str(folder), "--resume"])
    (line,) = found.stderr.splitlines()[-1:]
    assert found.exit_code == 1 and words in line, found.stderr
    assert not re.search(r"[A-Z][a-z]+Error", line.removeprefix("Error"))


def test_what_a_checkpoint_lacks_is_told_in_words(tmp_path: Path) -> None:
    class Of(BaseModel):
        step: int

    for error, words in (
        (KeyError("optimizer"), "it has no 'optimizer'"),
        (IndexError("list index out of range"), "a list in it is too short"),
        (TypeError("'int' object is not iterable"), "a value in it is of another kind"),
        (ValueError("step is -1"), "step is -1"),
    ):
        with pytest.raises(RfbenchError, match=words), checkpoint.restoring(tmp_path):
            raise error
    wrong = pytest.raises(RfbenchError, match="this run: step: Input should be a valid integer")
    with wrong, checkpoint.restoring(tmp_path):
        Of.model_validate({"step": "x"})


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "null\n", "---\n"])
def test_a_configuration_without_settings_does_not_start_the_defaults(
    tmp_path: Path, text: str
) -> None:
    """A full disk leaves empty files; of one, every key would have its default."""
    (tmp_path / "c.yaml").write_text(text)
    for command, what in (
        ("train-cls", "holds no settings. Write {} to set none."),
        ("train-seg", "missing key 'head'"),
        ("train-det", "holds no settings. Write {} to set none."),
    ):
        found = CliRunner().invoke(main, [command, str(tmp_path / "c.yaml"), "--dry-run"])
        assert (found.exit_code, found.stderr.count("\n")) == (2, 1)
        assert f"c.yaml: {what}\n" in found.stderr
    (tmp_path / "d.yaml").write_text("base: c.yaml\nseed: 1\n")
    found = CliRunner().invoke(main, ["train-cls", str(tmp_path / "d.yaml"), "--dry-run"])
    assert found.exit_code == 2 and "c.yaml: holds no settings" in found.stderr


def test_a_configuration_of_another_command_is_named_as_such() -> None:
    for name, own, command in (
        ("seg/digits", "train-seg", "train-det"),
        ("det/digits", "train-det", "train-cls"),
        ("cls/digits", "train-cls", "train-seg"),
    ):
        found = CliRunner().invoke(main, [command, name, "--dry-run"])
        assert found.exit_code == 2
        assert found.stderr == f"Error: {name} is a configuration of `rfbench {own}`.\n"


def test_a_mistaken_override_of_a_file_that_fits_several_commands_is_what_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("{seed: 1}\n")
    found = CliRunner().invoke(main, ["train-cls", "c.yaml", "-o", "optim.lrr=1", "--dry-run"])
    assert found.exit_code == 2
    assert found.stderr == "Error: -o: unknown key 'optim.lrr'; did you mean 'optim.lr'?\n"


def test_a_runs_configuration_that_was_cut_off_is_told(tmp_path: Path) -> None:
    """What is left may be YAML, and a plain configuration: of what is lost it has the defaults."""
    files.open_folder(tmp_path)
    path = tmp_path / "config.yaml"
    text = "model: rfbench.classify.nets:resnet14\ndata: {name: folder, root: nowhere}\nseed: 3\n"
    files.write_text(path, text)
    for content, told in ((text, 0), (text[:-8], 1), (f"{text}# mine\n", 1)):
        path.write_text(content)
        found = CliRunner().invoke(main, ["train-cls", str(path), "--eval-only", "nowhere.pth"])
        assert found.stderr.count("is not as the run in its folder has written it") == told


def test_a_segmentation_that_stopped_early_has_the_epochs_that_it_had(tmp_path: Path) -> None:
    """`epochs` of its record are not those planned; a record that is refused is a lost run."""
    path = Path(__file__).parents[2] / "docs/runs/segmentation/baseline-s0/result.json"
    content = json.loads(path.read_text())
    planned, per_epoch = content["epochs"], content["steps"] // content["epochs"]
    assert content["config"]["schedule"]["epochs"] == planned == 3
    early = {
        **{"epochs": 2, "stopped_early": True, "steps": 2 * per_epoch},
        **{"metrics__epoch": 1, "best__epoch": 0},
    }
    assert records.read_training(write(tmp_path / "run", content, **early) / "result.json")
    for change in ({"epochs": planned}, {"epochs": 1}, {"stopped_early": False}):
        folder = write(tmp_path / "run", content, **early | change)
        with pytest.raises(RfbenchError, match="is damaged: seg: epochs is "):
            records.read_training(folder / "result.json")
