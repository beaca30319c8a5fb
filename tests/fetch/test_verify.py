import hashlib
import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from coyo_labeler.fetch.resize import shrink
from coyo_labeler.fetch.status import FetchError
from coyo_labeler.fetch.verify import hamming, verify
from coyo_labeler.formats.jpeg import MAX_SCANS, has_more_scans
from tests.fetch.web import encode, photograph
from tests.jpegs import with_scans

PIXELS = 10**7


@pytest.mark.parametrize(
    ("kind", "extension"),
    [
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        ("AVIF", "avif"),
        ("MPO", "jpg"),
    ],
)
@pytest.mark.parametrize("with_phash", [True, False])
def test_an_image_is_known_by_its_bytes(kind, extension, with_phash):
    data = encode(photograph(1), kind)
    image = verify(data, PIXELS, with_phash)
    assert (image.extension, image.width, image.height) == (extension, 96, 112)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    expected = str(imagehash.phash(Image.open(io.BytesIO(data)))) if with_phash else None
    assert image.imagehash == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_pixel_is_hashed(mode):
    if mode == "I;16":
        image = Image.fromarray(np.arange(96 * 96, dtype=np.uint16).reshape(96, 96))
    else:
        image = photograph(2).convert(mode)
    verify(encode(image, "JPEG" if mode == "CMYK" else "PNG"), PIXELS)


def test_orientation_is_not_applied_before_hashing():
    turned = Image.Exif()
    turned[0x0112] = 6  # rotate by 90°
    image = photograph(3)
    plain, tagged = encode(image), encode(image, exif=turned)
    assert verify(plain, PIXELS).imagehash == verify(tagged, PIXELS).imagehash
    assert verify(tagged, PIXELS).width == 96


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF"])
@pytest.mark.parametrize("with_phash", [True, False])
def test_a_cut_file_does_not_pass(kind, with_phash):
    data = encode(photograph(4, side=256), kind)
    for length in (len(data) // 3, 2 * len(data) // 3):
        with pytest.raises(FetchError) as failed:
            verify(data[:length], PIXELS, with_phash)
        assert failed.value.status in ("corrupt", "not_an_image")


def test_random_damage_never_raises_anything_else():
    random = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"):
        data = np.frombuffer(encode(photograph(5), kind), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            slots = random.integers(0, len(data), 12)
            damaged[slots] = random.integers(0, 256, 12, dtype=np.uint8)
            try:
                verify(damaged.tobytes(), PIXELS)
            except FetchError as error:
                assert error.status in ("corrupt", "not_an_image", "too_many_pixels")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"  <!doctype html>", "HTML or XML"),
        (b"%PDF-1.7 and so on", "begins with 255044462d312e37"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no known image format"),
    ],
)
def test_what_is_no_image_is_described(data, said):
    with pytest.raises(FetchError, match=said) as failed:
        verify(data, PIXELS)
    assert failed.value.status == "not_an_image"


def test_pixels_are_counted_before_they_are_decoded():
    data = encode(photograph(6), "PNG")
    assert verify(data, 96 * 112).width == 96
    with pytest.raises(FetchError, match="96 × 112") as failed:
        verify(data, 96 * 112 - 1)
    assert failed.value.status == "too_many_pixels"


def test_hamming_counts_bits():
    assert hamming("daf5a50aae4aa54a", "daf5a50aae4aa54a") == 0
    assert hamming("8000000000000000", "0000000000000003") == 3


def test_shrinking_keeps_the_ratio_and_leaves_small_images_alone():
    data = encode(photograph(7, side=200))  # 200 × 216
    small = shrink(data, 100, 95, PIXELS)
    assert (small.extension, small.width, small.height) == ("jpg", 100, 108)
    assert Image.open(io.BytesIO(small.data)).size == (100, 108)
    assert shrink(data, 200, 95, PIXELS) is None
    assert hamming(verify(data, PIXELS).imagehash, verify(small.data, PIXELS).imagehash) <= 4


def test_a_shrunk_image_stands_upright_and_keeps_its_transparency():
    turned = Image.Exif()
    turned[0x0112] = 6
    small = shrink(encode(photograph(8, side=200), exif=turned), 100, 95, PIXELS)
    assert (small.width, small.height) == (108, 100)
    glass = shrink(encode(photograph(8, side=200).convert("RGBA"), "PNG"), 100, 95, PIXELS)
    assert glass.extension == "png"
    assert Image.open(io.BytesIO(glass.data)).mode == "RGBA"


@pytest.mark.parametrize("with_phash", [True, False])
def test_a_jpeg_of_endless_scans_is_not_decoded(with_phash):
    data = encode(photograph(9, side=400), progressive=True)
    assert verify(with_scans(data, 50), PIXELS, with_phash).extension == "jpg"
    with pytest.raises(FetchError, match="more than 100 scans") as failed:
        verify(with_scans(data, 1000), PIXELS, with_phash)
    assert failed.value.status == "corrupt"
    with pytest.raises(FetchError, match="more than 100 scans"):
        shrink(with_scans(data, 1000), 100, 95, PIXELS)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_scans_are_counted_in_the_picture_alone(options):
    data = encode(photograph(9, side=400), **options)
    scans = 10 if options.get("progressive") else 1
    look_alikes = b"\xff\xda\x00" * 500
    comment = b"\xff\xfe" + (len(look_alikes) + 2).to_bytes(2) + look_alikes
    for disguised in (data, data[:2] + comment + data[2:], data + look_alikes):
        assert not has_more_scans(disguised, scans)
        assert has_more_scans(disguised, scans - 1)
        assert verify(disguised, PIXELS).extension == "jpg"
        assert has_more_scans(with_scans(data, MAX_SCANS) + look_alikes, MAX_SCANS)


def test_what_cannot_be_written_when_shrunk_is_corrupt():
    """A JPEG's sides have 16 bits."""
    tall = Image.new("L", (300, 90_000))
    with pytest.raises(FetchError) as failed:
        shrink(encode(tall, "PNG"), 256, 95, 10**8)
    assert failed.value.status == "corrupt"
