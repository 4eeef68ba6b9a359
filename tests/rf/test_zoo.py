"""The zoo: rows of known networks, an end of a process, the way on, the page in a real browser."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from rfbench.cli import main
from rfbench.rf.questions.zoo import page as zoo_page
from rfbench.rf.questions.zoo import summary, zoo
from tests.browser import Opened, shown, violations


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
    found, drawings = zoo.row("torchvision:resnet18")
    assert set(drawings) == {"", "fixed_"}
    known = {
        "status": "local", "size": [435, 435], "stride": [32, 32], "padding": [217, 217],
        "shift": -15.5, "misaligned": 0, "parameters": 11_689_512, "changed": 6,
        "fixed_shift": -1.5, "offset": [-15.5, -15.5], "fixed_offset": [-1.5, -1.5],
        "top1": 69.758, "input": [224, 224], "map": [7, 7],
    }  # fmt: skip
    assert {key: found[key] for key in known} == known
    assert set(found) == set(zoo.columns())
    attention, nothing = zoo.row("timm:vit_tiny_patch16_224")
    assert (attention["status"], attention["shift"], nothing) == ("global", None, {})
    assert attention["witness"] == "aten.bmm.default in layer blocks.0.attn"
    assert attention["parameters"] == 5_717_416 and attention["macs"] > 1e9


def test_a_network_without_a_stride_has_no_figures_but_its_own_size() -> None:
    """Odd maps are halved and resized to their size again: a larger input has other fields."""
    made, drawn = zoo.row("timm:ghostnetv2_100")
    assert made["status"] == "local + global context" and made["map"] == [7, 7]
    assert made["shift"] is made["gridding"] is made["size"] is None and not drawn
    assert "no stride in common along y and x behind" in made["witness"]


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
        with Image.open(folder / "maps" / f"{name.replace(':', '-')}.png") as image:
            assert image.size == (zoo.SIDE, zoo.SIDE)
    text = (folder / "zoo.md").read_text()
    assert "![Shift by family](zoo.png)" in text and (folder / "zoo.png").exists()
    assert f"| resnet | {len(names)} | " in text and f"| local | {len(names)} | " in text


def test_rows_that_are_there_are_kept(folder: Path) -> None:
    lines = (folder / zoo.ROWS).read_text().splitlines(keepends=True)
    first = json.loads(lines[0])
    # the last line was cut off by a kill, the first is recognised by what nobody would measure; its
    # columns are called as an earlier version called them
    older = {new: old for old, new in zoo.OLDER.items()}
    first = {older.get(key, key): value for key, value in first.items()}
    (folder / zoo.ROWS).write_text(
        json.dumps({**first, "seconds": -1}) + "\n" + "".join(lines[1:-1]) + lines[-1][:20]
    )
    done: list[None] = []
    names = [json.loads(line)["model"] for line in lines]
    rows = zoo.run(names, folder, 1, lambda: done.append(None))
    assert [row["model"] for row in rows] == names
    assert (rows[0]["seconds"], len(done)) == (-1, 1)
    assert rows[0].keys() == rows[1].keys()


def killed(name: str) -> tuple[zoo.Row, dict[str, bytes]]:
    """Stands in for a model whose process the system ends."""
    if name == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    return dict.fromkeys(zoo.columns()) | {"model": name, "status": "local"}, {}


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


def test_a_map_and_its_marks_are_of_one_map(folder: Path) -> None:
    """The centroid of the PNG's own pixels, placed as the row says, is the offset."""
    for row in json.loads((folder / "zoo.json").read_text()):
        for prefix in ("", "fixed_"):
            png = zoo.drawings(folder, row["model"])[prefix]
            counts = np.asarray(Image.open(io.BytesIO(png))).astype(float) ** 2  # of their root
            assert counts.shape == (zoo.SIDE, zoo.SIDE)
            top, left, side = row[f"{prefix}map_box"]
            at = (np.arange(zoo.SIDE) + 0.5) * side / zoo.SIDE
            middle = [
                top + counts.sum(1) @ at / counts.sum(),
                left + counts.sum(0) @ at / counts.sum(),
            ]
            assert middle == pytest.approx(row[f"{prefix}offset"], abs=0.3)


def test_published_accuracy_is_of_that_input_size() -> None:
    from torchvision.models import ResNet50_Weights

    told = ResNet50_Weights.IMAGENET1K_V1.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert zoo.published("torchvision:resnet50", (224, 224)) == told
    assert zoo.published("torchvision:resnet50", (256, 256)) is None
    assert zoo.published("timm:resnet50", (224, 224)) is None
    assert zoo.published("torchvision:vit_h_14", (224, 224)) is None  # no such weights


