"""Install Detectron2 0.6 from the package index, without a compiler; leave a working one alone.

Detectron2 itself is not on PyPI. pb1-detectron2 0.6 is: its Python files are those of the tag v0.6,
and the C++/CUDA sources, which RetinaNet and Mask R-CNN do not need, are missing. The archive is
fetched by pip with its hash pinned and its setup.py is never run: its Python files become a wheel
named detectron2, with the changes listed below that today's PyTorch, NumPy and Pillow need.
For the CUDA operators (deformable convolutions, rotated boxes) build the official source instead;
what works already is not touched.
"""

import base64
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

from rfbench.errors import RfbenchError

SDIST = "pb1-detectron2==0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
VERSION = "0.6+purepy"

_NO_OPERATORS = """try:
    from detectron2 import _C
except ImportError:
    _C = None
"""
_NO_FAST_EVALUATION = """try:
    from detectron2.evaluation.fast_eval_api import COCOeval_opt
except ImportError:
    COCOeval_opt = COCOeval
"""
_PACKAGE_PATH = """pkg_resources.resource_filename(
        "detectron2.model_zoo", os.path.join("configs", config_path)
    )"""
_FILE_PATH = 'os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", config_path)'

# file -> (text, replacement, number of occurrences)
CHANGES: dict[str, list[tuple[str, str, int]]] = {
    # there are no compiled operators
    "layers/deform_conv.py": [("from detectron2 import _C\n", _NO_OPERATORS, 1)],
    "layers/roi_align_rotated.py": [("from detectron2 import _C\n", _NO_OPERATORS, 1)],
    "layers/rotated_boxes.py": [("from detectron2 import _C\n", _NO_OPERATORS, 1)],
    "evaluation/coco_evaluation.py": [
        (
            "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
            _NO_FAST_EVALUATION,
            1,
        )
    ],
    # names that Pillow, NumPy and setuptools have dropped
    "data/transforms/transform.py": [("Image.LINEAR", "Image.BILINEAR", 1)],
    "data/build.py": [("dtype=np.int\n", "dtype=int\n", 1), ("dtype=np.int)", "dtype=int)", 1)],
    "structures/masks.py": [("np.bool)", "bool)", 3)],
    "model_zoo/model_zoo.py": [
        ("import pkg_resources\n", "", 1),
        (_PACKAGE_PATH, _FILE_PATH, 1),
    ],
    # PyTorch warns at every start
    "modeling/anchor_generator.py": [
        (
            "torch.meshgrid(shifts_y, shifts_x)",
            'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
            1,
        )
    ],
}

METADATA = f"""Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Detectron2 0.6 without its compiled operators
Home-page: https://github.com/facebookresearch/detectron2
License: Apache-2.0
Requires-Python: >=3.7
"""
WHEEL = """Wheel-Version: 1.0
Generator: rfbench install-detectron2
Root-Is-Purelib: true
Tag: py3-none-any
"""

# pip asks the build system of a source archive for its name and version: this one answers without
# running setup.py, which would import torch
_BACKEND = """def prepare_metadata_for_build_wheel(folder, settings=None):
    import os
    place = os.path.join(folder, "pb1_detectron2-0.6.dist-info")
    os.mkdir(place)
    with open(os.path.join(place, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: pb1-detectron2\\nVersion: 0.6\\n")
    return os.path.basename(place)
class __legacy__:
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
"""


def works() -> str:
    """The folder of this Python's Detectron2; '' if none can be imported."""
    code = (
        "import detectron2, detectron2.modeling, detectron2.engine, detectron2.evaluation; "
        "print('\\n', detectron2.__version__, 'in', detectron2.__path__[0])"
    )
    # not in a folder that may contain a detectron2 of its own
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tempfile.gettempdir()
    )
    return found.stdout.strip().splitlines()[-1].strip() if found.returncode == 0 else ""


