"""The zoo: rows of known networks, an end of a process, the way on, the page in a real browser."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from rfbench.cli import main
from rfbench.rf.questions.zoo import page as zoo_page
from rfbench.rf.questions.zoo import zoo
from tests.browser import browser, opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small zoo, by the command."""
    out = tmp_path_factory.mktemp("zoo") / "out"
    args = [
        "rf",
        "zoo",
        "--library",
        "timm",
        "--pattern",
        "resnet1[48]*",
        "--output",
        str(out),
    ]
    result = CliRunner().invoke(main, [*args, "--jobs", "1", "--markdown", str(out / "zoo.md")])
    assert result.exit_code == 0, result.output
    (out / "shown.txt").write_text(result.stdout)
    return out


def test_rows_of_known_networks() -> None:
    found, picture = zoo.row("torchvision:resnet18")
    assert picture is not None
    known = {
        "status": "local", "size": [435, 435], "stride": [32, 32], "padding": [217, 217],
        "shift": -15.5, "misaligned": 0, "parameters": 11_689_512, "changed": 6,
        "cured_shift": -1.5, "input": [224, 224], "map": [7, 7],
    }  # fmt: skip
    assert {key: found[key] for key in known} == known
    assert set(found) == set(zoo.columns())
    attention, nothing = zoo.row("timm:vit_tiny_patch16_224")
    assert (attention["status"], attention["shift"], nothing) == ("global", None, None)
    assert attention["witness"] == "aten.bmm.default in layer blocks.0.attn"
    assert attention["parameters"] == 5_717_416 and attention["macs"] > 1e9


def test_few_models_are_printed(folder: Path) -> None:
    head, *lines = (folder / "shown.txt").read_text().splitlines()
    assert head.split("  ")[0] == "model" and head.endswith("gridding  read    fixed shift")
    found = [line.split() for line in lines[: lines.index("")]]
    rows = json.loads((folder / "zoo.json").read_text())
    assert [cells[0] for cells in found] == [row["model"] for row in rows]
    assert [cells[2] for cells in found] == [f"{row['shift']:+.2f}" for row in rows]


def test_what_is_written(folder: Path) -> None:
    rows = json.loads((folder / "zoo.json").read_text())
    names = [row["model"] for row in rows]
    assert names == zoo.names(["timm"], "resnet1[48]*") and len(names) >= 3
    with open(folder / "zoo.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["model"] for row in table] == names
    assert table[0]["size"] == "x".join(map(str, rows[0]["size"]))
    for name in names:
        with Image.open(folder / "maps" / f"{name.replace(':', '-')}.png") as picture:
            assert picture.size == (zoo.SIDE, zoo.SIDE)
    summary = (folder / "zoo.md").read_text()
    assert "![Shift by family](zoo.png)" in summary and (folder / "zoo.png").exists()
    assert f"| resnet | {len(names)} | " in summary and f"| local | {len(names)} | " in summary


def test_rows_that_are_there_are_kept(folder: Path) -> None:
    lines = (folder / zoo.ROWS).read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    # the last line was cut off by a kill, the first is recognised by what nobody would measure
    (folder / zoo.ROWS).write_text(
        json.dumps({**first, "seconds": -1}) + "\n" + "".join(lines[1:-1]) + lines[-1][:20]
    )
    done: list[None] = []
    names = [json.loads(line)["model"] for line in lines]
    rows = zoo.run(names, folder, 1, lambda: done.append(None))
    assert [row["model"] for row in rows] == names
    assert (rows[0]["seconds"], len(done)) == (-1, 1)


def killed(name: str) -> tuple[zoo.Row, bytes | None]:
    """Stands in for a model whose process the system ends."""
    if name == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return dict.fromkeys(zoo.columns()) | {"model": name, "status": "local"}, None


def test_a_process_that_dies_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "row", killed)
    rows = zoo.run(["a", "bad", "b", "c", "d"], tmp_path, 2, lambda: None)
    assert [row["status"] for row in rows] == ["local", "unsupported", "local", "local", "local"]
    assert "its process died" in rows[1]["witness"]


def test_processes_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "row", killed)
    monkeypatch.setattr(zoo, "TASKS", 2)
    names = [str(i) for i in range(9)]
    assert [r["model"] for r in zoo.run(names, tmp_path, 2, lambda: None)] == names


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells a process")
def test_its_processes_go_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rfbench", "rf", "zoo", "--pattern", "resnet*", "--jobs", "2"]
    main = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out")], stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: len(zoo.read(tmp_path / "out")) > 1, seconds=600)
        children = {pid for pid in processes() if parent(pid) == main.pid}
    finally:
        main.kill()
        main.wait()
    assert len(children) >= 2
    until(lambda: not children & processes())


def processes() -> set[int]:
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    except OSError:  # gone meanwhile
        return 0


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("held", [("result.json",), ("notes.txt",), ("rows.jsonl", "result.json")])
def test_a_folder_of_others_is_left_alone(tmp_path: Path, held: tuple[str, ...]) -> None:
    for name in held:
        (tmp_path / name).write_text("")
    args = ["rf", "zoo", "--pattern", "resnet18", "--output", str(tmp_path), "--overwrite"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2 and "holds something else than a zoo" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(held)


def test_nothing_by_that_name() -> None:
    result = CliRunner().invoke(main, ["rf", "zoo", "--pattern", "resnet5O"])
    assert result.exit_code == 2
    assert "no architecture is called 'resnet5O'. Did you mean: resnet50" in result.stderr


@browser
def test_the_page_in_a_browser(folder: Path, tmp_path: Path) -> None:
    rows = json.loads((folder / "zoo.json").read_text())
    text = (folder / "index.html").read_text()
    # a user who ticks two models and filters by shift
    act = """<script>
    const boxes = [...document.querySelectorAll("tbody input")];
    boxes[0].click(); boxes[1].click(); boxes[0].click();
    const form = document.querySelector(".tools");
    form.shift.value = "5"; form.dispatchEvent(new Event("input"));
    </script></body>"""
    path = tmp_path / "index.html"
    path.write_text(text.replace("</body>", act))
    shown, complaints = opened(path, "--dump-dom")
    assert complaints == []
    assert shown.count("<figure id=") == 1
    assert f'id="fig-{rows[1]["model"]}"' in shown
    over = sum(row["shift"] is not None and abs(row["shift"]) > 5 for row in rows)
    assert f">{over} of {len(rows)}<" in shown
    assert shown.count('style="display: none;"') == len(rows) - over


def test_the_page_without_any_map() -> None:
    found = dict.fromkeys(zoo.columns()) | {"model": "timm:x", "status": "unsupported"}
    assert "timm:x" in zoo_page.page([found], {})
    assert "Of 0 with path counts" in zoo_page.summary([found])


def test_a_folder_that_a_full_disk_left_is_gone_on_with(tmp_path: Path) -> None:
    """What is there is the manifest alone, or that and a list of rows."""
    zoo.open_folder(tmp_path / "z", False)
    (tmp_path / "z" / zoo.ROWS).mkdir()  # in the way, as no room is
    with pytest.raises(OSError, match="directory"):
        zoo.run([], tmp_path / "z", 1, lambda: None)
    (tmp_path / "z" / zoo.ROWS).rmdir()
    zoo.check_folder(tmp_path / "z")
    assert zoo.run([], tmp_path / "z", 1, lambda: None) == []
