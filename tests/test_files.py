"""Where files are written: complete or not at all, through links or not, and never over others'."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rfbench import files, manifest
from rfbench.cli import main
from rfbench.errors import RfbenchError, UsageError
from tests.report.records import RUNS

ROOT = os.geteuid() == 0


def run(*args: str) -> Result:
    return CliRunner().invoke(main, [*args])


def refused(result: Result, *words: str) -> None:
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code in (1, 2) and len(lines) == 1, result.stderr
    assert all(word in lines[0] for word in words), lines[0]
    assert "internal error" not in lines[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run in results/, from which the commands run."""
    shutil.copytree(RUNS / "two-baseline-s0", tmp_path / "results/a")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- one file -----------------------------------------------------------------------------------


def test_a_file_is_complete_or_as_before(here: Path) -> None:
    path = here / "x.txt"
    files.write_text(path, "one")
    with pytest.raises(KeyError), files.aside(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "one"
    assert sorted(p.name for p in here.iterdir()) == ["results", "x.txt"]


def test_permissions_of_a_replaced_file_stay(here: Path) -> None:
    (here / "x.txt").touch(mode=0o640)
    files.write_text(here / "x.txt", "one")
    assert stat.S_IMODE((here / "x.txt").stat().st_mode) == 0o640


def test_a_link_leads_to_its_target_and_stays(here: Path) -> None:
    (here / "real.csv").write_text("before")
    (here / "link.csv").symlink_to("middle.csv")
    (here / "middle.csv").symlink_to("real.csv")
    assert run("compare", "results", "--format", "csv", "--output", "link.csv").exit_code == 0
    assert (here / "link.csv").is_symlink() and (here / "middle.csv").is_symlink()
    assert "26.4" in (here / "real.csv").read_text()


def test_a_dangling_link_is_named(here: Path) -> None:
    (here / "link.csv").symlink_to("gone/x.csv")
    refused(run("compare", "results", "--output", "link.csv"), "link.csv: it is a link to", "gone")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_device_says_so_and_stays(here: Path) -> None:
    refused(run("compare", "results", "--output", "/dev/full"), "/dev/full: No space left")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert run("compare", "results", "--output", "/dev/null").exit_code == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("to", ["pipe", "file", "more"])
def test_stdout_by_its_name(here: Path, to: str) -> None:
    """To a pipe; to a file, which is not cut or replaced; to the end of one."""
    command = "import sys\nfrom pathlib import Path\nfrom rfbench import files\n"
    command += "files.write_text(Path('/dev/stdout'), 'the text')"
    Path("out.txt").write_text("before " if to == "more" else "")
    with open("out.txt", "a") as file:
        target = subprocess.PIPE if to == "pipe" else file
        done = subprocess.run([sys.executable, "-c", command], stdout=target, text=True, check=True)
    text = done.stdout if to == "pipe" else Path("out.txt").read_text()
    assert text == ("before the text" if to == "more" else "the text")


def test_a_pipe_is_written_into(here: Path) -> None:
    os.mkfifo("pipe")
    late = "sleep 0.3; cat pipe"  # who reads may come after who writes
    reader = subprocess.Popen(["sh", "-c", late], stdout=subprocess.PIPE, text=True)
    files.write_text(Path("pipe"), "the text")
    assert reader.communicate()[0] == "the text"
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_a_file_that_may_not_be_written_is_named(here: Path) -> None:
    (here / "x.csv").touch(mode=0o444)
    refused(run("compare", "results", "--output", "x.csv"), "x.csv: Permission denied")


def test_an_existing_file_in_the_place_of_a_folder(here: Path) -> None:
    (here / "plain").touch()
    refused(run("visualize-rf", "resnet18", "--output", "plain/x"), "plain/x")
    with pytest.raises(RfbenchError, match=r"cannot write .*plain/y.txt: Not a directory"):
        files.write_text(here / "plain/y.txt", "")


# --- a folder -----------------------------------------------------------------------------------


def draw(*args: str) -> Result:
    return run("visualize-rf", "resnet18", "--variant", "baseline", "--output", "fig", *args)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a figure, to be copied."""
    folder = tmp_path_factory.mktemp("drawn")
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert draw().exit_code == 0
    finally:
        os.chdir(before)
    return folder / "fig"


@pytest.fixture
def fig(here: Path, drawn: Path) -> Path:
    return Path(shutil.copytree(drawn, here / "fig"))


def listed(folder: Path) -> set[str]:
    return set(json.loads((folder / manifest.NAME).read_text())["files"])


def test_every_file_of_a_run_is_listed(fig: Path) -> None:
    assert listed(fig) == {p.name for p in fig.iterdir()} - {manifest.NAME}
    assert listed(fig) >= {"maps.png", "maps.pdf", "maps.npz", "config.yaml", "result.json"}


def test_the_list_is_there_before_the_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.open_folder(here / "new")
    with pytest.raises(KeyError), files.aside(here / "new/a.txt"):
        assert listed(here / "new") == {"a.txt"}
        raise KeyError


def test_overwriting_removes_what_is_listed_and_nothing_else(fig: Path) -> None:
    (fig / "mine.pth").write_text("mine")
    (fig / "sub").mkdir()
    (fig / "sub/maps.png").write_text("mine")
    (fig / "old.png").write_text("listed")
    content = json.loads((fig / manifest.NAME).read_text())
    content["files"]["old.png"] = []
    (fig / manifest.NAME).write_text(json.dumps(content))
    assert draw().exit_code == 2
    result = draw("--overwrite")
    assert result.exit_code == 0, result.stderr
    assert (fig / "mine.pth").read_text() == (fig / "sub/maps.png").read_text() == "mine"
    assert not (fig / "old.png").exists()


def test_a_folder_of_others_is_never_overwritten(here: Path) -> None:
    (here / "fig").mkdir()
    for name in ("best_model.pth", "last_will.pth", "config.yaml"):
        (here / "fig" / name).write_text("mine")
    refused(draw("--overwrite"), "no list of a run's own", "fig")
    for command in ("train-cls", "train-det"):
        args = ("--output", "fig", "--overwrite", "-o", "device=cpu")
        refused(run(command, *args), "no list of a run's own")
    assert sorted(p.name for p in (here / "fig").iterdir()) == [
        "best_model.pth", "config.yaml", "last_will.pth",
    ]  # fmt: skip
    assert all(p.read_text() == "mine" for p in (here / "fig").iterdir())


@pytest.mark.parametrize("args", [(), ("--resume",), ("--overwrite",)])
def test_a_configuration_of_ones_own_is_never_replaced(here: Path, args: tuple[str, ...]) -> None:
    (here / "run").mkdir()
    (here / "run/config.yaml").write_text("# mine\nseed: 3\n")
    result = run("train-cls", "--output", "run", *args, "-o", "device=cpu")
    refused(result, "run")
    assert (here / "run/config.yaml").read_text() == "# mine\nseed: 3\n"


def test_a_configuration_edited_by_hand_is_not_replaced(fig: Path) -> None:
    (fig / "config.yaml").write_text("# my notes\n" + (fig / "config.yaml").read_text())
    refused(draw("--overwrite"), "fig/config.yaml is not as a run wrote it")
    assert (fig / "maps.png").exists()


def test_planted_links_are_not_followed(fig: Path) -> None:
    treasure = fig.parent / "treasure.txt"
    treasure.write_text("gold")
    for name in ("maps.png", "result.json", "config.yaml"):
        (fig / name).unlink()
        (fig / name).symlink_to(treasure)
    refused(draw("--overwrite"), "fig/config.yaml is not as a run wrote it")
    (fig / "config.yaml").unlink()
    assert draw("--overwrite").exit_code == 0
    assert treasure.read_text() == "gold"
    assert not (fig / "maps.png").is_symlink()


HOSTILE = ["../treasure.txt", "/etc/hosts", "a/../../treasure.txt", "", "x\0y"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_reaches_only_into_its_folder(fig: Path, name: str) -> None:
    treasure = fig.parent / "treasure.txt"
    treasure.write_text("gold")
    content = {"format": manifest.FORMAT, "files": {name: []}}
    (fig / manifest.NAME).write_text(json.dumps(content))
    refused(draw("--overwrite"), "is damaged: it lists")
    assert treasure.read_text() == "gold"


def test_a_manifest_does_not_reach_behind_links(fig: Path) -> None:
    (fig.parent / "else").mkdir()
    (fig.parent / "else/treasure.txt").write_text("gold")
    (fig / "way").symlink_to(fig.parent / "else")
    content = {"format": manifest.FORMAT, "files": {"way/treasure.txt": []}}
    (fig / manifest.NAME).write_text(json.dumps(content))
    result = draw("--overwrite")  # what is not listed now stands in the way
    assert "was not written by this run" in result.stderr or result.exit_code == 2
    assert (fig.parent / "else/treasure.txt").read_text() == "gold"


@pytest.mark.parametrize("text", [b"{}", b"[]", b"5", b"x", b"\xff", b"[" * 5000])
def test_a_damaged_manifest_is_one_line(fig: Path, text: bytes) -> None:
    (fig / manifest.NAME).write_bytes(text)
    refused(draw("--overwrite"), manifest.NAME)


def test_a_manifest_that_cannot_be_written_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).mkdir()
    with pytest.raises(RfbenchError, match=f"cannot write .*/{manifest.NAME}: "):
        manifest.Manifest(tmp_path, {}).write()
    assert [path.name for path in tmp_path.iterdir()] == [manifest.NAME]


def test_claims_within_a_run(here: Path) -> None:
    folder = here / "run"
    files.open_folder(folder)
    files.write_text(folder / "a.txt", "one")
    files.write_text(folder / "a.txt", "two")
    (folder / "b.txt").write_text("mine")
    with pytest.raises(RfbenchError, match="was not written by this run"):
        files.write_text(folder / "b.txt", "ours")
    (here / "else").mkdir()
    (folder / "sub").symlink_to(here / "else")
    with pytest.raises(RfbenchError, match="sub is a link"):
        files.write_text(folder / "sub/c.txt", "ours")
    (folder / "log").symlink_to(here / "else/log")
    with pytest.raises(RfbenchError, match="log is a link"):
        files.append(folder / "log")
    assert list((here / "else").iterdir()) == []


def test_reading_never_waits(here: Path) -> None:
    os.mkfifo("pipe")
    for path in ("pipe", "/dev/zero", "."):
        with pytest.raises(
            OSError, match=r"it is a (FIFO|device), not a regular file|Is a directory"
        ):
            files.read_bytes(path)


def test_a_folder_that_is_a_link_to_nothing(here: Path) -> None:
    (here / "fig").symlink_to("nowhere")
    with pytest.raises(UsageError, match="is a link to nowhere, which does not exist"):
        files.check_folder(here / "fig", overwrite=False)


def test_what_a_killed_process_left_does_not_count(here: Path) -> None:
    folder = here / "run"
    files.open_folder(folder)
    files.write_text(folder / "a.txt", "one")
    left = folder / f".a.txt.{os.getpid()}.tmp.txt"
    left.touch()
    (folder / f"{manifest.NAME}.77.tmp").touch()
    (folder / ".mine.77.tmp.txt").write_text("mine")
    assert manifest.others(folder) == ["a.txt"]
    files.open_folder(folder, keep=True)
    assert sorted(p.name for p in folder.iterdir()) == [
        ".mine.77.tmp.txt", manifest.NAME, "a.txt",
    ]  # fmt: skip
