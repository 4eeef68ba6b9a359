"""Imports point one way: every import of the package, also those inside functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rfbench"

# A module may import lower levels and its own package; those of one level do not know each other.
LEVELS = {
    "errors": 0,
    "config": 1,
    **dict.fromkeys(["variants", "schemas", "weight_files"], 2),
    **dict.fromkeys(["backbones", "data", "pretrained", "processes", "progress", "results"], 3),
    "webpage": 3,
    "checkpoint": 4,
    **dict.fromkeys(["classify", "detect", "report", "rf"], 5),
    "cli": 6,
}
# a library -> the one package that may import it
RESERVED = {"click": "cli", "detectron2": "detect"}
# The second opinion must not rest on what it judges.
APART = {
    "rfbench.rf.autograd": (
        "rfbench.rf.spatial.recorder",
        "rfbench.rf.spatial.graph",
        "rfbench.rf.paths",
    )
}


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


def faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """The imports of `source` that break the layering, one line each."""
    found = []
    own = module.split(".")[1] if "." in module else ""
    if own in ("", "__main__"):  # the package's front: it may name everything
        return []
    if own not in LEVELS:
        return [f"{module}: has no level; give it one"]
    for line, name in imports(source, module, is_package):
        top, _, rest = name.partition(".")
        target = rest.split(".")[0]
        where = f"{module}:{line}: imports {name}"
        if RESERVED.get(top, own) != own:
            found.append(f"{where}; only {RESERVED[top]} may")
        elif top != "rfbench" or target in (own, "__version__"):
            continue
        elif target not in LEVELS:
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


@pytest.mark.parametrize("module", APART)
def test_the_second_opinion_stands_alone(module: str) -> None:
    sources = package_sources()
    assert module in sources
    assert not reach(module, sources) & set(APART[module])


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("rfbench.variants", "import rfbench.rf", "above"),
        ("rfbench.variants", "from rfbench import schemas", "beside"),
        ("rfbench.variants", "def f():\n    from rfbench.rf.graph import g", "variants:2"),
        ("rfbench.errors", "from .config import load", "above"),
        ("rfbench.rf.graph", "from ..report import table", "beside"),
        ("rfbench.rf.graph", "from .. import report", "beside"),
        ("rfbench.rf", "from ..classify import engine", "beside"),
        ("rfbench.data.order", "if TYPE_CHECKING:\n    import rfbench.classify", "above"),
        ("rfbench.rf.zoo", "import importlib\nimportlib.import_module('rfbench.cli')", "above"),
        ("rfbench.rf.zoo", "import click", "only cli"),
        ("rfbench.report", "from click import echo", "only cli"),
        ("rfbench.backbones", "try:\n    import detectron2.config\nexcept E: 0", "only detect"),
        ("rfbench.rf.zoo", "from rfbench import fix", "where it lives"),
        ("rfbench.rf.zoo", "import rfbench", "where it lives"),
        ("rfbench.utils", "import os", "no level"),
    ],
)
def test_a_bad_import_is_found(module: str, source: str, fault: str) -> None:
    (found,) = faults(source, module, is_package=module == "rfbench.rf")
    assert fault in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rfbench.cli.rf", "import click\nfrom rfbench import rf, detect"),
        ("rfbench.rf.paths", "from rfbench.rf import graph\nfrom . import recorder"),
        ("rfbench.rf.paths", "from .graph import g\nfrom ..backbones import build"),
        ("rfbench.rf", "from .graph import g\nfrom . import record\nfrom ..backbones import b"),
        ("rfbench.results", "from rfbench import __version__\nimport clicker"),
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
