"""The spatial graph of what networks do by hand: enlarging, shuffling, sampling, ranking.

Every network is compared with autograd on the real module, unit by unit, and so are path counts
where it is linear. A map is as large as the tensor that the network returns.
"""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.errors import RfbenchError
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.layout import Value
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import Case, Cases, conv
from tests.spatial_graph.oracle import Alive, gradients, reached, sampled

SIZE = (12, 14)
LINEAR, OTHER = Cases(), Cases()
A: dict[str, Any] = {"size": SIZE, "a": conv(), "b": conv(4, 4, 3, 2)}
C: dict[str, Any] = {**A, "c": conv(4, 4)}
UNET: dict[str, Any] = {**A, "c": conv(8, 4)}


def twice(y: Tensor) -> Tensor:
    """Enlarged by expand and reshape."""
    n, c, h, w = y.shape
    return y[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)


# -- enlarging -------------------------------------------------------------------------------------


@LINEAR.add(**A)
def repeated(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).repeat_interleave(2, 2).repeat_interleave(3, 3))


@LINEAR.add(**A)
def repeated_unevenly(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).repeat_interleave(torch.arange(12) % 3 + 1, dim=2))


@LINEAR.add(**A)
def expanded(n: Any, x: Tensor) -> Tensor:
    return n.b(twice(n.b(n.a(x))))


@LINEAR.add(**A)
def expanded_at_the_end(n: Any, x: Tensor) -> Tensor:
    return twice(n.b(n.a(x)))


@LINEAR.add(**UNET)
def expanded_beside_a_skip(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.c(torch.cat([y, twice(n.b(y))], 1))


@LINEAR.add(**C)
def expanded_onto_a_skip(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.c(y + n.b(y).repeat_interleave(2, 2).repeat_interleave(2, 3))


@LINEAR.add(**A)
def copied_by_stacking(n: Any, x: Tensor) -> Tensor:
    y = n.b(n.a(x))
    rows = torch.stack([y, y], 3).flatten(2, 3)
    return n.b(torch.stack([rows, rows], 4).flatten(3, 4))


@LINEAR.add(**C)
def interleaved_at_the_end(n: Any, x: Tensor) -> Tensor:  # as in FCRN's fast up-projection
    y, z = n.b(n.a(x)), n.c(n.b(n.a(x)))
    rows = torch.stack([y, z], -1).flatten(3, 4), torch.stack([z, y], -1).flatten(3, 4)
    return torch.stack(rows, 3).flatten(2, 3)


@LINEAR.add(**C)
def interleaved(n: Any, x: Tensor) -> Tensor:
    y = n.b(n.a(x))
    return n.b(torch.stack([y, n.c(y)], 3).flatten(2, 3))


@LINEAR.add(**A)
def by_kronecker(n: Any, x: Tensor) -> Tensor:
    return n.b(torch.kron(n.b(n.a(x)), torch.ones(1, 1, 2, 2).to(x)))


@LINEAR.add(**A)
def by_repeating(n: Any, x: Tensor) -> Tensor:
    y = n.b(n.a(x))
    y = y.unsqueeze(3).unsqueeze(5).repeat(1, 1, 1, 2, 1, 2)
    return n.b(y.view(1, 4, 12, 14))


@LINEAR.add(**A)
def side_by_side(n: Any, x: Tensor) -> Tensor:
    return n.b(torch.tile(n.a(x), (1, 1, 2, 3)))


@LINEAR.add(**A)
def among_zeros_by_padding(n: Any, x: Tensor) -> Tensor:
    y = F.pad(n.b(n.a(x))[..., None, :, None], (0, 1, 0, 0, 0, 1))
    return n.b(y.reshape(1, 4, 12, 14))


@LINEAR.add(**A)
def among_zeros_by_writing(n: Any, x: Tensor) -> Tensor:
    y = x.new_zeros(1, 4, 12, 14)
    y[:, :, ::2, 1::2] = n.b(n.a(x))
    return n.b(y)


@LINEAR.add(**A)
def repeated_and_cropped(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).repeat_interleave(2, 2)[:, :, 1:-2].flip(2))


@LINEAR.add(**A)
def repeated_and_masked(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).repeat_interleave(2, 3) * torch.arange(28).remainder(3).ne(0).to(x))


