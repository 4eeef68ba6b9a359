"""`rfbench compare` as a user types it: networks looked at on the spot, one line for bad input."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rfbench.cli import main
from tests.report.records import RUNS, record, rf_record, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs in results/, from which the commands run."""
    monkeypatch.chdir(tmp_path)
    for name in ("two-baseline-s0", "two-blur-s0"):
        shutil.copytree(RUNS / name, tmp_path / "results" / name)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["compare", *args])


def test_a_table_with_costs_and_receptive_fields_computed_on_the_spot(folder: Path) -> None:
    result = run()
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    # the shifts of the facts, at stride 16: BlurPool's is the baseline's
    assert [
        "baseline",
        "1",
        "26.40",
        "77.20",
        "131",
        "k",
        "4.75",
        "M",
        "×1.00",
        "-7.50",
        "0.3046",
        "100.0%",
    ] in lines
    (blur,) = [line for line in lines if line[:2] == ["blur:1x1+3x3", "✓"]]
    assert blur[-3:] == ["-7.50", "0.2857", "100.0%"]
    assert result.stderr == ""


def test_macs_by_hand(folder: Path) -> None:
    """VGG-11's from its layers: 3x3 convolutions at 224 ... 14 px, three linear layers."""
    write(folder / "vgg" / "a", record(), model="torchvision:vgg11", input={"size": 224})
    rows = json.loads(run("vgg", "--format", "json").stdout)["groups"][0]["settings"][0]["rows"]
    areas = [224**2, 112**2, 56**2, 56**2, 28**2, 28**2, 14**2, 14**2]
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    by_hand = sum(9 * n * a * b for n, a, b in zip(areas, widths, widths[1:], strict=False))
    by_hand += 512 * 49 * 4096 + 4096 * 4096 + 4096 * 1000
    assert rows[0]["macs"] == by_hand


def test_notes_go_to_stderr_and_the_result_to_stdout(folder: Path) -> None:
    (folder / "results" / "killed").mkdir()
    (folder / "results" / "killed" / "last.pth").write_text("")
    for name in ("map", "audit"):
        write(folder / "results" / name, rf_record())
    result = run("--format", "json")
    content = json.loads(result.stdout)
    assert result.stderr.splitlines() == [
        "results/killed is unfinished: it has last.pth but no result.json",
        "skipped 2 records of receptive fields",
    ]
    assert content["problems"] == [
        "results/killed is unfinished: it has last.pth but no result.json"
    ]


def test_a_file_as_a_whole_with_the_maps_of_old_records_made_anew(folder: Path) -> None:
    result = run("--format", "html", "--output", "report.html")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "wrote report.html\n"
    text = (folder / "report.html").read_text()
    assert ">Receptive fields</h3>" in text
    assert text.count('<figure class="fields">') == 1
    assert text.count('<div class="panel"') == 2


def test_a_network_that_cannot_be_built_leaves_its_row(folder: Path) -> None:
    write(folder / "own" / "a", record(), model="gone.py:net")
    result = run("own", "--look")
    assert result.exit_code == 0
    assert "importing gone.py:net, as the records name it" in result.stderr
    assert "gone.py:net / baseline: not measured: no such file: gone.py" in result.stderr
    assert "baseline" in result.stdout


def test_the_paper_alone_needs_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--reference", "paper", "--kind", "cls", "--format", "csv")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("not run") == 8
    assert ",76.44," in result.stdout


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nowhere"], 2, "nowhere: no such folder."),
        (["results/two-blur-s0/result.json"], 2, "result.json: it is a file."),
        (["empty"], 1, "no finished runs in empty and below (no result.json)."),
        (["--kind", "det"], 1, "no finished runs of det in results and below (2 of another kind)."),
        (["--metric", "topp1"], 2, "no run has the metric 'topp1'. Did you mean: top1"),
        (["--baseline", "3x3"], 2, "no run is of '3x3'. There are: baseline, blur:1x1+3x3."),
        (["--baseline", "3z3"], 2, "unknown variant '3z3'. Did you mean: 3x3?"),
        (["--sort", "gridd"], 2, "there is no column 'gridd'. Did you mean: gridding?"),
        (["--output", "results"], 2, "--output results: name a file in an existing folder."),
        (["--output", "no/x.txt"], 2, "--output no/x.txt: name a file in an existing folder."),
        (["--format", "xml"], 2, "'xml' is not one of"),
    ],
)
def test_bad_input_is_one_line(folder: Path, args: list[str], code: int, message: str) -> None:
    (folder / "empty").mkdir()
    result = run(*args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert sum(line.startswith("Error: ") for line in result.stderr.splitlines()) == 1


def test_the_files_of_a_run_are_not_replaced(folder: Path) -> None:
    """Neither by their names nor through a link."""
    run_folder = folder / "results" / "two-baseline-s0"
    held = {"format": "rfbench-folder/1", "files": {"result.json": [], "config.yaml": []}}
    (run_folder / ".rfbench.json").write_text(json.dumps(held))
    (folder / "link.txt").symlink_to(run_folder / "config.yaml")
    before = {path: path.read_bytes() for path in run_folder.iterdir()}
    for name in (run_folder / "result.json", run_folder / ".rfbench.json", folder / "link.txt"):
        result = run("--output", str(name))
        assert result.exit_code == 1
        assert "is of the run in its folder: it is not replaced" in result.stderr
    assert {path: path.read_bytes() for path in run_folder.iterdir()} == before
    assert run("--output", str(run_folder / "notes.txt")).exit_code == 0


def test_a_fifo_is_written_into_if_somebody_reads_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    result = run("--output", "pipe")
    assert result.exit_code == 1
    assert "cannot write pipe: it is a FIFO, and nobody reads from it" in result.stderr
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, cwd=folder, text=True) as cat:
        time.sleep(0.3)  # until it is open
        assert run("--output", "pipe").exit_code == 0
        assert cat.communicate()[0] == run().stdout


def test_rows_name_something(folder: Path) -> None:
    result = run("--rows", ",")
    assert (result.exit_code, "--rows: names nothing" in result.stderr) == (2, True)
