"""Shards on their way to any filesystem: whole or absent, generation after generation."""

import asyncio
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from moto.server import ThreadedMotoServer

from coyo_labeler import storage
from coyo_labeler.config.fetch import FetchSettings
from coyo_labeler.errors import WorkError
from coyo_labeler.fetch import generation
from coyo_labeler.fetch.client import Client, Limits, Manners
from coyo_labeler.fetch.generation import RECEIPT_NAME
from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.pack import keys, read_rows
from coyo_labeler.fetch.shard import CatalogRow, Rules, ShardFetcher, in_turn
from coyo_labeler.fetch.stage import fetch_partition, plan
from coyo_labeler.receipts import Receipts
from tests.fetch.shards import make
from tests.fetch.web import encode, phash, photograph, reply

FILES = ["00000.parquet", "00000.tar", "00000_stats.json"]


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    given = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    fs, _ = storage.resolve("s3://bucket")
    fs.mkdir("bucket")
    yield "s3://bucket"
    server.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    type(fs).clear_instance_cache()


@pytest.fixture(params=["file", "memory", "s3"])
def output(request, tmp_path):
    """A folder of its own on each kind of filesystem."""
    if request.param == "file":
        return str(tmp_path / "out")
    root = "memory://" if request.param == "memory" else request.getfixturevalue("s3")
    return f"{root}/{uuid.uuid4().hex}"


def whole(output):
    return generation.valid(Receipts(output, "f", RECEIPT_NAME))


def assert_agreed(output):
    """The tar holds the images of the rows that succeeded, each once, and no others."""
    with tarfile.open(fileobj=io.BytesIO(read(output, "00000.tar"))) as opened:
        members = opened.getnames()
    found = read_rows(storage.join(output, "00000.parquet"))
    keys_of_images = [row.key for row in found if row.sha256 is not None]
    assert members == [f"{key}.{kind}" for key in keys_of_images for kind in ("jpg", "json")]


def files(output):
    fs, path = storage.resolve(output)
    fs.invalidate_cache()
    return sorted(name.rpartition("/")[2] for name in fs.find(path))


def read(output, name):
    fs, path = storage.resolve(storage.join(output, name))
    return fs.cat_file(path)


def tar(output):
    """{name: bytes} of the shard's tar, in its order."""
    with tarfile.open(fileobj=io.BytesIO(read(output, "00000.tar"))) as opened:
        return {member.name: opened.extractfile(member).read() for member in opened}


def statuses(output):
    return [row.status.value for row in read_rows(storage.join(output, "00000.parquet"))]


@pytest.fixture
def rows(web):
    """Good, busy for now, gone for good, good; ids from 10."""
    found = []
    for place in range(4):
        data = encode(photograph(place))
        found.append(CatalogRow(10 + place, web.serve(f"/{place}", data), phash(data)))
    web.answers["/busy"] = web.answers["/1"]
    web.answers["/1"] = reply(b"", "503 Busy")
    del web.answers["/2"]
    return found


def test_a_shard_is_whole_on_every_filesystem(output, rows):
    receipt = make(output, rows)
    assert files(output) == FILES
    assert statuses(output) == ["success", "http_server_error", "http_not_found", "success"]
    assert list(tar(output)) == [
        "000000000.jpg",
        "000000000.json",
        "000000003.jpg",
        "000000003.json",
    ]
    told = json.loads(tar(output)["000000003.json"])
    assert told["url"] == told["fetched_url"] == rows[3].url
    assert (told["id"], told["imagehash"]) == (13, rows[3].imagehash)
    assert receipt.rows.to_json() == {
        "in": 4,
        "out": 2,
        "rejected": {"http_not_found": 1, "http_server_error": 1},
    }
    assert generation.valid(Receipts(output, "f", RECEIPT_NAME)) == {0: receipt}


