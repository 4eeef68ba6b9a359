"""Crops: whatever moves the image moves the mask; the same random numbers give the same crop."""

import random

import numpy as np
import pytest
import torch

from rfbench.data.augment import image_rng
from rfbench.data.segmentation.augment import ScaledCrop, Whole, resized

IGNORED = 255


def ramp(height: int, width: int) -> torch.Tensor:
    """Red says the column and green the row; so does the mask, in steps of ten."""
    rows, columns = np.mgrid[:height, :width]
    mask = columns // 10 + 10 * (rows // 10)
    return torch.from_numpy(np.stack([columns, rows, 0 * rows, mask], 2).astype(np.uint8))


def test_image_and_mask_stay_together() -> None:
    """The mask at each pixel is what the image says of its place, but at the edges of steps."""
    crop = ScaledCrop((40, 60), (0.5, 2.0), flip=True)
    pixels, flips = ramp(100, 120), 0
    for i in range(60):
        found = crop(pixels, image_rng(0, 0, i)).numpy().astype(int)
        assert found.shape == (40, 60, 4)
        inside = found[..., 3] != IGNORED
        column, row = found[..., 0], found[..., 1]
        flips += column[inside][0] > column[inside][-1]
        # pixel centres: within one pixel of a step's edge either side may be right
        clear = inside & (column % 10 > 0) & (column % 10 < 9) & (row % 10 > 0) & (row % 10 < 9)
        # bilinear weights reach over the edge of what is ignored
        edge = np.zeros_like(inside)
        edge[1:-1, 1:-1] = (
            inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        )
        clear &= edge
        assert clear.any()
        expected = column // 10 + 10 * (row // 10)
        assert (found[..., 3][clear] == expected[clear]).all()
    assert 20 < flips < 40


def test_masks_are_sampled_at_the_centres_of_pixels() -> None:
    """As Pillow's NEAREST, which is what people compare with."""
    from PIL import Image

    mask = torch.randint(0, 9, (37, 23), generator=torch.Generator().manual_seed(0)).byte()
    pixels = torch.cat([torch.zeros(37, 23, 3, dtype=torch.uint8), mask[..., None]], 2)
    for size in ((64, 64), (18, 11), (74, 46), (20, 50)):
        found = resized(pixels, size)[..., 3].numpy()
        theirs = Image.fromarray(mask.numpy()).resize(size[::-1], Image.Resampling.NEAREST)
        assert (found == np.array(theirs)).all()


def test_beyond_the_image_nothing_counts() -> None:
    crop = ScaledCrop((30, 50), (1.0, 1.0), fill=(1, 2, 3))
    found = crop(ramp(20, 40), random.Random("0"))
    outside = found[..., 3] == IGNORED
    assert outside.sum() == 30 * 50 - 20 * 40
    assert (found[..., :3][outside] == torch.tensor([1, 2, 3])).all()
    places = set()
    for i in range(40):
        inside = (crop(ramp(20, 40), image_rng(0, 0, i))[..., 3] != IGNORED).nonzero()
        places.add(tuple(inside[0].tolist()))
    assert len(places) > 20 and max(places)[0] <= 10  # anywhere, never cut


def test_a_crop_of_the_image_is_the_image() -> None:
    pixels = ramp(20, 40)
    assert torch.equal(ScaledCrop((20, 40))(pixels, random.Random("0")), pixels)
    assert torch.equal(Whole()(pixels, random.Random("0")), pixels)


@pytest.mark.parametrize("size", [(200, 300), (21, 17)])
def test_random_numbers_alone_decide(size: tuple[int, int]) -> None:
    crop, pixels = ScaledCrop((32, 48), (0.5, 2.0), flip=True), ramp(*size)
    for i in range(5):
        first, again = (crop(pixels, image_rng(3, 1, i)) for _ in range(2))
        assert torch.equal(first, again)
        other = crop(pixels, image_rng(3, 2, i))
        assert not torch.equal(first, other)
