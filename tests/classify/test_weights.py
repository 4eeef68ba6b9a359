"""Whatever a checkpoint holds: taken for what it is, or refused in one line that says why."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from rfbench.cli import main
from rfbench.models import integrity

CLASSES = {"ant": (200, 30, 30), "bee": (30, 30, 200), "cow": (30, 200, 30)}
NET = """
from torch import nn
def tiny(width=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
"""


def images(root: Path) -> Path:
    """Three classes that a colour tells apart, 12 training and 6 validation images each."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 6)):
        for name, colour in CLASSES.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 50, (16, 16, 3)) + np.array(colour)
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, net.py, and run/, which knows the classes; to be copied."""
    folder = tmp_path_factory.mktemp("trained")
    images(folder / "data")
    (folder / "net.py").write_text(NET)
    before = os.getcwd()
    os.chdir(folder)
    try:
        result = train("--output", "run")
    finally:
        os.chdir(before)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `trained`, in which the commands run."""
    copy = Path(shutil.copytree(trained, tmp_path / "here"))
    monkeypatch.chdir(copy)
    return copy


def train(*args: str, model: str = "net.py:tiny") -> Result:
    options = {
        "model": model, "data": "{name: folder, root: data, workers: 0, image_size: 16}",
        "batch_size": "12", "optim": "{lr: 0.2, ema: 0.9}", "device": "cpu", "threads": "1",
        "schedule": "{epochs: 4, warmup_epochs: 0}",
    }  # fmt: skip
    given = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    Path("empty.yaml").write_text("{}\n")
    return CliRunner().invoke(main, ["train-cls", "empty.yaml", *given, *args])


def evaluate(path: str, *args: str, **options: str) -> dict[str, Any]:
    result = train("--eval-only", path, "--json", *args, **options)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout) | {"said": result.stderr}


def edit(path: str, change: Callable[[dict[str, Any]], Any], sign: bool = True) -> str:
    """Change what a checkpoint holds; sign: give it the digest of the new content."""
    content = torch.load(path, weights_only=True)
    change(content)
    if sign:
        del content[integrity.DIGEST]
        content[integrity.DIGEST] = integrity.digest(content)
    torch.save(content, path)
    return path


def refused(result: Result, *words: str) -> None:
    assert result.exit_code in (1, 2), result.stdout
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    assert all(word in errors[0] for word in words), errors[0]
    assert "internal error" not in errors[0]
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)


# --- what was damaged or changed ----------------------------------------------------------------


@pytest.mark.parametrize("way", ["eval", "init", "rf"])
def test_a_flipped_byte_is_found_on_every_way_in(here: Path, way: str) -> None:
    path = here / "run/best.pth"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    data[largest.header_offset + 200] ^= 1  # within the bytes of a tensor
    path.write_bytes(data)
    if way == "eval":
        result = train("--eval-only", str(path))
    elif way == "init":
        result = train("--output", "again", "-o", f"init.weights={path}")
    else:
        args = ["rf", "effective", "net.py:tiny", "--weights", str(path), "--output", "erf"]
        result = CliRunner().invoke(main, args)
    refused(result, "best.pth is damaged: the checksum of")


def test_a_changed_weight_is_found_by_the_digest(here: Path) -> None:
    edit("run/best.pth", lambda c: c["state_dict"]["0.weight"].mul_(2), sign=False)
    refused(train("--eval-only", "run/best.pth"), "was changed after it was written")


