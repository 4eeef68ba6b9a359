"""Effective fields: gradients against path counts and by hand, figures against known shapes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError, UsageError
from rfbench.rf.core.target import Target
from rfbench.rf.questions.effective import figure as effective
from rfbench.rf.questions.effective import images
from rfbench.rf.questions.effective.caption import caption
from rfbench.rf.questions.effective.extent import (
    Position,
    areas,
    extent,
    gaussian,
    measure,
    nominal,
)
from rfbench.rf.questions.effective.gradients import Gradients, gradients
from rfbench.rf.questions.effective.sample import Measured, Sample
from rfbench.spatial_graph.reader import spatial_graph


def chain(depth: int, stride: int = 1) -> nn.Sequential:
    """One channel, 3x3 kernels of ones, no bias."""
    net = nn.Sequential(
        *(nn.Conv2d(1, 1, 3, stride if i == 0 else 1, 1, bias=False) for i in range(depth))
    )
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    return net


class Patches(nn.Module):
    """A ViT without attention: patches of 4 px as tokens behind two global ones."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed, self.norm, self.kind = nn.Conv2d(3, 5, 4, 4), nn.LayerNorm(5), kind

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        if self.kind == "tokens":
            x = torch.cat([torch.zeros(len(x), 2, 5), x.flatten(1, 2)], 1)
        return self.norm(x)


def test_of_uniform_weights_it_is_the_path_counts() -> None:
    net = chain(4, stride=2)
    found = gradients([net], [torch.rand(2, 1, 21, 24)])
    counts = Target(spatial_graph(net, (21, 24))).counts().counts
    assert (found.units, found.unit, found.samples) == ((11, 12), (5, 5), 2)
    np.testing.assert_allclose(found.magnitude, counts, rtol=1e-6)
    np.testing.assert_allclose(np.abs(found.signed), counts, rtol=1e-6)


def test_pictures_and_draws_are_averaged() -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)) for _ in range(2)]
    images = torch.randn(3, 3, 9, 9)
    total = torch.zeros(9, 9)
    for net in nets:
        for image in images:
            x = image[None].clone().requires_grad_()
            net(x)[0, :, 2, 1].abs().sum().backward()
            total += x.grad[0].abs().sum(0)
    found = gradients(nets, [images[:2], images[2:]], unit=(2, 1))
    np.testing.assert_allclose(found.magnitude, total.numpy() / 6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["tokens", "nhwc"])
def test_units_of_tokens_and_of_channels_last(kind: str) -> None:
    found = gradients([Patches(kind)], [torch.randn(2, 3, 24, 32)], "norm", (4, 2))
    assert found.units == (6, 8)
    heard = np.argwhere(found.magnitude > 0)
    assert [*heard.min(0), *heard.max(0)] == [16, 8, 19, 11]


def test_a_layer_norm_at_the_end_is_heard() -> None:
    # the sum over its channels is constant
    net = Patches("nhwc")
    field = gradients([net], [torch.randn(4, 3, 24, 24)], "norm").magnitude
    before = gradients([net], [torch.randn(4, 3, 24, 24)], "embed").magnitude
    assert field.max() > 0.05 * before.max()


def test_what_cannot_be_measured_says_why() -> None:
    images = [torch.randn(1, 3, 16, 16)]
    dead = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    nn.init.constant_(dead[0].bias, -1e6)
    with pytest.raises(RfbenchError, match=r"unit 6,6 of 1 is zero for every image \(dead ReLU"):
        gradients([dead], images)
    loud = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    nn.init.constant_(loud[0].weight, 1e38)
    nn.init.constant_(loud[1].weight, 1e38)
    with pytest.raises(RfbenchError, match="of 1 is not finite: its activations overflow"):
        gradients([loud], images)
    with pytest.raises(UsageError, match=r"no layer 'lyer1'\. Did you mean: layer1\?"):
        gradients([nn.ModuleDict({"layer1": nn.Conv2d(3, 4, 3)})], images, "lyer1")
    with pytest.raises(UsageError, match="unit 14,0 is outside 0: its map is 14x14"):
        gradients([dead], images, "0", (14, 0))
    with pytest.raises(UsageError, match="returns 1x768, no map of units"):
        gradients([nn.Sequential(nn.Flatten(), nn.Linear(768, 2))], images)
    with pytest.raises(UsageError, match="fails on an input of 3x16x16"):
        gradients([nn.Sequential(nn.Conv2d(4, 4, 3))], images)


