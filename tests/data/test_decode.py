"""Every kind of odd file becomes the right pixels or a BadImage that says why."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from rfbench.data.decode import BadImage, decode, read

# 8 x 10 patches of 8 px: an image whose JPEG is large enough to be cut anywhere
PIXELS = np.kron(
    np.random.default_rng(0).integers(0, 256, (8, 10, 3)), np.ones((8, 8, 1), int)
).astype(np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pil(data: bytes) -> torch.Tensor:
    """What torchvision's ImageFolder reads."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB")))


JPEG = encoded(PICTURE, "JPEG", quality=90)
ROTATED = Image.Exif()
ROTATED[0x112] = 6  # orientation: to be turned by 90 degrees
PALETTE = PICTURE.quantize(16)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(JPEG, id="jpeg"),
        pytest.param(encoded(PICTURE, "JPEG", progressive=True), id="progressive"),
        pytest.param(encoded(PICTURE, "JPEG", subsampling=0), id="444"),
        pytest.param(encoded(PICTURE.convert("L"), "JPEG"), id="grey"),
        pytest.param(encoded(PICTURE.convert("CMYK"), "JPEG"), id="cmyk"),
        pytest.param(encoded(PICTURE, "JPEG", exif=ROTATED), id="exif rotated"),
        pytest.param(JPEG + b"trailing", id="trailing bytes"),
        pytest.param(encoded(PICTURE, "PNG"), id="png"),
        pytest.param(encoded(PICTURE.convert("RGBA"), "PNG"), id="rgba"),
        pytest.param(encoded(PICTURE.convert("LA"), "PNG"), id="grey with alpha"),
        pytest.param(encoded(PICTURE.convert("1"), "PNG"), id="one bit"),
        pytest.param(encoded(PALETTE, "PNG"), id="palette"),
        pytest.param(encoded(PALETTE, "PNG", transparency=3), id="palette, one transparent"),
        pytest.param(encoded(PALETTE, "PNG", transparency=bytes(range(16))), id="palette, alphas"),
        pytest.param(encoded(PALETTE, "GIF"), id="gif"),
        pytest.param(encoded(PICTURE, "BMP"), id="bmp"),
        pytest.param(encoded(PICTURE, "WEBP"), id="webp"),
    ],
)
@pytest.mark.filterwarnings("ignore:Palette images")
def test_pixels_are_those_of_torchvision(data: bytes) -> None:
    pixels = decode(data, "x")
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (64, 80, 3)
    assert torch.equal(pixels, by_pil(data))


def test_exif_rotation_is_not_applied() -> None:
    assert decode(encoded(PICTURE, "JPEG", exif=ROTATED), "x").shape == (64, 80, 3)


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W, 3) uint16, which PIL cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = b""
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        body += struct.pack(">I", len(data)) + kind + data
        body += struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + body


GREY16 = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(GREY16, "PNG"), id="png"),
        pytest.param(encoded(GREY16, "TIFF"), id="tiff"),
        pytest.param(
            b"P5 80 64 65535\n" + (PIXELS[..., 0].astype(">u2") * 257).tobytes(), id="pgm"
        ),
    ],
)
def test_sixteen_bit_grey_is_scaled_where_pil_clips_to_white(data: bytes) -> None:
    assert by_pil(data).float().mean() > 250
    wanted = torch.from_numpy(PIXELS[..., :1]).expand(-1, -1, 3)
    assert torch.equal(decode(data, "x"), wanted)


def tiff(pixels: np.ndarray, signed: bool = False, white_is_zero: bool = False) -> bytes:
    """An uncompressed TIFF of (H, W) grey pixels, little-endian."""
    (height, width), bits = pixels.shape, 8 * pixels.itemsize
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1 - white_is_zero}
    tags |= {273: 8 + 2 + 12 * 10 + 4, 277: 1, 278: height, 279: pixels.nbytes, 339: 1 + signed}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()


RAMP = np.array([[0, 1, 255, 256, 511, 32767, 32768, 65279, 65280, 65535]])


def test_grey_of_16_bits_keeps_its_highest_eight() -> None:
    wanted = [value >> 8 for value in RAMP[0].tolist()]
    for data in (
        tiff(RAMP.astype(np.uint16)),
        encoded(Image.fromarray(RAMP.astype(np.uint16)), "PNG"),
        encoded(Image.fromarray(RAMP.astype(np.uint16)), "TIFF"),
        b"P5 10 1 65535\n" + RAMP.astype(">u2").tobytes(),
    ):
        assert decode(data, "x")[0, :, 2].tolist() == wanted
    inverted = decode(tiff(RAMP.astype(np.uint16), white_is_zero=True), "x")
    assert inverted[0, :, 0].tolist() == [255 - value for value in wanted]


