"""The versions that setup.cfg allows, and those that are pinned for the tests, agree."""

import ast
import configparser
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
NEEDED = SETUP["options"]["install_requires"], SETUP["options.extras_require"]["det"]
# installed by its own script
APART = {"rfbench", "detectron2"}


def requirements(text: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def pinned(name: str) -> dict[str, str]:
    """Name -> the only version that a file of constraints allows."""
    found = {}
    for package, requirement in requirements((ROOT / name).read_text()).items():
        (only,) = requirement.specifier
        assert only.operator == "==" and "*" not in only.version, f"{requirement} in {name}"
        found[package] = only.version
    return found


def oldest(text: str) -> dict[str, str]:
    """Name -> its lower bound in setup.cfg."""
    bounds = {}
    for package, requirement in requirements(text).items():
        lower = [each.version for each in requirement.specifier if each.operator == ">="]
        assert len(lower) == 1, f"{requirement}: no lower bound"
        bounds[package] = lower[0]
    return bounds


@pytest.mark.parametrize("text", NEEDED, ids=["install_requires", "det"])
def test_lower_bounds_are_what_the_oldest_environment_holds(text: str) -> None:
    pins = pinned("constraints-oldest.txt")
    assert oldest(text) == {package: pins.get(package) for package in requirements(text)}


@pytest.mark.parametrize("text", NEEDED, ids=["install_requires", "det"])
def test_what_make_installs_is_pinned_and_allowed(text: str) -> None:
    pins = pinned("constraints.txt")
    for package, requirement in requirements(text).items():
        assert package in pins, f"{package} is not in constraints.txt: make constraints"
        assert requirement.specifier.contains(pins[package]), f"{requirement}: {pins[package]}"


def test_every_python_that_is_allowed_has_a_ruff_target() -> None:
    """One oldest Python, in the three places that name it."""
    allowed = SpecifierSet(SETUP["options"]["python_requires"])
    assert allowed.contains("3.10.0") and not allowed.contains("3.9.99")
    assert 'target-version = "py310"' in (ROOT / "pyproject.toml").read_text()
    assert 'OLDEST_PYTHON = "3.10"' in (ROOT / "scripts/freeze_versions.py").read_text()


def imported() -> Iterator[tuple[str, str]]:
    """(top-level module, file) of every import in the package."""
    for path in (ROOT / "rfbench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], path.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0], path.name


def test_every_import_is_declared() -> None:
    """What is there only because another package needs it may be gone tomorrow."""
    declared = {name for text in NEEDED for name in requirements(text)} | APART
    packages = packages_distributions()
    undeclared = {
        f"{module} in {file}"
        for module, file in imported()
        if module not in sys.stdlib_module_names
        and not declared & {canonicalize_name(name) for name in packages.get(module, [module])}
    }
    assert not undeclared
