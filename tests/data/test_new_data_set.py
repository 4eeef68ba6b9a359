"""A data set is one entry: where it appears."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from rfbench.cli import main
from rfbench.data.dataset import ArraySplit, Dataset
from rfbench.data.sources import SOURCES, Source
from rfbench.errors import RfbenchError

ROOT = Path(__file__).parents[2]


def stripes(root: str, eval_only: bool = False, width: int = 4) -> Dataset:
    """Images of 16 px with stripes across or down."""
    if width > 8:
        raise RfbenchError(f"{root}: stripes of {width} px do not fit")
    rows = np.tile(np.arange(16) // width % 2 * 255, (16, 1)).astype(np.uint8)
    images = np.stack([rows, rows.T] * 8)[..., None].repeat(3, axis=-1)
    split = ArraySplit(images, [0, 1] * 8, "stripes")
    empty = ArraySplit(images[:0], [], "stripes")
    return Dataset("stripes", ["down", "across"], empty if eval_only else split, split, 16, 1.0)


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(SOURCES, "stripes", Source(stripes, "stripes, drawn"))
    monkeypatch.chdir(tmp_path)


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def train(*args: str) -> Result:
    keys = ("data.name=stripes", "batch_size=8", "schedule.epochs=1", "schedule.warmup_epochs=0")
    small = (*keys, "data.workers=0", "device=cpu", "threads=1")
    return run("train-cls", *(part for key in small for part in ("-o", key)), *args)


@pytest.mark.usefixtures("entry")
def test_the_schema_has_it() -> None:
    schema = json.loads(run("schema", "cls").stdout)
    name = schema["$defs"]["ClsData"]["properties"]["name"]
    assert name["enum"] == [*SOURCES] and name["enum"][-1] == "stripes"
    assert "stripes (stripes, drawn)" in name["description"]


@pytest.mark.usefixtures("entry")
def test_a_file_and_an_override_take_it(tmp_path: Path) -> None:
    shown = train("--dry-run")
    assert shown.exit_code == 0 and "stripes: 16 " in shown.stdout, shown.output
    Path("c.yaml").write_text(
        "model: rfbench.classify.nets:resnet14\ndata: {name: stripes, options: {width: 9}}\n"
    )
    refused = run("train-cls", "c.yaml", "--dry-run")
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (
        1,
        "Error: datasets/stripes: stripes of 9 px do not fit",
    )


@pytest.mark.usefixtures("entry")
def test_it_trains_with_options_of_its_own(tmp_path: Path) -> None:
    done = train("-o", "data.options={width: 2}", "--output", "out", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["dataset"] == "stripes" and record["config"]["data"]["options"] == {"width": 2}
    # a grid may not run on what was begun with another width
    again = train("-o", "data.options={width: 4}", "--output", "out", "--resume")
    assert "data.options.width = 2; now it is 4" in again.stderr


@pytest.mark.usefixtures("entry")
def test_errors_know_it() -> None:
    wrong = train("-o", "data.name=strips", "--dry-run")
    assert (wrong.exit_code, wrong.stderr.splitlines()[-1]) == (
        2,
        "Error: -o: 'data.name': unknown data set 'strips'. Did you mean: stripes? "
        '(it is "strips")',
    )
    assert "There are: imagenet, folder, cifar10, cifar100, digits, stripes." in (
        train("-o", "data.name=zzz", "--dry-run").stderr
    )
    foreign = train("-o", "data.options.widht=2", "--dry-run")
    assert foreign.exit_code == 2
    assert "'stripes' has no option 'widht'. Did you mean: width?" in foreign.stderr
    other = train("-o", "data.val_share=0.1", "--dry-run")
    assert "'stripes' has no option 'val_share'. It has: width." in other.stderr


@pytest.mark.usefixtures("entry")
def test_an_effective_field_is_averaged_over_it() -> None:
    args = ["rf", "effective", "rfbench.classify.nets:resnet14", "--size", "48", "--json"]
    done = run(*args, "--images", "stripes", "--output", "erf")
    assert done.exit_code == 0, done.output
    assert "stripes" in done.stdout


def test_an_option_is_given_once() -> None:
    twice = ("-o", "data.train_scenes=96", "-o", "data.options={train_scenes: 80}", "--dry-run")
    done = run("train-cls", *twice)
    assert done.exit_code == 2
    assert "data.train_scenes and data.options.train_scenes are the same option" in done.stderr


def test_names_are_known_without_torch() -> None:
    code = "import sys; import rfbench.schemas.kinds; from rfbench.data import sources; "
    code += "print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_entry_leads_to_a_function() -> None:
    for name, source in SOURCES.items():
        assert source.open().__name__ == name and source.reads
