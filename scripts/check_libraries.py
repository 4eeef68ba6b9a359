"""Networks of other libraries: what rfbench says of them, and whether gradients agree.

    python -m venv .venv-libraries
    .venv-libraries/bin/pip install -e . -r scripts/check_libraries.txt
    .venv-libraries/bin/python scripts/check_libraries.py --markdown docs/networks.md

Every network is built with random weights (nothing is downloaded), traced, and asked for the map
that its users look at. The answer is compared with the gradient of the real network, which shares
no code with the graph: for a unit in the middle and one at the border, which pixels have one.
Exit code 1 if any answer is wrong or anything crashes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import click
import libraries
import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from rfbench import rf
from rfbench.errors import RfbenchError, one_line
from rfbench.rf.core.path_map import Convention
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.graph import SpatialGraph
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Reach

HEADER = ("network", "map", "input", "size", "stride", "units", "answer")
GOAL = 0.85  # of the networks answered up to the map asked for
WITH_GATES = Convention(gates="count")  # a gradient passes gates as well


# -- the gradient: no code in common with the graph ------------------------------------------------


class Alive(TorchFunctionMode):
    """No unit is dead: norms and activations are the identity, maxima and products are sums."""

    SAME = (
        "relu relu_ relu6 hardtanh hardtanh_ clamp clamp_ clip hardsigmoid hardswish sigmoid "
        "sigmoid_ tanh tanh_ gelu silu elu leaky_relu leaky_relu_ prelu softplus mish selu dropout "
        "log_sigmoid exp sqrt rsqrt abs square pow __pow__ normalize"
    ).split()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        x = args[0] if args else kwargs.get("input")
        if not (isinstance(x, Tensor) and x.requires_grad) and name not in ("cat", "stack"):
            others = [a for a in args[1:] if isinstance(a, Tensor) and a.requires_grad]
            if not others:
                return func(*args, **kwargs)
        if name in self.SAME or (name.endswith("_norm") and "vector" not in name):
            return x * 1
        if name in ("softmax", "log_softmax"):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
            return (x + x.mean(dim, keepdim=True)) / x.shape[dim]
        if name.startswith(("max_pool", "adaptive_max_pool")) or name == "boolean_dispatch":
            return self._averaged(name, *args, **kwargs)
        if name in ("amax", "amin", "var", "std"):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            return x.mean(dim, keepdim=kwargs.get("keepdim", False))
        if name in ("max", "min") and (len(args) > 1 or kwargs):
            return self._extreme(*args, **kwargs)
        return self._product(func, name, args, kwargs)

    @staticmethod
    def _product(func, name, args, kwargs):
        """Products and quotients of two maps: both take part whatever their values are."""
        both = len(args) > 1 and all(isinstance(a, Tensor) and a.requires_grad for a in args[:2])
        if both and name in (
            "mul",
            "__mul__",
            "__rmul__",
            "mul_",
            "__imul__",
            "div",
            "__truediv__",
        ):
            return args[0] + args[1]
        if both and name in ("sub", "__sub__", "maximum", "minimum"):
            return args[0] + args[1]
        if both and name in ("matmul", "__matmul__", "bmm"):
            return func(args[0] + 1, args[1] + 1) / args[0].shape[-1]
        if name == "scaled_dot_product_attention":
            q, k, v = args[:3]
            every = v.mean(-2, keepdim=True) + k.mean((-2, -1), keepdim=True)
            return q.mean(-1, keepdim=True) + every
        return func(*args, **kwargs)

    @staticmethod
    def _averaged(name, x, kernel=None, stride=None, padding=0, dilation=1, ceil=False, *_, **kw):
        kernel = kw.get("kernel_size", kw.get("output_size", kernel))
        if "adaptive" in name:
            return nn.functional.adaptive_avg_pool2d(x, kernel)
        stride, padding = kw.get("stride", stride) or kernel, kw.get("padding", padding)
        pool = {3: nn.functional.avg_pool1d, 4: nn.functional.avg_pool2d}
        pools = pool.get(x.dim(), nn.functional.avg_pool3d)
        return pools(x, kernel, stride, padding, kw.get("ceil_mode", ceil))

    @staticmethod
    def _extreme(x, other=None, keepdim=False, **kw):
        other = kw.get("dim", other)
        if isinstance(other, Tensor):
            return x + other
        mean = x.mean(other, keepdim=kw.get("keepdim", keepdim))
        return torch.return_types.max((mean, torch.zeros_like(mean, dtype=torch.long)))


class _Captured(Exception):
    """The tensor that is asked for; what comes behind it is not run."""


def _positive(module: nn.Module) -> nn.Module:
    """Every weight positive, of a size that keeps maps near 1."""
    draw = torch.Generator().manual_seed(0)
    module = module.double().eval().requires_grad_(False)
    for p in module.parameters():
        fan_in = max(1, p[0].numel()) if p.dim() > 1 else 1
        p.copy_((torch.rand(p.shape, generator=draw) + 0.5).to(p) / fan_in)
    return module


def _walk(out: Any, keys: list[str]) -> Any:
    """The part of a result that keys, indices and attributes lead to."""
    while keys:
        if isinstance(out, dict):
            # a key may have dots of its own
            n, key = next(
                (n, k) for n in range(len(keys), 0, -1) for k in out if str(k) == ".".join(keys[:n])
            )
            out, keys = out[key], keys[n:]
        elif isinstance(out, list | tuple) and keys[0].isdecimal():
            out, keys = out[int(keys[0])], keys[1:]
        else:
            out, keys = getattr(out, keys[0]), keys[1:]
    return out


def gradients(
    module: nn.Module, shape: tuple[int, ...], inputs: int, name: str, at: list[tuple]
) -> list[np.ndarray]:
    """Which pixels of the first input have a gradient from entries `at` of a tensor: (H, W)."""
    module, modules = _positive(module), dict(module.named_modules())
    name, _, call = name.partition("#")
    call, _, after = call.partition(".")
    parts = name.split(".")
    owner = max(n for n in range(len(parts) + 1) if ".".join(parts[:n]) in modules)
    if name == "output" or name.startswith("output."):
        owner, parts = 0, parts[1:]
    keys = [*(k for k in parts[owner:] if k != "output"), *(after.split(".") if after else [])]
    calls = Counter()

    def capture(_module, _args, out):
        calls[0] += 1
        if calls[0] == int(call or 1):
            raise _Captured(out)

    modules[".".join(parts[:owner])].register_forward_hook(capture)
    draw = torch.Generator().manual_seed(0)
    x, *others = [torch.rand(1, *shape, generator=draw).double() + 0.5 for _ in range(inputs)]
    x.requires_grad_()
    try:
        with Alive():
            module(x.clone(), *others)
    except _Captured as captured:
        out = _walk(captured.args[0], keys)
    seen = []
    for i in at:
        (grad,) = torch.autograd.grad(out[i], x, retain_graph=True, allow_unused=True)
        seen.append((grad[0] != 0).any(0).numpy() if grad is not None else np.zeros(shape[1:]) > 0)
    return seen


# -- what rfbench says -----------------------------------------------------------------------------


def _entry(value: Value, unit: tuple[int, ...]) -> tuple[int, ...]:
    """The index of a unit's first channel in a tensor of any layout."""
    index = []
    position = dict(zip("dhw"[-len(unit) :], unit, strict=True))
    for dim in value.dims:
        i = 0
        for f in dim:
            i = i * f.size + ((position[f.axis] // f.step) % f.size if f.axis in position else 0)
        index.append(i)
    return tuple(index)


def _first_channel(value: Value) -> Value:
    return Value(value.dims, value.labels[tuple(slice(0, 1) for _ in value.dims)])


def _supports(target: Target, units: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Which pixels have a path to the first channel of some units."""
    from rfbench.rf.core.path_counts import count_tensor

    out = []
    for unit in units:
        first = _first_channel(target.value)
        counts = count_tensor(target.graph, first, unit, target.origin, WITH_GATES)
        out.append(counts.counts > 0 if counts is not None else np.zeros(target.source_size) > 0)
    return out


def _agreement(target: Target, module: nn.Module, network: libraries.Network) -> tuple[str, str]:
    """(verdict, detail): 'agrees', or 'wrong' with what differs."""
    units = list(dict.fromkeys([target.center, tuple(0 for _ in target.units)]))
    entries = [_entry(target.value, u) for u in units]
    name = target.layer or target.name or "output"
    seen = gradients(module, network.shape, network.inputs, name, entries)
    if target.witness.reach > Reach.CONTEXT:
        return _far(target, seen[0])
    for unit, one, mine in zip(units, seen, _supports(target, units), strict=True):
        if (one != mine).any():
            return "wrong", f"{int((one != mine).sum())} px of unit {unit} differ"
    return "agrees", f"{int(seen[0].sum())} px of the central unit"


def _far(target: Target, seen: np.ndarray) -> tuple[str, str]:
    """Of attention: a global one reaches the whole image, a windowed one is not counted."""
    box = "x".join(
        str(np.ptp(np.flatnonzero(seen.any(tuple(k for k in range(seen.ndim) if k != axis)))) + 1)
        for axis in range(seen.ndim)
    )
    said = f"{target.witness.reach}, by {target.witness}; the gradient's box is {box} px"
    if target.witness.reach == Reach.GLOBAL and box != "x".join(map(str, seen.shape)):
        return "wrong", said
    return "agrees", said


def _figures(target: Target) -> dict[str, str]:
    fields = target.fields
    if target.witness.reach > Reach.CONTEXT:
        return {"size": "whole image" if target.witness.reach == Reach.GLOBAL else "-"}
    return {
        "size": "x".join("-" if f is None else str(f.size) for f in fields),
        "stride": "x".join(dict.fromkeys("-" if f is None else str(f.stride) for f in fields)),
    }


def _last_measurable(graph: SpatialGraph) -> str:
    """The last layer that has a map."""
    for name in reversed(list(graph.layers)):
        try:
            if Target(graph, name).witness.reach <= Reach.CONTEXT and Target(graph, name).units:
                return name
        except RfbenchError:
            continue
    return ""


def look(name: str) -> dict[str, str]:
    """One row of the table."""
    network = libraries.NETWORKS[name]
    row = {"network": name, "map": network.to, "input": "x".join(map(str, network.shape))}
    module = network.build().eval()
    examples = [torch.empty(1, *network.shape, device="meta")] * network.inputs
    graph, source = None, "input.0" if network.inputs > 1 else None
    try:
        graph = rf.record(module, inputs=examples)
        target = Target(graph, network.to or None, source)
        row["map"] = network.to or target.name or "output"
        row |= {"units": "x".join(map(str, target.units))} | _figures(target)
        if target.witness.reach == Reach.UNSUPPORTED:
            raise RfbenchError(str(target.witness))
    except RfbenchError as error:
        last = f"; measured up to {_last_measurable(graph)}" if graph is not None else ""
        return row | {"verdict": "refused", "answer": f"refused: {one_line(error, 160)}{last}"}
    verdict, detail = _agreement(target, module, network)
    return row | {"verdict": verdict, "answer": f"{verdict}: {detail}"}


# -- all of them -----------------------------------------------------------------------------------


def _in_processes(names: list[str]) -> Iterator[dict[str, str]]:
    """Networks in a process of their own; one that kills it costs its row, and the rest go on."""
    while names:
        command = [sys.executable, __file__, "--rows", *names]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            for line in process.stdout or ():
                if line.startswith('{"network"'):
                    yield json.loads(line)
                    names = names[1:]
            process.wait()
            errors.seek(0)
            said = errors.read().strip().splitlines()[-1:]
        if names:
            why = said[0] if said else f"exit code {process.returncode}"
            yield {"network": names[0], "verdict": "crashed", "answer": f"crashed: {why[:160]}"}
            names = names[1:]


def summary(rows: list[dict[str, str]]) -> str:
    """One line: how many of each kind."""
    kinds = Counter(row["verdict"] for row in rows)
    share = kinds["agrees"] / len(rows)
    return (
        f"{len(rows)} networks: {kinds['agrees']} answered and equal to gradients "
        f"({share:.0%}), {kinds['refused']} refused, {kinds['wrong']} wrong, "
        f"{kinds['crashed']} crashed."
    )


def page(rows: list[dict[str, str]]) -> str:
    """docs/networks.md."""
    head = libraries.PAGE.format(summary=summary(rows), versions=libraries.versions())
    lines = [f"| {' | '.join(HEADER)} |", f"|{'---|' * len(HEADER)}"]
    for row in rows:
        cells = [row.get(key, "").replace("|", "\\|") or "-" for key in HEADER]
        lines.append(f"| {' | '.join(cells)} |")
    return head + "\n".join(lines) + "\n"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--rows", is_flag=True, hidden=True)
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table here.")
def main(names: tuple[str, ...], rows: bool, markdown: Path | None) -> None:
    """Look at all networks, or at those whose name contains one of NAMES."""
    if rows:
        torch.set_num_threads(1)
        for name in names:
            try:
                row = look(name)
            except Exception as error:
                why = f"crashed: {type(error).__name__}: {one_line(error, 160)}"
                row = {"network": name, "verdict": "crashed", "answer": why}
            click.echo(json.dumps(row))
        return
    chosen = [n for n in libraries.NETWORKS if not names or any(part in n for part in names)]
    seen = []
    for row in tqdm(_in_processes(chosen), total=len(chosen), unit="network"):
        tqdm.write(f"{row['network']:50} {row['answer']}", file=sys.stdout)
        seen.append(row)
    click.echo(summary(seen))
    if markdown:
        markdown.write_text(page(seen))
    sys.exit(any(row["verdict"] in ("wrong", "crashed") for row in seen))


if __name__ == "__main__":
    main()
