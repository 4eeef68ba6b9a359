"""A folder of results is data: whatever stands in it, `compare` runs nothing and shows the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rfbench.cli import main
from tests.report.records import record, write

SPY = """
from pathlib import Path
Path(__file__).with_name("was-run").write_text("x")
from torch import nn
def build():
    Path(__file__).with_name("was-called").write_text("x")
    return nn.Conv2d(3, 8, 3, stride=2, padding=1)
"""
FORMS = ("table", "markdown", "csv", "json", "html")


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["compare", *args])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where spy.py lies and the commands are run; results/good is a run like any other."""
    (tmp_path / "spy.py").write_text(SPY)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "results/good", record())
    return tmp_path


def test_nothing_that_a_record_names_is_run(folder: Path) -> None:
    """In a process of its own, as os:abort would end this one; a page holds what all forms do."""
    names = ("os:abort", "spy:build", "spy.py:build", f"{folder}/spy.py:build", "timm:os:abort")
    for number, name in enumerate(names):
        write(folder / f"results/{number}", record(), model=name, config__model=name)
    detector = {"kind": "det", "detector": "spy.py:build", "dataset": "spy:build"}
    write(folder / "results/det", record(), model="spy:build", **detector)
    for key in ("weights", "init", "data"):
        write(folder / f"results/{key}", record(), **{f"config__{key}": {"name": "spy:build"}})
    command = [sys.executable, "-m", "rfbench", "compare", "results", "--format", "html"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in folder.iterdir() if "was" in p.name) == []
    assert "Traceback" not in done.stderr
    assert "--look" in done.stderr
    assert "26.40" in done.stdout


def test_own_networks_are_looked_at_on_request_only(folder: Path) -> None:
    write(folder / "results/own", record(), model="spy.py:build")
    result = run("results", "--look", "--format", "json")
    assert "importing spy.py:build, as the records name it" in result.stderr
    assert (folder / "was-called").exists()
    for look, panels in (("--look",), 2), ((), 1):  # with and without its receptive field
        page = run("results", *look, "--format", "html")
        assert page.exit_code == 0 and page.stdout.count('<div class="panel"') == panels
    rows = [g for g in json.loads(result.stdout)["groups"] if g["model"] == "spy.py:build"]
    assert rows[0]["settings"][0]["rows"][0]["shift"] == [
        -0.5,
        -0.5,
    ]


def test_what_a_run_has_written_is_shown(folder: Path) -> None:
    """Figures that no network has: they can only come from the record."""
    figures = {"shift": [-3.25, 1.5], "gridding": 0.125, "read": 0.5}
    network = {"size": [48, 48], "macs": 12345, "code": None, "figures": figures}
    write(folder / "told/a", record(), model="os:abort", network=network)
    row = json.loads(run("told", "--format", "json").stdout)["groups"][0]["settings"][0]["rows"][0]
    shown = {key: row[key] for key in ("shift", "gridding", "read", "macs", "size")}
    assert shown == {**figures, "macs": 12345, "size": [48, 48]}


WRONG: dict[str, tuple[str, Any]] = {
    "shift": ("network.figures.shift", {"figures": {"shift": "x"}}),
    "None": ("network.figures.gridding", {"figures": {"shift": [None, 1], "gridding": [1]}}),
    "share": ("network.figures.read", {"figures": {"read": 1.5}}),
    "bool": ("network.figures.read", {"figures": {"read": True}}),
    "own": ("network.figures.mine", {"figures": {"mine": {}}}),
    "list": ("network.figures", {"figures": []}),
    "text": ("network.size", {"size": "48"}),
    "zero": ("network.size.1", {"size": [48, 0]}),
    "many": ("network.macs", {"macs": "many"}),
    "negative": ("network.macs", {"macs": -1}),
}


@pytest.mark.parametrize("name", WRONG)
def test_figures_that_no_network_has_are_a_damaged_record(folder: Path, name: str) -> None:
    where, network = WRONG[name]
    write(folder / "results/a", record(), network=network)
    result = run("results")
    assert result.exit_code == 0 and "26.40" in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"results/a/result.json is damaged: {where}")


