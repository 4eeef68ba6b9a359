"""Print the versions installed here as constraints for pip; `make constraints` calls it.

python scripts/freeze_versions.py [COMMENT ...]
"""

import platform
import re
import sys
from importlib.metadata import distributions

from packaging.specifiers import SpecifierSet
from packaging.version import Version

# built here, or part of every environment
OURS = {"rfbench", "detectron2", "pip", "setuptools", "wheel"}
# torch names their versions itself; they depend on the platform
OF_TORCH = ("nvidia-", "cuda-", "triton")
OLDEST_PYTHON = "3.10"


def pins() -> dict[str, str]:
    """Name -> constraint. Packages that the oldest Python cannot have are pinned from this one."""
    found = {}
    for package in distributions():
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        if name in OURS or name.startswith(OF_TORCH):
            continue
        line = f"{name}=={Version(package.version).public}"
        pythons = SpecifierSet(package.metadata["Requires-Python"] or "")
        if not pythons.contains(f"{OLDEST_PYTHON}.99"):
            here = ".".join(platform.python_version_tuple()[:2])
            line += f' ; python_version >= "{here}"'
        found[name] = line
    return found


if __name__ == "__main__":
    print(*(f"# {line}" for line in sys.argv[1:]), *sorted(pins().values()), sep="\n")
