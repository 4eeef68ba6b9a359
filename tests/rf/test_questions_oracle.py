"""Theory, mirror and tiles against the module itself, run in float64, kind by kind."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rfbench import rf
from rfbench.errors import RfbenchError
from tests.rf.oracle import Seen, box
from tests.rf.oracle_cases import CASES, Asked, scaled, taken

TILED = [
    "each axis its own", "dilated", "aspp", "uneven padding", "ceil mode", "padded by pixels",
    "blurred", "pixels to channels", "focus", "channels to pixels", "transposed",
    "transposed, uneven", "transposed twice", "u-net", "u-net without padding", "resized by halves",
    "pyramid 0", "branches", "two maps 0", "siamese", "guided", "causal", "causal, strided",
    "raw audio", "audio decoded", "sequence resized", "video", "volume u-net",
]  # fmt: skip
AT = "zyx"


def of_layer(seen: Seen, layer: str) -> Seen:
    """The output of a layer's first call in place of the network's."""
    kept: list[Tensor] = []
    seen.module.get_submodule(layer).register_forward_hook(lambda _m, _x, out: kept.append(out))

    def first(_: object) -> Tensor:
        found = kept[0]
        kept.clear()
        return found

    seen.take = first
    return seen


def turns_of(seen: Seen, axis: int, phases: int, stride: float) -> list[tuple[int, int]]:
    """First and last pixels of the units that take turns, as of units 0 ... p - 1."""
    c = seen.centre
    first = c[axis] // phases * phases
    units = range(first, first + phases)
    ends = [box(seen.field((*c[:axis], u, *c[axis + 1 :])))[axis] for u in units]
    begin = round(first * stride)
    return [(a - begin, b - begin) for a, b in ends]


@pytest.mark.parametrize("name", CASES)
def test_theory_of_every_layer(name: str) -> None:
    one = Asked(name)
    size = tuple(n + {1: 240, 2: 48, 3: 12}[len(one.size)] for n in one.size)
    graph = rf.record(one.net, **one.given(size))
    told = 0
    for layer in graph.layers:
        if layer not in dict(one.net.named_modules()):
            continue
        try:
            found = rf.theory(graph, layer, one.where["source"])
        except RfbenchError as error:
            assert "no path leads" in str(error)  # from this input
            continue
        seen = of_layer(one.seen(size), layer)
        phases, strides = seen.turns
        for k, (p, stride) in enumerate(zip(phases, strides, strict=True)):
            axis, ends = found[AT[3 - len(size) + k]], turns_of(seen, k, p, stride)
            sizes = [b - a + 1 for a, b in ends]
            several = (min(sizes), max(sizes)) if len({*sizes}) > 1 else sizes[0]
            assert (axis["stride"], axis["size"]) == (stride, several), layer
            assert axis["center"] == sum(ends[0]) / 2, layer
            assert axis["padding"] == (-ends[0][0] if p == 1 else None), layer
            told += 1
    assert told


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("two maps")])
def test_a_mirrored_image_is_looked_at_so_far_away(name: str) -> None:
    """Unit u of the network run on mirrored images, its map mirrored back."""
    one = Asked(name)
    found = rf.mirror(one.net, layer=one.layer, **one.given(one.size))
    seen = one.seen(one.large)
    phases, strides = seen.turns
    for k, stride in enumerate(strides):
        places = np.flip(np.indices(seen.side)[k], k).astype(float)
        sums = seen.run(places.copy())[1][0].mean(0).detach().numpy()
        back = np.flip(sums, k) / np.flip(seen.moments[0], k)
        off = np.mean([back[u] - seen.centroids[(k, *u)] for u in seen.period(phases)])
        row = found["axes"][AT[3 - len(strides) + k]]
        assert row["off"] == pytest.approx(off, abs=1e-6)
        assert row["units"] == pytest.approx(off / stride, abs=1e-6)


def test_a_field_far_from_its_unit_is_mirrored_on_a_large_image() -> None:
    """A causal network reads 14 samples behind: both maps have units in common there."""
    row = rf.mirror(CASES["causal"][0], size=(40,))["axes"]["x"]
    assert row["off"] == row["units"] == row["move"] == 14 and row["confirmed"]
    assert row["moved_image"] < 1e-12 < row["apart"] < 10


def randomised(net: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(5)
    net = copy.deepcopy(net).double().eval().requires_grad_(False)
    for p in net.parameters():
        p.copy_(torch.randn(p.shape, generator=draw, dtype=p.dtype) / 2)
    return net


def equal(one: Asked, net: nn.Module, whole: Any, crop: Any, align: Any, stride: Any) -> np.ndarray:
    """Which units of a crop in the middle of a whole image are those of the whole, as run."""
    draw = torch.Generator().manual_seed(6)
    shapes = scaled(one.shapes, whole)
    images = [torch.randn(1, *s, generator=draw, dtype=torch.float64) for s in shapes]
    start = [(w - c) // 2 // a * a for w, c, a in zip(whole, crop, align, strict=True)]
    parts = []
    for x in images:
        each = zip(start, crop, x.shape[2:], whole, strict=True)
        sides = tuple(slice(s * n // m, (s + c) * n // m) for s, c, n, m in each)
        parts.append(x[(..., *sides)])
    large, small = (taken(one.layer)(net(*each)) for each in (images, parts))
    first = [round(s / by) for s, by in zip(start, stride, strict=True)]
    ends = zip(first, small.shape[2:], strict=True)
    same = small - large[(..., *(slice(f, f + n) for f, n in ends))]
    return (same.abs().amax((0, 1)) < 1e-9 * large.abs().max()).numpy()


@pytest.mark.parametrize("name", TILED)
def test_what_tiles_lose(name: str) -> None:
    """The smallest crop, and one a step smaller: the units that equal the whole image's."""
    one = Asked(name)
    found = rf.tiles(one.net, layer=one.layer, **one.given(one.size))
    net, stride, align = randomised(one.net), found["stride"], found["align"]
    crop = found["smallest"]
    sides = zip(one.size, crop, align, strict=True)
    whole = tuple(n + -(-(2 * c + 2 * a) // a) * a for n, c, a in sides)
    same = equal(one, net, whole, crop, align, stride)
    axes = range(same.ndim)
    for k in axes:
        line = np.flatnonzero(same.any(tuple(a for a in axes if a != k)))
        kept = int(line[-1] - line[0]) + 1
        assert len(line) == kept and found["lost"][k] == (line[0], same.shape[k] - kept)
        assert found["crops"][0]["used"][k] == int(kept * stride[k] / align[k]) * align[k]
        assert kept * stride[k] < 2 * align[k] or min(same.shape) < 3  # not larger than it must be
    if not one.several:
        seen = one.seen(one.large)
        each = enumerate(zip(*seen.turns, strict=True))
        for k, (p, s) in each:
            ends = turns_of(seen, k, p, s)
            before, after = -min(a for a, _ in ends), max(b for _, b in ends) - round(p * s) + 1
            assert found["halo"][k] == (max(0, before), max(0, after))