def test_figures_of_other_versions_are_kept(folder: Path) -> None:
    """What is not measured, or not of an image, has no column; the rest has."""
    figures = {"shift": None, "gridding": 0.125, "tomorrow": [1, 2.5, None], "stride": None}
    write(folder / "told/a", record(), network={"figures": figures, "tomorrow": {}})
    result = run("told", "--format", "json")
    row = json.loads(result.stdout)["groups"][0]["settings"][0]["rows"][0]
    assert (result.stderr, row["shift"], row["gridding"]) == ("", None, 0.125)


BEGUN = b'{"format": "rfbench-record/1", "kind": "cls", '
TEXTS: dict[str, bytes] = {
    "empty": b"",
    "object": b"{}",
    "list": b"[]",
    "number": b"5",
    "deep": b"[" * 10_000 + b"]" * 10_000,
    "deep inside": BEGUN + b'"config": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
    "long number": BEGUN + b'"seed": ' + b"9" * 5000 + b"}",
    "bytes": b'{"format": "\xff\xfe"}',
    "nul": b"\0\0\0",
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_a_damaged_record_is_one_line_and_the_others_are_compared(folder: Path, name: str) -> None:
    (folder / "results/bad").mkdir()
    (folder / "results/bad/result.json").write_bytes(TEXTS[name])
    result = run("results")
    assert result.exit_code == 0, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("results/bad")
    assert "26.40" in result.stdout


METRICS: dict[str, bytes] = {
    "list": b"[]\n",
    "bytes": b"\xff\n",
    "deep": b"[" * 10_000,
    "text": b'{"split": "val", "step": "x"}\n',
    "huge": b'{"split": "val", "step": 1, "top1": ' + b"9" * 400 + b"}\n",
}


@pytest.mark.parametrize("name", METRICS)
def test_damaged_lines_of_metrics_leave_out_only_the_curves(folder: Path, name: str) -> None:
    (folder / "results/good/metrics.jsonl").write_bytes(METRICS[name])
    result = run("results", "--format", "html")
    assert result.exit_code == 0, result.stderr
    assert "metrics.jsonl, line 1, is damaged" in result.stderr
    assert "26.40" in result.stdout


@pytest.mark.parametrize("made", ["record", "metrics"])
def test_what_is_no_regular_file_is_never_waited_for(folder: Path, made: str) -> None:
    path = folder / "results/pipe/result.json"
    if made == "metrics":
        path = folder / "results/good/metrics.jsonl"
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    result = run("results", "--format", "html")
    assert result.exit_code == 0
    assert "a FIFO, not a regular file" in result.stderr
    assert "26.40" in result.stdout


NAMES = ("\x1b[31mred", "a\nError: forged", "=1+1", "<script>x</script>", "a|b")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_names_cannot_steer_a_terminal_a_sheet_or_a_page(
    folder: Path, name: str, form: str
) -> None:
    write(folder / "named/a", record(), model=name, dataset=name, device=name)
    write(folder / "named/b", record(), model=name, dataset=name, device="other")
    result = run("named", "--format", form)
    assert result.exit_code == 0
    text = result.stdout + result.stderr
    assert "\x1b" not in text
    assert not any(line.startswith("Error: forged") for line in text.splitlines())
    assert "<script>x" not in text or form in ("table", "csv", "json")
    if form == "csv":
        assert not [cell for cell in text.replace("\n", ",").split(",") if cell.startswith("=")]


@pytest.mark.parametrize("form", ["table", "json", "html"])
def test_figures_too_large_to_average_are_no_figures(folder: Path, form: str) -> None:
    for seed, value in enumerate((1e308, -1e308)):
        for variant in ("baseline", "1x1"):
            metrics = {"own": value, "top1": 50.0 + seed, "top5": 90.0}
            values = {"variant": variant, "metrics": metrics, "seed": seed}
            run_folder = write(
                folder / f"huge/{variant}{seed}", record(), images_per_s=1e308, **values
            )
            lines = [{"split": "val", "step": 10**290 * i, "own": 1e308} for i in range(3)]
            (run_folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = run("huge", "--format", form)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "e+308" not in result.stdout
    assert "90" in result.stdout
    own = run("huge", "--format", form, "--metric", "own")
    assert "e+308" not in own.stdout and "Traceback" not in own.stderr


def test_figures_that_no_evaluation_gives_are_refused_by_name(folder: Path) -> None:
    for number, top1 in enumerate((2**70, 100.5, -1.0)):
        write(folder / f"results/{number}", record(), metrics__top1=top1)
    result = run("results")
    assert result.exit_code == 0 and "26.40" in result.stdout
    for number, told in enumerate(("1180591620717411303424", "100.5", "-1.0")):
        where = f"results/{number}/result.json is damaged: cls: metrics.top1 is {told}"
        assert f"{where}, not from 0 to 100" in result.stderr


def test_a_dollar_begins_no_formula(folder: Path) -> None:
    """Matplotlib would read two of them as TeX, and end with an error of its own."""
    for name in ("a", "$\\frac{$"):
        for seed in (0, 1):
            metrics = {"top1": 50.0 + len(name) + seed, "$\\x$": 1.0 * seed}
            path = write(folder / f"tex/{len(name)}{seed}", record(), seed=seed, metrics=metrics)
            change = {"config__model": name, "model": name}
            write(path, json.loads((path / "result.json").read_text()), **change)
            lines = [{"split": "val", "step": i, "top1": 50.0 + i} for i in (1, 2)]
            (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = ["--metric", "top1", "--metric", "$\\x$"]
    result = run("tex", "--rows", "model", "--baseline", "a", "--format", "html", *asked)
    assert (result.exit_code, result.stderr) == (0, "")


def test_large_records_and_metrics_are_told_not_read(folder: Path) -> None:
    long = json.dumps({**record(), "model": "x" * 10_001})
    for name, text in (("large", " " * 9_000_000), ("long", long)):
        (folder / f"results/{name}").mkdir()
        (folder / f"results/{name}/result.json").write_text(text)
    with open(folder / "results/good/metrics.jsonl", "wb") as file:
        file.truncate(1 << 36)  # of holes
    result = run("results", "--format", "html")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "results/large/result.json cannot be read: it is larger than 8 MB",
        "results/long/result.json is damaged: model: String should have at most 10000 characters",
        "its curves are left out: results/good/metrics.jsonl: it is larger than 64 MB",
    ]


def test_links_upwards_are_not_followed(folder: Path) -> None:
    """Not to what lies beside the folder, and not to the whole disk."""
    write(folder / "beside/a", record(), variant="1x1")
    for number, target in enumerate(("/", "..", "../..", folder)):
        (folder / f"results/good/{number}").symlink_to(target)
    result = run("results")
    assert result.exit_code == 0
    assert "1x1" not in result.stdout.splitlines()[3]
    (folder / "results/beside").symlink_to(folder / "beside")
    assert run("results").stdout.count("1x1") > result.stdout.count("1x1")


def test_a_folder_that_cannot_be_read_is_told(folder: Path) -> None:
    run("results")  # imports what another user may not read
    write(folder / "results/closed/a", record(), seed=1)
    (folder / "results/closed").chmod(0)
    folder.chmod(0o755)
    user = os.geteuid()
    try:
        if user == 0:  # root reads everything
            os.seteuid(65534)
        result = run("results")
    finally:
        os.seteuid(user)
        (folder / "results/closed").chmod(0o755)
    assert "results/closed cannot be read: Permission denied" in result.stderr
    assert "26.40" in result.stdout


def test_of_many_folders_that_cannot_be_read_some_are_told(folder: Path) -> None:
    """As below a link to /proc."""
    run("results")
    for i in range(8):
        (folder / f"results/closed{i}").mkdir()
        (folder / f"results/closed{i}").chmod(0)
    folder.chmod(0o755)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        result = run("results")
    finally:
        os.seteuid(user)
    assert len(result.stderr.splitlines()) == 6
    assert result.stderr.endswith("and 3 more folders cannot be read\n")
    assert "26.40" in result.stdout


@pytest.mark.parametrize("form", [*FORMS, "latex"])
def test_a_folder_whose_name_is_no_text(folder: Path, form: str) -> None:
    """Bytes that are not UTF-8; the page links to the folder itself."""
    held = os.fsdecode(b"r\xff&s")
    write(folder / "results" / held, record(), seed=1)
    for to in ((), ("--output", str(folder / "out"))):
        result = run("results", "--format", form, *to)
        assert (result.exit_code, "internal" in result.stderr) == (0, False)
        text = (folder / "out").read_bytes() if to else result.stdout_bytes
        text.decode()
    if form == "html":
        assert b'href="./results/r%FF%26s"' in text
