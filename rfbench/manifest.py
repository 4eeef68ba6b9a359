"""The manifest of a run's folder: the files that a run of ours has written there, and no others.

It is written before any of them, so that a kill leaves none that is not listed. Only what it lists
is ever replaced or removed.
"""

import contextlib
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rfbench import json_text
from rfbench.errors import RfbenchError, UsageError

NAME = ".rfbench.json"
FORMAT = "rfbench-folder/1"
LOCK = ".lock"
TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp(\.[^.]*)?")  # of `files.aside`, and `write`
EDITED = "config.yaml"  # the file that people edit: replaced only as the run wrote it
# checkpoints are written by a thread of their own
_CLAIMING = threading.Lock()


@dataclass
class Manifest:
    """The files of a run by name relative to its folder.

    files: of a file that people edit, the digests of what was written last; of others, none.
    """

    folder: Path
    files: dict[str, list[str]] = field(default_factory=dict)

    def claim(self, name: str, made: bool = False, content: str | None = None) -> None:
        """List a file before it is written; RfbenchError if it is not the run's to write."""
        if name == LOCK:
            return
        with _CLAIMING:
            self._claim(name, made, content)

    def _claim(self, name: str, made: bool, content: str | None) -> None:
        _refuse_links(self.folder, name)
        if name not in self.files and not made and os.path.lexists(self.folder / name):
            raise RfbenchError(
                f"{self.folder / name} was not written by this run: it is not replaced"
            )
        known = self.files.get(name)
        digests = list(known or [])
        if (
            content is not None
            and name == EDITED
            and (digest := _digest(content.encode())) not in digests
        ):
            digests = [*digests[-3:], digest]  # a kill may leave the one before
        if known != digests:
            self.files[name] = digests
            self.write()

    def owns(self, name: str) -> bool:
        """Whether a file is listed and, if people edit it, is as the run wrote it."""
        path = self.folder / name
        if name not in self.files or path.is_symlink():
            return False
        digests = self.files[name]
        return not digests or not path.exists() or _digest(path.read_bytes()) in digests

    def covers(self, names: Iterable[str]) -> bool:
        """Whether these files and folders of the run's folder are listed, or hold what is."""
        tops = {Path(name).parts[0] for name in self.files}
        return tops.issuperset(names)

    def write(self) -> None:
        """Write the manifest, aside and renamed."""
        content = {"format": FORMAT, "files": self.files}
        temporary = self.folder / f"{NAME}.{os.getpid()}.tmp"
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()  # of a killed process, or a link
        try:
            with open(temporary, "x", encoding="utf-8") as file:
                file.write(json_text.dumps(content, indent=1) + "\n")
            os.replace(temporary, self.folder / NAME)
        except OSError as error:  # of a full disk it names no file
            path = self.folder / NAME
            raise RfbenchError(f"cannot write {path}: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove the temporary files that a killed process has left of listed files."""
        for name in os.listdir(self.folder):
            match = TEMPORARY.fullmatch(name)
            if match and match["name"] in {*self.files, NAME.removeprefix(".")}:
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()

    def remove(self) -> None:
        """Remove the listed files, links themselves and not what they lead to."""
        for name in self.files:
            path = self.folder / name
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                if _behind_link(self.folder, name) is None and not stat.S_ISDIR(
                    os.lstat(path).st_mode
                ):
                    path.unlink()
        self.tidy()
        for below in {parent for name in self.files for parent in Path(name).parents}:
            if below != Path("."):
                with contextlib.suppress(OSError):  # not empty, or gone
                    (self.folder / below).rmdir()


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if there is none. RfbenchError for one that is damaged."""
    path = folder / NAME
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(mode):
        raise RfbenchError(f"{path} is not a regular file")
    content = json_text.parse(path.read_bytes(), str(path))
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or content.get("format") != FORMAT:
        raise RfbenchError(f"{path} is damaged: it is not the list of a run's files")
    for name, digests in files.items():
        parts = Path(name).parts
        inside = parts and ".." not in parts and not os.path.isabs(name) and "\0" not in name
        if not inside or not isinstance(digests, list):
            raise RfbenchError(f"{path} is damaged: it lists {name!r}")
    return Manifest(Path(os.path.realpath(folder)), files)


def others(folder: Path) -> list[str]:
    """The names in a folder besides manifest, lock and temporary files of a killed process."""
    names = set(os.listdir(folder)) - {NAME, LOCK}
    return sorted(name for name in names if not TEMPORARY.fullmatch(name))


def refuse_owned(path: Path) -> None:
    """Raise RfbenchError for a file that a run of ours has listed in its folder."""
    held = read(path.parent)
    if held and (path.name == NAME or path.name in held.files):
        raise RfbenchError(f"{path} is of the run in its folder: it is not replaced")


def check_replaceable(folder: Path) -> None:
    """Raise UsageError unless a run has listed its files in the folder; see `remove`."""
    held = read(folder)
    if held is None:
        raise UsageError(
            f"{folder} holds files and no list of a run's own ({NAME}): nothing in it is replaced. "
            "Empty it yourself, or choose another --output."
        )
    edited = folder / EDITED
    if os.path.lexists(edited) and not held.owns(EDITED):
        raise UsageError(
            f"{edited} is not as a run wrote it: it is not replaced. Move it away, or choose "
            "another --output."
        )


def _behind_link(folder: Path, name: str) -> Path | None:
    """The first folder between a run's folder and a file that is a link."""
    for parent in reversed(Path(name).parents):
        if parent != Path(".") and (folder / parent).is_symlink():
            return folder / parent
    return None


def _refuse_links(folder: Path, name: str) -> None:
    link = _behind_link(folder, name)
    if link is None and (folder / name).is_symlink():
        link = folder / name
    if link is not None:
        raise RfbenchError(f"{link} is a link: a run does not write through it. Remove it.")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
