"""Imports point one way: every import of the package, also those inside functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rfbench"

# A module may import lower levels, its own package and packages inside that; packages of one level
# do not know each other.
# The longest name that fits counts.
LEVELS = {
    "errors": 0,
    "machine": 0,
    "class_names": 0,
    **dict.fromkeys(
        ["config_errors", "copies", "install_detectron2", "json_text", "metric_ranges", "shipped"],
        1,
    ),
    **dict.fromkeys(["manifest", "yaml_text"], 2),
    "files": 3,
    "config": 4,
    **dict.fromkeys(["models", "spatial_graph"], 5),
    **dict.fromkeys(["data", "plotting", "rf.autograd", "rf.core", "runs"], 6),
    "schemas": 7,
    "training": 8,
    **dict.fromkeys(["classify", "detect", "grid", "report", "rf", "segment"], 9),
    # a question does not import another; what they share stands in rf.core
    **{
        f"rf.questions.{path.name}": 9
        for path in sorted((PACKAGE / "rf/questions").iterdir())
        if (path / "__init__.py").exists()
    },
    "cli": 10,
}
# a library -> the one package that may import it
RESERVED = {"click": "cli", "detectron2": "detect"}
# The second opinion must not rest on what it judges.
APART = {"rfbench.rf.autograd": ("rfbench.spatial_graph", "rfbench.rf.core")}


def module_name(path: Path, package: Path = PACKAGE) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that `source` imports; `from a import b` is "a.b"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package and node.level == 1 else -1]
                parents = parents[: len(parents) - max(0, node.level - 1 - is_package)]
                origin = ".".join([*parents, *([origin] if origin else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            texts = (arg.value for arg in node.args if isinstance(arg, ast.Constant))
            yield from ((node.lineno, str(text)) for text in texts)


def unit(name: str) -> str:
    """The name in `LEVELS` that a dotted name of the package falls under; "" where none fits."""
    parts = name.split(".")[1:]
    names = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((name for name in names if name in LEVELS), "")


def faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of `source` that break the layering, one line each."""
    if module in ("rfbench", "rfbench.__main__"):  # the package's front: it may name everything
        return []
    own, found = unit(module), []
    if not own:
        return [f"{module}: has no level; give it one"]
    for line, name in imports(source, module, is_package):
        top, target = name.partition(".")[0], unit(name)
        where = f"{module}:{line}: imports {name}"
        if RESERVED.get(top, own) != own:
            found.append(f"{where}; only {RESERVED[top]} may")
        elif (
            top != "rfbench" or f"{target}.".startswith(f"{own}.") or name == "rfbench.__version__"
        ):
            continue
        elif not target:
            found.append(f"{where}; import it from where it lives")
        elif LEVELS[target] > LEVELS[own]:
            found.append(f"{where}, which is above it")
        elif LEVELS[target] == LEVELS[own]:
            found.append(f"{where}, which is beside it")
    return found


def reach(start: str, sources: dict[str, str]) -> set[str]:
    """The modules of `sources` that `start` imports, directly or through others."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        module = todo.pop()
        seen.add(module)
        for _, name in imports(sources[module], module):
            while name and name not in sources:  # a name inside a module
                name = name.rpartition(".")[0]
            if name and name not in seen:
                todo.append(name)
    return seen - {start}


def package_sources() -> dict[str, str]:
    return {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def test_imports_point_one_way() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        found += faults(path.read_text(), module_name(path), path.name == "__init__.py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", APART)
def test_the_second_opinion_stands_alone(package: str) -> None:
    sources = package_sources()
    own = [module for module in sources if module.startswith(f"{package}.")]
    assert own
    reached = set().union(*(reach(module, sources) for module in own))
    assert not [module for module in reached if module.startswith(APART[package])]


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("rfbench.models.variants", "import rfbench.rf", "above"),
        ("rfbench.models.variants", "from rfbench import spatial_graph", "beside"),
        ("rfbench.models.variants", "def f():\n    from rfbench.rf.core import g", "variants:2"),
        ("rfbench.errors", "from .config import load", "above"),
        ("rfbench.rf.core.theory", "from rfbench.rf.questions import maps", "above"),
        ("rfbench.rf.core.theory", "from rfbench.rf import autograd", "beside"),
        ("rfbench.rf.graph", "from ..report import table", "beside"),
        ("rfbench.rf.graph", "from .. import report", "beside"),
        ("rfbench.rf", "from ..classify import engine", "beside"),
        ("rfbench.data.order", "if TYPE_CHECKING:\n    import rfbench.classify", "above"),
        ("rfbench.rf.api", "import importlib\nimportlib.import_module('rfbench.cli')", "above"),
        ("rfbench.rf.api", "import click", "only cli"),
        ("rfbench.report", "from click import echo", "only cli"),
        ("rfbench.models.x", "try:\n    import detectron2.config\nexcept E: 0", "only detect"),
        ("rfbench.rf.api", "from rfbench import fix", "where it lives"),
        ("rfbench.rf.api", "import rfbench", "where it lives"),
        ("rfbench.utils", "import os", "no level"),
        ("rfbench.rf.questions.zoo.zoo", "from rfbench.rf.questions.maps import figure", "beside"),
        ("rfbench.rf.questions.zoo.zoo", "from ..audit.audit import size_of", "beside"),
        ("rfbench.rf.questions.zoo.zoo", "from rfbench.rf import api", "beside"),
    ],
)
def test_a_bad_import_is_found(module: str, source: str, fault: str) -> None:
    (found,) = faults(source, module, is_package=module == "rfbench.rf")
    assert fault in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rfbench.cli.rf", "import click\nfrom rfbench import rf, detect"),
        ("rfbench.rf.api", "from rfbench.rf import core\nfrom . import questions"),
        ("rfbench.rf.api", "from .questions.zoo import zoo"),
        (
            "rfbench.rf.questions.zoo.page",
            "from .zoo import row\nfrom rfbench.rf.core import metrics",
        ),
        ("rfbench.rf.api", "from .core import g\nfrom ..models.backbones import build"),
        ("rfbench.rf", "from .graph import g\nfrom . import record\nfrom ..models import b"),
        ("rfbench.runs.records", "from rfbench import __version__\nimport clicker"),
        ("rfbench.detect.train", "import detectron2"),
        ("rfbench", "from rfbench import rf"),
    ],
)
def test_a_good_import_is_not(module: str, source: str) -> None:
    assert faults(source, module, is_package=module == "rfbench.rf") == []


def test_what_is_imported_through_another_module_counts() -> None:
    sources = {
        "p.a": "from p.b import x",
        "p.b": "def f():\n    from p import c",
        "p.c": "import os",
        "p.d": "",
    }
    assert reach("p.a", sources) == {"p.b", "p.c"}
