"""Small networks of many kinds, for `test_audit_oracle`."""

from collections.abc import Callable
from typing import Any

import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.rf.oracle import Seen, Size, Take

C1, C3 = nn.Conv1d, nn.Conv3d


class Net(nn.Module):
    """Layers by name, and what is done with them to any number of inputs."""

    def __init__(self, run: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *x: Tensor) -> Any:
        return self.run(self, *x)


def conv(k: Any = 3, s: Any = 1, p: Any = 1, i: int = 2, o: int = 2, **more: Any) -> nn.Module:
    return nn.Conv2d(i, o, k, s, p, **more)


def up(x: Tensor, by: int = 2, mode: str = "nearest") -> Tensor:
    return F.interpolate(x, scale_factor=by, mode=mode)


def residual(n: Any, x: Tensor) -> Tensor:
    x = n.pool(F.relu(n.stem(x)))
    x = F.relu(n.b(F.relu(n.a(x))) + n.way(x))
    return x + n.c(x)


def unet(n: Any, x: Tensor) -> Tensor:
    a = n.a(x)
    return n.c(torch.cat([a, n.up(n.b(F.max_pool2d(a, 2)))], 1))


def valid_unet(n: Any, x: Tensor) -> Tensor:
    a = n.a(x)
    b = n.up(n.b(F.max_pool2d(a, 2)))
    m = (a.shape[-1] - b.shape[-1]) // 2
    return n.c(torch.cat([a[..., m:-m, m:-m], b], 1))


def aspp(n: Any, x: Tensor) -> Tensor:
    x = n.stem(x)
    return n.out(torch.cat([n.a(x), n.b(x), n.c(x)], 1))


def deeplab(n: Any, x: Tensor) -> dict[str, Tensor]:
    low = n.stem(x)
    high = n.b(low)
    both = torch.cat([low, up(torch.cat([n.c(high), n.d(high)], 1), 2, "bilinear")], 1)
    return {"out": up(n.out(both), 2, "bilinear"), "aux": n.aux(high)}


def pyramid(n: Any, x: Tensor) -> list[Tensor]:
    a = n.a(x)
    b = n.b(a)
    c = n.c(b)
    b = n.two(b) + up(c)
    return [n.smooth(p) for p in (n.one(a) + up(b), b, c)]


def branches(n: Any, x: Tensor) -> Tensor:
    """HRNet: two resolutions that exchange their maps."""
    x = n.stem(x)
    high, low = n.high(x), n.low(x)
    first, second = high + up(n.rise(low)), low + n.fall(high)
    return torch.cat([first, up(second, 2, "bilinear")], 1)


def pooled(n: Any, x: Tensor) -> Tensor:
    x = n.stem(x)
    return n.out(torch.cat([x, up(F.avg_pool2d(x, 4), 4, "bilinear")], 1))


def focus(n: Any, x: Tensor) -> Tensor:
    """YOLOv5's first layer: four neighbours become channels."""
    parts = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
    return n.a(torch.cat(parts, 1))


def two_maps(n: Any, x: Tensor, y: Tensor) -> Tensor:
    return n.c(n.a(x) * n.b(y))


def siamese(n: Any, x: Tensor, y: Tensor) -> Tensor:
    return n.c(torch.cat([n.a(x), n.a(y)], 1))


def guided(n: Any, x: Tensor, y: Tensor) -> Tensor:
    return n.c(n.a(x) + up(n.b(y)))


def volumes(n: Any, x: Tensor) -> Tensor:
    a = n.a(x)
    return n.c(torch.cat([a, n.up(n.b(a))], 1))


def after(amounts: tuple[int, ...], layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.ConstantPad1d(amounts, 0.0), layer)