@LINEAR.add(**A)
def repeated_and_joined(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(torch.cat([y.repeat_interleave(2, 2), y], 2))


@LINEAR.add(**A)
def repeated_and_pooled(n: Any, x: Tensor) -> Tensor:
    return F.avg_pool2d(n.a(x).repeat_interleave(2, 2), 3, 2, 1)


@LINEAR.add(Reach.CONTEXT, "aten.convolution", **A)
def one_row_repeated(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).mean(2, keepdim=True).repeat(1, 1, 12, 1))


@LINEAR.add(Reach.CONTEXT, "aten.cat", **A)
def one_row_joined(n: Any, x: Tensor) -> Tensor:
    return torch.cat([n.a(x).mean(2, keepdim=True)] * 12, 2)


# -- channels and positions ------------------------------------------------------------------------


@LINEAR.add(size=SIZE, a=conv(12, 4), b=conv(4, 4, 3, 2), channels=3)
def focus(n: Any, x: Tensor) -> Tensor:
    parts = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
    return n.b(n.a(torch.cat(parts, 1)))


@LINEAR.add(size=SIZE, a=conv(12, 4), b=conv(4, 4, 3, 2), channels=3)
def space_to_depth(n: Any, x: Tensor) -> Tensor:
    y = x.view(1, 3, 6, 2, 7, 2).permute(0, 3, 5, 1, 2, 4).reshape(1, 12, 6, 7)
    return n.b(n.a(y))


@LINEAR.add(**A)
def space_to_depth_at_the_end(n: Any, x: Tensor) -> Tensor:
    return F.pixel_unshuffle(n.a(x), 2)


@LINEAR.add(**A)
def space_to_depth_joined(n: Any, x: Tensor) -> Tensor:
    return torch.cat([F.pixel_unshuffle(n.a(x), 2), n.b(n.a(x))], 1)


@LINEAR.add(size=SIZE, a=conv(3, 16), b=conv(4, 4, 3, 2))
def depth_to_space(n: Any, x: Tensor) -> Tensor:
    y = n.a(x).view(1, 2, 2, 4, 12, 14).permute(0, 3, 4, 1, 5, 2)
    return n.b(y.reshape(1, 4, 24, 28))


