"""`rfbench train-det`: runs from beginning to end, killed, stopped, resumed and evaluated."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from rfbench.cli import main
from rfbench.detect import config, evaluate, plan, sets
from rfbench.detect.run import FORMAT, Run
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import integrity
from rfbench.runs import checkpoint, loop, progress, signals
from rfbench.runs.processes import Processes
from tests.classify.runs import finish, kill_saved, steps
from tests.detect import runs

MASK_RCNN: dict[str, Any] = {
    "detector": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "MODEL__FPN": {"IN_FEATURES": ["res2", "res3", "res4"], "OUT_CHANNELS": 16},
    "MODEL__ANCHOR_GENERATOR": {"SIZES": [[24], [32], [48], [64]]},
    "MODEL__RPN": {
        **{"IN_FEATURES": ["p2", "p3", "p4", "p5"], "BATCH_SIZE_PER_IMAGE": 32},
        **{"POST_NMS_TOPK_TRAIN": 50, "POST_NMS_TOPK_TEST": 20},
    },
    "MODEL__ROI_HEADS": {"IN_FEATURES": ["p2", "p3", "p4"], "BATCH_SIZE_PER_IMAGE": 16},
    "MODEL__ROI_BOX_HEAD": {"NUM_FC": 1, "FC_DIM": 64},
    "MODEL__ROI_MASK_HEAD": {"NUM_CONV": 1, "CONV_DIM": 16},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert finish(runs.start(runs.config(), folder)) == [0]
    return folder


def test_what_a_run_leaves(whole: Path) -> None:
    record = json.loads((whole / "result.json").read_text())
    assert (record["kind"], record["steps"], record["scaled"]) == ("det", 14, None)
    assert record["images"] == {"train": 30, "val": 6}
    names = {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    assert names <= record["metrics"]["bbox"].keys()
    assert record["network"]["map"]["offset"] == record["network"]["figures"]["shift"]
    assert record["differs"]["SOLVER.MAX_ITER"] == [90000, 14]
    assert record["versions"]["detectron2"]
    assert all((whole / name).exists() for name in record["files"])
    lines = progress.read_metrics(whole)
    assert [line["step"] for line in lines] == [*range(1, 15), 14]
    assert {"loss", "loss_cls", "loss_box_reg", "lr", "wait"} <= lines[0].keys()
    assert [line["lr"] for line in lines[-3:-1]] == [pytest.approx(0.0005)] * 2
    assert sorted(p.name for p in whole.glob("*.pth")) == ["best.pth", "last-1.pth", "last.pth"]


def test_every_image_once_an_epoch(whole: Path) -> None:
    images = runs.seen(whole)
    assert len(images) == 14 * 4
    assert len(set(images[:30])) == 30 and len(set(images[30:])) == 26


def test_killed_twice_and_resumed(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for number, target in enumerate([6, 11]):
        started = runs.start(runs.config(), folder, resume=number > 0)
        assert kill_saved(started, folder, target)
        # what came after the checkpoint is lost, and will be made again
        keep_only(folder, whole)
    assert finish(runs.start(runs.config(), folder, resume=True)) == [0]
    assert runs.seen(folder) == runs.seen(whole)
    for key in ("step", "lr"):
        lines = [[line.get(key) for line in progress.read_metrics(f)] for f in (folder, whole)]
        assert lines[0] == lines[1]
    assert json.loads((folder / "result.json").read_text())["steps"] == 14


def keep_only(folder: Path, whole: Path) -> None:
    """Forget the images after the newest checkpoint; those before must be the whole run's."""
    held = checkpoint.load_last(folder, format=FORMAT)
    assert held and held["iteration"] > 0
    kept = runs.seen(folder)[: 4 * held["iteration"]]
    assert kept == runs.seen(whole)[: len(kept)]
    Path(f"{folder}.seen0").write_text("".join(f"{image}\n" for image in kept))


