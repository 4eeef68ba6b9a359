"""Crops: boxes and sizes as torchvision's, pixels as PIL's, randomness of (seed, epoch, i)."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from rfbench.data.augment import (
    AUGMENTATIONS,
    CenterCrop,
    Normalize,
    PadCrop,
    ResizedCrop,
    evaluation,
    image_rng,
    resize,
)


def photo(height: int, width: int, seed: int = 0) -> Tensor:
    """Noise with the spectrum of a photo, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    spectrum = rng.standard_normal((2, 3, *frequency.shape)) / frequency
    waves = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], (height, width))
    pixels = 128 + 50 * waves / waves.std() + 5 * rng.standard_normal(waves.shape)
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())


def difference(pixels: Tensor, image: Image.Image) -> Tensor:
    return (pixels.int() - torch.from_numpy(np.array(image)).int()).abs()


def test_random_numbers_of_an_image_never_change() -> None:
    # golden: Python guarantees them; a run that is resumed with another Python goes on alike
    drawn = [image_rng(0, 0, 0).random(), image_rng(1, 2, 3).random()]
    assert drawn == [0.5013997148167615, 0.7910137503955594]


def test_random_numbers_differ_in_each_of_seed_epoch_and_index() -> None:
    drawn = {image_rng(s, e, i).random() for s in range(5) for e in range(5) for i in range(5)}
    assert len(drawn) == 125


def test_resized_crop_is_pils_antialiased_bilinear() -> None:
    total, count = 0.0, 0
    for seed in range(12):
        image = photo(375, 500, seed)
        crop = ResizedCrop(224, flip=False)
        top, left, height, width = crop.box(375, 500, image_rng(0, 0, seed))
        box = (left, top, left + width, top + height)
        wanted = (
            Image.fromarray(image.numpy()).crop(box).resize((224, 224), Image.Resampling.BILINEAR)
        )
        off = difference(crop(image, image_rng(0, 0, seed)), wanted)
        assert off.max() <= 1
        total, count = total + off.sum().item(), count + off.numel()
    assert total / count <= 0.1  # of 255 levels


def test_boxes_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    image = torch.empty(3, 300, 400)
    ours = [ResizedCrop(224).box(300, 400, image_rng(0, 0, i)) for i in range(4000)]
    theirs = [v2.RandomResizedCrop(224).make_params([image]) for _ in range(4000)]
    keys = ("top", "left", "height", "width")
    rows = np.array([[box[key] for key in keys] for box in theirs], dtype=float)
    for column, name in enumerate(keys):
        mine = np.array(ours, dtype=float)[:, column]
        error = math.hypot(mine.std(), rows[:, column].std()) / math.sqrt(4000)
        assert abs(mine.mean() - rows[:, column].mean()) < 4 * error, name
        assert mine.std() == pytest.approx(rows[:, column].std(), rel=0.06), name


def test_boxes_lie_inside() -> None:
    rng = random.Random(0)
    for i in range(2000):
        height, width = rng.randrange(1, 60), rng.randrange(1, 60)
        top, left, h, w = ResizedCrop(8).box(height, width, image_rng(0, 0, i))
        assert 0 <= top <= top + h <= height and h >= 1
        assert 0 <= left <= left + w <= width and w >= 1


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1)])
def test_the_box_of_an_image_too_long_is_torchvisions(height: int, width: int) -> None:
    # (nothing of area >= 0.5 and ratio <= 4/3 fits: both take the middle)
    crop = ResizedCrop(8, scale=(0.5, 1.0))
    theirs = v2.RandomResizedCrop(8, scale=(0.5, 1.0)).make_params([torch.empty(3, height, width)])
    box = crop.box(height, width, image_rng(0, 0, 0))
    assert box == tuple(theirs[key] for key in ("top", "left", "height", "width"))


@pytest.mark.parametrize("augment", [ResizedCrop, PadCrop])
def test_half_of_the_images_are_mirrored(augment: type) -> None:
    image = photo(32, 32)
    mirrored = 0
    for i in range(200):
        plain = augment(32, flip=False)(image, image_rng(0, 0, i))
        flipped = augment(32, flip=True)(image, image_rng(0, 0, i))
        assert torch.equal(flipped, plain) or torch.equal(flipped, plain.flip(1))
        mirrored += torch.equal(flipped, plain.flip(1))
    assert 70 < mirrored < 130


def test_pad_crop_moves_by_up_to_four_pixels() -> None:
    image = photo(32, 32)
    padded = torch.zeros(40, 40, 3, dtype=torch.uint8)
    padded[4:36, 4:36] = image
    windows = {(y, x): padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
    seen = set()
    for i in range(800):
        out = PadCrop(32, flip=False)(image, image_rng(0, 0, i))
        (offset,) = [at for at, window in windows.items() if torch.equal(window, out)]
        seen.add(offset)
    assert len(seen) == 81


@pytest.mark.parametrize(
    ("height", "width"), [(375, 500), (500, 375), (256, 256), (257, 300), (224, 900), (333, 100)]
)
def test_evaluation_is_torchvisions_resize_and_centre_crop(height: int, width: int) -> None:
    image = photo(height, width)
    ours = evaluation(224, 0.875)
    assert ours == CenterCrop(224, shorter=256)
    theirs = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(Image.fromarray(image.numpy()))
    off = difference(ours(image, image_rng(0, 0, 0)), theirs)
    assert off.max() <= 1
    assert off.float().mean() <= 0.1


def test_evaluation_of_images_that_fit_changes_nothing() -> None:
    image = photo(32, 32)
    assert torch.equal(evaluation(32, 1.0)(image, image_rng(0, 0, 0)), image)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(48, 48), (30, 70), (9, 3), (200, 100)])
def test_every_augmentation_gives_its_size_and_is_repeatable(
    name: str, shape: tuple[int, int]
) -> None:
    augment = AUGMENTATIONS[name](48, True)
    assert augment.size == 48
    image = photo(*shape)
    before = image.clone()
    out = augment(image, image_rng(0, 1, 2))
    assert out.shape == (48, 48, 3) and out.dtype == torch.uint8
    assert torch.equal(out, augment(image, image_rng(0, 1, 2)))
    assert torch.equal(image, before)


def test_augmenting_leaves_the_networks_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    ResizedCrop(16)(photo(20, 30), image_rng(0, 0, 0))
    assert torch.equal(before, torch.get_rng_state())


def test_resize_reads_views() -> None:
    image = photo(40, 50)
    view = image[3:23, 5:35]
    assert torch.equal(resize(view, 16, 16), resize(view.clone(), 16, 16))


def test_normalize_is_torchvisions() -> None:
    images = torch.stack([photo(20, 30, seed) for seed in range(3)])
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    steps = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    wanted = v2.Compose(steps)(images.permute(0, 3, 1, 2))
    out = Normalize(mean, std)(images)
    assert torch.allclose(out, wanted, atol=1e-6)
    assert out.is_contiguous(memory_format=torch.channels_last)
    half = Normalize(mean, std, dtype=torch.bfloat16)(images)
    assert torch.equal(half, out.bfloat16())
