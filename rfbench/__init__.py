"""rfbench: measure the shape of a CNN's receptive field, fix it, and benchmark the fix.

`rfbench.fix(model, "1x1+3x3")` changes one's own network, `rfbench.rf` measures it. Both are
imported at their first use: `import rfbench` alone stays cheap and does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfbench import rf
    from rfbench.models.variants import fix

    __version__: str

__all__ = ["__version__", "fix", "rf"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "rf":
        return importlib.import_module("rfbench.rf")
    if name == "fix":
        return importlib.import_module("rfbench.models.variants").fix
    raise AttributeError(f"module 'rfbench' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rfbench")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return __all__
