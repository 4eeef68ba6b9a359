"""Configurations that no run can use: answered at once, one line a problem."""

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rfbench.cli import main
from rfbench.config import load
from rfbench.errors import UsageError, suggest
from rfbench.schemas.cls import ClsConfig

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


def run(*args: str) -> Result:
    return CliRunner().invoke(main, [*args])


def refused(result: Result, *words: str, lines: int = 1) -> None:
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 2, (result.stdout, result.stderr)
    assert 1 <= len(errors) <= lines, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert "internal error" not in result.stderr and len(result.stderr) < 20_000


FILES = {
    "billion laughs": (LAUGHS, "more than 20,000 values, aliases expanded"),
    "laughs in mappings": (
        "a: &a {k: x}\n" + "".join(f"{c}: &{c} {{p: *{b}, q: *{b}}}\n" for b, c in zip(
            ["a", *(f"n{i}" for i in range(40))], (f"n{i}" for i in range(41)), strict=True
        )),
        "aliases expanded",
    ),
    "a cycle": ("model: &m [*m]\n", "not valid YAML"),
    "deep": ("model: " + "[" * 5000 + "]" * 5000, "not valid YAML"),
    "unknown keys": ("".join(f"key{i}: 1\n" for i in range(5_000)), "and more"),
    "near keys": ("".join(f"{'sched' * 30}{i}: 1\n" for i in range(1_000)), "and more"),
    "large": ("model: " + "x" * (1 << 20), "larger than 256 KB"),
    "a long number": ("seed: " + "9" * 4_000, "digits"),
    "a longer one": ("seed: " + "9" * 20_000, "not valid YAML"),
    "NUL": (b"model: a\0b\n", "not valid YAML"),
    "a NUL of YAML": ('model: "a\\0b"\n', "holds a NUL byte"),
    "bytes": (b"\xff\xfe\xfd", "not valid YAML: not text of UTF-16-LE"),
    "another encoding": (
        "# gr\xfcn\nseed: 1\nmodel: gr\xfcn\n".encode("latin-1"), "not text of UTF-8 (line 1)"
    ),
    "a control character": (b"seed: 1\nmodel: a\x07b\n", "U+0007 is not allowed (line 2)"),
    "half a character": ('model: "a\\uDC80b"\n', "holds bytes that are not UTF-8; rename"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_answered_within_seconds(tmp_path: Path, name: str) -> None:
    text, word = FILES[name]
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.process_time()
    with pytest.raises(UsageError) as error:
        load(ClsConfig, str(path))
    assert time.process_time() - began < 10
    assert any(word in line for line in error.value.args)
    assert len(error.value.args) <= 52 and max(map(len, error.value.args)) < 1000


def test_aliases_within_reason_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("optim: {lr: &r 0.5, weight_decay: *r}\n")
    assert load(ClsConfig, str(path)).optim.weight_decay == 0.5


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("seed=9223372036854775808", "digits is too large"),
        ("seed=4294967296", "'seed': must be less than or equal to 4294967295"),
        ("optim.betas=[2, 3]", "'optim.betas[0]': must be less than 1"),
        ("checkpoint.keep=99999999999", "'checkpoint.keep': must be less than or equal to 99"),
        ("threads=1000000", "'threads': must be less than or equal to 1024"),
        ("data.workers=1000000", "'data.workers': must be less than or equal to 1024"),
        (f"schedule.epochs={'9' * 4000}", "digits"),
        ("variant={kernels: [], pool: avg}", "kernels is empty"),
        ('model="a\\0b"', "holds a NUL byte"),
        ('data.root="a\\0b"', "holds a NUL byte"),
        ("optim.lr=.nan", "finite"),
        ("data.crop_ratio=1e-320", "'data.crop_ratio': must be greater than or equal to 0.1"),
        ("data.mixup=1e-320", "'data.mixup': must be greater than or equal to 0.001"),
        ("data.cutmix=1e-320", "'data.cutmix': must be greater than or equal to 0.001"),
        ("data.root=da\udcffta", "'data.root': not valid YAML: it holds bytes that are not UTF-8"),
    ],
)
@pytest.mark.parametrize("how", ["--dry-run", "--resume"])
def test_an_override_is_one_line(tmp_path: Path, override: str, word: str, how: str) -> None:
    result = run("train-cls", "--output", str(tmp_path / "x"), how, "-o", override)
    refused(result, word, lines=2)


@pytest.mark.parametrize(
    "args",
    [
        ("visualize-rf", "-o", "model=[]"),
        ("visualize-rf", "resnet18", "-o", "variants=[]"),
        ("visualize-rf", "resnet18", "-o", "variants=[{kernels: [], pool: avg}]"),
        ("visualize-rf", "resnet18", "--size", "9" * 5000),
        ("visualize-rf", "resnet18", "--size", "²"),
        ("visualize-rf", "resnet18", "--unit", "9" * 30 + ",1"),
        ("visualize-rf", "a\0b"),
        ("visualize-rf", "n\udcff.py:net"),
        ("train-cls", "a\0b.yaml"),
        ("rf", "audit", "-o", "model=[]", "--fail-on", "shift>1"),
        ("rf", "audit", "resnet18", "--dry-run", "--fail-on", "shift>1"),
        ("rf", "audit", "resnet18", "--list-layers", "--fail-on", "shift>1"),
    ],
    ids=lambda args: " ".join(args)[:40].replace("\0", "NUL"),
)
def test_a_command_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(*args))


@pytest.mark.parametrize("role", ["config", "base"])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_regular_file_is_named_at_once(tmp_path: Path, role: str, kind: str) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "pipe.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    (tmp_path / "x.yaml").write_text(f"base: {path}\n")
    given = path if role == "config" else tmp_path / "x.yaml"
    refused(run("train-cls", str(given), "--dry-run"), f"it is a {kind.replace('fifo', 'FIFO')}")


def test_the_search_for_near_names_is_bounded() -> None:
    began = time.process_time()
    assert suggest("resnet5O", [f"name{i}" for i in range(200_000)] + ["resnet50"]) == ""
    assert suggest("x" * 10**6, ["x" * 10**6, "y"]) == ""
    assert time.process_time() - began < 5
    assert suggest("resnet5O", ["resnet50"]) == " Did you mean: resnet50?"


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nError: forged", "a\u202eb", "\udcff"])
def test_names_are_shown_without_control_characters(tmp_path: Path, name: str) -> None:
    for args in (("visualize-rf", name), ("train-cls", "--dry-run", "-o", f"variant={name!r}")):
        result = run(*args)
        text = result.stdout + result.stderr
        assert result.exit_code == 2
        assert not any(c in text for c in ("\x1b", "\u202e", "\udcff"))
        assert not any(line.startswith("Error: forged") for line in text.splitlines())