def test_a_later_generation_asks_only_for_what_failed_for_a_while(output, rows, web):
    make(output, rows)
    before = tar(output)
    web.answers["/1"] = web.answers["/busy"]
    web.asked.clear()
    receipt = make(output, rows, 2)
    assert [path for path, _ in web.asked] == ["/1"]
    assert receipt.details["generation"] == 2
    assert receipt.rows.to_json() == {"in": 4, "out": 3, "rejected": {"http_not_found": 1}}
    assert statuses(output) == ["success", "success", "http_not_found", "success"]
    after = tar(output)
    assert [name[:9] for name in after] == [f"00000000{place}" for place in (0, 0, 1, 1, 3, 3)]
    assert before.items() <= after.items()
    assert files(output) == FILES


def test_the_generations_end_in_what_one_undisturbed_run_gives(output, rows, web, tmp_path):
    make(output, rows)
    web.answers["/1"] = web.answers["/busy"]
    make(output, rows, 2)
    make(str(tmp_path / "once"), rows)
    assert read(output, "00000.tar") == (tmp_path / "once/00000.tar").read_bytes()


def test_a_generation_that_is_there_is_not_made_again(output, rows, web):
    first = make(output, rows)
    asked = len(web.asked)
    assert make(output, rows) == first
    assert len(web.asked) == asked


def cut_off(output, rows, monkeypatch, moved):
    """Make a second generation, and die after so many of its moves."""
    fs, _ = storage.resolve(output)
    move, moves = type(fs).mv, []

    def die_after(self, source, *rest, **options):
        if "/_next/0" in source and not source.endswith(".tmp"):  # not of files being made
            if len(moves) == moved:
                raise KeyboardInterrupt
            moves.append(source)
        return move(self, source, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(fs), "mv", die_after)
        with pytest.raises(KeyboardInterrupt):
            make(output, rows, 2)


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_move_that_was_cut_off_is_finished(output, rows, web, monkeypatch, moved):
    """The run dies between the moves of a later generation; no image is lost at any moment."""
    make(output, rows)
    web.answers["/1"] = web.answers["/busy"]
    cut_off(output, rows, monkeypatch, moved)
    promised = {
        row.key
        for row in read_rows(storage.join(output, "00000.parquet"))
        if row.sha256 is not None
    }
    assert promised <= {name.partition(".")[0] for name in tar(output)}
    receipts = Receipts(output, "f", RECEIPT_NAME)
    generation.recover(receipts)
    assert statuses(output) == ["success", "success", "http_not_found", "success"]
    assert generation.valid(receipts)[0].details["generation"] == 2
    assert files(output) == FILES


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_task_that_is_run_again_finishes_the_move(output, rows, web, monkeypatch, moved):
    """Spark runs it again after a worker's death, without a word to the driver."""
    make(output, rows)
    busy, web.answers["/1"] = web.answers["/1"], web.answers["/busy"]
    cut_off(output, rows, monkeypatch, moved)
    web.answers["/1"] = busy
    web.asked.clear()
    receipt = make(output, rows, 2)
    assert web.asked == []
    assert statuses(output) == ["success", "success", "http_not_found", "success"]
    assert_agreed(output)
    assert whole(output) == {0: receipt}
    assert files(output) == FILES


def test_a_killed_process_leaves_a_shard_that_the_next_one_finishes(rows, web, tmp_path):
    output = str(tmp_path)
    make(output, rows)
    busy, web.answers["/1"] = web.answers["/1"], web.answers["/busy"]
    script = """if True:
        import json, os, signal, sys
        from fsspec.implementations.local import LocalFileSystem
        from coyo_labeler.fetch.shard import CatalogRow
        from tests.fetch.shards import make

        move = LocalFileSystem.mv

        def die(self, source, *rest, **options):
            move(self, source, *rest, **options)
            if "/_next/0" in source and not source.endswith(".tmp"):
                os.kill(os.getpid(), signal.SIGKILL)

        LocalFileSystem.mv = die
        make(sys.argv[1], [CatalogRow(*row) for row in json.loads(sys.argv[2])], 2)
    """
    given = json.dumps([(row.id, row.url, row.imagehash) for row in rows])
    words = [sys.executable, "-c", script, output, given]
    path = os.pathsep.join(sys.path)
    died = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert whole(output) == {}  # the tar of one generation, the rows of the other
    web.answers["/1"] = busy
    receipt = make(output, rows, 2)
    assert statuses(output) == ["success", "success", "http_not_found", "success"]
    assert_agreed(output)
    assert whole(output) == {0: receipt}
    generation.recover(Receipts(output, "f", RECEIPT_NAME))
    assert files(output) == FILES


