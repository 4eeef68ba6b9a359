"""Which axes of an output are the map: against the gradient of the unit that is meant."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfbench import rf
from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.questions.effective.expected import expected
from rfbench.rf.questions.effective.extent import circles, log_areas
from rfbench.rf.questions.effective.gradients import OPENERF, REPLKNET, Definition, gradients
from rfbench.rf.questions.effective.layout import of_axes
from rfbench.spatial_graph.reader import spatial_graph


class Shaped(nn.Module):
    """Two convolutions, and their output's axes in another order."""

    def __init__(self, shape: Callable[[Tensor], Tensor], channels: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, (1, 2), 1)
        self.deep = nn.Conv2d(4, channels, 3, (1, 2), 1)
        self.end, self.shape = nn.Identity(), shape

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.shape(self.deep(torch.tanh(self.stem(x)))))


def wanted(net: Shaped, images: Tensor, y: int, x: int) -> np.ndarray:
    """The mean |gradient| of the sum over channels of |output| at a unit of the convolution."""
    total = torch.zeros(images.shape[2:], dtype=torch.float64)
    for image in images:
        leaf = image[None].clone().requires_grad_()
        map_ = net.deep(torch.tanh(net.stem(leaf)))
        map_[0, :, y, x].abs().sum().backward()
        assert leaf.grad is not None
        total += leaf.grad.abs().sum((0, 1)).double()
    return total.numpy() / len(images)


SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "NCHW": lambda t: t,
    "NHWC": lambda t: t.permute(0, 2, 3, 1),
    "NCWH": lambda t: t.transpose(2, 3),
    "tokens": lambda t: t.flatten(2).transpose(1, 2),
    "tokens last": lambda t: t.flatten(2),
    "tokens by column": lambda t: t.transpose(2, 3).flatten(2),
    "images second": lambda t: t.flatten(2).permute(2, 0, 1),
    "channels with rows": lambda t: t.flatten(1, 2),
    "windows": lambda t: (
        t.reshape(-1, t.shape[1], 6, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).flatten(0, 2)
    ),
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("channels", [4, 6, 12])
def test_the_unit_is_the_one_that_is_meant(kind: str, channels: int) -> None:
    # 12 x 4 units: channels like the rows, like the columns, and neither
    torch.manual_seed(0)
    net, images = Shaped(SHAPES[kind], channels), torch.randn(3, 2, 12, 16)
    for unit in ((5, 1), (11, 3)):
        found = gradients([net], [images], "end", unit)
        assert (found.units, found.unit) == ((12, 4), unit)
        np.testing.assert_allclose(found.magnitude, wanted(net, images, *unit), rtol=1e-5)


def test_without_a_layer_it_is_the_last_map_as_theory_names_it() -> None:
    net = Shaped(SHAPES["NHWC"])
    found = gradients([net], [torch.randn(2, 2, 12, 16)])
    assert found.layer == rf.record(net, (12, 16)).target == "end"


@pytest.mark.parametrize("key", ["out", "0", ""])
def test_an_output_of_one_name_is_found_without_its_name(key: str) -> None:
    """As torchvision's segmenters return theirs, up-sampled by no layer: {'out': scores}."""
    torch.manual_seed(0)

    def grown(map_: Tensor) -> object:
        scores = F.interpolate(map_, scale_factor=2, mode="nearest")
        return [scores] if key == "0" else {key: scores} if key else scores

    net, images = Shaped(grown), torch.randn(2, 2, 12, 16)
    net.forward = lambda x: grown(net.deep(torch.tanh(net.stem(x))))  # type: ignore[assignment]
    found = gradients([net], [images], unit=(11, 3))
    assert (found.layer, found.units) == (f"output.{key}" if key else "output", (24, 8))
    np.testing.assert_allclose(found.magnitude, wanted(net, images, 5, 1), rtol=1e-5)
    # the path counts that are drawn beside it: of pixels in the unit's two windows
    paths = expected(spatial_graph(net, (12, 16)), found.layer, (11, 3), counts=True).counts
    assert paths is not None
    assert ((paths.counts > 0) == (wanted(net, images, 5, 1) > 0)).all()


