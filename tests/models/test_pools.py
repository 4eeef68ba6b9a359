"""Pools: what they compute, that they store nothing, what a changed network survives, a new one."""

import copy
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BlurPool2d
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.resnet import Bottleneck, ResNet

import rfbench
from rfbench.errors import UsageError
from rfbench.models import variants
from rfbench.models.pools import POOLS

ROOT = Path(__file__).parents[2]
CHANGING = [v.name for v in variants.VARIANTS.values() if v.kernels == (1, 3)]
SIZES = [(8, 8), (7, 10), (1, 6), (1, 1)]


def small() -> nn.Module:
    """A network with both kinds of stride-2 convolutions, grouped ones too."""
    torch.manual_seed(0)
    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=3, groups=2, width_per_group=4).eval()


def blur_of_a_buffer(x: Tensor) -> Tensor:
    """BlurPool as this package computed it while it kept a buffer for the kernel."""
    row = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
    kernel = torch.outer(row, row).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=x.shape[1])


REFERENCES = {
    "avg": lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False),
    "max": lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True),
    "blur": blur_of_a_buffer,
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_to_the_bit(name: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(2, 5, *size, dtype=dtype)
    assert torch.equal(POOLS[name](5, 2)(x), REFERENCES[name](x))
    if name == "blur" and dtype is torch.float32:
        assert torch.equal(POOLS[name](5, 2)(x), BlurPool2d(5, pad_mode="replicate")(x))


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_number_of_axes(name: str, axes: int) -> None:
    """What varies along one axis only is pooled as by the pool of one axis."""
    line = torch.randn(2, 3, 7, dtype=torch.double)
    try:
        pool, single = POOLS[name](3, axes), POOLS[name](3, 1)
    except ValueError as error:  # a pool may have fewer axes, and says so
        pytest.skip(str(error))
    if name == "alt":
        pool.level = single.level = 0
    expected = single(line)
    for axis in range(axes):
        shape = [2, 3, *(7 if i == axis else 1 for i in range(axes))]
        x = line.view(shape).expand(2, 3, *[7] * axes)
        found = pool(x)
        assert found.shape[2:] == expected.shape[2:] * axes
        inner = found.movedim(2 + axis, -1).flatten(2, -2)[:, :, 0] if axes > 1 else found
        torch.testing.assert_close(inner, expected, rtol=1e-12, atol=0)


def test_one_axis_by_hand() -> None:
    x = torch.tensor([[[1.0, 3.0, 8.0]]])
    assert POOLS["avg"](1, 1)(x).tolist() == [[[2.0, 8.0]]]
    assert POOLS["max"](1, 1)(x).tolist() == [[[3.0, 8.0]]]
    assert POOLS["blur"](1, 1)(x).tolist() == [[[1.5, 6.75]]]


# --- nothing is stored --------------------------------------------------------------------------


@pytest.mark.parametrize("variant", CHANGING)
def test_nothing_is_unset_after_to_empty_and_a_strict_load(variant: str) -> None:
    model, x = rfbench.fix(small(), variant), torch.randn(1, 3, 64, 64)
    state, expected = small().state_dict(), model(x)
    assert list(model.state_dict()) == list(state)
    emptied = rfbench.fix(small(), variant).to("meta").to_empty(device="cpu")
    for tensor in [*emptied.parameters(), *emptied.buffers()]:
        nn.init.constant_(tensor, torch.nan if tensor.is_floating_point() else 0)
    emptied.load_state_dict(state, strict=True)
    assert torch.equal(emptied(x), expected)


@pytest.mark.parametrize("kind", ["buffer", "parameter", "attribute"])
def test_a_pool_that_stores_a_tensor_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stores(channels: int, axes: int) -> nn.Module:
        pool = BlurPool2d(channels) if kind == "buffer" else nn.AvgPool2d(2)
        if kind == "parameter":
            pool.weight = nn.Parameter(torch.ones(1))
        if kind == "attribute":
            pool.weight = torch.ones(1)
        return pool

    monkeypatch.setitem(POOLS, "stores", stores)
    conv = nn.Conv2d(3, 3, 3, 2, 1)
    with pytest.raises(UsageError, match="the pool 'stores' stores a tensor"):
        rfbench.fix(conv, "stores:3x3")
    assert type(conv) is nn.Conv2d


# --- what a changed network survives ------------------------------------------------------------

COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "script": torch.jit.script,
    "compile": lambda model: torch.compile(model, backend="eager", fullgraph=True),
    "fx": torch.fx.symbolic_trace,
}


