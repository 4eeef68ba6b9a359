"""The fenced blocks of the pages, and the kind of each: what a test does with it."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.test_readme import BLOCK, PAGES, PRINTED, SCRIPT

__all__ = ["PAGES", "Block", "blocks", "command_lines", "kind", "schema_of"]

FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n\n?)?^(?P<indent> *)```(?P<language>\w*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
# what a line of a shell may begin with beside `rfbench`; checked as far as that goes
PROGRAMS = {"torchrun", "sbatch", "python", "make", "pip", "git", "cd", "cat", "eval"}
# the first line of a configuration: # rfbench COMMAND FILE
COMMAND = re.compile(r"# rfbench ([\w-]+)")
KINDS = {"visualize-rf": "rf", "train-cls": "cls", "train-seg": "seg", "train-det": "det"}


@dataclass(frozen=True)
class Block:
    """A fenced block. note: of the comment before it. pinned: its text is compared elsewhere."""

    page: Path
    line: int
    language: str
    note: str
    text: str
    pinned: bool

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    spans = [m.span() for pattern in (BLOCK, PRINTED, SCRIPT) for m in pattern.finditer(text)]
    for found in FENCE.finditer(text):
        pinned = any(first <= found.start() < last for first, last in spans)
        line = text.count("\n", 0, found.start("language")) + 1
        inner = found["text"].replace("\n" + found["indent"], "\n").removeprefix(found["indent"])
        yield Block(page, line, found["language"], found["note"] or "", inner, pinned)


def kind(block: Block) -> str | None:
    """'pinned', 'like', 'not run', 'python', 'yaml' or 'shell'; None: nothing would test it.

    like: the output of a command that draws random numbers.
    """
    if block.pinned:
        return "pinned"
    if block.note.startswith(("not run: ", "like: rfbench ")):
        return block.note.partition(":")[0]
    if block.language in ("python", "pycon"):
        return "python"
    if block.language == "yaml":
        return "yaml" if schema_of(block) else None
    if block.language in ("", "sh") and is_shell(block.text):
        return "shell"
    return None


def schema_of(block: Block) -> str | None:
    """The kind of configuration: of the comment `yaml: KIND`, or of the command in its first line.

    'detectron2' is one of Detectron2's own.
    """
    if block.note.startswith("yaml: "):
        return block.note.removeprefix("yaml: ")
    command = COMMAND.match(block.text)
    return KINDS.get(command[1]) if command else None


def command_lines(text: str) -> list[list[str]]:
    """The words of every command of a shell block; what is fed to one, and comments, left out."""
    text = re.sub(r"<<'(\w+)'.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def is_shell(text: str) -> bool:
    """Whether every command begins with a program that pages may use."""
    try:
        lines = command_lines(text)
    except ValueError:  # an apostrophe: this is no shell's
        return False
    return bool(lines) and all(words[0] == "rfbench" or words[0] in PROGRAMS for words in lines)
