"""Measure one receptive-field map in this process; `bench_rf.py` starts it once for every figure.

    python scripts/bench_rf_tool.py TOOL MODEL SIZE [LAYER Y X]

Prints CPU seconds, memory and the extent of the map as a line of JSON. rfbench is imported only by
its own tools: the environment of another tool has neither rfbench nor click.
"""

import importlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# module -> map (H, W), and its layer and unit
Run = Callable[[Any], tuple[Any, dict[str, Any]]]


def rfbench(size: int, layer: str, unit: tuple[int, int]) -> Run:
    """Path counts on the spatial graph: of the last map's central unit, which it reports."""
    from rfbench.rf.core.network import Network

    def run(module: Any) -> tuple[Any, dict[str, Any]]:
        target = Network(module).target((size, size))
        counts = target.counts()
        return counts.counts, {"layer": target.name, "unit": counts.unit}

    return run


def autograd(size: int, layer: str, unit: tuple[int, int]) -> Run:
    """The same path counts by rfbench's autograd engine: the paper's own procedure."""
    from rfbench.rf.autograd.path_counts import path_counts

    return lambda module: (path_counts(module, (size, size), to=layer, unit=unit), {})


def openerf(size: int, layer: str, unit: tuple[int, int]) -> Run:
    """openerf.compute_erf on one image of the input size."""
    from PIL import Image

    api = importlib.import_module("openerf")
    folder = tempfile.TemporaryDirectory()  # lives as long as `run`
    image = Image.radial_gradient("L").resize((size, size)).convert("RGB")
    image.save(Path(folder.name) / "image.jpg")

    def run(module: Any) -> tuple[Any, dict[str, Any]]:
        own = getattr(module, "pretrained_cfg", None) or {}  # timm's; crop_pct 1.0: no resizing
        module.pretrained_cfg = {**own, "input_size": (3, size, size), "crop_pct": 1.0}
        result = api.compute_erf(
            module,
            image_dir=folder.name,
            max_images=1,
            target_layer="forward_features" if hasattr(module, "forward_features") else layer,
            device="cpu",
            show_progress=False,
        )
        return result.erf_map, {"tool": f"openerf {api.__version__}"}

    return run


def plain(size: int, layer: str, unit: tuple[int, int]) -> Run:
    """|gradient| of the unit's mean over channels, for one random input."""
    import torch

    def run(module: Any) -> tuple[Any, dict[str, Any]]:
        module.requires_grad_(False)
        x = torch.randn(1, 3, size, size, requires_grad=True)
        got: list[torch.Tensor] = []
        if hasattr(module, "forward_features"):
            got.append(module.forward_features(x))
        else:
            module.get_submodule(layer).register_forward_hook(lambda _m, _a, out: got.append(out))
            module(x)
        (gradient,) = torch.autograd.grad(got[0][0, :, unit[0], unit[1]].mean(), x)
        return gradient[0].abs().sum(0).numpy(), {}

    return run


TOOLS = {"rfbench": rfbench, "autograd": autograd, "openerf": openerf, "plain": plain}


def build(model: str) -> Any:
    """A network of timm or torchvision in evaluation mode, with random weights."""
    library, _, name = model.partition(":")
    if library == "timm":
        return importlib.import_module("timm").create_model(name).eval()
    slow = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    models = importlib.import_module("torchvision").models
    return models.get_model(name, weights=None, **slow).eval()


def memory(peak: bool = False) -> float:
    """Resident MB, now or at their peak since `reset_peak`; without /proc: the peak so far."""
    if not os.path.exists("/proc/self/status"):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(field))


def reset_peak() -> None:
    """Reset the peak left by building the network, if the system can."""
    if os.path.exists("/proc/self/clear_refs"):
        Path("/proc/self/clear_refs").write_text("5")


def measure(tool: str, model: str, size: str, layer: str = "", y: str = "0", x: str = "0") -> None:
    """Measure once and print the result as a line of JSON."""
    import numpy as np
    import timm
    import torch
    import torchvision

    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = TOOLS[tool](int(size), layer, (int(y), int(x)))
    imported = memory()
    module = build(model)
    reset_peak()
    built, start = memory(), time.process_time()
    counts, where = run(module)
    seconds, peak = time.process_time() - start, memory(peak=True)
    sides = [np.flatnonzero(counts.any(axis)) for axis in (1, 0)]
    result = {
        "seconds": seconds,
        "above_model": peak - built,
        "above_imports": peak - imported,
        "field": [int(np.ptp(at)) + 1 if len(at) else 0 for at in sides],
        "centroid": [float(np.arange(n) @ counts.sum(1 - i)) for i, n in enumerate(counts.shape)],
        "mass": float(counts.sum()),
        "versions": ", ".join(f"{m.__name__} {m.__version__}" for m in (torch, torchvision, timm)),
        **where,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    measure(*sys.argv[1:])