def bell(sigma: tuple[float, float], center: tuple[float, float], size: int = 201) -> np.ndarray:
    y, x = (np.arange(size) - c for c in center)
    rows, columns = np.exp(-((y / sigma[0]) ** 2) / 2), np.exp(-((x / sigma[1]) ** 2) / 2)
    return rows[:, None] * columns


def test_a_gaussian_is_found() -> None:
    field = bell((12, 20), (90, 110.5))
    fit = gaussian(field)
    assert fit is not None
    np.testing.assert_allclose(fit["center"], (90, 110.5), atol=0.05)
    np.testing.assert_allclose(fit["sigma"], (12, 20), rtol=0.01)
    assert fit["r2"] > 0.999
    # an ellipse at exp(-d^2 / 2) = 0.0455
    wanted = math.sqrt(math.pi * 2 * math.log(1 / 0.0455) * 12 * 20)
    assert abs(extent(field, 1.0) - wanted) < 0.5
    assert gaussian(np.random.default_rng(0).random((64, 64)))["r2"] < 0.2  # type: ignore[index]


def test_figures_of_a_field() -> None:
    field = bell((8, 8), (100, 97))
    found = Gradients(field, field - 0.5, "layer", (3, 3), (7, 7), 5)
    place = nominal((3, 3), (7, 7), (201, 201))
    assert place == (100, 100)
    metrics = measure(found, Position(place, (100, 97), (101, 101)))
    np.testing.assert_allclose(metrics["shift"], (0, -3), atol=1e-6)
    assert metrics["size"] == metrics["size_by_maximum"] == pytest.approx(8 * 4.406, rel=0.02)
    assert metrics["ratio"] == metrics["size"] / 101
    assert json.loads(json.dumps(metrics)) == metrics


def test_areas_are_the_smallest_squares() -> None:
    flat = areas(np.ones((101, 101)), (50, 50))
    # 45 x 45 is 19.9 % of the pixels, 47 x 47 is 21.7 %
    assert flat["20%"] == {"side": 47, "share": 47**2 / 101**2}
    assert [flat[name]["side"] for name in ("50%", "99%")] == [73, 101]
    spot = np.zeros((9, 9))
    spot[2, 2] = 1
    assert areas(spot, (2, 2))["99%"]["side"] == 1
    assert areas(spot, (4, 4))["20%"]["side"] == 5


def test_panels_show_the_part_with_the_field() -> None:
    counts = np.zeros((224, 224))
    counts[100:115, 90:105] = 1
    field = counts * bell((4, 4), (107, 97), 224)
    found = Gradients(field, field, "layer1", (27, 24), (56, 56), 4)
    place = nominal(found.unit, found.units, field.shape)
    metrics = measure(found, Position(place, (107, 97), (15, 15)))
    drawn = effective.figure([effective.Panel("", counts, field, metrics)], "one", "caption")
    above, below, bar = drawn.axes
    assert bar.get_ylabel() == "share of the largest value"
    for axes in (above, below):
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert [left + place[1], right + place[1]] == pytest.approx([88.5, 105.5])
        assert [top + place[0], bottom + place[0]] == pytest.approx([98.5, 115.5])
    assert below.get_xlabel() == "offset, px"
    # nothing to draw above for attention, whose field is the whole input
    whole = effective.Panel("", None, np.ones((224, 224)), metrics)
    axes, _ = effective.figure([whole], "one", "caption").axes
    assert abs(np.diff(axes.get_xlim())) == 224


@pytest.mark.parametrize("side", [15, 31])
def test_the_legend_names_what_some_panel_shows(side: int) -> None:
    """Beside a field of 31 px one of 15 px, which fills its image, has a frame around it."""
    panels = []
    for width in (side, 31):
        middle = (width - 1) / 2
        field = bell((9, 9), (middle, middle), width)
        found = Gradients(field, field, "layer1", (0, 0), (1, 1), 1)
        metrics = measure(found, Position((middle, middle), (middle, middle), (31, 31)))
        panels.append(effective.Panel("", None, field, metrics | {"gaussian": None}))
    (legend,) = effective.figure(panels, "one", "caption").legends
    told = [text.get_text() for text in legend.get_texts()]
    assert ("outside the image" in told) is (side < 31) and "Gaussian, 2 sigma" not in told