def test_names_are_in_natural_order() -> None:
    names = zoo.names(["torchvision"], "resnet*")
    assert names == [f"torchvision:resnet{n}" for n in (18, 34, 50, 101, 152)]


# -- in a real browser -----------------------------------------------------------------------------


TOP1 = {"timm:resnet14t": 70.0, "timm:resnet18": 72.5, "timm:resnet18d": 71.0}


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[zoo.Row]:
    """The rows of the small zoo, as if they were published, and one without a map."""
    rows = json.loads((folder / "zoo.json").read_text())
    assert set(TOP1) <= {row["model"] for row in rows}
    empty = dict.fromkeys(zoo.columns()) | {"model": "timm:vit", "status": "global"}
    return [*(row | {"top1": TOP1.get(row["model"])} for row in rows), empty]


@pytest.fixture(scope="module")
def page(folder: Path, rows: list[zoo.Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    drawings = {row["model"]: zoo.drawings(folder, row["model"]) for row in rows}
    path.write_text(zoo_page.page(rows, drawings))
    return path


def test_ticked_maps_are_shown_where_one_looks(page: Path, opened: Opened) -> None:
    shot = opened(page, 1024)
    panel = shot.get_by_label("Compared maps")
    assert not panel.is_visible()
    for name in ("timm:resnet18", "timm:resnet14t"):
        shot.get_by_label(name, exact=True).check()
    box = panel.bounding_box()
    assert box["y"] + box["height"] <= 901 and box["height"] < 600  # of a window of 900
    captions = "#compared .network > figcaption"
    assert shown(shot, captions) == ["timm:resnet14t×", "timm:resnet18×"]  # as in the table
    shot.get_by_role("button", name="model", exact=True).click()
    shot.get_by_role("button", name="model", exact=True).click()
    assert shown(shot, captions) == ["timm:resnet18×", "timm:resnet14t×"]
    shot.get_by_label("search").fill("resnet18")
    assert shown(shot, captions) == ["timm:resnet18×"]
    assert "1 more ticked, but filtered out" in panel.inner_text()
    shot.get_by_role("button", name="remove timm:resnet18").click()
    shot.get_by_role("button", name="remove all").click()
    assert not panel.is_visible()


def test_maps_are_on_one_scale_with_their_marks(
    page: Path, rows: list[zoo.Row], opened: Opened
) -> None:
    shot = opened(page)
    ticked = [row for row in rows if row["model"] in TOP1]
    for row in ticked:
        shot.get_by_label(row["model"], exact=True).check()
    maps = shot.locator("#compared svg.map").all()
    assert len(maps) == 2 * len(ticked)  # the fixed variant beside
    assert len({svg.get_attribute("viewBox") for svg in maps}) == 1
    side = float(maps[0].get_attribute("viewBox").split()[2])
    wanted = [row[f"{prefix}offset"] for row in ticked for prefix in ("", "fixed_")]
    for svg, (y, x) in zip(maps, wanted, strict=True):
        boxes = [one.bounding_box() for one in (svg, svg.locator(".unit"), svg.locator(".centre"))]
        whole, unit, ring = (
            b["x"] + b["width"] / 2 + 1j * (b["y"] + b["height"] / 2) for b in boxes
        )
        px = svg.bounding_box()["width"] / side
        assert abs(unit - whole) < 0.6  # the unit is in the middle
        assert abs((ring - unit) / px - (x + 1j * y)) < 1


def test_there_is_one_count_and_charts_follow_it(
    page: Path, rows: list[zoo.Row], opened: Opened
) -> None:
    shot = opened(page)
    assert shown(shot, "output") == [f"{len(rows)} of {len(rows)} networks"]
    marks = shot.locator("#law .charts figure").first.locator("[data-tip]")
    assert marks.count() == len(TOP1)
    held = {row["model"]: row for row in rows}
    b, a = np.polyfit([np.log(held[n]["size"][0]) for n in TOP1], [*TOP1.values()], 1)
    sign = "−" if b < 0 else "+"
    fit = f"top-1 = {a:.1f} {sign} {abs(b):.2f} ln(size)".replace("= -", "= -")
    assert shot.locator("#fit").inner_text().startswith(fit)
    shot.get_by_label("search").fill("resnet18")
    fitting = [row for row in rows if "resnet18" in row["model"]]
    assert shown(shot, "output") == [f"{len(fitting)} of {len(rows)} networks"]
    assert len(shown(shot, "tbody tr[data-key]")) == len(fitting)
    assert marks.count() == sum(name in TOP1 for name in (row["model"] for row in fitting))
    shot.get_by_role("button", name="show all").click()
    shot.get_by_role("spinbutton", name="shift").fill("5")
    over = sum(row["shift"] is not None and abs(row["shift"]) > 5 for row in rows)
    assert shown(shot, "output") == [f"{over} of {len(rows)} networks"]
    shot.get_by_role("spinbutton", name="shift").fill("")
    shot.get_by_role("combobox", name="status").select_option("global")
    assert shown(shot, "tbody tr[data-key] th") == ["timm:vit"]
    assert not shot.locator("#law").is_visible()  # nothing to draw


def test_a_mark_says_what_it_is_and_ticks_its_network(page: Path, opened: Opened) -> None:
    shot = opened(page)
    mark = shot.locator("#law [data-tip^='timm:resnet18:']").first
    mark.hover()
    assert "top-1 72.50 %" in shot.get_by_role("tooltip").inner_text()
    mark.click()
    assert shot.get_by_label("timm:resnet18", exact=True).is_checked()


def test_columns_sort_the_best_first(page: Path, opened: Opened, rows: list[zoo.Row]) -> None:
    shot = opened(page)
    first = shot.locator("tr[data-key] th").first
    shot.get_by_role("button", name="top1").click()
    assert first.inner_text() == "timm:resnet18"
    shot.get_by_role("button", name="1x1+3x3").first.click()
    least = min(abs(row["fixed_shift"]) for row in rows if row["fixed_shift"] is not None)
    held = next(row for row in rows if row["model"] == first.inner_text())
    assert abs(held["fixed_shift"]) == least


@pytest.mark.parametrize("width", [1920, 1024, 390])
def test_the_page_fits_the_window(page: Path, width: int, opened: Opened) -> None:
    shot = opened(page, width)
    shot.get_by_label("timm:resnet18", exact=True).check()
    assert shot.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True])
