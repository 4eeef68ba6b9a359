"""Measure one effective field in this process; `bench_effective.py` starts it for every figure.

    python scripts/bench_effective_tool.py TOOL MODEL FOLDER

FOLDER: images/*.png, all of the network's size, and MODEL.pth, its weights. Writes the map as
TOOL.npy there and prints CPU seconds as a line of JSON, from the network and the folder to the map.
rfbench is imported only by its own tool: the environment of another has neither it nor click.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def rfbench(module: Any, folder: Path) -> Any:
    """`rf.effective` by openerf's definition, as `rf effective --convention openerf`."""
    from rfbench.rf import api
    from rfbench.rf.questions.effective import images

    count = len([*folder.iterdir()])
    batches = images.batches(str(folder), module, (224, 224), count, seed=0)
    return api.effective(module, batches, convention="openerf").map.magnitude


def openerf(module: Any, folder: Path) -> Any:
    """openerf.compute_erf as its documentation has it."""
    own = getattr(module, "pretrained_cfg", None) or {}  # timm's; crop_pct 1.0: no resizing
    module.pretrained_cfg = {**own, "input_size": (3, 224, 224), "crop_pct": 1.0}
    api = importlib.import_module("openerf")
    return api.compute_erf(module, image_dir=folder, device="cpu", show_progress=False).erf_map


TOOLS: dict[str, Callable[[Any, Path], Any]] = {"rfbench": rfbench, "openerf": openerf}


def measure(tool: str, model: str, where: str) -> None:
    """Measure once, write the map and print the result as a line of JSON."""
    import numpy as np
    import timm
    import torch

    torch.set_num_threads(1)
    folder = Path(where)
    module = timm.create_model(model).eval()
    module.load_state_dict(torch.load(folder / f"{model}.pth", weights_only=True))
    importlib.import_module("openerf" if tool == "openerf" else "rfbench.rf.api")
    start = time.process_time()
    field = TOOLS[tool](module, folder / "images")
    seconds = time.process_time() - start
    np.save(folder / f"{tool}.npy", np.asarray(field, dtype=np.float64))
    versions = f"torch {torch.__version__}, timm {timm.__version__}"
    print(json.dumps({"seconds": seconds, "versions": versions}))


if __name__ == "__main__":
    measure(*sys.argv[1:])
