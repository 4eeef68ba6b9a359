"""Shared by the training commands."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rfbench.cli import out

if TYPE_CHECKING:
    from pydantic import BaseModel

Config = TypeVar("Config", bound="BaseModel")


def is_first() -> bool:
    """Whether this is the process that prints, if there are several."""
    return os.environ.get("RANK", "0") == "0"


def wait_passively() -> None:
    """Call before torch is imported: OpenMP threads that spin while they wait can make a small
    machine ten times slower. Ties the process to its launcher, too.
    """
    from rfbench.runs.launcher import end_with_launcher

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    end_with_launcher()


def load_config(
    schema: type[Config],
    path: str | None,
    demo: str,
    override: Sequence[str],
    device: str | None,
) -> Config:
    """The configuration, without `path` the embedded demo's; only one process shows its errors."""
    from rfbench.config import load
    from rfbench.errors import FailedElsewhere, UsageError

    given = [f"device={json.dumps(device)}"] if device else []
    try:
        return load(schema, path or demo, [*override, *given])
    except UsageError as error:
        if is_first():
            raise
        raise FailedElsewhere(error.exit_code) from None


def check_folder(
    folder: Path, config: Any, resume: bool, overwrite: bool, format: str | None = None
) -> None:
    """Raise what a run writing to `folder` would raise, without changing anything."""
    from rfbench.runs import folder as folders

    begun, kind = resume and folders.begun(folder), [format] if format else []
    folders.look(folder, config, begun, *kind)
    folders.check(folder, resume, overwrite)


def show_result(
    result: dict[str, Any],
    text: Callable[[dict[str, Any]], str],
    as_json: bool,
    folder: Path,
    files: Sequence[str] = (),
) -> None:
    """Print a record or an evaluation as text or JSON, and on stderr the files written.

    Raises RfbenchError for a record, of a finished run, that lacks what is to be shown.
    """
    from rfbench.errors import RfbenchError, one_line

    if not is_first():
        return
    try:
        shown = "" if as_json else text(result)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = one_line(f"{type(error).__name__}: {error}")
        raise RfbenchError(f"{folder / 'result.json'} is damaged: {what}") from error
    out.show_json(result) if as_json else out.show(shown)
    if files:
        out.note(f"wrote {', '.join(str(folder / name) for name in files)}")
