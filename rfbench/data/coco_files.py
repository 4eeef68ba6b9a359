"""Checks of the image files of a COCO set: names, sizes, and whether they can be read."""

import os
import stat
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from rfbench import class_names as naming
from rfbench.data import decode
from rfbench.data.coco_json import Findings

SAMPLE = 200  # images that are read


def check(
    images: list[dict[str, Any]], root: Path, findings: Findings, sample: int = SAMPLE
) -> frozenset[str]:
    """Check that every image is a file in `root`, and read `sample` of them, evenly spaced.

    Returns the real paths of all images, links followed.
    """
    found = _find(images, root, findings)
    present = [one for one in images if one["file_name"] in found]
    unreadable, other = [], []
    chosen = range(0, len(present), -(-len(present) // sample) or 1)
    for one in (present[i] for i in chosen):
        try:
            height, width, _ = decode.read(str(root / one["file_name"]), upright=True).shape
        except decode.BadImage as error:
            unreadable.append(f"{one['file_name']}: {error.reason}")
            continue
        if (width, height) != (one["width"], one["height"]):
            shown = f"{width}x{height}, not {one['width']}x{one['height']}"
            other.append(f"{one['file_name']} is {shown}")
    looked = f"of {len(chosen)} looked into"
    findings.fault(f"images that cannot be read, {looked}", unreadable)
    findings.fault(f"images of another size than the JSON file says, {looked}", other)
    most = 2 * (Image.MAX_IMAGE_PIXELS or 1 << 62)  # what Pillow opens
    large = [one["file_name"] for one in images if one["width"] * one["height"] > most]
    findings.fault(f"images of more than {most} pixels", large)
    return frozenset(found.values())


def _find(images: list[dict[str, Any]], root: Path, findings: Findings) -> dict[str, str]:
    """The real paths of the images that are there, by 'file_name'."""
    listings: dict[str, dict[str, str]] = {}
    absent: list[str] = []
    odd: list[str] = []
    found = {}
    names = Counter(one["file_name"] for one in images)
    for path in names:
        folder, name = os.path.split(path)
        if folder not in listings:  # one listing is faster than 118,287 checks
            listings[folder] = _listed(root / folder)
        real = listings[folder].get(name)
        if real:
            found[path] = real
        else:
            (absent if real is None else odd).append(path)
    near = next((name for path in absent[:1] if (name := _near(path, root))), "")
    hint = f" ({near} is there: name files as they lie in this folder)" if near else ""
    findings.fault(f"images that are not in {root}{hint}", absent)
    findings.fault(f"images that are no regular files in {root}", odd)
    first: dict[str, str] = {}  # './x.jpg' and a link are other names of one file
    counts: Counter[str] = Counter()
    for name, count in names.items():
        counts[first.setdefault(found.get(name, name), name)] += count
    twice = [name for name, count in counts.items() if count > 1]
    findings.note("files that are named more than once", twice)
    return found


def _near(path: str, root: Path) -> str:
    """The file that the computer on which a set was annotated may have called so; '' for none.

    With other slashes, folders, capitals, escapes, or another Unicode form.
    """
    folder, name = os.path.split(urllib.parse.unquote(path).replace("\\", "/"))
    inside = not os.path.isabs(folder) and ".." not in Path(folder).parts
    for below in dict.fromkeys([folder if inside else "", ""]):
        for there in _listed(root / below):
            if naming.plain(there) == naming.plain(name):
                return os.path.join(below, there)
    return ""


def _listed(folder: Path) -> dict[str, str]:
    """The real path of each name in a folder; "" for what is no regular file."""
    real = os.path.realpath(folder)
    try:
        with os.scandir(folder) as entries:
            return {entry.name: _real(entry, real) for entry in entries}
    except OSError:
        return {}


def _real(entry: "os.DirEntry[str]", folder: str) -> str:
    try:
        if not entry.is_symlink():  # known from the listing, without another call
            return os.path.join(folder, entry.name) if entry.is_file() else ""
        regular = stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # a link to nothing is reported when it is read
        regular = True
    return os.path.realpath(entry.path) if regular else ""
