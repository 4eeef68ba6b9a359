"""The notebooks of the documentation run, and show what they say."""

import ast
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
# seconds of training, which ends a little differently on every version of torch
TRAINED = "fix_and_fine_tune"


def run(code: str, names: dict[str, Any]) -> tuple[str, Any]:
    """What a cell prints, and its last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(ast.unparse(last), names)
    return printed.getvalue(), value


def outputs(printed: str, value: Any) -> list[dict[str, Any]]:
    """What a notebook holds of a cell that ran."""
    held: list[dict[str, Any]] = []
    if printed:
        lines = printed.splitlines(keepends=True)
        held.append({"name": "stdout", "output_type": "stream", "text": lines})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": value._repr_html_().splitlines(keepends=True), **data}
        result = {"execution_count": None, "metadata": {}, "output_type": "execute_result"}
        held.append({"data": data, **result})
    return held


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_outputs_are_what_it_shows(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    notebook = json.loads(path.read_text())
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert len(cells) >= 6
    for cell in cells:
        printed, value = run("".join(cell["source"]), names)
        if overwrite:
            cell["outputs"] = outputs(printed, value)
        shown = {output["output_type"]: output for output in cell["outputs"]}
        assert bool(printed) == ("stream" in shown)
        if path.stem != TRAINED and "execute_result" in shown:
            text = "".join(shown["execute_result"]["data"]["text/plain"])
            # differences that rounding leaves
            assert re.sub(r"\d\.\de-\d+", "", repr(value)) == re.sub(r"\d\.\de-\d+", "", text)
    if overwrite:
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    if path.stem == TRAINED:
        assert names["changed"] < names["estimated"] < names["tuned"]
        assert names["tuned"] > names["trained"] - 2
    assert not list(tmp_path.iterdir())
