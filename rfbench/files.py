"""Files: the one place that writes them, and that opens those of others.

A file is complete or not there: it is written aside and renamed. Within a folder that a run has
opened, each is listed in the folder's manifest before it is written, links are never followed, and
what the run did not write is never replaced.
"""

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rfbench import manifest
from rfbench.errors import RfbenchError, UsageError
from rfbench.manifest import Manifest

READER_SECONDS = 3.0  # how long a FIFO waits to be read: a shell starts both ends at once

# --- reading ------------------------------------------------------------------------------------


def kind_of(mode: int) -> str:
    """What a file's mode says, in words; "" for a regular file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "")


def check_regular(path: str | Path) -> None:
    """Raise OSError for what is there but no regular file: opening a FIFO would wait for ever."""
    _refuse_kind(os.stat(path).st_mode, path)


def _refuse_kind(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind := kind_of(mode):
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """The bytes of a regular file; OSError as `check_regular`, and for more than `most` bytes."""
    check_regular(path)
    with open(path, "rb", opener=_without_waiting) as file:
        _refuse_kind(os.fstat(file.fileno()).st_mode, path)  # it may have been replaced since
        if most is not None and os.fstat(file.fileno()).st_size > most:
            size = f"{most >> 20} MB" if most >> 20 else f"{most >> 10} KB"
            raise OSError(errno.EFBIG, f"it is larger than {size}", str(path))
        return file.read()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# --- the folder of a run ------------------------------------------------------------------------

_opened: dict[str, Manifest] = {}  # by real path


def check_folder(folder: Path, overwrite: bool) -> None:
    """Check that a run can write to its folder, without changing anything.

    Raises UsageError if it is not empty and `overwrite` is not set; if it holds what no run has
    listed; or if it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file. Choose another folder with --output.")
    if not folder.exists() and folder.is_symlink():
        raise UsageError(f"{folder} is a link to {os.readlink(folder)}, which does not exist.")
    if folder.is_dir() and manifest.others(folder):
        if not overwrite:
            raise UsageError(
                f"{folder} exists already. Choose another --output, or replace it with --overwrite."
            )
        manifest.check_replaceable(folder)
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Raise UsageError if nothing can be written into a folder, there or yet to be made."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another --output."
        ) from None


def open_folder(folder: Path, keep: bool = False) -> None:
    """Make the folder of a run and write its manifest, the first file in it.

    What an earlier run listed there is removed, unless `keep`. From now on everything that this
    module writes below the folder is listed.
    """
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        held = manifest.read(folder)
        if held and not keep:
            held.remove()
            held = None
        held = held or Manifest(Path(os.path.realpath(folder)))
        held.tidy()
        held.write()
        _opened[os.path.realpath(folder)] = held


def claim(path: Path, made: bool = False) -> None:
    """List a file in its folder's manifest, before it is written; no effect elsewhere.

    made: it has just been made by a library. Raises RfbenchError if it is a link, lies behind one,
    or is there and not the run's own.
    """
    held, name = _manifest_of(path)
    if held:
        held.claim(name, made)


@contextlib.contextmanager
def claiming(folder: Path) -> Iterator[None]:
    """A context in which a library makes new files in a folder; they are listed when it ends."""
    if folder.is_symlink():
        raise RfbenchError(f"{folder} is a link: a run does not write through it. Remove it.")
    before = set(folder.iterdir()) if folder.is_dir() else set()
    yield
    for path in sorted(set(folder.iterdir()) - before):
        claim(path, made=True)


def listed(path: Path) -> bool:
    """Whether the manifest of a file's folder lists it, with the content that it has now."""
    held, name = _manifest_of(path)
    return held is not None and held.owns(name)


def _manifest_of(path: Path) -> tuple[Manifest | None, str]:
    """The manifest of the opened folder that a path lies in, and its name there."""
    absolute = Path(os.path.abspath(path))
    for parent in absolute.parents:
        if held := _opened.get(os.path.realpath(parent)):
            return held, absolute.relative_to(parent).as_posix()
    return None, ""


