"""Forward passes, losses and metrics with tensors that say they are on a GPU, and compute nothing.

A constant of the wrong device, a layer in another precision or memory format raises here, where no
GPU is. Backward passes, optimizers and streams need a driver: they run on the CPU in other tests.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from rfbench.classify import evaluate, network
from rfbench.data import augment
from rfbench.models import backbones
from rfbench.schemas.cls import ClsConfig
from rfbench.schemas.seg import SegConfig
from rfbench.segment import evaluate as pixels
from rfbench.segment import losses
from rfbench.segment import network as segmenters
from rfbench.segment.heads import upsampled

VARIANTS = ["baseline", "1x1+3x3", "blur:1x1+3x3", "blur_after:3x3", "max:1x1+3x3", "alt:1x1+3x3"]
CUDA = torch.device("cuda", 0)


def convolutions(model: nn.Module) -> list[tuple[torch.dtype, bool]]:
    """To be filled by a forward pass: of each convolution's output its type, and whether in
    channels_last.
    """
    seen: list[tuple[torch.dtype, bool]] = []

    def look(module: nn.Module, args: Any, output: Tensor) -> None:
        assert output.device == CUDA
        seen.append((output.dtype, output.is_contiguous(memory_format=torch.channels_last)))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(look)
    return seen


# what refuses to run where `deterministic` is asked for, or whose backward pass does: the list of
# torch.use_deterministic_algorithms, as operations
REFUSED = {
    "aten::nll_loss2d_forward",
    "aten::upsample_bilinear2d",
    "aten::upsample_bilinear2d.vec",
    "aten::upsample_bicubic2d",
    "aten::replication_pad2d",
    "aten::_adaptive_avg_pool2d",
    "aten::adaptive_max_pool2d",
    "aten::histc",
}


class Deterministic(TorchDispatchMode):
    """Raises where an operation on a GPU is none that is deterministic."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        weighted = name == "aten::bincount" and len(args) > 1 and args[1] is not None
        assert name not in REFUSED and not weighted, f"{name} is not deterministic"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def deterministic() -> Iterator[Deterministic]:
    torch.use_deterministic_algorithms(True)
    yield Deterministic()
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    # autocast asks whether there is a GPU
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    return FakeTensorMode()