def test_the_declared_depth_counts() -> None:
    """A PGM of 10 bits, and a TIFF of 12 in three bytes for two pixels."""
    ten = np.array([[0, 512, 1023]], dtype=">u2")
    assert decode(b"P5 3 1 1023\n" + ten.tobytes(), "x")[0, :, 0].tolist() == [0, 128, 255]
    packed = tiff(np.frombuffer(bytes([0x80, 0x0F, 0xFF]), np.uint8)[None])
    twelve = packed.replace(struct.pack("<HHII", 258, 4, 1, 8), struct.pack("<HHII", 258, 4, 1, 12))
    twelve = twelve.replace(struct.pack("<HHII", 256, 4, 1, 3), struct.pack("<HHII", 256, 4, 1, 2))
    assert decode(twelve, "x")[0, :, 0].tolist() == [0x80, 0xFF]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (encoded(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "signed 32-bit"),
        (tiff(RAMP.astype(np.int32), signed=True), "signed 32-bit"),
        (tiff(RAMP.astype(np.uint32)), " 32-bit"),
        (tiff(RAMP.astype(np.int16), signed=True), "signed 16-bit"),
        (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_pixels_without_a_range_are_refused_by_name(data: bytes, what: str) -> None:
    with pytest.raises(BadImage, match=f"{what}.* no agreed range"):
        decode(data, "x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_upright_is_what_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encoded(PICTURE, kind, exif=exif)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(decode(data, "x", upright=True).numpy(), np.array(wanted))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(orientation: int) -> None:
    """PIL turns it while it reads it, whether asked to or not."""
    data = encoded(PICTURE, "TIFF", tiffinfo={0x112: orientation})
    wanted = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    for upright in (False, True):
        assert np.array_equal(decode(data, "x", upright=upright).numpy(), wanted)


def test_only_files_are_opened(tmp_path: Path) -> None:
    """A pipe that nobody writes to would be waited for forever, a device read without end."""
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (str(tmp_path / "pipe.jpg"), "/dev/zero"):
        with pytest.raises(BadImage, match="not a regular file"):
            read(path)
    with pytest.raises(BadImage, match="not the name of a file"):
        read("a\0b")
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(BadImage, match="larger than 1 GiB"):
        read(str(tmp_path / "large.jpg"))


def test_sixteen_bit_colour() -> None:
    pixels = decode(png16(PIXELS.astype(np.uint16) * 257), "x")
    assert torch.equal(pixels, torch.from_numpy(PIXELS))


def bomb() -> bytes:
    """A JPEG that says it is 65,000 px wide and high."""
    data = bytearray(JPEG)
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65000, 65000)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (bytes(1000), "not an image of a known format"),
        (b"<html>404</html>", "not an image of a known format"),
        (JPEG[:10], "truncated"),
        (JPEG[:200], "truncated"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:-2], "truncated"),
        (encoded(PICTURE, "PNG")[:-60], "truncated"),
        (encoded(PICTURE, "WEBP")[:60], ""),
        (encoded(Image.fromarray(PIXELS[..., 0].astype(np.float32)), "TIFF"), "floating-point"),
        (bomb(), "exceeds limit"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage) as caught:
        decode(data, "some/file.JPEG")
    assert caught.value.path == "some/file.JPEG"
    assert reason.lower() in caught.value.reason.lower()
    assert str(caught.value) == f"some/file.JPEG: {caught.value.reason}"
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)  # the same text in every run


def test_a_jpeg_damaged_in_the_middle_is_used_as_torchvision_uses_it() -> None:
    data = bytearray(JPEG)
    data[-300:-280] = bytes(20)
    assert torch.equal(decode(bytes(data), "x"), by_pil(bytes(data)))


def test_reading_files(tmp_path: Path) -> None:
    misnamed = tmp_path / "n02105855_2933.JPEG"  # ImageNet has a PNG of this name
    misnamed.write_bytes(encoded(PICTURE, "PNG"))
    assert torch.equal(read(str(misnamed)), torch.from_numpy(PIXELS))
    with pytest.raises(BadImage, match=r"gone\.JPEG: No such file"):
        read(str(tmp_path / "gone.JPEG"))
    with pytest.raises(BadImage, match="directory"):
        read(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(JPEG)
    path.chmod(0)
    with pytest.raises(BadImage, match="Permission denied"):
        read(str(path))


@pytest.mark.parametrize(
    "start", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xc5\xd0\xd3\xc6"]
)
def test_postscript_is_not_run(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """PIL would give it to Ghostscript."""
    import subprocess

    monkeypatch.setattr(subprocess, "check_call", pytest.fail)
    with pytest.raises(BadImage, match="PostScript"):
        decode(start + bytes(100), "x")
