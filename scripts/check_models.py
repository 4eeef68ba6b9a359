"""Compare the spatial graphs of random torchvision and timm architectures with autograd.

    python scripts/check_models.py                                     # sixty of them
    python scripts/check_models.py --pattern 'resnet*' --number 5

Status and support of each are compared with the gradient of the real network under positive random
weights; the first disagreement ends the run with exit code 1.
"""

import multiprocessing
import os
import random
import sys
import warnings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from rfbench.errors import RfbenchError
from rfbench.models import backbones
from rfbench.rf.core.network import Network
from rfbench.rf.core.path_counts import count_tensor
from rfbench.rf.core.path_map import Convention
from rfbench.rf.questions.zoo import zoo
from rfbench.spatial_graph.graph import SpatialGraph, is_map
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.trace import input_channels, trunk

LARGEST = 60e6  # parameters of a network that is checked on one CPU


class Positive(TorchFunctionMode):
    """What a gradient would hide: norms scale by a constant, max-pooling averages."""

    NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in self.NORMS:
            x = args[0] if args else kwargs["input"]
            if not x.requires_grad:  # weights: standardised convolutions stay positive
                return x
            return x / x.detach().abs().mean().clamp_min(1e-30)
        if name in ("max_pool2d", "_max_pool2d", "boolean_dispatch"):
            return self.average(*args, **kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def average(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, **_):
        if dilation not in (1, (1, 1)):
            raise RfbenchError("a dilated max-pooling has no average")
        return torch.nn.functional.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)


def gradient(module: torch.nn.Module, size: tuple[int, int], layer: str, at) -> np.ndarray:
    """|d out[at] / d input| of the real network with positive random weights, (H, W)."""
    generator = torch.Generator().manual_seed(0)
    for value in module.parameters():
        fan_in = max(1, value[0].numel()) if value.dim() > 1 else 1
        value.data = (torch.rand(value.shape, generator=generator) * 0.5 + 0.5).double() / fan_in
    module.double().eval().requires_grad_(False)
    got: list[torch.Tensor] = []
    if layer:
        keep = module.get_submodule(layer.split("#")[0])
        keep.register_forward_hook(lambda _m, _a, out: got.append(out.clone()))
    x = torch.rand(1, input_channels(module), *size, generator=generator).double().requires_grad_()
    with Positive():
        out = trunk(module)(x)
    call = int(layer.split("#")[1]) if "#" in layer else 1
    out = got[call - 1] if layer else out
    while not isinstance(out, torch.Tensor):
        out = next(iter(out.values() if isinstance(out, dict) else out))
    out[at(out)].sum().backward()
    return x.grad[0].abs().sum(0).numpy()


def element(value: Value, unit: tuple[int, int]) -> tuple[int, ...]:
    """Index of the first channel at a unit, in a tensor of any layout."""
    place = dict(zip("hw", unit, strict=True))
    index = []
    for dim in value.dims:
        i = 0
        for f in dim:
            i = i * f.size + ((place[f.axis] // f.step) % f.size if f.axis in place else 0)
        index.append(i)
    assert all(i < n for i, n in zip(index, value.shape, strict=True))
    return tuple(index)


def check(name: str) -> str:
    """'' where status and support agree with the gradient; else what disagrees."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    backbone = backbones.build(name)
    graph = Network(backbone.module, backbone.input_size).graph(backbone.input_size)
    witness = graph.status()
    value = graph.layers.get(graph.target, graph.output)
    if not is_map(value):
        seen = gradient(
            backbone.module, graph.size, "", lambda out: out.numel() // 2 and _middle(out)
        )
        return _verdict(seen > 0, None, witness.reach)
    assert isinstance(value, Value)
    h, w = graph.map_size(value)
    unit = ((h - 1) // 2, (w - 1) // 2)
    index = element(value, unit)
    seen = gradient(backbone.module, graph.size, graph.target, lambda _out: index)
    first = Value(value.dims, value.labels[tuple(slice(0, 1) for _ in value.dims)])
    return _verdict(seen > 0, _support(graph, first, unit), witness.reach)


def _middle(out: torch.Tensor) -> tuple[int, ...]:
    return tuple(n // 2 for n in out.shape)


def _support(graph: SpatialGraph, value: Value, unit: tuple[int, int]) -> np.ndarray:
    found = count_tensor(graph, value, unit, convention=Convention(gates="count"))
    assert found is not None
    return found.counts > 0


def _verdict(seen: np.ndarray, support: np.ndarray | None, reach: Reach) -> str:
    rows, columns = np.nonzero(seen.any(1))[0], np.nonzero(seen.any(0))[0]
    box = (rows[0], rows[-1], columns[0], columns[-1]) if len(rows) else None
    whole = box == (0, seen.shape[0] - 1, 0, seen.shape[1] - 1)
    if support is not None and reach <= Reach.CONTEXT and (seen != support).any():
        return f"{int((seen != support).sum())} of {seen.size} pixels differ; gradient box {box}"
    if reach in (Reach.CONTEXT, Reach.GLOBAL) and not whole:
        return f"called {reach}, but the gradient reaches only {box} of {seen.shape}"
    return ""


def checked(names: list[str], number: int, seed: int) -> list[str]:
    """`number` seeded-random models that one CPU can run in float64."""
    chosen: list[str] = []
    for name in random.Random(seed).sample(names, len(names)):
        if len(chosen) == number:
            break
        module = backbones.build(name, meta=True)
        if (
            sum(p.numel() for p in module.module.parameters()) < LARGEST
            and max(module.input_size) < 400
        ):
            chosen.append(name)
    return chosen


@click.command()
@click.option("--library", multiple=True, default=["torchvision", "timm"], help="Where to look.")
@click.option("--pattern", default="*", help="Names to take, as a shell pattern.")
@click.option("--number", default=60, help="Models to compare with autograd.")
@click.option("--seed", default=0, help="Which ones.")
@click.option("--jobs", default=os.cpu_count(), help="Processes.")
def main(library, pattern, number, seed, jobs):
    """Compare a random sample of architectures with autograd; see the top of this file."""
    chosen = checked(zoo.names(library, pattern), number, seed)
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=100) as pool:
        problems = tqdm(pool.imap(check, chosen), total=len(chosen), unit="check")
        for name, problem in zip(chosen, problems, strict=True):
            if problem:
                pool.terminate()
                sys.exit(f"{name}: {problem}")
    click.echo(f"{len(chosen)} models agree with autograd (seed {seed}): {', '.join(chosen)}")


if __name__ == "__main__":
    main()
