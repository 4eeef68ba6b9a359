"""Writing files: to a checked folder, through a temporary file, so that each is complete."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rfbench.errors import UsageError


def check_folder(folder: Path, overwrite: bool) -> None:
    """Check that a run can write to its folder, without changing anything.

    Raises UsageError if it is not empty and `overwrite` is not set, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Choose another folder with --output.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise UsageError(
            f"{folder} exists already. Choose another --output, or replace it with --overwrite."
        )
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another --output."
        ) from None


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it if the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file through a temporary one."""
    with aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def default_folder(*parts: str) -> Path:
    """results/<parts>, with characters that paths cannot hold replaced."""
    name = "-".join("".join(c if c.isalnum() or c in "._+" else "-" for c in p) for p in parts)
    return Path("results") / name.strip("-.")
