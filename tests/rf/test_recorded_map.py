"""The map in a record is the network's, to the grey, where it says; a damaged one is refused."""

import base64
import copy
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rfbench.models import backbones
from rfbench.rf.core import recorded
from rfbench.rf.core.recorded_map import LONGEST, decode, encode
from tests.rf.test_render import smooth

# strides of 2 by kernels of 1 and 3, a branch, and a kernel that looks to one side
NETWORK = """
from torch import nn

class Sided(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.left, self.right = nn.Conv2d(4, 4, 1, 2), nn.Conv2d(4, 4, 3, 2, 1)
        self.last = nn.Conv2d(4, 4, (3, 5), 1, (1, 4), bias=False)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.left(x) + self.right(x))[..., 2:]

def small():
    return Sided()

def large():
    wide = [nn.Conv2d(3, 1, (61, 1), (2, 1), (30, 0)), nn.Conv2d(1, 1, (1, 61), (1, 2), (0, 30))]
    wide += [nn.Conv2d(1, 1, (121, 1), 1, (60, 0)), nn.Conv2d(1, 1, (1, 121), 1, (0, 60))]
    return nn.Sequential(*wide)
"""


def kept(folder: Path, name: str) -> tuple[dict[str, Any], nn.Module]:
    """What a record keeps of a network's map, and the network itself, with memory."""
    path = folder / "nets.py"
    path.write_text(NETWORK)
    found = recorded.look(backbones.build(f"{path}:{name}", "baseline", meta=True))
    return found["map"], backbones.build(f"{path}:{name}", "baseline").module