def on_gpu(model: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """The module as `to` would leave it on a GPU: tensors that it does not register stay behind."""
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with fake:
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                for name, tensor in held.items():
                    if tensor is not None:
                        place = {"dtype": tensor.dtype, "device": CUDA}
                        made = torch.empty_strided(tensor.shape, tensor.stride(), **place)
                        is_weight = isinstance(tensor, nn.Parameter)
                        held[name] = nn.Parameter(made) if is_weight else made
    return model.train()


def images() -> tuple[Tensor, Tensor]:
    """Normalised images (4, 3, 64, 64) and their labels, as a loader's batch becomes them."""
    pixels = torch.zeros(4, 64, 64, 3, dtype=torch.uint8, device=CUDA)
    normalize = augment.Normalize((0.5,) * 3, (0.2,) * 3)
    # `tensor` needs a driver
    normalize.scale, normalize.shift = (torch.empty(3, device=CUDA) for _ in range(2))
    return normalize(pixels), torch.zeros(4, dtype=torch.int64, device=CUDA)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:mobilenetv2_100"])
def test_a_classifier(name: str, variant: str, precision: str, fake: FakeTensorMode) -> None:
    config = ClsConfig(model=name, variant=variant, precision=precision)  # type: ignore[arg-type, call-arg]
    model = on_gpu(backbones.build(name, variant).module, fake)
    seen = convolutions(model)
    with fake, torch.no_grad():  # autograd asks the driver for streams
        batch, labels = images()
        scores = network.scores_of(model, config)(batch)
        loss = F.cross_entropy(scores.float(), labels)
        counts = evaluate._counts(scores, labels)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert len(seen) >= 20
    assert {kind for kind, _ in seen} == {dtype}
    if precision == "fp32":  # for bf16 the driver is asked which algorithm, and so layout, there is
        assert all(last for _, last in seen)
    assert (scores.device, scores.dtype) == (CUDA, dtype)
    assert (loss.device, loss.dtype) == (CUDA, torch.float32)
    assert (counts.device, counts.dtype) == (CUDA, torch.float64)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head", ["fcn", "fpn"])
@pytest.mark.parametrize("variant", ["baseline", "1x1+3x3"])
def test_a_segmenter(variant: str, head: str, precision: str, fake: FakeTensorMode) -> None:
    held = {"model": "torchvision:resnet18", "data": {"name": "digits"}, "head": head}
    held |= {"variant": variant, "precision": precision}
    config = SegConfig.model_validate(held)
    model = on_gpu(segmenters.build(config, 11).module, fake)
    seen = convolutions(model)
    with fake, torch.no_grad():  # autograd asks the driver for streams
        batch, _ = images()
        truth = torch.zeros(4, 64, 64, dtype=torch.int64, device=CUDA)
        scores = segmenters.scores_of(model, config, 11)(batch)
        loss = losses.total(scores, truth, config, torch.ones(11, device=CUDA))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert {kind for kind, _ in seen} == {dtype}
    assert (loss.device, loss.dtype) == (CUDA, torch.float32)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_detector_s_backbone(
    variant: str, norm: str, precision: torch.dtype, fake: FakeTensorMode
) -> None:
    pytest.importorskip("detectron2", reason="run `make install-det`")
    from rfbench.detect.backbone import FeatureBackbone

    names, network = ["res2", "res3", "res4", "res5"], backbones.build("resnet18", variant)
    model = on_gpu(FeatureBackbone(network, names, freeze_at=2, norm=norm), fake)
    seen = convolutions(model)
    with fake, torch.no_grad():
        images = torch.empty(2, 3, 96, 128, device=CUDA)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == torch.bfloat16):
            maps = model(images)
    assert {kind for kind, _ in seen} == {precision}
    assert [maps[name].shape[-2:] for name in names] == [
        (96 // stride, 128 // stride) for stride in (4, 8, 16, 32)
    ]
    assert {maps[name].device for name in names} == {CUDA}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_deterministic_classifier(
    variant: str, fake: FakeTensorMode, deterministic: Deterministic
) -> None:
    model = on_gpu(backbones.build("torchvision:resnet18", variant).module, fake)
    with fake, torch.no_grad():
        batch, labels = images()
        with deterministic:
            scores = model(batch)
            F.cross_entropy(scores.float(), labels)
            evaluate._counts(scores, labels)


@pytest.mark.parametrize("head", ["fcn", "fpn"])
def test_a_deterministic_segmenter(
    head: str, fake: FakeTensorMode, deterministic: Deterministic
) -> None:
    held = {"model": "torchvision:resnet18", "data": {"name": "digits"}, "head": head}
    config = SegConfig.model_validate({**held, "variant": "blur:1x1+3x3", "precision": "fp32"})
    model = on_gpu(segmenters.build(config, 11).module, fake)
    with fake, torch.no_grad():
        batch, _ = images()
        truth = torch.zeros(4, 64, 64, dtype=torch.int64, device=CUDA)
        with deterministic:
            forward = segmenters.scores_of(model, config, 11)
            losses.total(forward(batch), truth, config, torch.ones(11, device=CUDA))
            maps = forward(pixels.moved(batch))["out"]
            losses.of_pixels(upsampled(maps, truth.shape[-2:]), truth, "none")


def test_what_is_not_deterministic_is_seen(
    fake: FakeTensorMode, deterministic: Deterministic
) -> None:
    with fake, pytest.raises(AssertionError, match="nll_loss2d_forward is not"), deterministic:
        maps = torch.zeros(1, 3, 4, 4, device=CUDA)
        F.cross_entropy(maps, torch.zeros(1, 4, 4, dtype=torch.int64, device=CUDA))
