"""What connections may take of this machine."""

import errno
import resource
import subprocess
import sys
from dataclasses import replace

import pytest

from coyo_labeler.fetch import client as client_module
from coyo_labeler.fetch.connections import HEADER_BYTES, MachineError, fit_connections
from coyo_labeler.fetch.shard import CatalogRow
from tests.fetch.rows import GOOD, LIMITS, OnlyThisServer, fetch_one, fetch_rows
from tests.fetch.web import phash


@pytest.mark.parametrize(
    "headers",
    [
        {"Set_Cookie": "a" * 9000},
        {"Set_Cookie": "a" * 200_000},
        {f"X_{number}": "a" * 8000 for number in range(25)},
    ],
)
def test_headers_may_be_as_long_as_browsers_allow(web, tmp_path, headers):
    assert fetch_one(web, tmp_path, web.serve("/a", GOOD, **headers)).status == "success"


@pytest.mark.parametrize("field_bytes", [250_000, 10_000_000])
def test_headers_are_bounded_in_all(web, tmp_path, field_bytes):
    """Few enough fields, none of which is too long by itself, or a single one without end."""
    sent = []

    async def endless(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100):
            writer.write(b"X%d: " % number)
            for _ in range(field_bytes // 10_000):
                writer.write(b"a" * 10_000)
                await writer.drain()
                sent.append(10_000)
            writer.write(b"\r\n")

    web.answers["/a"] = endless
    row = fetch_one(web, tmp_path, web.url("/a"), limits=replace(LIMITS, retries=0))
    assert row.status == "bad_response"
    assert sum(sent) < 100 * field_bytes
    assert HEADER_BYTES == 256 * 1024


def test_a_second_answer_on_a_connection_has_a_header_bound_of_its_own(web, tmp_path):
    rows = []
    for number in range(4):
        url = web.serve(f"/{number}", GOOD, Set_Cookie="a" * 150_000)
        rows.append(CatalogRow(number, url, phash(GOOD)))
    found = fetch_rows(web, tmp_path, rows, replace(LIMITS, host_connections=1))
    assert {row.status.value for row in found.values()} == {"success"}


FIT = """if True:
    import resource, sys
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, int(sys.argv[2])))
    from coyo_labeler.fetch.connections import fit_connections
    print(fit_connections(2000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "printed"),
    [(1024, 1024, "384 1024"), (256, 256, "64 256"), (256, 4256, "2000 4256")],
)
def test_connections_fit_the_limit_of_open_files(soft, hard, printed):
    words = [sys.executable, "-c", FIT, str(soft), str(hard)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed
    assert ("raise the limit (ulimit -n 4256)" in done.stderr) == (hard < 4256)


def test_what_fits_is_left_as_it_is():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert fit_connections(1) == 1
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


class Exhausted(OnlyThisServer):
    """No descriptor is free for some sockets."""

    def __init__(self, port, times):
        super().__init__(port)
        self.times = times

    def socket_factory(self, info):
        self.times -= 1
        if self.times >= 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().socket_factory(info)


def test_a_machine_without_descriptors_is_not_the_hosts_fault(web, tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "KEPT_SECONDS", 0.01)
    url = web.serve("/a", GOOD)
    with pytest.raises(ExceptionGroup) as failed:
        fetch_one(web, tmp_path, url, guard=Exhausted(web.port, 1000))
    assert failed.group_contains(MachineError, match="raise the limit of open files")
    assert not list(tmp_path.iterdir())


def test_descriptors_that_come_free_are_waited_for(web, tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "KEPT_SECONDS", 0.01)
    guard = Exhausted(web.port, 2)
    row = fetch_one(web, tmp_path, web.serve("/a", GOOD), guard=guard)
    assert row.status == "success"
