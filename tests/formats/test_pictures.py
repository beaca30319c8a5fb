"""What every kind of image file becomes."""

import contextlib
import io
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from coyo_labeler.data.decode import decode_rgb
from coyo_labeler.export import tfrecord
from coyo_labeler.formats import pictures
from coyo_labeler.formats.faults import Fault, ImageError
from coyo_labeler.formats.jpeg import MAX_SCANS, has_more_scans, is_plain_jpeg
from coyo_labeler.formats.pictures import decode_with_pillow
from coyo_labeler.report import examples
from tests.jpegs import with_scans
from tests.label.tars import crops, encode, jpeg

PHOTO = crops(1, small=60, large=90)[0]


def test_opencv_and_pillow_give_the_same_pixels():
    options = [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}]
    for pixels in crops(6, small=30):
        for option in options:
            data = encode(pixels, "JPEG", **option)
            assert is_plain_jpeg(data, 10**6)
            assert np.array_equal(pictures.decode(data), decode_with_pillow(data))
        gray = encode(Image.fromarray(pixels).convert("L"), "JPEG")
        assert is_plain_jpeg(gray, 10**6)
        assert np.array_equal(pictures.decode(gray), decode_with_pillow(gray))


def test_without_opencv_the_pixels_are_the_same(monkeypatch):
    data = jpeg(PHOTO)
    with_it = pictures.decode(data)
    monkeypatch.setattr(pictures, "HAS_OPENCV", False)
    assert np.array_equal(pictures.decode(data), with_it)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_lossless_formats_keep_every_pixel(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(pictures.decode(encode(PHOTO, kind, **options)), PHOTO)


def test_gray_becomes_three_equal_channels():
    gray = Image.fromarray(PHOTO).convert("L")
    pixels = pictures.decode(encode(gray, "PNG"))
    assert np.array_equal(pixels, np.repeat(np.asarray(gray)[..., None], 3, axis=2))


def test_one_bit_becomes_0_or_255():
    pixels = pictures.decode(encode(Image.fromarray(PHOTO).convert("1"), "PNG"))
    assert set(np.unique(pixels)) == {0, 255}


def test_alpha_is_dropped_and_not_blended():
    rgba = np.dstack([PHOTO, np.zeros(PHOTO.shape[:2], np.uint8)])
    assert np.array_equal(pictures.decode(encode(rgba, "PNG")), PHOTO)
    gray = Image.fromarray(PHOTO).convert("LA")
    gray.putalpha(0)
    expected = np.repeat(np.asarray(gray)[..., :1], 3, axis=2)
    assert np.array_equal(pictures.decode(encode(gray, "PNG")), expected)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(200))])
def test_palettes_are_looked_up_under_transparency_too(transparency):
    palette = Image.fromarray(PHOTO).quantize(200)
    options = {} if transparency is None else {"transparency": transparency}
    pixels = pictures.decode(encode(palette, "PNG", **options))
    colours = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    assert np.array_equal(pixels, colours[np.asarray(palette)])


def test_16_bits_keep_their_upper_8():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = pictures.decode(encode(Image.fromarray(values), "PNG"))
    assert np.array_equal(pixels[..., 0], (values >> 8).astype(np.uint8))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_16_bit_colour_keeps_its_upper_8():
    cv2 = pytest.importorskip("cv2")
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    _, data = cv2.imencode(".png", values[..., ::-1])
    assert np.array_equal(pictures.decode(data.tobytes()), (values >> 8).astype(np.uint8))


def test_cmyk_is_multiplied_out():
    cmyk = Image.fromarray(PHOTO).convert("CMYK")
    data = encode(cmyk, "JPEG", quality=100, subsampling=0)
    assert not is_plain_jpeg(data, 10**6)
    with Image.open(io.BytesIO(data)) as image:
        inks = np.asarray(image).astype(float)
    expected = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    assert np.abs(pictures.decode(data) - expected).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_stands(kind):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert np.array_equal(pictures.decode(data), np.full((10, 20, 3), (255, 0, 0), np.uint8))


def test_exif_orientation_is_applied_only_when_asked_for():
    exif = Image.Exif()
    exif[0x0112] = 6  # the picture is to be turned a quarter clockwise
    data = jpeg(PHOTO, exif=exif)
    plain, turned = pictures.decode(data), pictures.decode(data, exif_orientation=True)
    assert plain.shape == PHOTO.shape
    assert np.array_equal(turned, np.rot90(plain, -1))


def test_rgb_jpegs_are_not_taken_for_ycbcr():
    data = jpeg(PHOTO, keep_rgb=True)
    assert not is_plain_jpeg(data, 10**6)
    assert np.abs(pictures.decode(data).astype(int) - PHOTO).mean() < 8