def gradient(network: nn.Module, size: int) -> tuple[np.ndarray, list[float]]:
    """Paths from each pixel to the central unit by gradients, and where that unit is, (y, x)."""
    with torch.no_grad():
        for name, weights in network.named_parameters():
            weights.fill_(0.0 if name.endswith("bias") else 1.0)
    image = torch.zeros(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    out = network.double()(image)
    units = out.shape[-2:]
    unit = [n // 2 for n in units]
    out[0, 0, unit[0], unit[1]].backward()
    strides = [round(size / n) for n in units]
    each = zip(unit, units, strides, strict=True)
    return image.grad[0, 0].numpy(), [(u - (n - 1) / 2) * s + (size - 1) / 2 for u, n, s in each]


def greys(shares: np.ndarray) -> np.ndarray:
    """255 times the root of a share, at least 1 where there is one."""
    return np.maximum(np.rint(255 * np.sqrt(shares)), shares > 0)


def test_a_map_is_that_of_gradients(tmp_path: Path) -> None:
    content, network = kept(tmp_path, "small")
    held = decode(content)
    paths, unit = gradient(network, 96)
    rows, columns = (slice(at.min(), at.max() + 1) for at in np.nonzero(paths))
    assert held.whole.pixel == 1
    assert np.array_equal(held.whole.values, greys(paths / paths.max())[rows, columns])
    # its corner, and its centroid, from the unit
    assert held.whole.at == (rows.start - 0.5 - unit[0], columns.start - 0.5 - unit[1])
    y, x = np.mgrid[:96, :96]
    mass = [(paths * at).sum() / paths.sum() - u for at, u in zip((y, x), unit, strict=True)]
    assert held.offset == pytest.approx(mass)
    assert mass[0] != pytest.approx(mass[1])  # y is not x


def test_a_large_map_is_one_of_means(tmp_path: Path) -> None:
    """301 px wide: 2 x 2 of its pixels are one."""
    content, network = kept(tmp_path, "large")
    held = decode(content)
    paths, unit = gradient(network, 640)
    shares = paths / paths.max()
    rows, columns = (slice(at.min(), at.max() + 1) for at in np.nonzero(shares > 1e-3))
    part = shares[rows, columns]
    height, width = ((n + 1) // 2 for n in part.shape)
    means = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        means[y, x] = part[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].sum() / 4
    assert held.whole.pixel == 2 and max(held.whole.values.shape) <= 256
    assert np.abs(held.whole.values - greys(means / means.max())).max() <= 1  # ties are rounded
    assert held.whole.at == (rows.start - 0.5 - unit[0], columns.start - 0.5 - unit[1])


@pytest.mark.parametrize("grid", [0.003, 0.2])
def test_the_middle_is_the_grid_over_a_smooth_map(grid: float) -> None:
    panel = smooth(grid)
    held = decode(encode(panel.path_map, panel.metrics))
    even, odd = 1 / (1 + grid / 2), (1 + grid) / (1 + grid / 2)
    middle = held.middle
    assert middle is not None and middle.values.shape == (48, 48)
    expected = np.outer(*[np.where(np.arange(48) % 2, odd, even)] * 2)
    shown = 1 + (middle.values.astype(float) - 128) / 127 * held.span
    # a grey, and what a map's own slope adds
    assert np.abs(shown - expected).max() < held.span / 254 + 4e-4
    # around the unit, which stands in the middle of an even number of pixels
    assert panel.origin == (127.5, 127.5) and middle.at == (-24.0, -24.0)
    assert held.contrast == pytest.approx(2 * panel.metrics["gridding"])


def png(values: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def bomb(side: int) -> str:
    """A PNG that says it is 5 x 5 and holds side^2 pixels, or says so and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()


GOOD = np.full((5, 5), 255, np.uint8)
DAMAGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not a mapping": lambda m: ["map"],
    "size: two": lambda m: m | {"size": [5, 5.0]},
    "size: two whole": lambda m: m | {"size": [5, 0]},
    "from 1 to 256": lambda m: m | {"size": [70000, 70000], "png": bomb(70000)},
    "png: a text": lambda m: m | {"png": None},
    "at most 65536 characters": lambda m: m | {"png": "A" * (LONGEST + 4)},
    "png: not base64": lambda m: m | {"png": '"><script>pwned=1</script>'},
    "not a grey PNG of 8 bits and 5x5": lambda m: m | {"png": base64.b64encode(b"<svg>").decode()},
    "8 bits and 5x5 pixels": lambda m: m | {"png": png(np.full((5, 4), 255, np.uint8))},
    "grey PNG of 8 bits": lambda m: m | {"png": png(np.full((5, 5, 3), 255, np.uint8))},
    "not a grey PNG": lambda m: m | {"png": png(np.full((5, 5), 65535, np.uint16))},
    "8 bits and 5": lambda m: m | {"png": bomb(60000)},
    "png: damaged": lambda m: m | {"png": bomb(5)},
    "png: damaged (": lambda m: m | {"png": m["png"][:60]},
    "brightest pixel is not 255": lambda m: m | {"png": png(GOOD // 2)},
    "pixel: a power of two": lambda m: m | {"pixel": 3},
    "pixel: a power": lambda m: m | {"pixel": 10**400},
    "at: two numbers": lambda m: m | {"at": [1.0]},
    "at: a number of at most": lambda m: m | {"at": [10**400, 0]},
    "offset: a number": lambda m: m | {"offset": [float("nan"), 0]},
    "offset: a number of": lambda m: m | {"offset": [True, 0]},
    "centroid is at 0.00 px, not at 3.00": lambda m: m | {"offset": [0, 3.0]},
    "the middle is not": lambda m: m | {"middle": "x"},
    "larger than 48": lambda m: (
        m | {"middle": {"png": png(np.full((99, 9), 9, np.uint8)), "size": [99, 9], "at": [0, 0]}}
    ),
    "span and contrast": lambda m: (
        m | {"middle": {**{k: m[k] for k in ("png", "size", "at")}, "span": 0, "contrast": 0.1}}
    ),
}


@pytest.mark.parametrize("why", DAMAGED)
def test_what_is_no_map_is_refused_in_one_line(why: str) -> None:
    good = {"png": png(GOOD), "size": [5, 5], "at": [-2.5, -2.5], "pixel": 1, "offset": [0.0, 0.0]}
    assert decode(copy.deepcopy(good)).whole.reach == 2.5
    with pytest.raises(ValueError) as error:
        decode(DAMAGED[why](good))
    assert why in str(error.value) and len(str(error.value).splitlines()) == 1
