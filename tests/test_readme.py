"""What the README shows is what the commands print: `pytest --overwrite` pastes it anew."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from rfbench.cli import main

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"<!-- output: rfbench (?P<args>.*?) -->\n```\n(?P<shown>.*?)```\n", re.DOTALL)
BLOCKS = list(BLOCK.finditer(README.read_text()))


@pytest.mark.parametrize("block", BLOCKS, ids=[b["args"] for b in BLOCKS])
def test_shown_output_is_the_real_one(
    block: re.Match, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    args = shlex.split(block["args"])
    result = CliRunner().invoke(main, args, prog_name="rfbench", terminal_width=100)
    # the files written are told on stderr; an error is all there is to show
    printed = result.stdout or result.stderr.splitlines(keepends=True)[-1]
    if overwrite and printed != block["shown"]:
        new = block[0].replace(f"```\n{block['shown']}```", f"```\n{printed}```")
        README.write_text(README.read_text().replace(block[0], new))
        return
    assert printed == block["shown"]


def test_every_command_shown_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in code blocks parse: their options exist and their configurations are there."""
    text = README.read_text()
    lines = [line.split("#")[0] for line in re.findall(r"^rfbench .*$", text, re.MULTILINE)]
    assert len(lines) >= 6
    monkeypatch.chdir(README.parent)
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Conv2d(3, 8, 3, stride=2, padding=1)\n"
    )
    for place in ("train/a/1.JPEG", "train/b/1.JPEG", "val/a/2.JPEG", "val/b/2.JPEG"):
        (tmp_path / "IMAGENET" / place).parent.mkdir(parents=True)
        Image.new("RGB", (9, 8)).save(tmp_path / "IMAGENET" / place)
    for line in lines:
        for name in ("mynets.py", "IMAGENET"):
            line = line.replace(name, str(tmp_path / name))
        small = ["-o", "batch_size=2"] if "IMAGENET" in line else []  # two pictures to train on
        args = [*shlex.split(line)[1:], *small]
        result = CliRunner().invoke(main, [*args, "--dry-run"])
        assert result.exit_code == 0, f"{line}: {result.output}"


def test_files_named_exist() -> None:
    pattern = r"\]\(([\w./-]+)\)|`((?:scripts|configs|rfbench|docs)/[\w./-]+)`"
    for link, code in re.findall(pattern, README.read_text()):
        assert (README.parent / (link or code)).exists(), link or code
