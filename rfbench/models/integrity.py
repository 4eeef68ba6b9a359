"""Files of tensors: read without executing anything in them, and only if they are whole.

A file of torch is a zip archive, whose checksums torch.load does not look at. Files of this package
also hold a digest of their content.
"""

import argparse
import errno
import hashlib
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rfbench import files
from rfbench.errors import RfbenchError, UsageError, one_line

OTHERS = {  # how files begin that are met in the place of a checkpoint
    b"\x1f\x8b": "compressed by gzip (unpack it first)",
    b"BZh": "compressed by bzip2 (unpack it first)",
    b"\xfd7zXZ": "compressed by xz (unpack it first)",
    b"(\xb5/\xfd": "compressed by zstd (unpack it first)",
    b"\x89HDF": "a file of HDF5, as Keras writes them",
    b"<": "a web page, or other text",
    b"{": "JSON (of a checkpoint in several files, an index)",
}
ARCHIVE = b"PK\x03\x04"
PICKLE = b"\x80"
LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch's older format begins with
DIGEST = "digest"  # the key of the digest of all that stands beside it


def read(path: str) -> Any:
    """The content of a checkpoint file, tensors on the CPU and plain types.

    Raises UsageError for what is no file, RfbenchError, one line, for one that cannot be read, is
    damaged, was changed after it was written, or holds other things.
    """
    if not os.path.exists(path):
        raise UsageError(f"no such file: {path}")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder. Give a checkpoint in it, such as {path}/last.pth.")
    try:
        files.check_regular(path)
        with open(path, "rb") as file:
            start = file.read(64)
        _check_start(path, start)
        if zipfile.is_zipfile(path):
            _check_archive(path)
        elif start.startswith(ARCHIVE):
            raise RfbenchError(
                f"{path} is damaged: it has no end, as after a copy or download that was cut off."
            )
        content = _tensors(path)
    except OSError as error:
        raise RfbenchError(f"{path} cannot be read: {error.strerror or error}") from error
    if isinstance(content, dict) and DIGEST in content:
        held = content.pop(DIGEST)
        if held != digest(content):
            raise RfbenchError(
                f"{path} is damaged, or was changed after it was written: its content does not "
                "have the digest that it holds."
            )
    return content


def _tensors(path: str) -> Any:
    try:
        if path.endswith(".safetensors"):
            return _safetensors(path)
        # what timm's and torchvision's scripts keep of their command line; it holds values alone
        plain = torch.serialization.safe_globals([argparse.Namespace])
        with warnings.catch_warnings(), plain:
            warnings.simplefilter("ignore")  # of torch, about what is refused next
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise OSError(errno.ENOMEM, "it does not fit into memory") from None
    except (OSError, RfbenchError):
        raise
    except Exception as error:  # readers raise anything on damaged bytes
        found = re.search(r"GLOBAL (\S+) w(?:as|hose)", str(error))
        if found is None:
            raise RfbenchError(
                f"{path} is not a checkpoint of torch, or is damaged (nothing in it was run)."
            ) from error
        raise RfbenchError(
            f"{path} is not a checkpoint of tensors and plain types: it holds {found[1]} (nothing "
            "in it was run). Save a model's state_dict() instead of the model."
        ) from error


def _safetensors(path: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        what = one_line(error).removeprefix("Error while deserializing header: ")
        raise RfbenchError(
            f"{path} is not a file of safetensors, or is damaged ({what})."
        ) from error


def _check_start(path: str, start: bytes) -> None:
    """Raise RfbenchError for what is often met in the place of a checkpoint."""
    if not start:
        raise RfbenchError(f"{path} is empty.")
    if start.startswith(b"version https://git-lfs"):
        raise RfbenchError(f"{path} is a pointer of Git LFS, not the file. Get it by: git lfs pull")
    if known := next((what for sign, what in OTHERS.items() if start.startswith(sign)), None):
        raise RfbenchError(f"{path} is {known}, not a checkpoint.")
    if start[:1] == PICKLE and LEGACY not in start:
        raise RfbenchError(
            f"{path} is a pickle, which could run anything, and is not read. Save its tensors by "
            "torch.save."
        )
    if start[8:10] == b'{"' and not path.endswith(".safetensors"):
        raise RfbenchError(f"{path} looks like a file of safetensors: call it NAME.safetensors.")


def _check_archive(path: str) -> None:
    """Raise RfbenchError for an archive with a wrong checksum, or with compressed parts."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in part.filename for part in archive.infolist()):
                raise RfbenchError(
                    f"{path} holds a TorchScript program, which is not run. Save its state_dict()."
                )
            names = [part.filename for part in archive.infolist()]
            if any(name.endswith("models/model.json") for name in names):
                raise RfbenchError(f"{path} holds an exported program. Save its state_dict().")
            if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
                raise RfbenchError(f"{path} is an archive of other files, not a checkpoint.")
            # torch stores tensors as they are; what is compressed may be of any size
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise RfbenchError(f"{path} is a compressed archive, not a checkpoint.")
            wrong = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise RfbenchError(f"{path} is damaged: {one_line(error)}.") from None
    if wrong is not None:
        raise RfbenchError(f"{path} is damaged: the checksum of {one_line(wrong)} is wrong.")


def digest(content: Any) -> str:
    """A digest of tensors (kind, shape, bytes) and plain values, in the order they stand in."""
    total = hashlib.sha256()
    _add(total, content)
    return total.hexdigest()


def _add(total: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        total.update(f"{value.dtype} {list(value.shape)} ".encode())
        plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
        if value.numel() and plain:  # others are refused later
            flat = value.detach().cpu().contiguous().reshape(-1)
            total.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        total.update(f"{{{len(value)} ".encode())
        for key, below in value.items():
            total.update(f"{key!r}:".encode("utf-8", "backslashreplace"))
            _add(total, below)
    elif isinstance(value, list | tuple):
        total.update(f"{type(value).__name__}{len(value)} ".encode())
        for below in value:
            _add(total, below)
    else:
        total.update(f"{value!r} ".encode("utf-8", "backslashreplace"))
