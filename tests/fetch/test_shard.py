"""Shards on their way to any filesystem: whole or absent, generation after generation."""

import asyncio
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from coyo_labeler import storage
from coyo_labeler.config.fetch import FetchSettings
from coyo_labeler.errors import WorkError
from coyo_labeler.fetch import generation
from coyo_labeler.fetch.client import Client, Limits, Manners
from coyo_labeler.fetch.generation import RECEIPT_NAME
from coyo_labeler.fetch.guard import Guard
from coyo_labeler.fetch.pack import keys, read_rows
from coyo_labeler.fetch.shard import CatalogRow, Rules, ShardFetcher, in_turn
from coyo_labeler.fetch.stage import fetch_partition
from coyo_labeler.receipts import Receipts
from tests.fetch.shards import FILES, assert_agreed, files, make, read, statuses, tar, whole
from tests.fetch.web import reply


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
    document = json.loads(tar(output)["000000003.json"])
    assert document["url"] == document["fetched_url"] == rows[3].url
    assert (document["id"], document["imagehash"]) == (13, rows[3].imagehash)
    assert receipt.rows.to_json() == {
        "in": 4,
        "out": 2,
        "rejected": {"http_not_found": 1, "http_server_error": 1},
    }
    assert generation.valid(Receipts(output, "f", RECEIPT_NAME)) == {0: receipt}


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
    rows = [CatalogRow(index, f"http://host-{index % 10}/{index}") for index in range(50)]
    orders = set()
    for shard in range(20):
        order = in_turn(shard, rows, range(50))
        assert sorted(order) == list(range(50))
        hosts = [index % 10 for index in order]
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


@pytest.mark.parametrize("taken_after", [0, 1])
def test_a_run_whose_output_another_has_taken_asks_no_more_and_writes_nothing(
    output, rows, web, taken_after
):
    """Before the shard, or while its images are downloaded."""
    looks = []

    def check_owner():
        looks.append(len(web.asked))
        if len(looks) > taken_after:
            raise WorkError("fetch: output: another run has taken over")

    settings = FetchSettings(
        catalog="x", output=output, allow_private=True, retries=0, robots_txt=False
    )
    receipts = Receipts(output, "f", RECEIPT_NAME)
    work = fetch_partition(iter([(0, 1, rows)]), settings, receipts, 1, "", check_owner)
    with pytest.raises(ExceptionGroup) as error:
        asyncio.run(work)
    assert error.group_contains(WorkError, match="taken over")
    assert looks == ([0] if taken_after == 0 else [0, 4])
    assert not storage.exists(storage.join(output, "00000.tar"))
