"""Text files of people: UTF-8, with the byte order mark that some programs write, or without."""

import atexit
import codecs
import shutil
import tempfile
from pathlib import Path

from rfbench.errors import RfbenchError


def of(data: bytes, where: str | Path, wanted: str = "UTF-8") -> str:
    """The text of a file's bytes. RfbenchError, one line, for what is not UTF-8.

    wanted: what the file should be.
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]
    try:
        if not wide:
            return data.decode("utf-8-sig")
        what = "it is in UTF-16 or UTF-32" if data[:4].strip(b"\0") else "it begins with zeros"
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"byte {data[error.start]:#04x} in line {line}"
    raise RfbenchError(f"{where} is not {wanted}: {what}. Save it as UTF-8 text.")


def plain(path: str) -> str:
    """The path of a file with the same text and no byte order mark: `path`, or a copy until exit.

    For libraries that take the name of a file, and no mark.
    """
    with open(path, "rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            return path
        folder = tempfile.mkdtemp(prefix="rfbench-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        copy = Path(folder, Path(path).name)
        with open(copy, "wb") as target:
            shutil.copyfileobj(file, target)
    return str(copy)
