"""Every fenced block of every page is run, parsed, compared, or says why it is not."""

import contextlib
import copy
import doctest
import json
import logging
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch
import yaml
from click.testing import CliRunner

from rfbench import config
from rfbench.cli import main
from rfbench.cli.options import split
from rfbench.data.sources import SOURCES
from rfbench.grid import config as grids
from rfbench.models import backbones, weight_files
from rfbench.models.pools import POOLS
from rfbench.models.variants import behind
from rfbench.schemas.kinds import SCHEMAS
from tests.pages import PAGES, Block, blocks, command_lines, kind, schema_of

ROOT = Path(__file__).parents[1]
BLOCKS = [block for page in PAGES for block in blocks(page)]
BY_KIND = {name: [b for b in BLOCKS if kind(b) == name] for name in ("like", "shell", "yaml")}
PYTHON = [page for page in PAGES if any(kind(b) == "python" for b in blocks(page))]
# stand for what the reader has: nothing to look at here
OWN = ("mine.yaml", "CONFIG", "RUN")


def test_every_block_is_of_a_kind_that_a_test_looks_at() -> None:
    """`pytest -s` shows how many there are of each."""
    counts = Counter(kind(block) or "nothing tests it" for block in BLOCKS)
    print("\n" + ", ".join(f"{number} {name}" for name, number in counts.most_common()))
    assert not [str(block) for block in BLOCKS if kind(block) is None]
    assert counts["python"] > 20 and counts["pinned"] > 20 and counts["shell"] > 20


# -- Python ----------------------------------------------------------------------------------------


@pytest.fixture
def own_words() -> Iterator[None]:
    """What the examples add to rfbench is gone after them."""
    held = [(table, copy.copy(table)) for table in (POOLS, SOURCES)]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    behind._say.cache_clear()  # it says things once a process
    yield
    for table, before in held:
        table.clear()
        table.update(before)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_words: None
) -> None:
    """From top to bottom, in one namespace, in an empty folder: examples, and what they print."""
    if page.name == "detection.md":
        pytest.importorskip("detectron2", reason="Detectron2 is not installed: make install-det")
        trained_resnet50(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict = {"__name__": "page"}
    runner, parser = doctest.DocTestRunner(), doctest.DocTestParser()
    for block in blocks(page):
        if kind(block) != "python":
            continue
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), names)
            continue
        test = parser.get_doctest(block.text, names, str(block), str(page), block.line)
        assert test.examples, f"{block}: no >>>"
        assert runner.run(test, clear_globs=False).failed == 0, str(block)
        names = test.globs


def trained_resnet50(folder: Path) -> None:
    """A checkpoint and a configuration, where docs/detection.md has a reader's own."""
    run = folder / "results" / "cls-imagenet-resnet50-1x1+3x3-s0"
    run.mkdir(parents=True)
    state = backbones.build("resnet50", "1x1+3x3").module.state_dict()
    held = {"model": "torchvision:resnet50", "variant": "1x1+3x3", "state_dict": state}
    torch.save({"format": weight_files.FORMAT, "classes": ["a"], **held}, run / "best.pth")
    (folder / "mine.yaml").write_text("MODEL: {META_ARCHITECTURE: RetinaNet}\n")


# -- shells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BY_KIND["shell"], ids=str)
def test_the_commands_of_a_page(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, options and their values exist, and so do files; configurations are read."""
    monkeypatch.chdir(ROOT)
    for words in command_lines(block.text):
        if "rfbench" in words and words[0] in ("rfbench", "torchrun"):
            check_command(words[words.index("rfbench") + 1 :])
        elif words[0] == "sbatch":
            assert Path(words[1]).exists(), words
            if not words[1].endswith("grid.sbatch"):
                check_command(words[2:])
        elif words[0] == "make":
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{target}:", Path("Makefile").read_text(), re.MULTILINE), target
        elif words[0] == "python" and words[1].endswith(".py"):
            script = Path(words[1]).read_text()
            assert all(f'"{w}"' in script for w in words[2:] if w.startswith("--")), words


def check_command(words: list[str]) -> None:
    """Parse a command as `rfbench` does, and read the configuration that it names."""
    command: click.Command = main
    context = click.Context(command, **command.context_settings)  # as `main` makes it
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found, f"there is no command {name}"
        context, command = click.Context(found, context, name), found
    context = command.make_context(name, words, parent=context.parent)
    name, values = context.info_name, context.params
    if name == "grid" and values["config"] not in OWN:
        grids.read(
            values["config"],
            values["override"],
            split(values["variants"], "--variants"),
            values["seeds"],
        )
    elif name in grids.SCHEMA and values["config"] not in OWN:
        path = values["config"] or f"{name.removeprefix('train-')}/digits"
        held = config.load(grids.SCHEMA[name], path, values["override"])
        # which `refuse_pretrained` would end, before the first step
        pretrained = getattr(held, "weights", None) == "pretrained"
        assert not pretrained or held.variant == "baseline", f"{words}: weights of the variant"
    for path in (m for m in values.get("model") or () if m.endswith(".yaml")):
        config.load(SCHEMAS["rf"], path, values["override"])


@pytest.mark.parametrize("block", BY_KIND["like"], ids=str)
def test_output_that_rounding_changes(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it but the last digits of runs with random weights."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(block.note.removeprefix("like: rfbench "))
    result = CliRunner().invoke(main, words, prog_name="rfbench")
    assert ROUNDING.sub("e-", result.stdout) == ROUNDING.sub("e-", block.text)


ROUNDING = re.compile(r"[\d.]+e-\d+")


# -- configurations --------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BY_KIND["yaml"], ids=str)
def test_the_configurations_of_a_page(block: Block) -> None:
    """A part of a configuration, too: every key is known, and its value is allowed."""
    values, name = yaml.safe_load(block.text), schema_of(block)
    if name == "workflow":  # of an action: tests/test_action.py
        return
    if name == "detectron2":
        pytest.importorskip("detectron2", reason="Detectron2 is not installed: make install-det")
        from detectron2.config import CfgNode, get_cfg

        import rfbench.detect  # noqa: F401  adds keys

        get_cfg().merge_from_other_cfg(CfgNode(values))
        return
    assert name is not None
    SCHEMAS[name].model_validate_json(json.dumps(values), strict=True)


def test_a_block_that_nothing_tests_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```\nsome output\n```\n\n<!-- not run: downloads 5 GB -->\n```sh\nwget x\n```\n\n"
        "```sh\nrfbench rf audit x\n```\n\n```yaml\na: 1\n```\n\n```pycon\n>>> 1\n1\n```\n"
    )
    found = [kind(block) for block in blocks(page)]
    assert found == [None, "not run", "shell", None, "python"]
    with contextlib.suppress(click.UsageError):
        check_command(["rf", "audit", "x", "--nonsense"])
        raise AssertionError("an unknown option was taken")