def test_an_earlier_writers_late_generation_replaces_nothing(output, rows, web, monkeypatch):
    """It was made whole, but others have gone on."""
    make(output, rows)
    cut_off(output, rows, monkeypatch, 0)
    receipts = Receipts(output, "f", RECEIPT_NAME)
    with monkeypatch.context() as patch:
        patch.setattr(generation, "_staged", lambda *_: [])
        web.answers["/1"] = web.answers["/busy"]
        newest = make(output, rows, 3)
    generation.recover(receipts)
    assert whole(output) == {0: newest}
    assert files(output) == FILES


def test_a_generation_that_was_not_finished_is_forgotten(output, rows, web, monkeypatch):
    make(output, rows)
    before = {name: read(output, name) for name in FILES}
    web.answers["/1"] = web.answers["/busy"]

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Receipts, "write", die)
        with pytest.raises(KeyboardInterrupt):
            make(output, rows, 2)
    generation.recover(Receipts(output, "f", RECEIPT_NAME))
    assert {name: read(output, name) for name in FILES} == before
    assert files(output) == FILES


def test_a_tar_and_rows_of_two_writers_do_not_count_as_a_shard(output, rows, web):
    receipts = Receipts(output, "f", RECEIPT_NAME)
    first = make(output, rows)
    storage.write_bytes(storage.join(output, "00000.tar"), read(output, "00000.tar")[:-512])
    assert receipts.read() == {0: first}
    assert generation.valid(receipts) == {}


@pytest.mark.parametrize("swapped", ["00000.tar", "00000.parquet"])
def test_two_writers_files_of_one_size_do_not_count_as_a_shard(output, rows, web, swapped):
    """Tars are padded, so those of two writers often are of one size."""
    make(output, rows)
    web.answers["/1"], web.answers["/3"] = web.answers["/busy"], web.answers["/1"]
    other = f"{output}-other"
    make(other, rows)
    assert len(read(output, "00000.tar")) == len(read(other, "00000.tar"))
    storage.write_bytes(storage.join(output, swapped), read(other, swapped))
    receipts = Receipts(output, "f", RECEIPT_NAME)
    stated = receipts.get(0)
    length = len(read(output, "00000.parquet"))  # the other size may differ by a few bytes
    receipts.write(replace(stated, details={**stated.details, "parquet_bytes": length}))
    assert whole(output) == {}
    receipt = make(output, rows)
    assert whole(output) == {0: receipt}
    assert_agreed(output)


def test_a_shard_without_images_is_whole(output, rows, web):
    web.answers.clear()
    receipt = make(output, rows)
    assert receipt.rows.rows_out == 0
    assert whole(output) == {0: receipt}


@pytest.mark.parametrize("number", [1, 2])
def test_writers_at_the_same_time_leave_a_whole_shard_or_none(output, rows, web, number):
    """Each gets answers of its own; what is torn is made anew."""
    if number == 2:
        make(output, rows)
    web.answers["/1"] = in_turn_of(web.answers["/busy"], reply(b"", "503 Busy"))

    def write(_):
        try:
            return make(output, rows, number)
        except (WorkError, FileNotFoundError) as error:  # Spark would run the task again
            return error

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(write, range(3)))
    receipt = make(output, rows, number)
    assert whole(output) == {0: receipt}
    assert receipt.details["generation"] == number
    assert_agreed(output)


def in_turn_of(*answers):
    """One answer after the other, over and over."""
    turns = itertools.cycle(answers)

    async def answer(reader, writer):
        await next(turns)(reader, writer)

    return answer