def pip(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """Run pip and capture its output."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *args]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(env or {})}
    )


def why(result: subprocess.CompletedProcess) -> str:
    """The last error that pip reports, in one line."""
    lines = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")] or lines or ["no word"]
    return errors[-1][:300]


def fetch(folder: Path) -> Path:
    """The archive, downloaded by pip into `folder`; its hash is checked before it is read."""
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_BACKEND)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SDIST} --hash=sha256:{SHA256}\n")
    result = pip(
        *("download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"),
        *("--require-hashes", "-r", str(requirements), "-d", str(folder)),
        env={"PYTHONPATH": str(backend.parent), "PIP_USE_PEP517": "1"},
    )
    found = list(folder.glob("pb1*.tar.gz"))
    if result.returncode == 0 and found:
        return found[0]
    if "DO NOT MATCH THE HASHES" in result.stdout + result.stderr:
        raise RfbenchError(
            f"{SDIST} on the package index is not the archive expected (sha256 {SHA256[:12]}...): "
            "its hash differs. Nothing was installed."
        )
    raise RfbenchError(
        f"pip could not fetch {SDIST}: {why(result)}. Without a network, fetch its .tar.gz "
        "elsewhere and give it with --sdist."
    )


def check_hash(sdist: Path) -> None:
    """Check that the archive is the known one."""
    try:
        found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    except OSError as error:
        raise RfbenchError(f"{sdist} cannot be read: {error.strerror}") from None
    if found != SHA256:
        raise RfbenchError(
            f"{sdist} is not {SDIST}: its sha256 is {found[:12]}..., not {SHA256[:12]}.... "
            "Nothing was installed."
        )


def contents(sdist: Path) -> dict[str, bytes]:
    """Files of the wheel by path: the package, changed, and its licence."""
    found: dict[str, bytes] = {}
    with tarfile.open(sdist) as archive:
        for member in archive:
            _, _, path = member.name.partition("/")
            if (member.isfile() and path.startswith("detectron2/")) or path == "LICENSE":
                file = archive.extractfile(member)
                assert file  # a file has content
                found[path] = file.read()
    for name, changes in CHANGES.items():
        path = f"detectron2/{name}"
        if path not in found:
            raise RfbenchError(f"{path} is not in {sdist.name}. Nothing was installed.")
        text = found[path].decode()
        for old, new, times in changes:
            if text.count(old) != times:
                raise RfbenchError(
                    f"{path} does not hold {old.strip().splitlines()[0]!r} {times} times but "
                    f"{text.count(old)}. Nothing was installed."
                )
            text = text.replace(old, new)
        found[path] = text.encode()
    return found


def write_wheel(files: dict[str, bytes], folder: Path) -> Path:
    """Write the wheel of `files` into `folder`."""
    info = f"detectron2-{VERSION}.dist-info"
    changed = "".join(f"- detectron2/{name}\n" for name in CHANGES)
    files = dict(files)
    files[f"{info}/LICENSE"] = files.pop("LICENSE", b"")
    files[f"{info}/METADATA"] = f"{METADATA}\nChanged from the release:\n{changed}".encode()
    files[f"{info}/WHEEL"] = WHEEL.encode()
    record = ""
    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in sorted(files.items()):
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record += f"{name},sha256={digest.decode()},{len(content)}\n"
            wheel.writestr(name, content)
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def needs() -> list[str]:
    """The requirements of Detectron2 beside torch: rfbench's extra `det`."""
    listed = [text.partition(";") for text in requires("rfbench") or []]
    return [need.strip() for need, _, marker in listed if re.search("extra == .det.", marker)]


def install(*what: str) -> None:
    """pip install."""
    result = pip("install", "--quiet", *what)
    if result.returncode:
        raise RfbenchError(f"pip could not install {' '.join(what)}: {why(result)}")


def ensure(
    sdist: Path | None = None,
    wheel_dir: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> str:
    """Install Detectron2 unless a working one is there; returns what was done, in one line.

    sdist: the archive, instead of fetching it. wheel_dir: only write the wheel there. tell: called
    ahead of each step that takes time, with a line on it.
    Raises RfbenchError.
    """
    if not wheel_dir and (found := works()):
        return f"Detectron2 {found} works already: left as it is."
    with tempfile.TemporaryDirectory() as name:
        if not sdist:
            tell("1/3 fetching the archive of Detectron2's source")
            sdist = fetch(Path(name))
        check_hash(sdist)
        files = contents(sdist)
        if wheel_dir:
            wheel_dir.mkdir(parents=True, exist_ok=True)
            return f"wrote {write_wheel(files, wheel_dir)}"
        tell(f"2/3 installing what it needs: {', '.join(needs())}")
        install(*needs())
        tell("3/3 installing Detectron2 itself")
        install("--no-deps", "--force-reinstall", str(write_wheel(files, Path(name))))
    if not (found := works()):
        raise RfbenchError(
            "Detectron2 was installed and cannot be imported: "
            'python -c "import detectron2.modeling" says why.'
        )
    return f"Detectron2 {found}"