T2 = nn.ConvTranspose2d
OUT, AUX = {"layer": "output.out"}, {"layer": "output.aux"}
LEVELS = {
    "a": conv(3, 2), "b": conv(3, 2), "c": conv(3, 2),
    "one": conv(1, p=0), "two": conv(1, p=0), "smooth": conv(),
}  # fmt: skip
HEADS = {
    "stem": conv(3, 2), "b": conv(3, 2), "c": conv(1, p=0), "d": conv(3, p=2, dilation=2),
    "out": conv(i=6), "aux": conv(),
}  # fmt: skip
# network, shapes of its inputs, and what is asked: source, layer, take
CASES: dict[str, tuple[nn.Module, list[Size], dict[str, Any]]] = {
    "odd strides": (nn.Sequential(conv(5), conv(3, 3, 0), conv(4, 1, 2)), [(2, 37, 40)], {}),
    "each axis its own": (
        nn.Sequential(conv((3, 5), (2, 1), (1, 2)), conv((1, 4), (1, 3), (0, 1))),
        [(2, 24, 36)], {},
    ),
    "residual": (
        Net(residual, stem=conv(7, 2, 3), pool=nn.MaxPool2d(3, 2, 1), a=conv(3, 2), b=conv(),
            way=conv(1, 2, 0), c=conv()),
        [(2, 64, 64)], {},
    ),
    "dilated": (nn.Sequential(*(conv(3, 1, d, dilation=d) for d in (2, 2, 4))), [(2, 32, 32)], {}),
    "depthwise": (
        nn.Sequential(conv(3, 2, groups=2), conv(1, p=0), conv(5, 2, 2, groups=2), conv(o=4)),
        [(2, 32, 32)], {},
    ),
    "aspp": (
        Net(aspp, stem=conv(3, 4), a=conv(1, p=0), b=conv(3, p=2, dilation=2),
            c=conv(3, p=3, dilation=3), out=conv(1, p=0, i=6)),
        [(2, 48, 48)], {},
    ),
    "uneven padding": (
        nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), conv(3, 2, 0), nn.ZeroPad2d((1, 0, 0, 3)),
                      conv((4, 3), 2, 0)),
        [(2, 32, 32)], {},
    ),
    "ceil mode": (
        nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), conv(3, 2),
                      nn.AvgPool2d(2, 2, ceil_mode=True)),
        [(2, 34, 31)], {},
    ),
    "dilated pools": (
        nn.Sequential(nn.MaxPool2d(3, 2, 1, 2), conv(), nn.MaxPool2d(2, 1, dilation=3)),
        [(2, 32, 32)], {},
    ),
    "padded by pixels": (
        nn.Sequential(conv(3, 2, padding_mode="reflect"), conv(5, 2, 2, padding_mode="replicate"),
                      nn.ReflectionPad2d((1, 0, 2, 1)), conv(3, p=0)),
        [(2, 48, 48)], {},
    ),
    "padded in a circle": (
        nn.Sequential(conv(3, 2, padding_mode="circular"),
                      conv(3, 1, 2, dilation=2, padding_mode="circular")),
        [(2, 32, 32)], {},
    ),
    "blurred": (
        nn.Sequential(conv(), timm.layers.BlurPool2d(2, 3, 2), conv(),
                      timm.layers.BlurPool2d(2, 5, 2)),
        [(2, 32, 32)], {},
    ),
    "pixels to channels": (
        nn.Sequential(conv(), nn.PixelUnshuffle(2), conv(3, 2, i=8)), [(2, 32, 32)], {},
    ),
    "focus": (Net(focus, a=conv(i=8)), [(2, 24, 24)], {}),
    "channels to pixels": (
        nn.Sequential(conv(3, 4, o=32), nn.PixelShuffle(4), conv()), [(2, 32, 32)], {},
    ),
    "transposed": (nn.Sequential(conv(3, 2), T2(2, 2, 5, 2, 2, 1), conv()), [(2, 24, 24)], {}),
    "transposed, uneven": (
        nn.Sequential(conv(3, (4, 3)), T2(2, 2, (7, 4), (4, 3), (2, 1), (1, 1))), [(2, 32, 36)], {},
    ),
    "transposed, wide": (nn.Sequential(conv(3, 3), T2(2, 2, 9, 3, 3), conv()), [(2, 36, 36)], {}),
    "transposed twice": (
        nn.Sequential(conv(3, 2), T2(2, 4, 4, 2, 1, groups=2), T2(4, 2, 3, 2, 1, 1)),
        [(2, 24, 24)], {},
    ),
    "u-net": (Net(unet, a=conv(), b=conv(), up=T2(2, 2, 2, 2), c=conv(i=4)), [(2, 24, 24)], {}),
    "u-net without padding": (
        Net(valid_unet, a=conv(p=0), b=conv(5, p=0), up=T2(2, 2, 2, 2), c=conv(p=0, i=4)),
        [(2, 38, 38)], {},
    ),
    "resized": (
        nn.Sequential(conv(3, (4, 2)), nn.Upsample(None, (4, 2), "bilinear"), conv()),
        [(2, 32, 24)], {},
    ),
    "resized by halves": (
        nn.Sequential(conv(3, 2), nn.Upsample(scale_factor=1.5), conv()), [(2, 36, 36)], {},
    ),
    "resized in cubes": (
        nn.Sequential(conv(3, 2), nn.Upsample(scale_factor=3, mode="bicubic"), conv()),
        [(2, 24, 24)],
        {},
    ),
    "deeplab": (Net(deeplab, **HEADS), [(2, 48, 48)], OUT),
    "deeplab, aux": (Net(deeplab, **HEADS), [(2, 32, 32)], AUX),
    "pyramid 0": (Net(pyramid, **LEVELS), [(2, 56, 56)], {"layer": "output.0"}),
    "pyramid 1": (Net(pyramid, **LEVELS), [(2, 64, 64)], {"layer": "output.1"}),
    "branches": (
        Net(branches, stem=conv(3, 2), high=conv(), low=conv(3, 2), rise=conv(1, p=0),
            fall=conv(3, 2)),
        [(2, 40, 40)], {},
    ),
    "pooled": (Net(pooled, stem=conv(3, 2), out=conv(i=4)), [(2, 48, 48)], {}),
    "two maps 0": (
        Net(two_maps, a=conv(3, 2), b=conv(5, p=2), c=conv()), [(2, 32, 32), (2, 16, 16)], {},
    ),
    "two maps 1": (
        Net(two_maps, a=conv(3, 2), b=conv(5, p=2), c=conv()), [(2, 32, 32), (2, 16, 16)],
        {"source": 1},
    ),
    "siamese": (
        Net(siamese, a=conv(3, 2), c=conv(3, 2, i=4)), [(2, 32, 32), (2, 32, 32)], {"source": 1},
    ),
    "guided": (
        Net(guided, a=conv(), b=conv(), c=conv()), [(2, 32, 32), (2, 16, 16)], {"source": 1},
    ),
    "causal": (
        nn.Sequential(*(after((2 * d, 0), C1(2, 2, 3, dilation=d)) for d in (1, 2, 4))),
        [(2, 40)], {},
    ),
    "causal, strided": (
        nn.Sequential(after((2, 0), C1(2, 2, 3, 2)), after((4, 0), C1(2, 2, 5, 2))), [(2, 40)], {},
    ),
    "raw audio": (
        nn.Sequential(C1(2, 2, 10, 5), C1(2, 2, 3, 2), nn.MaxPool1d(4), C1(2, 2, 3, 1, 1)),
        [(2, 400)], {},
    ),
    "audio decoded": (
        nn.Sequential(C1(2, 2, 16, 8, 4), nn.ConvTranspose1d(2, 2, 11, 8, 3, 2)), [(2, 96)], {},
    ),
    "sequence resized": (
        nn.Sequential(C1(2, 2, 15, 4, 7), nn.Upsample(None, 2, "linear"), C1(2, 2, 5, 1, 2),
                      nn.Upsample(None, 2, "linear"), C1(2, 2, 5, 1, 2)),
        [(2, 80)], {},
    ),
    "video": (
        nn.Sequential(C3(1, 2, (3, 5, 5), (1, 2, 2), (1, 2, 2)),
                      nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
                      C3(2, 2, (3, 1, 1), (2, 1, 1), (1, 0, 0))),
        [(1, 8, 16, 16)], {},
    ),
    "volume u-net": (
        Net(volumes, a=C3(2, 2, 3, 1, 1), b=C3(2, 2, 3, (1, 2, 2), 1),
            up=nn.ConvTranspose3d(2, 2, (1, 2, 2), (1, 2, 2)), c=C3(4, 2, 1)),
        [(2, 8, 12, 12)], {},
    ),
    "volume resized": (
        nn.Sequential(C3(2, 2, 3, 2, 1), nn.Upsample(None, 2, "trilinear"), C3(2, 2, 1)),
        [(2, 12, 12, 12)], {},
    ),
}  # fmt: skip