def test_the_caption_counts_images_once() -> None:
    def said(sample: Sample, samples: int, counts: object) -> str:
        metrics = {"samples": samples, "unit": [3, 3], "layer": "layer4", "input_size": [64, 64]}
        return caption(sample, [Measured(None, None, metrics, counts)])  # type: ignore[arg-type]

    many = said(Sample(count=2, draws=4), 8, object())
    assert (
        "over 2 images of noise, 4 draws of random weights;" in many
        and "Path counts: at the same size" in many
    )
    # of a folder with fewer than asked for
    assert "over 5 images, 3 draws" in said(Sample(images="photos", draws=3), 15, None)
    one = said(Sample(images="digits", count=1), 1, None)
    assert "over 1 image of digit scenes, random weights;" in one and "Path counts" not in one


def run(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["rf", "effective", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, shown, _ = run(
        *("resnet18", "--variant", "baseline", "--variant", "1x1+3x3", "--size", 96),
        *("--count", 3, "--draws", 2, "--output", out),
    )
    assert code == 0 and shown.splitlines()[2].startswith("torchvision:resnet18  1x1+3x3   layer4")
    record = json.loads((out / "result.json").read_text())
    assert [f["samples"] for f in record["fields"]] == [6, 6]
    assert [f["theoretical"] for f in record["fields"]] == [[435, 435], [519, 519]]
    arrays = np.load(out / "effective.npz")
    assert arrays["torchvision:resnet18 baseline magnitude"].shape == (96, 96)
    assert {p.name for p in out.iterdir()} - {".rfbench.json"} == {*record["files"], "result.json"}
    # the same seed, the same field
    assert run("resnet18", "--size", 96, "--count", 3, "--draws", 2, "--output", out)[0] == 2
    again = tmp_path / "again"
    args = ("resnet18", "--size", 96, "--count", 3, "--draws", 2, "--output", again)
    assert run(*args, "--json")[0] == 0
    other = np.load(again / "effective.npz")
    np.testing.assert_array_equal(other[other.files[0]], arrays[arrays.files[0]])


def test_several_layers_are_panels(tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("resnet18", "--size", 96, "--count", 1, "--output", out)
    code, shown, said = run(*args, "--to", "layer1", "--to", "layer2", "--of", "sum")
    assert code == 0, said
    fields = json.loads((out / "result.json").read_text())["fields"]
    definition = "|gradient| of the sum over channels of the output"
    assert [f["layer"] for f in fields] == ["layer1", "layer2"]
    assert shown.splitlines()[-1] == f"the mean {definition}"
    assert [f["definition"] for f in fields] == [definition] * 2
    assert len(np.load(out / "effective.npz").files) == 4


INPUTS = """
import torch
from torch import nn

class Depth(nn.Module):
    def __init__(self):
        super().__init__()
        self.image, self.depth = nn.Conv2d(3, 4, 5, 2, 2), nn.Conv2d(1, 4, 3)
        self.both = nn.Conv2d(4, 2, 3, padding=1)
    def forward(self, image, depth):
        return self.both(self.image(image) + nn.functional.pad(self.depth(depth), (2, 0, 0, 2)))

class Compared(Depth):
    def forward(self, image, depth):
        a, b = self.image(image), nn.functional.pad(self.depth(depth), (2, 2, 2, 2))
        return torch.cat([a * b[:, :, i:i + 16, j:j + 12] for i in (0, 2) for j in (0, 2)], 1)

def five():
    return nn.Sequential(nn.Conv2d(5, 4, 3, 2, 1), nn.Conv2d(4, 4, 3))
"""


def test_networks_of_several_inputs_have_a_field_each(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(INPUTS)
    model, shapes = tmp_path / "own.py:Depth", ["--input", "3x32x24", "--input", "1x16x12"]
    folder, unit = tmp_path / "out", ["--unit", "7,6", "--draws", "3"]
    code, out, err = run(model, *shapes, *unit, "--count", 2, "--output", folder)
    assert code == 0, err
    assert "both from input.0" in out and "both from input.1" in out
    arrays = np.load(folder / "effective.npz")
    magnitudes = [v for name, v in arrays.items() if name.endswith("magnitude")]
    assert [m.shape for m in magnitudes] == [(32, 24), (16, 12)]
    # rows 2 u - 2 to 2 u + 2 of units 6 to 8; rows u to u + 2, columns two to the left
    ends = [[(s.min(), s.max()) for s in np.nonzero(m)] for m in magnitudes]
    assert ends == [[(10, 18), (8, 16)], [(6, 10), (3, 7)]]
    fields = json.loads((folder / "result.json").read_text())["fields"]
    assert [f["from"] for f in fields] == ["input.0", "input.1"]
    assert [f["theoretical"] for f in fields] == [[9, 9], [5, 5]]
    ends_at = ["--to", "both", "--to", "depth"]
    code, out, err = run(model, *shapes, *ends_at, "--output", tmp_path / "out2")
    assert code == 0 and "depth from input.1" in out and "depth from input.0" not in out
    assert "depth does not depend on input.0" in err
    code, out, err = run(tmp_path / "own.py:Compared", *shapes, "--output", tmp_path / "out3")
    assert code == 0 and "output from input.1" in out, err
    code, _, err = run(model, *shapes, "--images", "digits")
    assert code == 2 and "--images is for networks of one input" in err
    code, _, err = run(model, "--size", "32")
    assert code == 2 and "Give the shape of each input with --input" in err


def test_channels_of_the_input_may_be_said(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(INPUTS)
    args = [tmp_path / "own.py:five", "--size", "32", "--count", 2]
    code, out, err = run(*args, "--in-channels", 5, "--output", tmp_path / "out")
    assert code == 0, err
    assert "6,6 of 14x14" in out
    code, _, err = run(*args, "--in-channels", 3, "--output", tmp_path / "out3")
    assert code == 2 and "expected input[1, 3, 32, 32] to have 5 channels" in err


def test_the_convention_of_replknet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ("resnet18", "--size", 128, "--count", 1, "--output", out, "--to", "layer2")
    code, shown, said = run(*args, "--convention", "replknet")
    assert code == 0, said
    (field,) = json.loads((out / "result.json").read_text())["fields"]
    assert field["unit"] == [8, 8] and list(field["areas"]) == ["20%", "30%", "50%", "99%"]
    assert "positive part of the gradient of the sum over channels of the positive outputs" in shown


def test_attention_and_pictures_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos/deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (50, 90, 3)), ("deep/b.png", (300, 40, 3))):
        Image.fromarray(rng.integers(0, 255, size, np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos/broken.jpg").write_bytes(b"no picture")
    code, shown, said = run(
        *("timm:vit_tiny_patch16_224", "--images", tmp_path / "photos"),
        *("--output", tmp_path / "out"),
    )
    assert code == 0, said
    assert "left out: " in said and "broken.jpg" in said
    record = json.loads((tmp_path / "out/result.json").read_text())
    assert record["fields"][0]["samples"] == 2
    assert record["fields"][0]["theoretical"] is None and "  global  " in shown


def test_zero_initialised_branches_are_warned_of(tmp_path: Path) -> None:
    args = ("timm:resnet10t", "--size", 64, "--count", 1, "--output", tmp_path / "out")
    code, _, said = run(*args)
    assert code == 0
    assert "the scale of 4 normalisations is 0 (layer1.0.bn2, ...)" in said


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("resnet18", "--images", "nowhere"), 2, "no folder nowhere. --images takes a folder"),
        (("resnet18", "--to", "layer9"), 2, "no layer 'layer9'. Did you mean: layer"),
        (("resnet18", "--to", "nope"), 2, "no layer 'nope'. --list-layers shows all."),
        (("resnet18", "--of", "mean"), 2, "--of mean: expected abs, sum, relu or the number of"),
        (("resnet18", "--axes", "NHWC"), 2, "--axes NHWC: the trace says otherwise, 7x7 units in"),
        (("resnet18", "--unit=-1,0"), 2, "Error: --unit -1,0: must be 0 or more"),
        (("resnet18", "--size", "0"), 2, "Error: --size 0: must be 1 or more"),
        (
            ("rfbench.classify.nets:resnet14", "--weights", "pretrained"),
            *(2, "has no pretrained weights: only torchvision's and timm's networks have"),
        ),
        (("resnet18", "--unit", "9,9"), 2, "9,9"),
        (("resnet18", "--weights", "no.pth"), 2, "no such file: no.pth"),
        (("resnet18", "--weights", "pretrained", "--draws", "2"), 2, "--draws is for random"),
        (("resnet81",), 2, "unknown model 'resnet81'"),
        (("resnet18", "--count", "0"), 2, "0 is not in the range"),
    ],
)
def test_bad_input_is_one_line(
    args: tuple[str, ...], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    got, _, said = run(*args)
    assert got == code and message in said and "Traceback" not in said
    assert not (tmp_path / "results").exists()


def test_a_folder_without_a_picture(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    code, _, said = run("resnet18", "--images", tmp_path / "photos", "--output", tmp_path / "out")
    assert code == 1
    assert "photos has no image that can be read (0 files)" in said


def test_the_first_registered_convolution_need_not_take_the_image() -> None:
    net = nn.Sequential()
    net.head, net.stem = nn.Conv2d(8, 2, 1), nn.Conv2d(3, 8, 3, 2, 1)
    net.forward = lambda x: net.head(net.stem(x))  # type: ignore[method-assign]
    (batch,) = images.batches("noise", net, (16, 16), 2, seed=0)
    assert batch.shape == (2, 3, 16, 16)


def test_every_part_keeps_the_mode_that_it_has() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    net[1].eval()  # frozen, as in fine-tuning
    rf.effective(net, torch.rand(1, 3, 16, 16))
    assert [part.training for part in net.modules()] == [True, True, False, True]


@pytest.mark.parametrize(
    ("device", "said"),
    [("gpu", "unknown device 'gpu'"), ("cuda", "torch finds no GPU on this machine")],
)
def test_a_device_that_is_not_there(device: str, said: str, tmp_path: Path) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = ["rf", "effective", "resnet18", "--output", str(tmp_path / "out"), "--device", device]
    result = CliRunner().invoke(main, command)
    assert result.exit_code in (1, 2) and said in result.output
    assert not (tmp_path / "out").exists()


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="on the meta device"):
        rf.effective(chain(2).to("meta"), torch.rand(1, 1, 9, 9))


def test_all_images_are_shown_a_few_at_a_time() -> None:
    few, many = (
        images.batches("noise", chain(1), (5, 6), 7, seed=0, at_once=count) for count in (3, 32)
    )
    assert [len(batch) for batch in few] == [3, 3, 1] and [len(batch) for batch in many] == [7]
    assert torch.equal(torch.cat(few), many[0])


@pytest.mark.parametrize("way", ["as torch has it", "old", "new"])
def test_torchs_precision_stays_as_it_is_set(way: str) -> None:
    """In whole float32 while the gradients are taken; torch's old and new flags do not mix."""
    cudnn = torch.backends.cudnn
    flags = cudnn.conv, cudnn.rnn
    held, old = [flag.fp32_precision for flag in flags], cudnn.allow_tf32
    seen = []
    net = chain(2)

    def look(*_: object) -> None:
        seen.append(cudnn.conv.fp32_precision)
        if seen[-1] == "ieee" and way != "new":
            assert not cudnn.allow_tf32

    net.register_forward_hook(look)
    try:
        if way == "old":
            cudnn.allow_tf32 = False
        if way == "new":
            cudnn.conv.fp32_precision = "ieee"
        before = [flag.fp32_precision for flag in flags]
        rf.effective(net, torch.rand(1, 1, 9, 9))
        assert [flag.fp32_precision for flag in flags] == before
        assert "ieee" in seen  # not while it is traced
        if way != "new":
            assert cudnn.allow_tf32 == (old and way != "old")
    finally:
        cudnn.allow_tf32 = old
        for flag, precision in zip(flags, held, strict=True):
            flag.fp32_precision = precision
    assert cudnn.allow_tf32 == old
