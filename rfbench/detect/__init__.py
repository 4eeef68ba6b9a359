"""Detection with Detectron2: `import rfbench.detect` registers the backbones. See `backbone`."""

import warnings

from rfbench.errors import RfbenchError

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's, about torch.jit.script
        import detectron2.modeling  # noqa: F401
except ImportError as _error:
    raise RfbenchError(
        f"Detectron2 is not installed ({_error}). Install it with `rfbench install-detectron2`."
    ) from None

from rfbench.detect import backbone, fields  # noqa: F401