def test_a_signal_saves_where_it_is(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started = runs.start(runs.config(SOLVER__CHECKPOINT_PERIOD=1000), folder)
    while steps(folder) < 3:
        time.sleep(0.001)
    os.kill(started[0].pid, signal.SIGTERM)
    assert finish(started) == [0]
    held = checkpoint.load_last(folder, format=FORMAT)
    assert held and held["iteration"] >= 3
    said = Path(f"{folder}.stderr0").read_text()
    assert f"stopped at iteration {held['iteration']} and saved" in said
    assert not (folder / "result.json").exists()
    keep_only(folder, whole)
    # a damaged checkpoint is passed over; here there is no other
    (folder / "last.pth").write_bytes((folder / "last.pth").read_bytes()[:-1000])
    with pytest.raises(RfbenchError, match="no checkpoint can be read"):
        runs.fit(runs.config(), folder, resume=True)


def test_a_damaged_checkpoint_falls_back(whole: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "result.json").unlink()
    (folder / "last.pth").write_bytes(b"no checkpoint")
    record = runs.fit(runs.config(), folder, resume=True)
    assert record["steps"] == 14
    assert [line["step"] for line in progress.read_metrics(folder)] == [*range(1, 15), 14]


def test_two_processes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    values = runs.config(SOLVER__MAX_ITER=6, reference_world_size=1, SOLVER__IMS_PER_BATCH=2)
    values["opts"]["SOLVER"]["STEPS"] = [4]
    assert finish(runs.start(values, folder, world=2)) == [0, 0], Path(
        f"{folder}.stderr0"
    ).read_text()
    record = json.loads((folder / "result.json").read_text())
    # half the iterations at twice the batch
    assert record["scaled"]["to"] == 2 and record["steps"] == 3
    assert record["batch"] == {"global": 4, "world_size": 2, "per_batchnorm": 2}
    first, second = runs.seen(folder, 0), runs.seen(folder, 1)
    assert len(first) == len(second) == 6 and not set(first) & set(second)


def test_a_checkpoint_is_evaluated_as_it_was(whole: Path, tmp_path: Path) -> None:
    source = str(whole / "last.pth")
    found = plan.evaluate_checkpoint(runs.parsed(runs.config()), source, tmp_path)
    record = json.loads((whole / "result.json").read_text())
    for name in ("bbox", "registration", "jitter"):
        assert found["metrics"][name] == record["metrics"][name]
    assert found["metrics"]["bbox"]["AP"] is not None


def test_mask_rcnn_learns(tmp_path: Path) -> None:
    values = runs.config(**MASK_RCNN, optimizer="adamw", SOLVER__MAX_ITER=16, eval="faster")
    del values["opts"]["MODEL"]["RETINANET"]
    record = runs.fit(values, tmp_path / "run")
    losses = [line["loss"] for line in progress.read_metrics(tmp_path / "run") if "loss" in line]
    print("losses:", [round(loss, 2) for loss in losses])
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert {"bbox", "segm"} <= record["metrics"].keys()
    assert "mask AP" in evaluate.shown(record["metrics"])


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"variant": "1x1+3x3"}, RfbenchError, "this run is COCO-Detection/.* / 1x1\\+3x3"),
        ({"model": "resnet18"}, RfbenchError, "/ torchvision:resnet18 / baseline"),
    ],
)
def test_another_detector_is_not_evaluated(
    whole: Path, tmp_path: Path, changes: dict[str, Any], error: Any, says: str
) -> None:
    settings = runs.parsed(runs.config(**changes))
    with pytest.raises(error, match=says):
        plan.evaluate_checkpoint(settings, str(whole / "last.pth"), tmp_path)


def test_another_configuration_does_not_resume(whole: Path) -> None:
    with pytest.raises(UsageError, match="opts.SOLVER.BASE_LR = 0.005; now it is 0.1"):
        runs.fit(runs.config(SOLVER__BASE_LR=0.1), whole, resume=True)


def test_a_finished_run_is_finished(whole: Path) -> None:
    assert runs.fit(runs.config(), whole, resume=True)["steps"] == 14