@LINEAR.add(size=SIZE, a=conv(3, 8), c=conv(8, 8), b=conv(4, 4, 3, 2))
def shuffle_of_two_histories(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(F.pixel_shuffle(torch.stack([y, n.c(y)], 2).flatten(1, 2), 2))


# -- choosing and sampling -------------------------------------------------------------------------


@LINEAR.each({"rows": 2, "columns": 3, "channels": 1}, **A)
def by_a_mask(n: Any, x: Tensor, dim: int) -> Tensor:
    y = n.a(x)
    return y.index_select(dim, torch.tensor([0])) + y[
        (slice(None),) * dim + (torch.arange(y.shape[dim]) % 3 != 1,)
    ].sum(dim, keepdim=True)


@LINEAR.each({"some": 3, "all": 99}, **A)
def by_a_mask_of_rows(n: Any, x: Tensor, which: int) -> Tensor:
    return n.b(n.a(x)[:, :, torch.arange(12) % which != 2 if which < 9 else torch.ones(12).bool()])


@LINEAR.add(**A)
def crossed_tables(n: Any, x: Tensor) -> Tensor:
    rows, columns = torch.tensor([0, 3, 3, 11, 5]), torch.arange(0, 14, 2)
    return n.b(n.a(x)[:, :, rows[:, None], columns])


@LINEAR.add(**A)
def gathered(n: Any, x: Tensor) -> Tensor:
    y = n.a(x).gather(3, torch.arange(13, -1, -2).expand(1, 4, 9, 7))
    return n.b(y.take_along_dim(torch.tensor([1, 1, 0, 8]).view(1, 1, 4, 1), 2))


@LINEAR.add(Reach.UNSUPPORTED, "aten.gather", **A)
def gathered_unevenly(n: Any, x: Tensor) -> Tensor:
    table = (torch.arange(14) + torch.arange(12)[:, None]) % 14
    return n.a(x).gather(3, table.expand(1, 4, 12, 14))


def grid(*rows: list[float]) -> Tensor:
    return torch.tensor([rows])


@LINEAR.each({"half": True, "whole": False}, **A)
def sampled_on_a_grid(n: Any, x: Tensor, corners: bool) -> Tensor:
    theta = grid([0.5, 0, 0.1], [0, 0.7, 0]).to(x)
    places = F.affine_grid(theta, [1, 4, 8, 9], align_corners=corners)
    return n.b(F.grid_sample(n.a(x), places, align_corners=corners))


@LINEAR.each({"border": "bilinear", "reflection": "nearest"}, **A)
def sampled_on_a_mesh(n: Any, x: Tensor, mode: str) -> Tensor:
    y, pad = n.a(x), "border" if mode == "bilinear" else "reflection"
    rows, columns = torch.linspace(-1.1, 1, 7).to(x), torch.linspace(-0.9, 1.2, 9).to(x)
    mesh = torch.meshgrid(columns, rows, indexing="xy")
    places = torch.stack(mesh, -1)[None]
    return n.b(F.grid_sample(y, places, mode=mode, padding_mode=pad, align_corners=False))


@LINEAR.add(size=(6, 7, 8), a=nn.Conv3d(1, 2, 3, padding=1), channels=1)
def sampled_volume(n: Any, x: Tensor) -> Tensor:
    theta = grid([0.55, 0, 0, 0.02], [0, 0.77, 0, 0.1], [0, 0, 0.61, 0.04]).to(x)
    places = F.affine_grid(theta, [1, 2, 4, 5, 3], align_corners=True)
    return F.grid_sample(n.a(x), places, align_corners=True)


@LINEAR.add(Reach.UNSUPPORTED, "aten.grid_sampler", **A)
def sampled_on_a_turned_grid(n: Any, x: Tensor) -> Tensor:
    theta = grid([0.8, 0.2, 0], [-0.2, 0.8, 0]).to(x)
    places = F.affine_grid(theta, [1, 4, 8, 9], align_corners=False)
    return F.grid_sample(n.a(x), places, align_corners=False)


# -- what values decide: every entry that may be chosen counts -------------------------------------


@OTHER.each({"indices": 0, "values": 1}, **A)
def unpooled(n: Any, x: Tensor, _: int) -> Tensor:
    y, where = F.max_pool2d(n.a(x), 2, return_indices=True)
    return n.b(F.max_unpool2d(y, where, 2))


@OTHER.add(**C)
def unpooled_deeper(n: Any, x: Tensor) -> Tensor:  # SegNet
    y, where = F.max_pool2d(n.a(x), 2, return_indices=True)
    return n.c(F.max_unpool2d(n.c(y), where, 2))


@OTHER.add(**A)
def ranked_channels(n: Any, x: Tensor) -> Tensor:
    y = torch.cat([n.a(x), x], 1)
    return y.sort(dim=1)[0][:, :4] + y.topk(4, dim=1)[0]


@OTHER.add(Reach.UNSUPPORTED, "aten.sort", **A)
def ranked_positions(n: Any, x: Tensor) -> Tensor:
    return n.a(x).sort(dim=2)[0]


@OTHER.add(Reach.UNSUPPORTED, "aten.sort", **A)
def ranked_positions_from_above(n: Any, x: Tensor) -> Tensor:
    return n.a(x).sort(dim=3, descending=True)[0]


@OTHER.add(Reach.UNSUPPORTED, "aten.topk", **A)
def best_positions(n: Any, x: Tensor) -> Tensor:
    return n.a(x).topk(4)[0]


@OTHER.add(**A)
def medians(n: Any, x: Tensor) -> Tensor:
    windows = n.a(x).unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)
    return n.b(windows.median(-1)[0])


@OTHER.add(**A)
def products_along_an_axis(n: Any, x: Tensor) -> Tensor:
    return n.a(x).prod(2, keepdim=True)


@OTHER.each({"rows": 2, "channels": 1}, **A)
def cumulated(n: Any, x: Tensor, dim: int) -> Tensor:
    return n.b(torch.cat([n.a(x), x], 1).cumsum(dim)[:, 1:5])