def test_a_second_writer_leaves_the_first_ones_files(output, rows, web):
    """Both began before either had finished."""

    class LateReceipts(Receipts):
        looks = 0

        def get(self, shard):
            type(self).looks += 1
            return None if self.looks == 1 else super().get(shard)

    first = make(output, rows)
    before = {name: read(output, name) for name in FILES}
    web.answers["/1"] = web.answers["/busy"]

    async def second():
        receipts = LateReceipts(output, "f", RECEIPT_NAME)
        with ThreadPoolExecutor(1) as threads:
            manners = Manners("bot", robots_txt=False)
            async with Client(Limits(), Guard(allow_private=True), manners) as client:
                return await ShardFetcher(client, threads, Rules(), receipts).fetch(0, rows)

    assert asyncio.run(second()) == first
    assert {name: read(output, name) for name in FILES} == before


def test_a_task_fetches_many_shards(output, rows):
    settings = FetchSettings(
        catalog="x", output=output, allow_private=True, retries=0, robots_txt=False
    )
    receipts = Receipts(output, "f", RECEIPT_NAME)
    shards = [(shard, 1, rows[:1]) for shard in (0, 3, 123456)]
    made = asyncio.run(fetch_partition(iter(shards), settings, receipts, 1))
    assert sorted(receipt.shard for receipt in made) == [0, 3, 123456]
    assert set(receipts.read()) == {0, 3, 123456}
    assert read_rows(storage.join(output, "123456.parquet"))[0].key == "1234560000"


def test_changed_images_are_kept_where_that_is_asked_for(output, rows, web):
    web.answers["/0"] = web.answers["/3"]
    receipt = make(output, rows, keep_changed=True)
    assert statuses(output)[0] == "content_changed"
    assert "000000000.jpg" in tar(output)
    assert receipt.rows.rows_out == 2


def test_shrunk_images_keep_the_hash_and_size_of_the_original(output, rows):
    make(output, rows, resize_to=48)
    row = read_rows(storage.join(output, "00000.parquet"))[0]
    assert (row.width, row.height) == (48, 56)
    assert (row.original_width, row.original_height) == (96, 112)
    assert row.actual_imagehash == row.imagehash
    assert len(tar(output)["000000000.jpg"]) != row.bytes


def test_without_the_hash_check_images_are_decoded_only(output, rows, web):
    web.answers["/0"] = web.answers["/3"]
    make(output, rows, check_phash=False)
    row = read_rows(storage.join(output, "00000.parquet"))[0]
    assert (row.status, row.actual_imagehash, row.hash_distance) == ("success", None, None)


def test_keys_sort_as_the_rows_do():
    assert keys(7, 3) == ["000070000", "000070001", "000070002"]
    assert keys(7, 10_000)[-1] == "000079999"
    assert keys(7, 10_001)[-1] == "0000710000"
    assert keys(7, 100_001)[1] == "00007000001"


def test_shards_ask_hosts_in_different_orders():
    rows = [CatalogRow(place, f"http://host-{place % 10}/{place}") for place in range(50)]
    orders = set()
    for shard in range(20):
        order = in_turn(shard, rows, range(50))
        assert sorted(order) == list(range(50))
        hosts = [place % 10 for place in order]
        assert (
            len(
                {
                    first
                    for first, then in zip(hosts, [*hosts[1:], -1], strict=True)
                    if first != then
                }
            )
            == 10
        )
        assert sum(first != then for first, then in zip(hosts, [*hosts[1:], -1], strict=True)) == 10
        orders.add(hosts[0])
    assert len(orders) > 4


def test_retry_makes_generations_of_shards_with_something_to_gain(output, rows):
    first = make(output, rows)
    finished = {0: first, 1: make(output, rows[:1], shard=1)}
    assert plan({0: 4, 1: 1, 2: 9}, finished, retry=False) == {2: 1}
    assert plan({0: 4, 1: 1, 2: 9}, finished, retry=True) == {2: 1, 0: 2}