def test_an_archive_that_would_fill_the_memory_is_refused_at_once(here: Path) -> None:
    with zipfile.ZipFile("bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * (200 << 20))
    refused(train("--eval-only", "bomb.pth"), "is a compressed archive, not a checkpoint")


@pytest.mark.parametrize("made", ["fifo", "device", "lfs", "empty"])
def test_what_is_no_checkpoint_is_named(here: Path, made: str) -> None:
    path = {"device": "/dev/zero"}.get(made, "x.pth")
    if made == "fifo":
        os.mkfifo(path)
    elif made == "lfs":
        Path(path).write_text("version https://git-lfs.github.com/spec/v1\n")
    elif made == "empty":
        Path(path).touch()
    words = {"fifo": "it is a FIFO", "device": "it is a device", "lfs": "a pointer of Git LFS"}
    refused(train("--eval-only", path), words.get(made, "is empty"))


# --- numbers ------------------------------------------------------------------------------------

KINDS = {
    "int8": lambda t: t.to(torch.int8),
    "complex": lambda t: t.to(torch.complex64),
    "half": lambda t: t.half(),
    "double": lambda t: t.double(),
    "sparse": lambda t: t.contiguous().to_sparse(),
    "meta": lambda t: t.to("meta"),
    "shape": lambda t: t[:4],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["eval", "resume"])
def test_another_kind_of_numbers_is_refused(here: Path, kind: str, way: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["state_dict"]["0.weight"] = KINDS[kind](content["state_dict"]["0.weight"])

    edit("run/last.pth", change)
    Path("run/result.json").unlink()
    shutil.copy("run/last.pth", "run/last-1.pth")
    way_in = ("--eval-only", "run/last.pth") if way == "eval" else ("--output", "run", "--resume")
    refused(train(*way_in), "run/last.pth", "0.weight")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["0.weight", "1.running_var"])
@pytest.mark.parametrize("way", ["eval", "init", "resume"])
def test_what_is_not_finite_is_refused_by_name(
    here: Path, value: float, key: str, way: str
) -> None:
    def change(content: dict[str, Any]) -> None:
        tensor = content["state_dict"][key]
        tensor[(0,) * tensor.ndim] = value

    edit("run/last.pth", change)
    Path("run/result.json").unlink()
    ways = {
        "eval": ("--eval-only", "run/last.pth"),
        "init": ("--output", "again", "-o", "init.weights=run/last.pth"),
        "resume": ("--output", "run", "--resume"),
    }
    refused(train(*ways[way]), f"holds numbers that are not finite: {key} (1 of")


def test_a_variance_below_0_is_refused_by_name(here: Path) -> None:
    """BatchNorm would make NaN of it, and evaluation chance."""

    def change(content: dict[str, Any]) -> None:
        content["state_dict"]["1.running_var"][0] = -1.0

    edit("run/last.pth", change)
    said = train("--eval-only", "run/last.pth")
    refused(said, "holds variances below 0: 1.running_var")


@pytest.mark.parametrize("wrappers", ["module.", "_orig_mod.", "module._orig_mod."])
def test_the_prefixes_of_wrappers_are_no_part_of_names(here: Path, wrappers: str) -> None:
    """Of DataParallel and torch.compile."""
    raw = torch.load("run/last.pth", weights_only=True)["state_dict"]
    torch.save(raw, "raw.pth")
    torch.save({f"{wrappers}{key}": value for key, value in raw.items()}, "wrapped.pth")
    assert evaluate("wrapped.pth")["loss"] == evaluate("raw.pth")["loss"]


# --- averaged weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [("state_dict", "state_dict_ema"), ("model", "model_ema")])
@pytest.mark.parametrize("wrapped", [False, True])
def test_which_of_two_sets_of_weights_is_taken_is_said(
    here: Path, keys: tuple[str, str], wrapped: bool
) -> None:
    raw = torch.load("run/best.pth", weights_only=True)["state_dict"]
    zeros = {key: torch.zeros_like(value) for key, value in raw.items()}
    averaged = {f"module.{key}": value for key, value in zeros.items()} if wrapped else zeros
    if wrapped:
        averaged["n_averaged"] = torch.tensor(7)
    torch.save({keys[0]: raw, keys[1]: averaged, "epoch": 3}, "both.pth")
    plain, ema = evaluate("both.pth"), evaluate("both.pth", "-o", "init.ema=true")
    assert f"raw weights ({keys[0]}) and EMA weights ({keys[1]}): the raw ones" in plain["said"]
    assert f"the EMA weights ({keys[1]}) are taken" in ema["said"]
    assert ema["loss"] == pytest.approx(np.log(3), abs=1e-6)  # zeros: every class alike
    assert plain["loss"] != ema["loss"]
    torch.save({keys[1]: averaged}, "only.pth")
    refused(train("--eval-only", "only.pth"), "holds only EMA weights", "init.ema")
    torch.save(raw, "raw.pth")
    refused(train("--eval-only", "raw.pth", "-o", "init.ema=true"), "holds no EMA weights")


@pytest.mark.parametrize(
    ("key", "message"),
    [("init.ema", "init.ema needs init.weights"), ("init.zero_gamma", "has no residual block")],
)
def test_what_a_run_would_refuse_a_dry_run_refuses(here: Path, key: str, message: str) -> None:
    for how in ((), ("--dry-run",)):
        refused(train("--output", "new", "-o", f"{key}=true", *how), message)
    assert not Path("new/config.yaml").exists()


def test_the_record_of_a_run_with_ema_has_both(here: Path) -> None:
    record = json.loads(Path("run/result.json").read_text())
    for key in ("loss", "top1"):
        assert isinstance(record["metrics"]["ema"][key], float)
    assert "top5" not in record["metrics"]["ema"]  # of three classes it would be 100
    found = evaluate("run/last.pth", "-o", "init.ema=true")
    assert found["loss"] == pytest.approx(record["metrics"]["ema"]["loss"], rel=1e-5)
    assert evaluate("run/last.pth")["loss"] == pytest.approx(record["metrics"]["loss"], rel=1e-5)


# --- classes and images -------------------------------------------------------------------------


def rename(old: str, new: str) -> None:
    for part in ("train", "val"):
        Path(f"data/{part}/{old}").rename(f"data/{part}/{new}")


@pytest.mark.parametrize("way", ["eval", "init", "resume"])
def test_other_classes_are_refused_with_both_lists(here: Path, way: str) -> None:
    rename("ant", "wasp")
    Path("run/result.json").unlink()
    ways = {
        "eval": ("--eval-only", "run/last.pth"),
        "init": ("--output", "again", "-o", "init.weights=run/last.pth"),
        "resume": ("--output", "run", "--resume"),
    }
    refused(train(*ways[way]), "3 (ant, bee, cow); the data has 3 (bee, cow, wasp)")


def test_another_number_of_classes_is_told_as_such(here: Path) -> None:
    for part in ("train", "val"):
        shutil.rmtree(f"data/{part}/ant")
    refused(train("--eval-only", "run/last.pth"), "3 (ant, bee, cow); the data has 2 (bee, cow)")


def permute(path: str) -> None:
    """The same network with its outputs in another order."""
    order = [2, 0, 1]

    def change(content: dict[str, Any]) -> None:
        content["classes"] = [content["classes"][i] for i in order]
        for key in ("7.weight", "7.bias"):
            content["state_dict"][key] = content["state_dict"][key][order].clone()

    edit(path, change)


def test_the_same_classes_in_another_order_are_followed(here: Path) -> None:
    before = evaluate("run/last.pth")
    permute("run/last.pth")
    after = evaluate("run/last.pth")
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-3)
    assert after["top1"] == before["top1"] > 90
    assert "has the classes of the data in another order" in after["said"]
    result = train("--output", "tuned", "-o", "init.weights=run/last.pth")
    assert result.exit_code == 0, result.stderr
    content = torch.load("tuned/last.pth", weights_only=True)
    assert content["classes"] == ["cow", "ant", "bee"]
    assert evaluate("tuned/last.pth")["top1"] > 90


