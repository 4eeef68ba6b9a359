"""Rows that are written one after the other: the inverse wavelet, rows of zeros, interlacing."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from rfbench import rf

SIDE = 32


class Below(nn.Module):
    """A strided convolution, and one at stride 1 over what `spread` makes of its map."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, 2, 1)
        self.b = nn.Conv2d(channels, 4, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.spread(self.a(x)))

    def spread(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Wavelet(Below):
    """The inverse of Haar's, with y[::2, ::2] = ... for each of four channels."""

    def spread(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        a, b, c, d = (part / 2 for part in x.chunk(4, 1))
        y = torch.zeros(n, 2, 2 * height, 2 * width)
        y[:, :, 0::2, 0::2] = a - b - c + d
        y[:, :, 1::2, 0::2] = a - b + c - d
        y[:, :, 0::2, 1::2] = a + b - c - d
        y[:, :, 1::2, 1::2] = a + b + c + d
        return y


class Shuffle(Below):
    def spread(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(x, 2)


class Zeros(Below):
    """Zeros between the rows, as in a transposed convolution."""

    def spread(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        y = torch.zeros(n, channels, 2 * height, 2 * width)
        y[:, :, ::2, ::2] = x
        return y


class Transposed(nn.Module):
    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, 2, 1)
        pad = kernel // 2
        self.b = nn.ConvTranspose2d(8, 4, kernel, 2, pad, output_padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


FIGURES = ("shift", "gridding", "read", "misaligned", "checkerboard")


def test_the_inverse_wavelet_is_as_even_as_pixel_shuffle() -> None:
    """Every output reads one position of the map below, of all channels."""
    written, shuffled = (rf.audit(net(2), size=SIDE) for net in (Wavelet, Shuffle))
    assert {k: written[k] for k in FIGURES} == {k: shuffled[k] for k in FIGURES}
    assert [s["layer"] for s in written["steps"]] == [
        "a"
    ]  # what is read to be written back is none
    theory = rf.theory(rf.record(Wavelet(2), size=SIDE))
    assert theory["y"]["phases"] == ((-3, 1), (-1, 3))  # by hand: 3 at stride 2, and 3 at stride 1


@pytest.mark.parametrize("kernel", [3, 5])
def test_rows_of_zeros_are_a_transposed_convolution(kernel: int) -> None:
    """Its checkerboard is told, though no layer is named."""
    written = rf.audit(Zeros(8, kernel), size=SIDE)
    known = rf.audit(Transposed(kernel), size=SIDE)
    for figure in FIGURES:
        assert written[figure] == pytest.approx(known[figure]), figure
    assert written["checkerboard"] > 0.2
    assert "(by )" not in str(written)


def test_what_is_written_is_what_gradients_reach() -> None:
    net = Wavelet(2).double()
    for p in net.parameters():  # all positive, and sums alone: nothing cancels
        nn.init.uniform_(p, 0.5, 1.5)
    x = torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    parts = net.a(x).chunk(4, 1)
    y = torch.zeros(1, 2, SIDE, SIDE, dtype=x.dtype)
    for i, j in product((0, 1), repeat=2):
        y[:, :, i::2, j::2] = sum(parts)
    out = net.b(y)
    for unit in product((15, 16), repeat=2):
        (grad,) = torch.autograd.grad(out[0, :, unit[0], unit[1]].sum(), x, retain_graph=True)
        rows = grad[0].sum((0, 2)).nonzero().flatten().tolist()
        first = unit[0] - (3 if unit[0] % 2 == 0 else 2)
        assert rows == [*range(first, first + 5)]
