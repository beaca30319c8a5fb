"""How the client goes about its work: whom it asks when, on which connections, in what memory."""

import asyncio
import datetime
import ssl
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coyo_labeler.fetch import client as client_module
from coyo_labeler.fetch.client import Client, Manners
from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.hosts import Budget
from coyo_labeler.fetch.shard import CatalogRow
from coyo_labeler.fetch.status import FetchError
from tests.fetch.rows import AGENT, GOOD, LIMITS, RULES, Names, OnlyThisServer, fetch_rows, gzipped
from tests.fetch.web import Web, phash, reply
from tests.memory import peak_growth


def test_a_name_that_nobody_knows_is_looked_up_once(web, tmp_path):
    names = Names({})
    looked_up = []
    names.resolve, resolve = (
        lambda host, *rest: looked_up.append(host) or resolve(host),
        names.resolve,
    )
    rows = [CatalogRow(index, f"http://gone.example/{index}") for index in range(5)]
    limits = replace(LIMITS, host_connections=1)
    found = fetch_rows(web, tmp_path, rows, limits, guard=Guard(), resolver=names)
    assert {row.status.value for row in found.values()} == {"dns_not_found"}
    assert looked_up == ["gone.example"]


@pytest.mark.parametrize(("max_distance", "status"), [(4, "content_changed"), (6, "success")])
def test_the_distance_is_the_one_that_was_set(web, tmp_path, max_distance, status):
    meant = f"{int(phash(GOOD), 16) ^ 0b111111:016x}"
    rules = replace(RULES, max_distance=max_distance)
    rows = [CatalogRow(1, web.serve("/a", GOOD), meant)]
    row = fetch_rows(web, tmp_path, rows, rules=rules)[1]
    assert (row.status.value, row.hash_distance) == (status, 6)


def test_hosts_are_asked_one_after_another(web, tmp_path):
    """So that of tasks side by side, each in an order of its own, few ask one host at once."""
    hosts, images = 12, 20
    rows = []
    for index in range(hosts * images):
        web.answers[f"/{index % hosts}/{index}"] = reply(GOOD)
        url = web.url(f"/{index % hosts}/{index}", f"host-{index % hosts}.example")
        rows.append(CatalogRow(index, url, phash(GOOD)))
    names = Names({f"host-{host}.example": ["127.0.0.1"] for host in range(hosts)})
    limits = replace(LIMITS, connections=8, host_connections=4)
    found = fetch_rows(web, tmp_path, rows, limits, resolver=names)
    assert {row.status.value for row in found.values()} == {"success"}
    asked = [int(path.split("/")[1]) for path, _ in web.asked]
    spans = sorted(len(asked) - asked[::-1].index(h) - asked.index(h) for h in range(hosts))
    assert spans[hosts // 2] < len(asked) / 3


def test_a_connection_serves_many_images(web, tmp_path):
    rows = [CatalogRow(index, web.serve(f"/{index}", GOOD), phash(GOOD)) for index in range(12)]
    fetch_rows(web, tmp_path, rows, replace(LIMITS, host_connections=1))
    assert len(web.asked) == 12
    assert web.connections <= 2  # the first row does not know yet that others follow


def test_a_name_is_looked_up_once_for_many_connections(web, tmp_path):
    async def once(reader, writer):
        await reply(GOOD, Connection="close")(reader, writer)
        writer.close()

    names, looked_up = Names({"images.example": ["127.0.0.1"]}), []
    names.resolve, resolve = (
        lambda host, *rest: looked_up.append(host) or resolve(host, *rest),
        names.resolve,
    )
    web.answers = {f"/{index}": once for index in range(6)}
    rows = [CatalogRow(i, web.url(f"/{i}", "images.example"), phash(GOOD)) for i in range(6)]
    found = fetch_rows(web, tmp_path, rows, replace(LIMITS, host_connections=1), resolver=names)
    assert {row.status.value for row in found.values()} == {"success"}
    assert (web.connections, looked_up) == (6, ["images.example"])


def test_pauses_double_and_differ(web):
    class Pauses(Budget):
        def __init__(self):
            super().__init__(1000)
            self.asked = []

        async def pause(self, seconds):
            self.asked.append(seconds)

    url = web.serve("/a", status="503 Busy")
    limits = replace(LIMITS, retries=4, backoff_seconds=0.5)
    budgets = [Pauses() for _ in range(4)]

    async def work():
        async with Client(limits, OnlyThisServer(web.port), Manners(AGENT, False)) as client:
            for budget in budgets:
                with pytest.raises(FetchError, match="HTTP 503"):
                    await client.download(url, budget, None)

    asyncio.run(work())
    for budget in budgets:
        assert len(budget.asked) == 4
        for attempt, pause in enumerate(budget.asked):
            assert 0.25 * 2**attempt <= pause <= 0.75 * 2**attempt
    assert len({budget.asked[0] for budget in budgets}) == 4


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(today - datetime.timedelta(days=1))
    made = made.not_valid_after(today + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    file = tmp_path / "certificate.pem"
    file.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, form, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    site = Web()

    async def work():
        async with await asyncio.start_server(site.handle, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            async with Client(LIMITS, OnlyThisServer(port), Manners(AGENT, False)) as client:
                await client.download(f"https://127.0.0.1:{port}/a", Budget(300), None)

    with pytest.raises(FetchError, match="Certificate") as failed:
        asyncio.run(work())
    assert failed.value.status == "tls_failed"
    assert site.asked == []


@pytest.mark.parametrize("headers", [{}, {"Content_Encoding": "gzip"}])
def test_large_bodies_are_in_memory_a_few_at_a_time(web, tmp_path, monkeypatch, headers):
    monkeypatch.setattr(client_module, "LARGE_BYTES", 128 * 2**10)
    monkeypatch.setattr(client_module, "LARGE_AT_ONCE", 2)
    size, count, piece = 12 * 2**20, 24, bytes(2**16)
    packed = gzipped(bytes(size)) if headers else None

    async def large(reader, writer):
        await reply(packed or b"", Content_Length=len(packed or b"") or size, **headers)(
            reader, writer
        )
        for _ in range(0 if packed else size // len(piece)):
            writer.write(piece)
            await writer.drain()

    web.answers = {f"/{index}": large for index in range(count)}
    rows = [CatalogRow(index, web.url(f"/{index}")) for index in range(count)]
    limits = replace(LIMITS, max_bytes=size, host_connections=count)
    with peak_growth() as grown:
        found = fetch_rows(web, tmp_path, rows, limits)
    assert {row.status.value for row in found.values()} == {"not_an_image"}
    assert grown[0] < count * size / 2
