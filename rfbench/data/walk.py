"""The image files below a folder: links are followed, each real file is named once.

A link to a folder above it would multiply images, and in a set that is split by `val_share` put
copies of validation images into training. Order is torchvision's: by folder, then by name.
"""

import os
import stat
from dataclasses import dataclass, field

from rfbench.errors import RfbenchError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# what programs leave behind; hidden files (.ipynb_checkpoints, ._x of macOS) are junk too
JUNK = {"@eaDir", "#recycle", "__MACOSX", "lost+found", "System Volume Information"}
JUNK |= {"Thumbs.db", "desktop.ini", "__pycache__"}


@dataclass
class Files:
    """Paths relative to a folder; their real paths; what was left out, relative too."""

    names: list[str] = field(default_factory=list)
    real: list[str] = field(default_factory=list)
    junk: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)  # links to files or folders that are named
    # of other names than images: ImageFolder passes over them too, and a class may hold more
    other: list[str] = field(default_factory=list)
    linked: bool = False  # whether there are links

    def add(self, other: "Files", folder: str) -> None:
        """Take over another's, which are relative to `folder`."""
        self.real += other.real
        for mine, theirs in (
            (self.names, other.names),
            (self.junk, other.junk),
            (self.again, other.again),
            (self.other, other.other),
        ):
            mine += [os.path.join(folder, name) for name in theirs]


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is no part of a data set."""
    return name.startswith((".", "$")) or name in JUNK


def images(folder: str) -> Files:
    """The images below `folder`, by their extension.

    Raises RfbenchError for a folder that cannot be listed, for an image that is no regular file (a
    pipe, a device), which would never end, and for a link to nothing, which may have been a folder;
    one with the name of an image is kept: reading it fails.
    """
    found = Files(linked=os.path.islink(folder) or os.path.islink(os.path.dirname(folder)))
    listed: list[tuple[str, list[tuple[str, str]]]] = []
    folders: set[str] = set()
    waiting = [("", os.path.realpath(folder))]
    while waiting:
        below, real = waiting.pop()
        if real in folders:
            found.again.append(below)
            continue
        folders.add(real)
        names: list[tuple[str, str]] = []
        inner: list[tuple[str, str]] = []
        for entry in _entries(os.path.join(folder, below)):
            _sort_in(entry, below, real, names, inner, found)
        listed.append((below, names))
        waiting += reversed(inner)
    files: set[str] = set()
    for below, names in sorted(listed, key=lambda one: os.path.join(folder, one[0])):
        for name, real in names:
            path = os.path.join(below, name)
            if real in files:
                found.again.append(path)
            else:
                files.add(real)
                found.names.append(path)
                found.real.append(real)
    return found


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise RfbenchError(f"{folder}: cannot be listed: {error.strerror}") from None


def _sort_in(
    entry: "os.DirEntry[str]",
    below: str,
    real: str,
    names: list[tuple[str, str]],
    inner: list[tuple[str, str]],
    found: Files,
) -> None:
    """Put an entry of a folder where it belongs."""
    path, image = os.path.join(below, entry.name), entry.name.lower().endswith(EXTENSIONS)
    linked = entry.is_symlink()
    found.linked |= linked
    if is_junk(entry.name):
        if image or is_folder(entry):
            found.junk.append(path)
    elif is_folder(entry):
        own = os.path.realpath(entry.path) if linked else os.path.join(real, entry.name)
        inner.append((path, own))
    elif image:
        if not _may_be_read(entry):
            raise RfbenchError(f"{entry.path} is not a regular file. Remove it from the data set.")
        own = os.path.realpath(entry.path) if linked else os.path.join(real, entry.name)
        names.append((entry.name, own))
    else:
        refuse_dangling(entry.path)
        found.other.append(path)


def refuse_dangling(path: str) -> None:
    """Raise RfbenchError for a link to nothing, such as to a folder on a disk that is not there."""
    if os.path.islink(path) and not os.path.exists(path):
        target = os.readlink(path)
        raise RfbenchError(
            f"{path} is a link to {target}, which is not there. Bring that back, or remove the "
            "link."
        )


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _may_be_read(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a regular file, a link to one, or a link to nothing."""
    try:
        return entry.is_file() or stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True
