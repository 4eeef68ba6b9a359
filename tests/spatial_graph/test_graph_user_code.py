"""The spatial graph of what users' code does besides layers: writes, transforms, control flow.

Every network is compared with autograd on the real module, or refused for a reason that is true.
"""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rfbench.errors import NoPath, RfbenchError
from rfbench.rf.core.target import Target
from rfbench.spatial_graph.node import Reach
from rfbench.spatial_graph.reader import spatial_graph
from tests.spatial_graph.cases import Cases, Net, conv, examine

SIZE = (12, 14)
CASES = Cases()
A: dict[str, Any] = {"size": SIZE, "a": conv(), "b": conv(4, 4, 3, 2)}
LAYERS: dict[str, nn.Module] = {"a": conv(), "b": conv(4, 4, 3, 2)}
UNSUPPORTED, GLOBAL = Reach.UNSUPPORTED, Reach.GLOBAL


# -- writes and views in place ---------------------------------------------------------------------


@CASES.add(**A)
def strided_write(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    y[:, :, ::2] = n.a(2 * x)[:, :, 1::2]
    y[..., 1:] += y[..., :-1].clone()
    return n.b(y)


@CASES.add(**A)
def borders_set_to_zero(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    y[:, :, 0] = 0
    y[..., -2:] = 0
    return n.b(y)


@CASES.add(**A)
def patch_by_patch(n: Any, x: Tensor) -> Tensor:
    y = torch.zeros_like(n.a(x))
    for i in (0, 6):
        y[:, :, i : i + 6, :7] = n.a(x[:, :, i : i + 6, :7])
        y[:, :, i : i + 6, 7:] = n.a(x[:, :, i : i + 6, 7:])
    return y


@CASES.each({"table": torch.tensor([0, 3, -1]), "mask": torch.arange(12) % 3 == 1}, **A)
def rows_overwritten(n: Any, x: Tensor, which: Tensor) -> Tensor:
    y = n.a(x)
    z = y.clone()
    y[:, :, which] = z[:, :, which].flip(3)
    z[:, :, which] = 0
    return n.b(y) + n.b(z) + n.b(z.index_fill(2, torch.tensor([5]), 1.0))


@CASES.each({"below": -1, "above": 2}, **A)
def triangle_overwritten(n: Any, x: Tensor, diagonal: int) -> Tensor:
    y = n.a(x)
    y[:, :, torch.ones(SIZE).tril(diagonal).bool()] = 0
    return n.b(y)


@CASES.add(**A)
def overwritten_by_value(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    y[y < 0.1] = 0
    return n.b(y)


@CASES.add(UNSUPPORTED, "aten.index_put", **A)
def entries_written_one_by_one(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    y[:, :, torch.arange(12), torch.arange(12)] = 0
    return n.b(y)


@CASES.add(**A)
def views_in_place(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    y.unsqueeze_(2)
    y = y + y
    y.squeeze_(2)
    y.transpose_(2, 3)
    return n.b(y)


def box_filter(x: Tensor, k: int) -> Tensor:
    total = F.pad(x, (1, 0)).cumsum(3)
    return total[..., k:] - total[..., :-k]


@CASES.add(UNSUPPORTED, "aten.sub", **A)
def box_by_running_sums(n: Any, x: Tensor) -> Tensor:
    return n.b(box_filter(n.a(x), 3))


@CASES.add(**A)
def running_sums_less_others(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y.cumsum(3) - 0.5 * n.a(y[:, :3]).cumsum(2))


@CASES.add(d=torchvision.ops.DeformConv2d(4, 4, 3), **A)
def offsets_by_the_network(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.d(y, y.new_zeros(1, 18, 10, 12))


# -- tables of numbers, made where the image is ----------------------------------------------------

EDGE = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


@CASES.each({"tensor": torch.tensor, "as_tensor": torch.as_tensor, "asarray": torch.asarray}, **A)
def kernel_of_numbers(n: Any, x: Tensor, make: Any) -> Tensor:
    kernel = make(EDGE, dtype=x.dtype, device=x.device)
    return n.b(F.conv2d(n.a(x), kernel.expand(4, 1, 3, 3), padding=1, groups=4))


@CASES.add(**A)
def mask_of_numbers(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y * y.new_tensor([1.0] * 5 + [0.0] * 9) + y * y.new_tensor(data=np.eye(12, 14)))


@CASES.add(**A)
def table_of_numbers(n: Any, x: Tensor) -> Tensor:
    return n.b(n.a(x).index_select(2, torch.tensor([0, 3, 3, 11], device=x.device)))


@CASES.add(**A)
def filled_with_a_number(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    mask = torch.cat([y.new_full((12, 9), 0.0), y.new_full((12, 5), 2.0)], 1)
    return n.b(y * mask) + n.b(y * torch.full_like(mask, 3.0).triu(9))


@CASES.add(**A)
def number_read_from_a_tensor(n: Any, x: Tensor) -> Tensor:
    step = torch.tensor([1, 2], device=x.device).sum()
    rows = torch.arange(x.shape[2], device=x.device)
    y = n.a(x)[:, :, :: int(step)]
    return n.b(y) if (rows < 12).all() else y


@CASES.add(size=SIZE, a=conv(), b=conv(4, 4, 3, 2), flags=nn.BatchNorm2d(4))
def number_read_from_a_buffer(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return n.b(y) if n.flags.num_batches_tracked.item() == 0 else y


# -- around layers ---------------------------------------------------------------------------------


@CASES.add(**A)
def checkpointed(n: Any, x: Tensor) -> Tensor:
    return n.b(checkpoint(n.a, x, use_reentrant=False))


@CASES.add(**A)
def over_a_batch(n: Any, x: Tensor) -> Tensor:
    return n.b(torch.vmap(lambda image: n.a(image[None])[0])(x))


@CASES.add(**A)
def quantised_in_training(n: Any, x: Tensor) -> Tensor:
    return n.b(torch.fake_quantize_per_tensor_affine(n.a(x), 0.01, 0, 0, 255))


@CASES.add(**A)
def chosen_by_size(n: Any, x: Tensor) -> Tensor:
    return torch.cond(x.shape[2] > 4, lambda t: n.b(n.a(t)), lambda t: n.a(t), (x,))


@CASES.add(size=SIZE, a=conv(7, 4), channels=3)
def state_of_a_recurrent_convolution(n: Any, x: Tensor) -> Tensor:
    state = x.new_zeros(1, 4, *SIZE)
    for _ in range(3):
        state = n.a(torch.cat([x, state], 1))
    return state


@CASES.add(size=SIZE, a=conv())
def row_after_row(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    rows = [y[:, :, :1]]
    for i in range(1, 12):
        weight = torch.ones(4, 4, 1, 3).to(x) / 12
        rows.append(y[:, :, i : i + 1] + F.conv2d(rows[-1], weight, padding=(0, 1)))
    return torch.cat(rows, 2)


@CASES.add(size=SIZE, w=nn.Conv2d(135, 4, 1), b=conv(4, 4, 3, 2), channels=3)
def splines(n: Any, x: Tensor) -> Tensor:
    """A Kolmogorov-Arnold convolution."""
    grid = torch.linspace(0, 2, 5).to(x)
    basis = torch.exp(-((F.unfold(x, 3, padding=1)[..., None] - grid) ** 2))
    weight = n.w.weight.view(4, 135)
    return n.b((weight @ basis.permute(0, 1, 3, 2).flatten(1, 2)).view(1, 4, *SIZE))


@CASES.add(size=SIZE, a=conv(), k=conv(3, 9))
def kernels_of_each_position(n: Any, x: Tensor) -> Tensor:
    windows = F.unfold(n.a(x), 3, padding=1).view(1, 4, 9, *SIZE)
    return (windows * n.k(x)[:, None]).sum(2)


@CASES.add(UNSUPPORTED, "torchvision.roi_align", size=SIZE, a=conv())
def boxes(n: Any, x: Tensor) -> Tensor:
    return torchvision.ops.roi_align(n.a(x), [torch.tensor([[1.0, 1, 9, 9]]).to(x)], 4)


@CASES.add(UNSUPPORTED, "aten.grid_sampler", size=SIZE, a=conv(), flow=conv(3, 2))
def warped(n: Any, x: Tensor) -> Tensor:
    eye = F.affine_grid(torch.eye(2, 3)[None].to(x), [1, 4, *SIZE], align_corners=False)
    places = eye + n.flow(x).permute(0, 2, 3, 1)
    return F.grid_sample(n.a(x), places, align_corners=False)


@CASES.add(UNSUPPORTED, "aten.affine_grid", size=SIZE, a=conv(), where=nn.Linear(3, 6))
def transformed(n: Any, x: Tensor) -> Tensor:
    theta = n.where(x.mean((2, 3))).view(-1, 2, 3)
    return F.grid_sample(n.a(x), F.affine_grid(theta, [1, 4, *SIZE], False), align_corners=False)


# -- transforms ------------------------------------------------------------------------------------


@CASES.add(GLOBAL, "aten._fft_r2c", **A)
def spectrum(n: Any, x: Tensor) -> Tensor:
    return n.a(x) + torch.fft.irfft2(torch.fft.rfft2(n.a(x)))


@CASES.add(**A)
def spectrum_of_channels(n: Any, x: Tensor) -> Tensor:
    return n.b(torch.fft.fft(n.a(x), dim=1).abs())


@CASES.add(**A)
def spectrum_of_windows(n: Any, x: Tensor) -> Tensor:
    return torch.fft.fft(n.a(x).unfold(3, 4, 2)).abs()


@CASES.add(size=SIZE, a=conv())
def spectrum_of_rows(n: Any, x: Tensor) -> Tensor:
    y = torch.fft.rfft(n.a(x))
    return torch.view_as_real(y).square().sum(-1)


AUDIO: dict[str, Any] = {
    "size": (96,),
    "a": nn.Conv1d(2, 1, 3, padding=1),
    "b": nn.Conv1d(9, 4, 3, padding=1),
}


@CASES.each({"hann": torch.hann_window(16), "hamming": torch.hamming_window(16)}, **AUDIO)
def spectrogram(n: Any, x: Tensor, window: Tensor) -> Tensor:
    window = window.to(x)
    z = torch.stft(n.a(x)[:, 0], 16, 4, window=window, center=False, return_complex=True)
    return n.b(z.abs())


@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    CASES[name].check()


def test_a_number_read_from_the_image_or_from_a_weight_is_not_known() -> None:
    for read in (lambda n, x: x.max() > 1, lambda n, x: n.a.bias.sum() > 0):
        net = Net(lambda n, x, read=read: n.b(n.a(x)) if read(n, n.a(x)) else n.a(x), **LAYERS)
        with pytest.raises(RfbenchError, match="reads values"):
            spatial_graph(net, SIZE)


def test_a_spectrogram_has_the_hop_for_a_stride() -> None:
    case = CASES["spectrogram_hamming"]
    (field,) = Target(spatial_graph(case.module, case.size, case.channels)).fields
    # a window of 16, three of them with hop 4, a layer of 3 taps in front
    assert field is not None and (field.size, field.stride) == (16 + 2 * 4 + 2, 4)


def test_mixing_along_rows_is_global_along_x() -> None:
    case = CASES["spectrum_of_rows"]
    graph = spatial_graph(case.module, case.size, case.channels)
    assert graph.mixed_axes(graph.output) == "x"


REFUSED = {
    "torch.cond chooses by values": lambda n, x: torch.cond(
        x.sum() > 0, lambda t: n.a(t), lambda t: n.a(t) + 1, (x,)
    ),
    "shape of its result depends on values: torchvision::nms": lambda n, x: torchvision.ops.nms(
        n.a(x).flatten(2)[0].T, n.a(x)[0, 0].flatten(), 0.5
    ),
    r"Its code reads values \(test_graph_user_code.py, line \d+\)": (
        lambda n, x: n.a(x) if n.a(x).mean() > 0 else x
    ),
    "hands a tensor to NumPy": lambda n, x: torch.from_numpy(n.a(x).cpu().numpy()),
    "tolist.. looks at values": lambda n, x: n.a(x) if n.a(x).tolist() else x,
    "constructor looks at values": lambda n, x: torch.FloatTensor(n.a(x)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_the_reason_is_one_line(reason: str) -> None:
    with pytest.raises(RfbenchError, match=reason) as caught:
        spatial_graph(Net(REFUSED[reason], a=conv()), SIZE)
    assert len(str(caught.value)) < 200


def test_an_operation_without_a_result_is_passed_over() -> None:
    """torch.linalg.inv checks for errors by one that returns nothing."""
    graph = spatial_graph(Net(lambda n, x: torch.linalg.inv(n.a(x)), a=conv()), (16, 16))
    with pytest.raises(RfbenchError, match="unsupported: aten.linalg_inv_ex"):
        Target(graph).counts()


def test_a_convolution_over_channels_and_columns_is_not_called_attention() -> None:
    """The gate of triplet attention: rows are pooled as if they were channels."""

    def gated(n: Any, x: Tensor) -> Tensor:
        y = n.a(x).transpose(1, 2)  # N x H x C x W
        return (y * n.b(y.amax(1, keepdim=True))).transpose(1, 2)

    verdict = examine(Net(gated, a=conv(), b=conv(1, 1)), SIZE)
    assert verdict.witness.reach == Reach.CONTEXT and not verdict.wrong, verdict
    with pytest.raises(NoPath, match="all paths from 'b' to 'the output' lead through a global"):
        Target(verdict.graph, None, "b").counts()