@OTHER.add(size=SIZE, a=conv(), l=nn.LocalResponseNorm(3), b=conv(4, 4))
def local_response(n: Any, x: Tensor) -> Tensor:
    return n.b(n.l(n.a(x)))


@OTHER.add(size=SIZE, a=conv(), c=conv(3, 4, 1), pool=nn.AvgPool3d((3, 1, 1), 1, (1, 0, 0)))
def pooled_channels(n: Any, x: Tensor) -> Tensor:  # a response norm by hand
    y = torch.cat([n.a(x), n.c(x)], 1)
    return n.pool((y**2).unsqueeze(1)).squeeze(1)


@OTHER.add(**C)
def complex_numbers(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    z = torch.complex(n.c(y), n.c(2 * y)) * torch.view_as_complex(torch.stack([y, y], -1))
    return n.b(z.conj().imag + torch.view_as_real(z)[..., 0])


@OTHER.each({"real": 0, "imaginary": 1}, **C)
def parts_of_different_history(n: Any, x: Tensor, part: int) -> Tensor:
    z = torch.complex(n.a(x), n.c(n.a(x)))
    return torch.view_as_real(z.transpose(2, 3))[..., part].transpose(2, 3)


@OTHER.add(**C)
def moduli_of_parts_of_different_history(n: Any, x: Tensor) -> Tensor:
    return n.b(torch.complex(n.a(x), n.c(n.a(x))).abs())


@OTHER.add(Reach.UNSUPPORTED, "aten.view_as_real", **C)
def parts_that_may_be_mixed(n: Any, x: Tensor) -> Tensor:
    return torch.complex(n.a(x), n.c(n.a(x))).conj().real * 2


EVERY = {**LINEAR, **OTHER}


def size_of(case: Case) -> tuple[int, ...]:
    """The size of the map that the network returns."""
    x = torch.zeros(1, case.channels or 3, *case.size)
    with torch.no_grad(), Alive():
        return tuple(case.module(x).shape[2:])


@pytest.mark.parametrize("name", EVERY)
def test_right_or_refused(name: str) -> None:
    EVERY[name].check()


@pytest.mark.parametrize("name", EVERY)
def test_regions(name: str) -> None:
    """Maps are as large as tensors; the field of a unit holds what gradients say, that of the
    central unit to the pixel."""
    case = EVERY[name]
    graph = spatial_graph(case.module, case.size, case.channels)
    if graph.witness(graph.output).reach > Reach.LOCAL:
        return
    assert graph.map_size(graph.output) == size_of(case)
    target = Target(graph)
    for unit in ((0,) * len(case.size), target.center):
        every = [(0, c, *unit) for c in range(target.value.shape[1])]
        hit = np.any(gradients(case.module, case.size, case.channels or 3, every), axis=0)
        try:
            regions = target.geometry.regions(unit)
        except RfbenchError as error:
            assert "no effective stride" in str(error) or not hit.any()
            continue
        for k, (first, last) in enumerate(regions):
            seen = np.flatnonzero(hit.any(tuple(i for i in range(hit.ndim) if i != k)))
            assert first <= seen[0] and seen[-1] <= last, (unit, k, first, last, seen)
            if unit == target.center and first >= 0 and last < case.size[k]:
                assert (seen[0], seen[-1]) == (first, last), (unit, k)


@pytest.mark.parametrize("name", LINEAR)
def test_counts(name: str) -> None:
    """All weights one: path counts are gradients."""
    case = LINEAR[name]
    graph = spatial_graph(case.module, case.size, case.channels)
    if not isinstance(graph.output, Value):
        return
    module = copy.deepcopy(case.module).double()
    for p_name, p in module.named_parameters():
        p.data.fill_(float(not p_name.endswith("bias")))
    form = (1, case.channels or 3, *case.size)
    x = torch.ones(form, dtype=torch.float64, requires_grad=True)
    out = module(x)
    for index in sampled(graph.output, 5):
        (grad,) = torch.autograd.grad(out[index], x, retain_graph=True)
        rule = {"channels": "real", "pool": "mean", "gates": "count"}
        found = reached(graph, graph.output, index, **rule)
        assert np.allclose(found, grad[0].sum(0).numpy(), rtol=1e-5, atol=1e-4), index
