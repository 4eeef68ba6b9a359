"""Masks in files hold the values that were stored, whatever a library makes of them."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfbench.data import sources
from rfbench.data.decode import BadImage
from rfbench.data.segmentation import check, masks
from rfbench.data.segmentation.pairs import FilePairs
from rfbench.data.segmentation.sources import SOURCES
from rfbench.errors import RfbenchError
from tests.data.segmentation import trees


def png(values: np.ndarray, bits: int, color: int = 0) -> bytes:
    """A PNG by the format's definition: grey of 1, 2 or 4 bits, or (color=2) RGB of 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    width = values.shape[1] // (3 if color else 1)
    head = struct.pack(">IIBBBBB", width, len(values), bits, color, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits(bits: int, tmp_path: Path) -> None:
    """PIL spreads it over 0 to 255: the largest value would be 255, and count nowhere."""
    values = np.arange(15).reshape(3, 5) % 2**bits
    (tmp_path / "x.png").write_bytes(png(values, bits))
    assert np.array_equal(masks.read(str(tmp_path / "x.png"), masks.indices(16)), values)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"P5 4 1 3\n\0\1\2\3", "its largest value is 3, not 255"),
        (b"P2 4 1 3\n0 1 2 3\n", "its largest value is 3, not 255"),
        (b"P5 2 1 300\n\0\1\0\2", "its largest value is 300, not 255"),
        (b"P4 8 1\n\x55", "stored inverted"),
    ],
)
def test_what_pil_scales_or_inverts_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ppm"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=why):
        masks.read(str(path), masks.indices(4))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_tiff_in_which_0_is_white(kind: type, tmp_path: Path) -> None:
    values, path = np.arange(4, dtype=kind)[None], str(tmp_path / "x.tif")
    for white in (0, 1):
        Image.fromarray(values).save(path, tiffinfo={262: white})
        if white == 0 and kind is np.uint8:  # of 16 bits PIL takes them as they are
            with pytest.raises(BadImage, match="stored inverted"):
                masks.read(path, masks.indices(4))
        else:
            assert np.array_equal(masks.read(path, masks.indices(4)), values)


def test_each_process_tells_the_classes_of_its_masks(tmp_path: Path) -> None:
    names = [(str(tmp_path / f"i{n}.png"), str(tmp_path / f"m{n}.png")) for n in range(3)]
    for value, (image, mask) in zip((255, 1, 0), names, strict=True):
        Image.new("RGB", (4, 4)).save(image)
        Image.new("L", (4, 4), value).save(mask)
    pairs = FilePairs(*zip(*names, strict=True), masks.indices(2))
    assert [check.check(pairs, True, rank, 3).classes for rank in range(3)] == [set(), {1}, {0}]
    assert check.check(pairs, True, 0, 2).classes == {0}
    assert check.check(pairs, False).classes is None


def test_masks_without_an_image_are_told(tmp_path: Path) -> None:
    trees.folder(tmp_path)
    trees.mask(tmp_path / "masks/train/lonely.png", trees.halves(0, 1))
    notes = sources.open_set(SOURCES, "folder", str(tmp_path)).notes
    assert [note for note in notes if "lonely" in note] == [
        f"{tmp_path}/masks/train: masks without an image: {tmp_path}/masks/train/lonely.png"
    ]


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (np.full((2, 2, 4), [128, 0, 0, 0], np.uint8), "some of its pixels are transparent"),
        (np.full((2, 2), 65535, np.uint16), "are not colours of 8 bits"),  # PIL makes it white
    ],
)
def test_what_has_no_plain_colours_is_refused(stored: np.ndarray, why: str, tmp_path: Path) -> None:
    known = masks.colours([((128, 0, 0), 0), ((255, 255, 255), masks.IGNORED)])
    path = str(tmp_path / "x.png")
    Image.fromarray(stored).save(path)
    with pytest.raises(BadImage, match=why):
        masks.read(path, known)
    Image.fromarray(np.full((2, 2, 4), [128, 0, 0, 255], np.uint8)).save(path)
    assert not masks.read(path, known).any()


def test_colours_that_are_transparent_or_of_16_bits_are_refused(tmp_path: Path) -> None:
    path, known = tmp_path / "x.png", masks.colours([((128, 0, 0), 0), ((0, 0, 0), 1)])
    Image.new("RGB", (1, 1), (128, 0, 0)).save(path, transparency=(128, 0, 0))
    with pytest.raises(BadImage, match="some of its pixels are transparent"):
        masks.read(str(path), known)
    path.write_bytes(png(np.array([[128, 0, 0]]), 16, color=2))  # of PIL, black
    with pytest.raises(BadImage, match="its colours are of 16 bits"):
        masks.read(str(path), known)


def test_a_palette_of_another_order_is_named(tmp_path: Path) -> None:
    """Programs that reduce colours number them anew in each mask: an index would be no class."""
    names = [(str(tmp_path / f"i{n}.png"), str(tmp_path / f"m{n}.png")) for n in range(2)]
    pairs = FilePairs(*zip(*names, strict=True), masks.indices(2))
    black, red = [0, 0, 0], [200, 0, 0]

    def write(number: int, palette: list[int]) -> None:
        image = Image.fromarray(np.array([[0, 1, 255]], np.uint8)).convert("P")
        image.putpalette(palette)
        Image.new("RGB", (3, 1)).save(names[number][0])
        image.save(names[number][1])

    write(0, black + red)
    write(1, red + black)
    with pytest.raises(
        RfbenchError, match=r"m1.png: the colour \[200, 0, 0\] has the index 0, and 1"
    ):
        check.check(pairs)
    for other in (black + red, red + red, [9, 9, 9, 8, 8, 8]):  # nor if it tells nothing
        write(1, other)
        assert check.check(pairs).classes == {0, 1}


def test_a_mask_that_exif_turns_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("L", (2, 2)).save(tmp_path / "x.png", exif=exif)
    with pytest.raises(BadImage, match="EXIF turns this mask"):
        masks.read(str(tmp_path / "x.png"), masks.indices(2))