def test_other_numbers_of_images_are_refused_on_resuming(here: Path) -> None:
    Path("run/result.json").unlink()
    Path("data/train/ant/0.png").unlink()
    result = train("--output", "run", "--resume")
    assert result.exit_code == 2
    assert "images {'train': 36, 'val': 18}; now there are {'train': 35" in result.stderr


# --- a network file -----------------------------------------------------------------------------


def test_a_network_file_is_known_by_its_function(here: Path) -> None:
    (here / "moved").mkdir()
    Path("net.py").rename("moved/mine.py")
    assert "has changed" not in evaluate("run/last.pth", model="moved/mine.py:tiny")["said"]
    again = train("--output", "run", "--resume", model="moved/mine.py:tiny")
    assert again.exit_code == 0 and "already finished" in again.stderr
    Path("moved/mine.py").write_text(NET + "# more\n")
    said = evaluate("run/last.pth", model="moved/mine.py:tiny")["said"]
    assert "the code of moved/mine.py:tiny has changed since" in said
    Path("moved/mine.py").write_text(NET.replace("def tiny", "def other"))
    result = train("--eval-only", "run/last.pth", model="moved/mine.py:other")
    refused(result, "holds net.py:tiny / baseline; this run is moved/mine.py:other / baseline")


# --- tampered runs ------------------------------------------------------------------------------


def state_of(content: dict[str, Any]) -> dict[str, Any]:
    return content["optimizer"]["state"][0]


