import base64
import io
import re
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from coyo_labeler.report.examples import SIDE, thumbnails
from tests.tars import write_members


def jpeg(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 200), color).save(buffer, "JPEG")
    return buffer.getvalue()


def test_pictures_of_the_keys_asked_for_come_small_and_others_not(tmp_path: Path) -> None:
    members = [("a.jpg", jpeg("red")), ("b.jpg", b"no picture"), ("b.json", b"{}")]
    path = str(write_members(tmp_path / "0.tar", [*members, ("sub/c.tiff", jpeg("blue"))]))
    uris = thumbnails({1: (path, "a"), 2: (path, "b"), 3: (path, "c"), 4: (path, "absent")})
    assert uris.keys() == {1, 3}
    kind, _, data = uris[3].partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (SIDE, SIDE // 2)
        assert image.getpixel((5, 5))[2] > 200  # type: ignore[index]


def test_a_tar_is_read_no_further_than_it_must_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged tar costs the pictures behind the damage, not the page."""
    path = write_members(tmp_path / "0.tar", [("a.jpg", jpeg("red")), ("b.jpg", bytes(4096))])
    whole = str(write_members(tmp_path / "1.tar", [("c.jpg", jpeg("blue"))]))
    with tarfile.open(path) as tar:
        start = tar.getmember("b.jpg").offset_data
    path.write_bytes(path.read_bytes()[: start + 100])
    assert thumbnails({1: (str(path), "a")}).keys() == {1}
    assert not caplog.text
    gone = str(tmp_path / "gone.tar")
    places = {1: (str(path), "a"), 2: (str(path), "b"), 3: (whole, "c"), 4: (gone, "d")}
    assert thumbnails(places).keys() == {1, 3}
    assert re.search(r"report: images: .*0\.tar is damaged .*; fetch it again", caplog.text)
    assert re.search(r"report: images: .*gone\.tar is damaged .*FileNotFound", caplog.text)
