"""Shared by the training commands."""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rfbench.cli import out

if TYPE_CHECKING:
    from pydantic import BaseModel

logger = logging.getLogger(__name__)
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
        config = load(schema, path or demo, [*override, *given])
    except UsageError as error:
        if is_first():
            raise _of_another_kind(schema, path) or error from None
        raise FailedElsewhere(error.exit_code) from None
    if path and is_first():
        _tell_changed(Path(path))
    return config


def _tell_changed(path: Path) -> None:
    """Log that a run's config.yaml is not what it wrote: edited, or cut off where that is YAML."""
    from rfbench import manifest
    from rfbench.errors import RfbenchError

    with contextlib.suppress(OSError, RfbenchError):  # of a damaged manifest a run tells
        held = manifest.read(path.parent) if path.name == manifest.EDITED else None
        if held and path.name in held.files and not held.owns(path.name):
            logger.warning("%s is not as the run in its folder has written it", path)


COMMANDS = {"cls": "train-cls", "seg": "train-seg", "det": "train-det", "rf": "visualize-rf"}


def _of_another_kind(schema: type["BaseModel"], path: str | None) -> Exception | None:
    """The error for a file of another command, of which nearly every key would be wrong."""
    from rfbench.config import load
    from rfbench.errors import UsageError
    from rfbench.schemas.kinds import SCHEMAS

    if path is None:
        return None
    with contextlib.suppress(UsageError):
        load(schema, path)
        return None  # the file is right, what overrides it is not
    others = {k: one for k, one in SCHEMAS.items() if one is not schema}
    for kind, other in others.items():
        with contextlib.suppress(UsageError):
            load(other, path)
            command = COMMANDS.get(kind, kind)
            return UsageError(f"{path} is a configuration of `rfbench {command}`.")
    return None


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
    from rfbench.errors import ODD, RfbenchError, of_content

    if not is_first():
        return
    try:
        shown = "" if as_json else text(result)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = of_content(error) if isinstance(error, LookupError) else ODD
        raise RfbenchError(
            f"{folder / 'result.json'} is damaged: {what}. Bring back a copy, or "
            "repeat the run with --overwrite."
        ) from error
    out.show_json(result) if as_json else out.show(shown)
    if files:
        out.note(f"wrote {', '.join(str(folder / name) for name in files)}")