def set_key(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content.__setitem__(key, value)


TAMPERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "step": set_key("step", 10**9),
    "step and epoch": lambda c: c.update(step=10**9, epoch=10**9, evaluated=10**9),
    "negative step": set_key("step", -1),
    "step as text": set_key("step", "many"),
    "epoch": set_key("epoch", 3),
    "evaluated": set_key("evaluated", 10**6),
    "seconds": set_key("seconds", float("nan")),
    "best": set_key("best", {"top1": "x"}),
    "best of another kind": set_key("best", 5),
    "best as a list": set_key("best", []),
    "metrics of another kind": set_key("metrics", 5),
    "metrics of nothing": set_key("metrics", {}),
    "sums": set_key("total", [1.0]),
    "sums of another kind": set_key("total", None),
    "sums of a process": lambda c: c["ranks"][0].update(window="abc"),
    "unreadable images": lambda c: c["ranks"][0].update(bad={1: 2}),
    "classes as text": set_key("classes", "abc"),
    "a number as a name": lambda c: c["state_dict"].update({5: torch.zeros(1)}),
    "parent": set_key("parent", {"a": float("nan")}),
    "conversion": set_key("fix", [5]),
    "conversion of nothing": set_key("fix", {"": None}),
    "conversion without a stage": set_key("fix", {"from": "baseline", "before": {"top1": 1.0}}),
    "text in the best": lambda c: c["best"].update(loss="x"),
    "text in a group": lambda c: c["metrics"].update(ema={"top1": "x"}),
    "no epoch of the best": lambda c: c["best"].pop("epoch"),
    "no top-1": lambda c: c["metrics"].pop("top1"),
    "lines": set_key("lines", -3),
    "ranks": set_key("ranks", []),
    "random state": lambda c: c["ranks"][0]["rng"].update(torch=torch.zeros(3)),
    "no epoch": lambda c: c.pop("epoch"),
    "no config": lambda c: c.pop("config"),
    "config": set_key("config", 3),
    "state dict": set_key("state_dict", [1, 2]),
    "no average": lambda c: c.pop("state_dict_ema"),
    "optimizer": set_key("optimizer", {"state": {}, "param_groups": []}),
    "optimizer of another kind": set_key("optimizer", 7),
    "shape": lambda c: state_of(c).update(momentum_buffer=torch.zeros(2)),
    "long": lambda c: state_of(c).update(momentum_buffer=torch.zeros(10**6)),
    "whole": lambda c: state_of(c).update(
        momentum_buffer=torch.zeros(8, 3, 3, 3, dtype=torch.long)
    ),
    "nan": lambda c: state_of(c)["momentum_buffer"].fill_(float("nan")),
    "parameter": lambda c: c["optimizer"]["state"].update({10**6: {}}),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_checkpoint_is_one_line_and_never_finished(here: Path, name: str) -> None:
    Path("run/result.json").unlink()
    Path("run/last-1.pth").unlink()
    edit("run/last.pth", TAMPERED[name])
    refused(train("--output", "run", "--resume"), "run")
    assert not Path("run/result.json").exists()


@pytest.mark.parametrize("text", ["{}", "[]", "5", "[" * 5000, '{"format": 1e999}', "\xff", ""])
def test_a_tampered_record_is_never_a_finished_run(here: Path, text: str) -> None:
    Path("run/result.json").write_bytes(text.encode("latin-1"))
    refused(train("--output", "run", "--resume"), "run/result.json")


def test_a_record_of_another_kind_is_never_a_finished_run(here: Path) -> None:
    record = json.loads(Path("run/result.json").read_text())
    record |= {"kind": "seg", "head": "fcn", "classes": 2}
    Path("run/result.json").write_text(json.dumps(record))
    refused(train("--output", "run", "--resume"), "run/result.json is of kind seg, not cls")


@pytest.mark.parametrize("metrics", [{}, {"top1": "x"}, {"top1": None, "top5": 1}, {"ema": 3}])
def test_a_record_that_lacks_figures_is_one_line(here: Path, metrics: dict[str, Any]) -> None:
    record = json.loads(Path("run/result.json").read_text())
    Path("run/result.json").write_text(json.dumps({**record, "metrics": metrics}))
    refused(train("--output", "run", "--resume"), "run/result.json is damaged")


@pytest.mark.parametrize("text", ["5\n", "[]\n", "{}\n", "x\n", "\xff\n", "[" * 5000 + "\n"])
def test_tampered_metrics_are_told_before_the_training(here: Path, text: str) -> None:
    Path("run/result.json").unlink()
    lines = Path("run/metrics.jsonl").read_bytes().splitlines(keepends=True)
    Path("run/metrics.jsonl").write_bytes(lines[0] + text.encode("latin-1") + b"".join(lines[1:]))
    refused(train("--output", "run", "--resume"), "metrics.jsonl, line 2, is damaged")


@pytest.mark.parametrize("name", ["last.pth", "metrics.jsonl", "result.json", ".lock"])
def test_a_pipe_in_the_place_of_a_file_is_never_waited_for(here: Path, name: str) -> None:
    Path("run/result.json").unlink()
    for path in Path("run").glob("last-*"):
        path.unlink()
    Path("run", name).unlink(missing_ok=True)
    os.mkfifo(f"run/{name}")
    refused(train("--output", "run", "--resume"), name)