def taken(layer: str | None) -> Take:
    """The map that an output's name stands for."""
    if layer is None:
        return lambda out: out
    key = layer.removeprefix("output.")
    return lambda out: out[int(key) if key.isdigit() else key]


def scaled(shapes: list[Size], first: Size) -> list[Size]:
    """Inputs of which the first has another size, and the others stay in proportion."""
    ratio = zip(first, shapes[0][1:], strict=True)
    each = [n / m for n, m in ratio]
    return [(c, *(round(n * f) for n, f in zip(size, each, strict=True))) for c, *size in shapes]


class Asked:
    """A case: what rfbench is given, and the network as the oracle runs it."""

    def __init__(self, name: str) -> None:
        self.net, self.shapes, asked = CASES[name]
        self.number, self.layer = asked.get("source", 0), asked.get("layer")
        self.several, self.size = len(self.shapes) > 1, self.shapes[0][1:]
        self.where = {
            "layer": self.layer,
            "source": f"input.{self.number}" if self.several else None,
        }

    def inputs(self, size: Size) -> list[Tensor]:
        """Examples, of which the first has a size."""
        return [torch.zeros(1, *s) for s in scaled(self.shapes, size)]

    def given(self, size: Size) -> dict[str, Any]:
        """The same, as arguments."""
        if self.several:
            return {"inputs": self.inputs(size)}
        return {"size": size, "in_channels": self.shapes[0][0]}

    def seen(self, size: Size, net: nn.Module | None = None) -> Seen:
        """The map that is asked for, by running the network or a changed one."""
        return Seen(net or self.net, scaled(self.shapes, size), self.number, taken(self.layer))

    @property
    def large(self) -> Size:
        """A size that cuts no field, with the remainders of the own one."""
        return tuple(n + {1: 480, 2: 96, 3: 24}[len(self.size)] for n in self.size)