@pytest.mark.parametrize("variant", CHANGING)
@pytest.mark.parametrize("kind", COPIES)
def test_copies_compute_the_same(variant: str, kind: str) -> None:
    model, x = rfbench.fix(small(), variant), torch.randn(2, 3, 65, 64)
    other = COPIES[kind](model)
    assert torch.equal(other(x), model(x))
    keys = {key.removeprefix("_orig_mod.") for key in other.state_dict()}
    plain = set(small().state_dict())
    # fx drops buffers that evaluation does not read
    assert (keys == plain) if kind != "fx" else {k for k in plain if "num_batches" not in k} <= keys


@pytest.mark.parametrize("variant", CHANGING)
def test_a_scripted_network_is_saved_and_loaded(variant: str) -> None:
    model, x, file = rfbench.fix(small(), variant), torch.randn(1, 3, 64, 64), io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(x), model(x))


@pytest.mark.parametrize("variant", CHANGING)
def test_an_exported_network(variant: str) -> None:
    model, x = rfbench.fix(small(), variant), torch.randn(1, 3, 64, 64)
    exported = torch.export.export(model, (x,))
    assert torch.equal(exported.module()(x), model(x))
    assert sorted(exported.state_dict) == sorted(small().state_dict())


@pytest.mark.parametrize("variant", CHANGING)
def test_data_parallel(variant: str, tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        model, x = rfbench.fix(small(), variant).train(), torch.randn(2, 3, 64, 64)
        parallel = DistributedDataParallel(copy.deepcopy(model))
        parallel(x).sum().backward(), model(x).sum().backward()
        for ours, theirs in zip(model.parameters(), parallel.parameters(), strict=True):
            assert ours.grad is not None and torch.equal(ours.grad, theirs.grad)
    finally:
        torch.distributed.destroy_process_group()


def test_convolutions_that_take_more_than_a_map(tmp_path: Path) -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            return scale * super().forward(x)

    conv, x = Scaled(3, 4, 3, 2, 1), torch.randn(1, 3, 8, 8)
    expected = 2 * F.conv2d(F.avg_pool2d(x, 2), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(rfbench.fix(conv, "3x3")(x, scale=2.0), expected)


# --- a new pool ---------------------------------------------------------------------------------

# as one line more in pools.py would have it
NEW = """
from torch import nn
from rfbench.models.pools import POOLS
POOLS["first"] = lambda channels, axes: nn.MaxPool2d(1, 2)
"""
SEEN = """
import torch, torchvision, rfbench
from rfbench.models import variants
from rfbench.report import html, sort

name = "first:1x1+3x3"
assert name in variants.VARIANTS and sort.paper_order(name) < sort.paper_order("mine")
plain, fixed = torchvision.models.resnet18(), rfbench.fix(torchvision.models.resnet18(), name)
assert list(fixed.state_dict()) == list(plain.state_dict())
assert len(variants.apply(plain, {"kernels": [3], "pool": "first"})) == 3
"""
RUN = """
import json, sys
from click.testing import CliRunner
from rfbench.cli import main

print(json.dumps([CliRunner().invoke(main, args).output for args, _ in json.load(sys.stdin)]))
"""
COMMANDS = [
    (["visualize-rf", "resnet18", "--variant", "first:1x1+3x3", "--json"], "first:1x1+3x3"),
    (["rf", "theory", "resnet18", "--variant", "first:3x3"], "torchvision:resnet18 / first:3x3"),
    (["rf", "audit", "resnet18", "--variant", "first:1x1+3x3"], "resnet18 / first:1x1+3x3"),
    (["train-cls", "-o", "variant=first:1x1+3x3", "--dry-run"], "first:1x1+3x3"),
    (
        ["visualize-rf", "resnet18", "--variant", "firts:1x1", "--dry-run"],
        "unknown pool 'firts'. Did you mean: first",
    ),
    (
        ["train-cls", "-o", "variant={kernels: [3], pool: zzz}", "--dry-run"],
        "alt, blur_after, first.",
    ),
]


def test_a_new_pool_is_one_entry(tmp_path: Path) -> None:
    """Where it appears: the list of variants, `fix`, the commands, their errors, `compare`."""
    code = f"{NEW}{SEEN}{RUN}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(COMMANDS),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    for output, (args, shown) in zip(json.loads(done.stdout), COMMANDS, strict=True):
        assert shown in output, args
