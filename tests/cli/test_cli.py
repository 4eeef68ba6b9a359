"""The frame of the command line: cheap help, one line a failure, exit codes."""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import rfbench
from rfbench.cli import CommandGroup, main
from rfbench.errors import RfbenchError, UsageError

ROOT = Path(__file__).parents[2]


def python(
    *args: str, stdout: int = subprocess.PIPE, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in its own process, where nothing has been imported yet."""
    return subprocess.run(
        [sys.executable, *args],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
        timeout=60,
    )


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def commands(
    command: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below `command`, groups included, with its path."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))


PATHS = [path for path, _ in commands()]


def test_help_and_version_import_nothing_heavy() -> None:
    code = f"""
import sys
from rfbench.cli import main
for path in {[*PATHS]!r}:
    try:
        main([*path, "--help"])
    except SystemExit as end:
        assert end.code == 0, path
try:
    main(["--version"])
except SystemExit as end:
    assert end.code == 0
heavy = {{"torch", "torchvision", "timm", "matplotlib", "numpy", "scipy", "pydantic", "yaml"}}
print("heavy:", sorted(heavy & set(sys.modules)))
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_the_library_is_imported_at_first_use() -> None:
    code = """
import sys, rfbench
assert {"fix", "rf"} <= set(dir(rfbench))
assert "torch" not in sys.modules
from rfbench.models.variants import fix
assert rfbench.fix is fix
assert rfbench.rf.__name__ == "rfbench.rf"
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'fixx'"):
        _ = rfbench.fixx  # type: ignore[attr-defined]


def test_help_on_the_python_functions_lists_them() -> None:
    import pydoc

    from rfbench import rf

    text = pydoc.plain(pydoc.render_doc(rf))
    assert {"audit", "record", "visualize"} <= set(rf.__all__)
    for name in rf.__all__:
        assert f"    {name}(" in text


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"rfbench, version {rfbench.__version__}\n"


def test_python_m_rfbench() -> None:
    done = python("-m", "rfbench", "--help")
    assert done.returncode == 0
    assert "visualize-rf" in done.stdout


@pytest.mark.parametrize(("path", "command"), [*commands()], ids=lambda value: str(value)[:40])
def test_every_command_option_and_argument_has_help(
    path: tuple[str, ...], command: click.Command
) -> None:
    assert command.help, f"rfbench {' '.join(path)}: no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"rfbench {' '.join(path)}: {parameter.name} has no help"
        else:
            assert parameter.human_readable_name in command.help


def test_no_summary_of_a_command_is_cut_off_in_eighty_columns() -> None:
    for path, command in commands():
        if isinstance(command, click.Group):
            text = CliRunner().invoke(main, [*path, "--help"], terminal_width=80).stdout
            assert "..." not in text.partition("Commands:")[2], text


def test_an_option_is_of_one_kind_in_every_command() -> None:
    kinds: dict[str, set] = {}
    for path, command in commands():
        for option in command.params:
            if isinstance(option, click.Option):
                # several layers are panels of one figure in rf effective alone
                several = option.multiple and (path[-1], option.name) != ("effective", "to")
                kind = (option.name, type(option.type), several, option.is_flag)
                kinds.setdefault(option.opts[-1], set()).add(kind)
        if command.callback:
            parameters = inspect.signature(command.callback).parameters.values()
            assert all(p.kind is not p.VAR_KEYWORD for p in parameters), path
    assert not {name: found for name, found in kinds.items() if len(found) > 1}


def test_rf_map_is_visualize_rf() -> None:
    found = dict(commands())
    assert found["rf", "map"] is found["visualize-rf",]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["visualise-rf"], "No such command 'visualise-rf'. Did you mean: visualize-rf?"),
        (["rf", "mapp"], "No such command 'mapp'. Did you mean: map?"),
        (["audit"], "No such command 'audit'. Did you mean: rf audit?"),
        (["zzz"], "No such command 'zzz'."),
        (["--versoin"], "No such option"),
        (["schema", "rff"], "unknown kind of configuration 'rff'. Did you mean: rf?"),
    ],
)
def test_bad_usage_is_2_and_names_the_nearest(args: list[str], message: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


# --- failures, by commands put in for the purpose -----------------------------------------------

FAILURES = {
    "usage": UsageError("a.yaml: unknown key 'a'", "a.yaml: unknown key 'b'"),
    "failed": RfbenchError("no weights at x.pth"),
    "interrupt": KeyboardInterrupt(),
    "disk": OSError(28, "No space left on device", "x.pth"),
    "memory": MemoryError("Unable to allocate 24.5 GiB for an array"),
    "torch's memory": RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."
    ),
    "bug": TypeError("first line\nsecond line"),
    "silent": NotImplementedError(),
    "click": click.ClickException("click's own"),
}


LESS = ". A smaller input or batch needs less, and so does an earlier layer\n"


@pytest.fixture
def failing() -> CommandGroup:
    """A group in a group, with a command for each of FAILURES and one that is good."""
    inner = CommandGroup("inner")
    for name, failure in FAILURES.items():

        @inner.command(name)
        def fail(failure: BaseException = failure) -> None:
            raise failure

    inner.command("good")(lambda: click.echo("result"))
    outer = CommandGroup("outer")
    outer.add_command(inner)
    return outer


@pytest.mark.parametrize(
    ("name", "code", "stderr"),
    [
        ("good", 0, ""),
        ("usage", 2, "Error: a.yaml: unknown key 'a'\nError: a.yaml: unknown key 'b'\n"),
        ("failed", 1, "Error: no weights at x.pth\n"),
        ("interrupt", 130, "Interrupted.\n"),
        ("disk", 1, "Error: [Errno 28] No space left on device: 'x.pth'\n"),
        *(
            (
                name,
                1,
                f"Error: there is too little memory: {FAILURES[name]}{LESS}".replace("..", "."),
            )
            for name in ("memory", "torch's memory")
        ),
        (
            "bug",
            1,
            "Error: internal error: TypeError: first line second line "
            "(this is a bug; run with RFBENCH_TRACEBACK=1 for the traceback)\n",
        ),
        (
            "silent",
            1,
            "Error: internal error: NotImplementedError "
            "(this is a bug; run with RFBENCH_TRACEBACK=1 for the traceback)\n",
        ),
        ("click", 1, "Error: click's own\n"),
    ],
)
def test_failures(failing: CommandGroup, name: str, code: int, stderr: str) -> None:
    result = CliRunner().invoke(failing, ["inner", name])
    assert (result.exit_code, result.stderr) == (code, stderr)
    assert result.stdout == ("result\n" if name == "good" else "")


def test_the_traceback_on_demand(failing: CommandGroup) -> None:
    result = CliRunner().invoke(failing, ["inner", "bug"], env={"RFBENCH_TRACEBACK": "1"})
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert "in fail\n    raise failure" in result.stderr
    assert result.stderr.count("Error: internal error: TypeError") == 1


def test_a_reader_that_went_away() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = python("-m", "rfbench", "schema", "rf", stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("rfbench vis", ["plain,visualize-rf"]),
        ("rfbench rf ma", ["plain,map"]),
        ("rfbench visualize-rf x --engine a", ["plain,autograd"]),
        ("rfbench nothing x", []),
    ],
)
def test_shell_completion(words: str, found: list[str]) -> None:
    done = python(
        "-c",
        "from rfbench.cli import main; main(prog_name='rfbench')",
        _RFBENCH_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )
    assert (done.stdout.split(), done.stderr) == (found, "")


@pytest.mark.parametrize(
    "args",
    [
        ["train-cls", "--eval-only", ""],
        ["train-cls", "--eval-only="],
        ["compare", ""],
        ["grid", "x.yaml", "--output", ""],
        ["rf", "map", "resnet18", "--weights", ""],
    ],
)
def test_an_empty_argument_is_a_variable_that_is_not_set(args: list[str]) -> None:
    """An empty --eval-only would train, an empty folder be the one that one is in."""
    result = CliRunner().invoke(main, args)
    assert (result.exit_code, "an argument is empty" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("module", "args"),
    [
        ("click", ["configs"]),
        ("rfbench.cli.out", ["configs"]),
        ("rfbench.cli.configs", ["configs"]),
        ("numpy._core.einsumfunc", ["rf", "mirror", "resnet18"]),  # torch would go on without it
    ],
)
def test_an_interrupt_while_modules_are_imported_is_one_line(module: str, args: list[str]) -> None:
    code = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            sys.meta_path.remove(self)\n"  # once
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        f"sys.argv = ['rfbench', *{args!r}]\n"
        "from rfbench.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_registration_of_a_network_tells_what_measures_it() -> None:
    # without Detectron2 too: to install it would not help
    result = CliRunner().invoke(main, ["rf", "registration", "mypkg.nets:yolo"])
    assert result.exit_code == 2 and "rf audit mypkg.nets:yolo --to LAYER" in result.stderr
