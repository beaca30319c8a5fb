import gzip
import time
import zlib

import pytest

from coyo_labeler.fetch.encodings import decompress, layers
from coyo_labeler.fetch.status import FetchError
from tests.fetch.rows import GOOD, fetch_one, gzipped
from tests.memory import peak_growth


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "aws-chunked", "binary", "none", "image/jpeg", "UTF-8, identity", "", "compress"],
)
def test_what_is_no_encoding_is_taken_as_plain_bytes(web, tmp_path, encoding):
    url = web.serve("/a", GOOD, Content_Encoding=encoding)
    assert fetch_one(web, tmp_path, url).status == "success"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzipped(GOOD)),
        ("X-GZIP", gzipped(GOOD)),
        ("gzip", gzipped(GOOD[:500]) + gzipped(GOOD[500:])),
        ("gzip", gzipped(GOOD) + gzipped(b"") + b"\0" * 100),
        ("gzip", gzipped(GOOD) + b"what follows is ignored"),
        ("deflate", zlib.compress(GOOD)),
        ("deflate", zlib.compress(GOOD)[2:-4]),
        ("aws-chunked,gzip", gzipped(GOOD)),
        ("gzip, gzip", gzipped(gzipped(GOOD))),
        ("deflate, gzip", gzipped(zlib.compress(GOOD))),
    ],
)
def test_compressed_bodies_are_unpacked(web, tmp_path, encoding, body):
    url = web.serve("/a", body, Content_Encoding=encoding)
    assert fetch_one(web, tmp_path, url).status == "success"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "gzip, gzip, gzip, gzip"])
def test_what_cannot_be_unpacked_is_refused(encoding):
    with pytest.raises(FetchError, match="Content-Encoding"):
        layers([encoding], 200)


@pytest.mark.parametrize("members", [1, 7])
def test_unpacking_stops_at_the_bound(members):
    bomb = gzipped(bytes(2**30 // members)) * members
    with peak_growth() as grown, pytest.raises(FetchError, match="more than 1,000,000") as refused:
        decompress(gzipped(bomb), ["gzip", "gzip"], 1_000_000, 200)
    assert refused.value.status == "too_large"
    assert grown[0] < 64_000_000


def test_countless_members_end_in_bounded_time():
    body = gzip.compress(b"") * 500_000
    start = time.thread_time()
    with pytest.raises(FetchError, match="gzip members"):
        decompress(body, ["gzip"], 2**25, 200)
    assert time.thread_time() - start < 5
