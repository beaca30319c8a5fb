import pyarrow as pa
import pytest

from coyo_labeler.ingest.text import readable


def raw(*values: bytes | None) -> pa.ChunkedArray:
    """A text column as Spark hands it on, whatever its bytes."""
    binary = pa.array(values, pa.binary())
    return pa.chunked_array([pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())])


@pytest.mark.parametrize("bad", [b"\xff", b"http://h/\xc3(", b"\xed\xa0\x80", b"cut \xe2\x82"])
def test_text_that_is_no_utf8_becomes_readable(bad: bytes) -> None:
    rows = pa.table({"id": [1, 2, 3], "url": raw("\u00e4".encode(), bad, None)})
    fixed = readable(rows)
    assert fixed.schema == rows.schema
    assert fixed["id"] == rows["id"]
    assert fixed["url"].to_pylist() == ["\u00e4", bad.decode(errors="replace"), None]
    fixed.validate(full=True)


def test_other_rows_are_left_as_they_are() -> None:
    rows = pa.table({"url": ["a", None, "\u00e4"], "n": [1, 2, 3]})
    assert readable(rows) is rows