def test_an_image_that_cannot_be_read(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is none of those that are read before training."""
    import shutil

    drawn = sets.cached(runs.parsed(runs.config()).data)
    shutil.copytree(drawn, tmp_path / "set")
    monkeypatch.setattr(sets, "READ", {"train": 1, "val": 1})
    for path in sorted((tmp_path / "set" / "train2017").iterdir())[1:]:
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[: size // 2])
    data = {"name": "coco", "root": str(tmp_path / "set")}
    values = runs.config(DATALOADER__NUM_WORKERS=1)
    values["data"] = data
    with pytest.raises(RfbenchError, match=r"train2017/\d+.jpg cannot be read") as caught:
        runs.fit(values, tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_images_of_both_sets_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    one, two, both = (frozenset({f"/set/{name}" for name in names}) for names in ("ab", "cd", "bc"))
    sets.check_apart(one, two)
    with pytest.raises(RfbenchError, match="1 images are in the training and .*: /set/b. Remove"):
        sets.check_apart(one, both)
    sets.check_apart(one, one)  # on purpose: to see whether a detector learns at all
    assert "the metrics are those of training images" in caplog.text


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    values = runs.config(SOLVER__BASE_LR=1e30, SOLVER__WARMUP_ITERS=0)
    with pytest.raises(RfbenchError, match="Loss became infinite or NaN.*Lower opts.SOLVER.BASE"):
        runs.fit(values, tmp_path / "run")


def test_sets_that_are_refused(whole: Path, tmp_path: Path) -> None:
    drawn = sets.cached(runs.parsed(runs.config()).data)
    missing = runs.config(data={"name": "coco", "root": str(tmp_path)})
    with pytest.raises(RfbenchError, match="COCO's layout is annotations/instances_"):
        runs.fit(missing, tmp_path / "run")
    content = json.loads((drawn / "annotations/instances_val2017.json").read_text())
    content["categories"].append({"id": 99, "name": "ten"})
    (tmp_path / "other.json").write_text(json.dumps(content))
    other = {"name": "coco", "root": str(drawn), "val_annotations": str(tmp_path / "other.json")}
    with pytest.raises(RfbenchError, match="differ in categories: 10 and 11"):
        runs.fit(runs.config(data=other), tmp_path / "run")
    for one in content["annotations"]:
        one["segmentation"] = []
    content["categories"].pop()
    (tmp_path / "other.json").write_text(json.dumps(content))
    bare = runs.config(**MASK_RCNN, data=other)
    del bare["opts"]["MODEL"]["RETINANET"]
    with pytest.raises(
        RfbenchError, match="objects in the val set have no mask, which this detector"
    ):
        runs.fit(bare, tmp_path / "run")
    bare["data"], bare["opts"]["INPUT"]["MASK_FORMAT"] = (
        {"name": "coco", "root": str(drawn)},
        "polygon",
    )
    with pytest.raises(UsageError, match="run lengths: set opts.INPUT.MASK_FORMAT=bitmask"):
        runs.fit(bare, tmp_path / "run")


def test_the_command(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = json.dumps(runs.config(SOLVER__MAX_ITER=2))
    Path("small.yaml").write_text(text)
    result = CliRunner().invoke(main, ["train-det", "small.yaml", "--visualize", "2"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(
        "retinanet_R_50_FPN_1x, resnet14 / baseline on digits, seed 0\n"
    )
    folder = Path("results/det-retinanet-digits-resnet14-baseline-s0")
    drawn = [
        name for name in json.loads((folder / "result.json").read_text())["files"] if ".png" in name
    ]
    assert drawn
    for name in drawn:
        assert Image.open(folder / name).size[0] > 64
    again = CliRunner().invoke(main, ["train-det", "small.yaml"])
    assert again.exit_code == 2 and "holds a run. Continue it with --resume" in again.stderr
    dry = CliRunner().invoke(main, ["train-det", "small.yaml", "--dry-run"])
    assert dry.exit_code == 2 and "holds a run" in dry.stderr
    dry = CliRunner().invoke(main, ["train-det", "small.yaml", "--dry-run", "-o", "variant=3x3"])
    assert dry.exit_code == 0 and "resnet14 / 3x3: 3 changed" in dry.stdout
    assert "SOLVER.MAX_ITER: 90000 -> 2" in dry.stdout
    args = ["train-det", "small.yaml", "--eval-only", str(folder / "last.pth"), "--json"]
    found = CliRunner().invoke(main, args)
    assert found.exit_code == 0, found.stderr
    assert json.loads(found.stdout)["images"] == 6
    predictions = Path(f"{folder}-eval") / "inference" / "coco_instances_results.json"
    assert predictions.exists() and f"wrote {predictions}" in found.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["-o", "opts.SOLVER.MAX_ITER=0"], 2, "opts.SOLVER.MAX_ITER: must be at least 1 (it is 0)"),
        (
            ["-o", "opts.SOLVER.LR_SCHEDULER_NAME=Foo"],
            2,
            "up the learning rate: Unknown",
        ),
        (
            ["-o", "opts.SOLVER.WEIGHT_DECAY=-1"],
            2,
            "up the optimizer: Invalid weight",
        ),
        (["-o", "opts.INPUT.RANDOM_FLIP=no"], 2, "cannot prepare images: At least one"),
        (["-o", "opts.SOLVER.MAX_ITR=3"], 2, "Did you mean: SOLVER.MAX_ITER?"),
        (["-o", "weights=nofile.pth"], 2, "no such file: nofile.pth"),
        (["-o", "weights=nofile.yaml"], 2, "nofile.yaml: no such file"),
        (["-o", "weights=LAST"], 1, "holds a detector; a backbone takes a classifier's weights"),
        (
            ["-o", "data.train_annotations=a.json", "-o", "data.val_images=b"],
            2,
            "data.train_annotations, data.val_images: data.name=digits draws its own scenes",
        ),
        (["--visualize", "-1"], 2, "'--visualize': -1 is not in the range x>=0"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would(
    whole: Path, tmp_path: Path, args: list[str], code: int, says: str
) -> None:
    """And tells it before that the folder is taken."""
    (tmp_path / "det.yaml").write_text(json.dumps(runs.config()))
    args = [arg.replace("LAST", str(whole / "last.pth")) for arg in args]
    given = ["train-det", str(tmp_path / "det.yaml"), "--dry-run", "--output", str(whole), *args]
    result = CliRunner().invoke(main, given)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert result.exit_code == code, result.output
    assert len(errors) == 1 and says in errors[0]
    assert result.stdout == ""


def test_the_classifier_is_trained_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = {
        "model": "rfbench.classify.nets:resnet14",
        "data": {"name": "digits", "train_scenes": 64, "val_scenes": 32, "workers": 0},
        "schedule": {"epochs": 1, "warmup_epochs": 0, "milestones": []},
        "optim": {"lr": 0.01},
        "batch_size": 32,
    }
    Path("cls.yaml").write_text(json.dumps(small))
    values = runs.config(weights="cls.yaml", variant="3x3", SOLVER__MAX_ITER=1, device="cpu")
    Path("det.yaml").write_text(json.dumps(values))
    classifier = Path("results/cls-digits-resnet14-3x3-s0")
    dry = CliRunner().invoke(main, ["train-det", "det.yaml", "--dry-run"])
    assert dry.exit_code == 0, dry.stderr
    assert f"would train the classifier cls.yaml first, into {classifier}" in dry.stdout
    assert not Path("results").exists()
    result = CliRunner().invoke(main, ["train-det", "det.yaml"])
    assert result.exit_code == 0, result.stderr
    assert "training the classifier cls.yaml first" in result.stderr
    assert (classifier / "result.json").exists()
    dry = CliRunner().invoke(main, ["train-det", "det.yaml", "--dry-run", "--overwrite"])
    assert dry.exit_code == 0, dry.stderr
    assert f"the classifier cls.yaml is finished, in {classifier}" in dry.stdout
    again = CliRunner().invoke(main, ["train-det", "det.yaml", "--overwrite"])
    assert again.exit_code == 0 and "training the classifier" not in again.stderr
    # a run that has begun goes on without it, and still knows it
    folder = Path("results/det-retinanet-digits-resnet14-3x3-s0")
    record = json.loads((folder / "result.json").read_text())
    (folder / "result.json").unlink()
    classifier.rename("moved")
    for more in (["--dry-run"], []):
        further = CliRunner().invoke(main, ["train-det", "det.yaml", "--resume", *more])
        assert further.exit_code == 0 and "training the classifier" not in further.stderr
    further = json.loads((folder / "result.json").read_text())
    assert further["parent"] == record["parent"] and further["config"] == record["config"]
    assert further["parent"]["checkpoint"] == str(classifier / "best.pth")
    Path("moved").rename(classifier)
    # a classifier of another configuration is not taken for it
    Path("cls.yaml").write_text(json.dumps(small | {"optim": {"lr": 0.02}}))
    for more in ([], ["--dry-run"]):
        other = CliRunner().invoke(main, ["train-det", "det.yaml", "--overwrite", *more])
        assert other.exit_code == 2
        assert "was started with optim.lr = 0.01; now it is 0.02" in other.stderr
        assert f"-o weights={classifier / 'best.pth'}, or move {classifier} away." in other.stderr


def test_without_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("rfbench.detect")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "detectron2.modeling", None)  # type: ignore[arg-type]
    result = CliRunner().invoke(main, ["train-det", "--dry-run"])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: Detectron2 is not installed")
    assert "rfbench install-detectron2" in result.stderr.splitlines()[-1]


def trainer_of(precision: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `setup.trainer` makes of Detectron2's AMPTrainer `kind`."""
    from rfbench.detect import setup

    monkeypatch.setattr(setup, "AMPTrainer", kind)
    settings = runs.parsed(runs.config())
    cfg = config.resolve(settings, 10, Path("."))
    start: Any = type("Start", (), {"group": Processes(torch.device("cpu"))})
    settings = settings.model_copy(update={"precision": precision})
    model = setup.detector(cfg)
    return setup.trainer(Run(config=settings, start=start, cfg=cfg, sets={}, model=model))


class Old:
    """Detectron2 0.6's."""

    def __init__(self, model: Any, data_loader: Any, optimizer: Any) -> None:
        self.precision = torch.float16


class New:
    """That of its main branch."""

    def __init__(
        self, model: Any, data_loader: Any, optimizer: Any, precision: Any = torch.float16
    ) -> None:
        self.precision = precision


def test_bf16_needs_a_trainer_that_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="supports fp16 only; bf16 needs a newer one"):
        trainer_of("bf16", Old, monkeypatch)
    assert trainer_of("fp16", Old, monkeypatch).precision == torch.float16
    assert trainer_of("fp16", New, monkeypatch).precision == torch.float16
    assert trainer_of("bf16", New, monkeypatch).precision == torch.bfloat16