class Head(nn.Module):
    """A map, and an output that is none."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.body = kind, nn.Conv2d(3, 9, 3, 4, 1)
        self.mix = nn.LSTM(9, 5) if kind == "recurrence" else nn.Identity()
        self.query = nn.Parameter(torch.randn(1, 25, 9))

    def forward(self, x: Tensor) -> object:
        x = self.body(x)
        if self.kind == "anchors":
            return self.mix(torch.cat([x.flatten(2), x[..., ::2, ::2].flatten(2)], 2))
        tokens = x.flatten(2).transpose(1, 2)
        if self.kind == "queries":
            return self.mix((self.query @ tokens.transpose(1, 2)).softmax(-1) @ tokens)
        if self.kind == "recurrence":
            return self.mix(x.mean(2).permute(2, 0, 1))[0]
        return {"a": x, "b": x}


@pytest.mark.parametrize("kind", ["anchors", "queries", "recurrence"])
def test_an_output_that_is_no_map_is_refused(kind: str) -> None:
    net, images = Head(kind), [torch.randn(1, 3, 32, 32)]
    if kind == "queries":  # as behind a classifier, theory names the last map ahead
        assert gradients([net], images).layer == rf.record(net, 32).target == "body"
    else:
        with pytest.raises(UsageError, match=r"no known map of units .*last map is that of body"):
            gradients([net], images)
    assert gradients([net], images, "body").units == (8, 8)
    with pytest.raises(UsageError, match="layer 'mix' returns"):
        gradients([net], images, "mix")


def test_what_the_trace_does_not_know_is_measured_with_the_axes_that_are_said() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.ifft2(torch.fft.fft2(x)).real.roll((2, 1), (2, 3))

    net, images = Spectrum(), [torch.randn(1, 3, 16, 16)]
    with pytest.raises(UsageError, match="own axes: --to output --axes NCHW"):
        gradients([net], images)
    seen = gradients([net], images, "output", (7, 7), axes="NCHW").magnitude
    assert np.unravel_index(seen.argmax(), seen.shape) == (5, 6)
    assert seen[5, 6] == pytest.approx(3) and seen.sum() == pytest.approx(3, abs=1e-3)


def test_a_layer_that_returns_several_tensors_is_refused() -> None:
    net = nn.ModuleDict({"body": Head("dict")})
    net.forward = lambda x: net["body"](x)["b"]  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="layer 'body' returns a dict of a, b"):
        gradients([net], [torch.randn(1, 3, 32, 32)], "body")


class Tokens(nn.Module):
    """A small ViT: a class token, a block of attention, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.norm1, self.norm2, self.head = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 5)
        self.mix = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        t = self.norm1(x)
        x = x + self.mix((t @ t.transpose(1, 2)).softmax(-1) @ t)
        return self.head(self.norm2(x)[:, 0])


def test_tokens_behind_a_class_token_keep_their_places() -> None:
    torch.manual_seed(0)
    net, images = Tokens(), torch.randn(2, 3, 12, 24)
    found = gradients([net], [images], "norm2", (1, 4))
    total = torch.zeros(12, 24)
    for image in images:
        leaf, kept = image[None].clone().requires_grad_(), []
        hook = net.norm2.register_forward_hook(lambda *a, kept=kept: kept.append(a[2]))
        net(leaf)
        hook.remove()
        kept[0][0, 1 + 1 * 6 + 4].abs().sum().backward()
        assert leaf.grad is not None
        total += leaf.grad.abs().sum((0, 1))
    assert found.units == (3, 6)
    np.testing.assert_allclose(found.magnitude, total.numpy() / 2, rtol=1e-4)
    # logits: the last map, and it is said
    assert gradients([net], [images]).layer == "norm2"
    # what attention gives before it is added is not known, unless it is said
    with pytest.raises(UsageError, match="layer 'mix' returns 1x19x8, and which of its axes"):
        gradients([net], [images], "mix")
    assert gradients([net], [images], "mix", axes="NLC:1+3x6").units == (3, 6)
    with pytest.raises(UsageError, match="the trace says otherwise, 3x6 units in norm2"):
        gradients([net], [images], "norm2", axes="NLC:1+6x3")