WHOLE = jpeg(PHOTO)
BROKEN = {
    "empty": b"",
    "text": b"<html>404</html>",
    "cut off": WHOLE[: len(WHOLE) // 2],
    "cut off near the end": WHOLE[:-40],
    "only a header": WHOLE[:20],
    "png cut off": encode(PHOTO, "PNG")[:500],
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_picture_is_undecodable(name):
    with pytest.raises(ImageError) as caught:
        pictures.decode(BROKEN[name])
    assert caught.value.fault == Fault.UNDECODABLE
    assert "0x" not in caught.value.detail


SCAN = WHOLE.index(b"\xff\xda")
ODD = {
    **{
        f"marker {marker:02x} in the scan": WHOLE[: SCAN + 400]
        + bytes([0xFF, marker])
        + WHOLE[SCAN + 400 :]
        for marker in (0x02, 0xC0, 0xC3, 0xC4, 0xD8, 0xDB, 0xF0)
    },
    "a byte between two segments": WHOLE[:20] + b"\0" + WHOLE[20:],
}


@pytest.mark.parametrize("name", ODD)
def test_a_damaged_jpeg_is_the_same_with_and_without_opencv(name):
    assert outcome(ODD[name]) == outcome(ODD[name], decode_with_pillow)


def test_however_a_jpeg_is_damaged_opencv_changes_nothing():
    random = np.random.default_rng(0)
    files = [jpeg(PHOTO, progressive=progressive) for progressive in (False, True)]
    for turn in range(400):
        data = bytearray(files[turn % 2])
        for _ in range(random.integers(1, 6)):
            first = 2 if turn % 4 < 2 else SCAN
            data[random.integers(first, len(data))] = random.integers(256)
        assert outcome(bytes(data)) == outcome(bytes(data), decode_with_pillow)


def outcome(data, way=pictures.decode):
    try:
        pixels = way(data)
    except ImageError as error:
        return error.fault
    return pixels.shape, pixels.tobytes()


def test_large_pictures_are_unfolded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(pictures, "LARGE_PIXELS", 1)
    to_rgb, at_work, most = pictures.to_rgb, [], []

    def watched(image):
        at_work.append(image)
        most.append(len(at_work))
        threading.Event().wait(0.02)
        at_work.pop()
        return to_rgb(image)

    monkeypatch.setattr(pictures, "to_rgb", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pictures.decode, [WHOLE, encode(PHOTO, "PNG")] * 4))
    assert most == [1] * 8


def test_a_bomb_is_refused_before_it_unfolds():
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"\0")
    with pytest.raises(ImageError) as caught:
        pictures.decode(png)
    assert caught.value.fault == Fault.TOO_LARGE
    frame = bytearray(WHOLE)
    start = frame.index(b"\xff\xc0")
    frame[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(ImageError) as caught:
        pictures.decode(bytes(frame))
    assert caught.value.fault == Fault.TOO_LARGE


@pytest.mark.parametrize("opencv", [True, False])
def test_a_jpeg_of_endless_scans_costs_itself_and_no_time(monkeypatch, opencv):
    monkeypatch.setattr(pictures, "HAS_OPENCV", opencv and pictures.HAS_OPENCV)
    data = jpeg(PHOTO, progressive=True)
    assert pictures.decode(with_scans(data, 50)).shape == PHOTO.shape
    with pytest.raises(ImageError, match="more than 100 scans") as caught:
        pictures.decode(with_scans(data, 1000))
    assert caught.value.fault == Fault.UNDECODABLE


@pytest.mark.parametrize("opencv", [True, False])
def test_a_jpeg_full_of_fill_bytes_costs_no_time(monkeypatch, opencv):
    """The search for markers must not take quadratic time on them: a megabyte would take hours.

    That is more than a test is given.
    """
    monkeypatch.setattr(pictures, "HAS_OPENCV", opencv and pictures.HAS_OPENCV)
    data = jpeg(PHOTO, progressive=True)
    scan_headers = b"\xff\xe0\x00\x05\xff\xda\x00" * (MAX_SCANS + 1)  # inside of APP0 segments
    filled = data[:2] + scan_headers + b"\xff" * 2**20 + b"\x00" + data[2:]
    assert not has_more_scans(filled, MAX_SCANS)
    with contextlib.suppress(ImageError):
        pictures.decode(filled)


def _chunk(kind: bytes, data: bytes) -> bytes:
    import zlib  # noqa: PLC0415

    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def test_a_picture_of_floating_point_samples_is_not_taken_for_black():
    data = encode(Image.fromarray(np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)), "TIFF")
    with pytest.raises(ImageError, match="floating-point") as caught:
        pictures.decode(data)
    assert caught.value.fault == Fault.UNDECODABLE


@pytest.mark.parametrize("name", ["eps", "text", "cut off"])
def test_every_reader_of_pictures_refuses_what_the_decoder_refuses(name):
    """EPS would start Ghostscript."""
    for decode in (decode_rgb, tfrecord.decodable):
        if decode is decode_rgb or name != "cut off":  # JPEGs go to TFRecord as they are
            with pytest.raises(ImageError):
                decode(BROKEN[name])
    assert examples._shrink(BROKEN[name]) is None


def test_the_reader_for_training_gives_the_decoders_pixels():
    for pixels in (PHOTO, Image.fromarray(PHOTO).convert("LA"), Image.fromarray(PHOTO).quantize(9)):
        data = encode(pixels, "PNG")
        assert np.array_equal(np.asarray(decode_rgb(data)), pictures.decode(data))