def test_the_best_is_kept_and_patience_ends_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations at 2, 4, ...; it is stopped after two of them, and resumed."""
    figures, seen = {2: 10.0, 4: 30.0, 6: 20.0, 8: None, 10: 40.0}, []
    real, agree = evaluate.evaluate, loop.agree

    def reported(*args: Any, **kwargs: Any) -> dict[str, Any]:
        found = real(*args, **kwargs)
        found["bbox"]["AP"] = figures[len(seen) * 2 + 2]
        found["bbox"].pop("classes", None)  # whose mean AP would be
        seen.append(found)
        return found

    def stop(run: Any) -> None:
        if run.step == 5 and len(seen) == 2:
            run.start.signals.asked = signals.Asked.REQUEUE
        agree(run)

    monkeypatch.setattr(evaluate, "evaluate", reported)
    monkeypatch.setattr(loop, "agree", stop)
    values, folder = runs.config(patience=2), tmp_path / "run"
    values["opts"]["TEST"] = {"EVAL_PERIOD": 2}
    from rfbench.detect import fit

    assert fit.fit(runs.parsed(values), folder, False, False) == (None, 0)
    monkeypatch.setattr(loop, "agree", agree)
    record = runs.fit(values, folder, resume=True)
    assert record["steps"] == 8 and record["stopped_early"]
    assert record["best"]["bbox"]["AP"] == 30.0 and record["metrics"]["bbox"]["AP"] is None
    assert record["metrics"]["jitter"]  # what belongs to the end
    vals = [line["step"] for line in progress.read_metrics(folder) if line["split"] == "val"]
    assert vals == [2, 4, 6, 8]
    best = torch.load(folder / "best.pth", weights_only=True)
    assert (best["iteration"], best["metrics"]) == (4, record["best"])
    monkeypatch.setattr(evaluate, "evaluate", real)
    path = str(folder / "best.pth")
    found = plan.evaluate_checkpoint(runs.parsed(values), path, tmp_path / "eval")
    assert found["metrics"]["bbox"].keys() - {"classes"} == record["best"]["bbox"].keys()


def test_an_evaluation_that_was_cut_off_is_made_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = evaluate.predict

    def cut_off(*_: object) -> None:
        raise loop.Stopped(signals.Asked.REQUEUE)

    monkeypatch.setattr(evaluate, "predict", cut_off)
    values, folder = runs.config(SOLVER__MAX_ITER=4), tmp_path / "run"
    values["opts"]["TEST"] = {"EVAL_PERIOD": 2}
    from rfbench.detect import fit

    assert fit.fit(runs.parsed(values), folder, False, False) == (None, 0)
    monkeypatch.setattr(evaluate, "predict", real)
    runs.fit(values, folder, resume=True)
    vals = [line["step"] for line in progress.read_metrics(folder) if line["split"] == "val"]
    assert vals == [2, 4]


def test_an_old_checkpoint_resumes(whole: Path, tmp_path: Path) -> None:
    """One from before best.pth: the evaluation at the end is made again, and is the best."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for name in ("result.json", "best.pth"):
        (folder / name).unlink()
    content = torch.load(folder / "last.pth", weights_only=True)
    for key in ("step", "evaluated", "metrics", "best", "waited", "digest"):
        del content[key]
    for key in ("best_metric", "patience"):
        del content["config"][key]
    content["lines"] = 14  # it was saved before the evaluation
    torch.save(content, folder / "last.pth")
    record = runs.fit(runs.config(), folder, resume=True)
    old = json.loads((whole / "result.json").read_text())
    assert record["metrics"]["bbox"] == old["metrics"]["bbox"] == record["best"]["bbox"]
    assert (folder / "best.pth").exists()
    assert [line["step"] for line in progress.read_metrics(folder)] == [*range(1, 15), 14]