@pytest.mark.parametrize(
    ("axes", "shape", "message"),
    [
        ("NHW", (1, 4, 5, 6), "expected NCHW or NHWC"),
        ("NCHW", (1, 4, 5), "does not fit the output, 1x4x5 for one image"),
        ("NLC:2x2", (1, 5, 3), r"does not fit the output, 1x5x3: 0 \+ 2 \* 2"),
        ("NLC", (1, 4, 3), "expected NCHW or NHWC"),
    ],
)
def test_axes_that_do_not_fit(axes: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        of_axes(axes, shape)


class Features(nn.Module):
    """`forward_features` is an inner part: a stem before it, a tail behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 7, 2, 3), nn.Conv2d(4, 4, 3, 1, 1)
        self.tail = nn.Conv2d(4, 4, 3, 1, 1)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.forward_features(self.stem(x)))


def test_the_whole_network_runs_up_to_the_layer() -> None:
    found = gradients([Features()], [torch.randn(2, 3, 32, 32)], "body", (7, 7))
    heard = np.argwhere(found.magnitude > 0)
    # 7 px at stride 2, then three units
    assert [*heard.min(0), *heard.max(0)] == [9, 9, 19, 19]


def test_what_follows_the_layer_is_not_run() -> None:
    class Fussy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3, 2, 1)

        def forward(self, x: Tensor) -> float:
            return float(self.body(x).sum())

    with pytest.raises(
        RfbenchError, match="The last layer with a map is 'body'. Choose it with --to"
    ):
        gradients([Fussy()], [torch.randn(1, 3, 8, 8)])
    for axes in (None, "NCHW"):
        found = gradients([Fussy()], [torch.randn(1, 3, 8, 8)], "body", axes=axes)
        assert found.units == (4, 4)


def test_what_is_differentiated() -> None:
    torch.manual_seed(0)
    net, images = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh()), torch.randn(2, 3, 6, 6)

    def grads(signal: Callable[[Tensor], Tensor], y: int, x: int) -> list[Tensor]:
        leaf = images.clone().requires_grad_()
        signal(net(leaf)[:, :, y, x]).sum().backward()
        assert leaf.grad is not None
        return [*leaf.grad]

    for of, signal in (
        ("abs", torch.abs),
        ("sum", lambda t: t),
        ("relu", torch.relu),
        (3, lambda t: t[:, 3]),
    ):
        held = sum(g.abs().sum(0) for g in grads(signal, 1, 1)) / 2  # type: ignore[operator]
        found = gradients([net], [images], definition=Definition(of))  # type: ignore[arg-type]
        np.testing.assert_allclose(found.magnitude, held, rtol=1e-5)
    with pytest.raises(UsageError, match="there is no channel 5: the layer has 0 to 4"):
        gradients([net], [images], definition=Definition(5))
    # RepLKNet's script: relu of the outputs at n // 2, relu of their gradient
    theirs = sum(g.relu().sum(0) for g in grads(torch.relu, 2, 2)) / 2  # type: ignore[operator]
    found = gradients([net], [images], definition=REPLKNET)
    assert found.unit == (2, 2)
    np.testing.assert_allclose(found.magnitude, theirs, rtol=1e-5)


@pytest.mark.parametrize("last", ["NCHW", "NHWC"])
def test_the_convention_of_openerf(last: str) -> None:
    """Its steps, image by image: the mean over channels of the gradient, then its positive part."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 5, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x if last == "NCHW" else x.permute(0, 2, 3, 1)

    torch.manual_seed(0)
    net, images, theirs = Net().eval(), torch.randn(3, 3, 16, 16), torch.zeros(16, 16)
    y = x = 4 if last == "NCHW" else 3  # tokens: the upper left of the four in the middle
    for image in images:
        one = image[None].clone().requires_grad_()
        out = net(one)
        (out[0, :, y, x] if last == "NCHW" else out[0, y, x]).mean().backward()
        assert one.grad is not None
        theirs += one.grad.mean(dim=(0, 1)).clamp(min=0)
    found = gradients([net], [images], definition=OPENERF)
    assert found.unit == (y, x)
    ours = found.magnitude / found.magnitude.sum()
    np.testing.assert_allclose(ours, theirs / theirs.sum(), rtol=1e-5, atol=1e-9)
    rows, columns = np.indices((16, 16))
    near = (rows - 8) ** 2 + (columns - 8) ** 2 <= 25
    assert circles(ours)["5"] == pytest.approx(float(theirs[near].sum() / theirs.sum()), rel=1e-5)
    assert circles(ours)["80"] == pytest.approx(1)


def test_areas_of_replknets_script() -> None:
    """Against its loop: squares of side 2 i + 1, i from 1 to h // 2, more than the share."""
    rng = np.random.default_rng(0)
    field = rng.random((40, 40)) * np.exp(-np.hypot(*(np.mgrid[:40, :40] - 20)) / 4)
    values, found = np.log10(field + 1), log_areas(field)
    for share in (0.2, 0.3, 0.5, 0.99):
        expected = None
        for i in range(1, 20):
            part = values[20 - i : 21 + i, 20 - i : 21 + i]
            if part.sum() / values.sum() > share:
                expected = {"side": 2 * i + 1, "share": (2 * i + 1) ** 2 / 1600}
                break
        assert found[f"{share:.0%}"] == pytest.approx(expected)
    assert log_areas(np.ones((6, 6)))["99%"] is None


def test_attention_has_no_theoretical_size_in_python_either() -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 8, 3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            t = x.flatten(2).transpose(1, 2)
            t = (t @ t.transpose(1, 2)).softmax(-1) @ t
            return self.b(x + t.transpose(1, 2).reshape(x.shape))

    net, images = Attend(), torch.randn(1, 3, 32, 32)
    _, figures = rf.effective(net, images)
    assert (figures["theoretical"], figures["ratio"]) == (None, None)
    assert figures["reach"] == "global"
    assert rf.effective(net, images, "a")[1]["theoretical"] == [3, 3]