def test_for_keyboards_and_screen_readers(page: Path, dark: bool, opened: Opened) -> None:
    shot = opened(page, dark=dark)
    shot.get_by_label("timm:resnet18", exact=True).focus()
    shot.keyboard.press("Space")
    assert shot.get_by_label("Compared maps").is_visible()
    assert violations(shot) == []


HOSTILE = [
    "timm:<img src=x onerror='pwned=1'>",
    "timm:</script><script>pwned=1</script>",
    "__proto__",
    "timm:a'\"><b onclick=pwned=1>x",
]


def test_hostile_names_execute_nothing(
    folder: Path, rows: list[zoo.Row], tmp_path: Path, opened: Opened
) -> None:
    hostile = [rows[0] | {"model": name, "witness": name, "top1": 70.0} for name in HOSTILE]
    drawings = {name: zoo.drawings(folder, rows[0]["model"]) for name in HOSTILE}
    (tmp_path / "x.html").write_text(zoo_page.page(hostile, drawings))
    shot = opened(tmp_path / "x.html")
    for tick in shot.get_by_role("checkbox").all():
        tick.check()
    shot.locator("#law [data-tip]").last.hover()  # the one on top
    assert shot.locator("#compared .network").count() == len(HOSTILE)
    assert shot.locator("#compared b, th b, img, #tip *").count() == 0
    assert shot.evaluate("window.pwned") is None
    names = shown(shot, "tr[data-key] th")
    assert names == HOSTILE


def test_the_page_without_any_map() -> None:
    found = dict.fromkeys(zoo.columns()) | {"model": "timm:x", "status": "unsupported"}
    assert "timm:x" in zoo_page.page([found], {})
    assert "Of 0 with path counts" in summary.summary([found])


def test_a_folder_that_a_full_disk_left_is_gone_on_with(tmp_path: Path) -> None:
    """What is there is the manifest alone, or that and a list of rows."""
    zoo.open_folder(tmp_path / "z", False)
    (tmp_path / "z" / zoo.ROWS).mkdir()  # in the way, as no room is
    with pytest.raises(OSError, match="directory"):
        zoo.run([], tmp_path / "z", 1, lambda: None)
    (tmp_path / "z" / zoo.ROWS).rmdir()
    zoo.check_folder(tmp_path / "z")
    assert zoo.run([], tmp_path / "z", 1, lambda: None) == []