def test_masks_are_no_metric_of_a_detector_without(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="best_metric: .*retinanet.* has no masks; use bbox/AP"):
        runs.fit(runs.config(best_metric="segm/AP"), tmp_path / "run")


def edited(whole: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a run that is not finished, with keys of its only checkpoint changed."""
    import shutil

    shutil.copytree(whole, folder)
    for name in ("result.json", "last-1.pth"):
        (folder / name).unlink(missing_ok=True)
    content = torch.load(folder / "last.pth", weights_only=True)
    del content[integrity.DIGEST]
    for key, value in changes.items():
        content[key] = value(content[key]) if callable(value) else value
    content[integrity.DIGEST] = integrity.digest(content)
    torch.save(content, folder / "last.pth")
    return folder


def other_shape(optimizer: dict[str, Any]) -> dict[str, Any]:
    first = next(iter(optimizer["state"].values()))
    first["momentum_buffer"] = torch.zeros(3)
    return optimizer


def other_rate(optimizer: dict[str, Any]) -> dict[str, Any]:
    optimizer["param_groups"][0]["lr"] = 1.5
    return optimizer


def boxes_only(metrics: dict[str, Any]) -> dict[str, Any]:
    return {"bbox": metrics["bbox"]}


def one_class_less(metrics: dict[str, Any]) -> dict[str, Any]:
    classes = {"0": 50.0, "1": 30.0}
    return {**metrics, "bbox": {**metrics["bbox"], "AP": 30.0, "classes": classes}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"step": 10**9}, "last_epoch is 14, not 1000000000"),
        ({"step": "x"}, "is not a checkpoint of this run"),
        ({"optimizer": other_shape}, r"momentum_buffer of parameter \d+ is \[3\]"),
        ({"scheduler": 5}, "is not a checkpoint of this run"),
        ({"scheduler": lambda s: {**s, "last_epoch": 3}}, "last_epoch is 3, not 14"),
        ({"scheduler": lambda s: {**s, "base_lrs": [1.0, 1.0]}}, r"base_lrs is \[1.0, 1.0\], not"),
        ({"optimizer": other_rate}, "learning rate is 1.5, not 0.0005"),
        ({"metrics": {}}, "is not a checkpoint of this run: .* its metrics are others"),
        ({"metrics": {}, "best": {}}, "is not a checkpoint of this run: it has no 'bbox'"),
        ({"metrics": boxes_only, "best": boxes_only}, "it has no 'registration'"),
        ({"metrics": lambda m: {**m, "bbox": {**m["bbox"], "AP": 2**70}}}, "AP is 11805.*100"),
        ({"metrics": lambda m: {**m, "bbox": {**m["bbox"], "APs": -1.0}}}, "APs is -1.0, not"),
        ({"metrics": one_class_less}, "not the mean of its classes"),
        ({"classes": None}, "is damaged: it does not tell its classes"),
        ({"metrics": lambda m: {**m, "bbox": {**m["bbox"], "AP75": "x"}}}, "metrics.bbox.AP75 is"),
        ({"best": {}}, "is not a checkpoint of this run: it has no 'bbox'"),
        ({"waited": 1}, "waited is 1 after 1 evaluation"),
        ({"classes": [f"no{i}" for i in range(10)]}, "is of other classes: 10"),
        ({"images": {"train": 1, "val": 2}}, "images {'train': 1, 'val': 2}; now there are"),
        ({"objects": {"train": 1, "val": 2}}, "objects {'train': 1, 'val': 2}; now there are"),
    ],
)
def test_a_tampered_checkpoint_is_refused(
    whole: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    folder = edited(whole, tmp_path / "run", **changes)
    with pytest.raises(RfbenchError, match=says):
        runs.fit(runs.config(), folder, resume=True)
    assert not (folder / "result.json").exists()


def test_predictions_are_not_written_through_a_link(whole: Path, tmp_path: Path) -> None:
    folder = edited(whole, tmp_path / "run", evaluated=0, metrics={}, best={})
    path = folder / "inference/coco_instances_results.json"
    path.unlink()
    path.symlink_to(tmp_path / "treasure")
    with pytest.raises(RfbenchError, match=r"coco_instances_results.json is a link"):
        runs.fit(runs.config(), folder, resume=True)
    assert not (tmp_path / "treasure").exists()


@pytest.mark.parametrize("wrong", ["opts.MODEL.WEIGHTS=x", "opts.SOLVER.MAX_ITERS=3"])
def test_wrong_options_are_told_before_the_classifier_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["train-det", "-o", wrong, "-o", "device=cpu"])
    assert result.exit_code == 2 and "Error: opts" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_classes_in_another_order_follow_the_checkpoint(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same set with other ids: predictions and figures are of the same names."""
    from detectron2.data import DatasetCatalog

    from rfbench.detect.config import VAL

    settings = runs.parsed(runs.config())
    root = sets.root_of(settings.data)
    found = []
    for number, back in enumerate((False, True)):
        copy = tmp_path / str(number)
        (copy / "annotations").mkdir(parents=True)
        for part in sets.PARTS:
            annotations, images = sets.paths(settings.data, part, root)
            content = json.loads(annotations.read_text())
            most = max(one["id"] for one in content["categories"])
            for one in content["categories"] if back else ():
                one["id"] = 1 + most - one["id"]
            for one in content["annotations"] if back else ():
                one["category_id"] = 1 + most - one["category_id"]
            (copy / "annotations" / annotations.name).write_text(json.dumps(content))
            (copy / images.name).symlink_to(images.resolve())
        own = runs.config()
        own["data"] = {"name": "coco", "root": str(copy)}
        own["opts"]["MODEL"]["RETINANET"]["SCORE_THRESH_TEST"] = 0.0
        folder = tmp_path / f"eval{number}"
        result = plan.evaluate_checkpoint(runs.parsed(own), str(whole / "last.pth"), folder)
        said = "in another order" in caplog.text
        assert said == back
        names = {one["id"]: one["name"] for one in content["categories"]}
        rows = json.loads((folder / "inference/coco_instances_results.json").read_text())
        answers = [(r["image_id"], names[r["category_id"]], r["bbox"], r["score"]) for r in rows]
        # what training would give the network: the checkpoint's own numbers of the names
        truth = [
            (entry["image_id"], one["bbox"], one["category_id"])
            for entry in DatasetCatalog.get(VAL)
            for one in entry["annotations"]
        ]
        found.append((sorted(answers), truth, result["metrics"]["bbox"]))
    assert len({name for _, name, *_ in found[0][0]}) > 2
    assert found[0][:2] == found[1][:2]
    # sums over classes in another order
    classes = [one[2].pop("classes") for one in found]
    assert classes[0] == pytest.approx(classes[1])
    assert found[0][2] == pytest.approx(found[1][2])