# --- writing ------------------------------------------------------------------------------------

# descriptors that lead elsewhere for a while -> where they are kept; see `cli.out`
streams: dict[int, int] = {}


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """A context in which an OSError becomes one line that names `path`."""
    try:
        yield
    except BrokenPipeError:  # of a reader of stdout, such as `head`
        raise
    except OSError as error:
        raise RfbenchError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it if the block ends without an error.

    A link is followed to its target, but not within the folder of a run. What is there and no
    regular file (/dev/stdout) is never replaced: the content is written into it. A file of a run
    is replaced by that run alone: for any other, RfbenchError.
    """
    with naming(path):
        claim(path)
        target = path if _manifest_of(path)[0] else _target(path)
        if target and not _manifest_of(path)[0]:
            manifest.refuse_owned(target)
        if target is None or (target.exists() and kind_of(target.stat().st_mode)):
            with tempfile.TemporaryDirectory() as folder:
                temporary = Path(folder, f"content{path.suffix}")
                yield temporary
                _pour(temporary, path)
            return
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp{target.suffix}")
        try:
            yield temporary
            _keep_mode(temporary, target)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def _target(path: Path) -> Path | None:
    """What a link leads to, or `path`; None for an open file such as /dev/stdout."""
    if _descriptor(path) is not None:
        return None
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if not target.exists():
        raise OSError(errno.ENOENT, f"it is a link to {target}, which does not exist")
    return target


def _descriptor(path: Path) -> int | None:
    """The number of the open file that a name such as /dev/stdout or /dev/fd/3 stands for."""
    text = str(path)
    named = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
    numbered = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)", text)
    number = int(numbered[1]) if numbered else named.get(text)
    return None if number is None else streams.get(number, number)


def _pour(content: Path, path: Path) -> None:
    """Write a file's bytes into what is no regular file."""
    number = _descriptor(path)
    if number is None:
        if kind_of(path.stat().st_mode) == "a folder":
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        target = _open_for_writing(path)
    else:
        target = os.dup(number)  # opening it anew would cut a file that stdout goes to
    with os.fdopen(target, "wb") as file:
        file.write(content.read_bytes())


def _open_for_writing(path: Path) -> int:
    """The descriptor of a device or FIFO; OSError for a FIFO that nobody comes to read."""
    patience = time.monotonic() + READER_SECONDS
    while True:
        try:
            target = _without_waiting(str(path), os.O_WRONLY)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > patience:
                what = kind_of(path.stat().st_mode)
                raise OSError(errno.ENXIO, f"it is {what}, and nobody reads from it") from None
            time.sleep(0.05)
        else:
            os.set_blocking(target, True)
            return target


def _keep_mode(temporary: Path, target: Path) -> None:
    """Give a replacing file the permissions of the replaced; OSError where they forbid it."""
    if target.exists():
        if not os.access(target, os.W_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        shutil.copymode(target, temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file through a temporary one, to the disk."""
    held, name = _manifest_of(path)
    if held:
        held.claim(name, content=text)
    with aside(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file through a temporary one."""
    with aside(path) as temporary:
        temporary.write_bytes(content)


def append(path: Path, mode: str = "a") -> IO[Any]:
    """A regular file opened at its end, for text ("a") or bytes ("ab"); links are not followed."""
    with naming(path):
        claim(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        if path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link")
        number = os.open(path, flags, 0o666)
        if kind := kind_of(os.fstat(number).st_mode):
            os.close(number)
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file")
        return open(number, mode, encoding=None if "b" in mode else "utf-8")


def default_folder(*parts: str) -> Path:
    """results/<parts>, with characters that paths cannot hold replaced."""
    name = "-".join("".join(c if c.isalnum() or c in "._+" else "-" for c in p) for p in parts)
    return Path("results") / name.strip("-.")[:200]
