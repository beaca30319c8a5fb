"""One shard: its rows downloaded, verified, packed, and a receipt written last."""

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from coyo_labeler import storage
from coyo_labeler.fetch import generation as generations
from coyo_labeler.fetch.client import Body, Client
from coyo_labeler.fetch.generation import RECEIPT_NAME, rows_name, tar_name
from coyo_labeler.fetch.hosts import Budget
from coyo_labeler.fetch.pack import (
    ImageRow,
    Sample,
    Spool,
    keys,
    read_rows,
    read_tar,
    write_rows,
    write_tar,
)
from coyo_labeler.fetch.resize import shrink
from coyo_labeler.fetch.status import TRANSIENT, FetchError, Status
from coyo_labeler.fetch.verify import Verified, hamming, verify
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Receipt, Receipts


@dataclass(frozen=True)
class CatalogRow:
    """What to fetch. imagehash: 16 hex digits, or None where it is not known."""

    id: int
    url: str
    imagehash: str | None = None
    fallback_urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """What is checked and kept. timeout_seconds: of an image, all its URLs included."""

    timeout_seconds: float = 30.0
    max_pixels: int = 64_000_000
    check_phash: bool = True
    max_distance: int = 4
    keep_changed: bool = False
    resize_to: int | None = None
    resize_quality: int = 95


@dataclass(frozen=True)
class Found:
    """An image of one URL that decodes. width, height: as it is kept."""

    http_status: int
    bytes: int
    image: Verified
    distance: int | None
    width: int
    height: int


class ShardFetcher:
    """Fetches shards with one client; `fetch` writes a shard's files, whole or not at all."""

    def __init__(
        self, client: Client, threads: ThreadPoolExecutor, rules: Rules, receipts: Receipts
    ) -> None:
        self._client = client
        self._threads = threads
        self._rules = rules
        self._receipts = receipts

    async def fetch(self, shard: int, rows: Sequence[CatalogRow], generation: int = 1) -> Receipt:
        """Fetch the rows of a shard, or of a later generation those that failed for a while.

        A shard that has a receipt of this generation is left alone, so that a second writer does
        no harm.
        """
        done = await asyncio.to_thread(self._receipts.get, shard)
        if done is not None and done.details["generation"] >= generation:
            return done
        start = time.monotonic()
        rows = sorted(rows, key=lambda row: row.id)
        names = keys(shard, len(rows))
        earlier = {} if done is None else await asyncio.to_thread(self._read, shard)
        wanted = [index for index in range(len(rows)) if _is_wanted(earlier.get(names[index]))]
        spool = Spool()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    index: group.create_task(
                        self._fetch_row(index, names[index], rows[index], spool)
                    )
                    for index in in_turn(shard, rows, wanted)
                }
            results = {index: task.result() for index, task in tasks.items()}
            results |= {
                index: earlier[name] for index, name in enumerate(names) if index not in results
            }
            return await asyncio.to_thread(self._write, shard, generation, results, spool, start)
        finally:
            spool.close()

    def _read(self, shard: int) -> dict[str, ImageRow]:
        url = storage.join(self._receipts.output, rows_name(shard))
        return {row.key: row for row in read_rows(url)}

    def _write(
        self,
        shard: int,
        generation: int,
        results: Mapping[int, ImageRow],
        spool: Spool,
        start: float,
    ) -> Receipt:
        """Put the shard's files in place, the receipt last, unless another has done so."""
        done = self._receipts.get(shard)
        if done is not None and done.details["generation"] >= generation:
            return done
        output = self._receipts.output
        sources = [spool.samples(results)]
        folder = output
        if done is not None:
            folder = generations.staging(output)
            index_of = {row.key: index for index, row in results.items()}
            sources.append(read_tar(storage.join(output, tar_name(shard)), index_of))
        rows = [row for _, row in sorted(results.items())]
        sizes = _write_files(folder, shard, sources, rows)
        counts, details = describe(rows, self._rules, time.monotonic() - start)
        receipt = Receipt(
            shard,
            self._receipts.fingerprint,
            counts,
            round(time.monotonic() - start, 3),
            {"generation": generation, **details, **sizes},
        )
        Receipts(folder, receipt.fingerprint, RECEIPT_NAME).write(receipt)
        if done is not None:
            generations.publish(output, shard)
        return receipt

    async def _fetch_row(self, index: int, key: str, row: CatalogRow, spool: Spool) -> ImageRow:
        start = time.monotonic()
        blank = ImageRow(key, row.id, row.url, Status.SUCCESS, imagehash=row.imagehash)
        try:
            url, found = await self._first_good(index, row, spool)
        except FetchError as error:
            return replace(
                blank,
                status=error.status,
                error=error.error,
                http_status=error.http_status,
                seconds=time.monotonic() - start,
            )
        changed = not self._is_meant(found)
        return replace(
            blank,
            status=Status.CONTENT_CHANGED if changed else Status.SUCCESS,
            error=f"pHash differs in {found.distance} bits" if changed else None,
            http_status=found.http_status,
            actual_imagehash=found.image.imagehash,
            hash_distance=found.distance,
            sha256=found.image.sha256,
            width=found.width,
            height=found.height,
            original_width=found.image.width,
            original_height=found.image.height,
            bytes=found.bytes,
            seconds=time.monotonic() - start,
            fetched_url=url,
        )

    async def _first_good(self, index: int, row: CatalogRow, spool: Spool) -> tuple[str, Found]:
        """The first URL that gives the image meant, else the first that gives another image.

        Raises: FetchError of the first transient failure, else of the first one.
        """

        async def use(body: Body) -> Found:
            # Decoding and hashing leave the event loop free, and the interpreter's lock too.
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._take, index, row, body, spool, changed is None
            )

        urls = (row.url, *row.fallback_urls)
        left = self._rules.timeout_seconds
        changed: tuple[str, Found] | None = None
        errors: list[FetchError] = []
        for place, url in enumerate(urls):
            # Each URL left has an equal share of the time left, so that all get a turn.
            budget = Budget(left / (len(urls) - place))
            try:
                found = await self._client.download(url, budget, use)
            except FetchError as error:
                errors.append(error)
            else:
                if self._is_meant(found):
                    return url, found
                changed = changed or (url, found)
            left -= budget.seconds - max(0.0, budget.left)
        if changed is not None:
            return changed
        raise next((error for error in errors if error.status in TRANSIENT), errors[0])

    def _take(self, index: int, row: CatalogRow, body: Body, spool: Spool, keep: bool) -> Found:
        """Verify a body and keep it where it is meant; runs in a thread.

        keep: whether to keep an image that has changed, where the rules say so.
        """
        rules = self._rules
        image = verify(body.data, rules.max_pixels, rules.check_phash)
        distance = None
        if row.imagehash is not None and image.imagehash is not None:
            distance = hamming(row.imagehash, image.imagehash)
        found = Found(body.http_status, len(body.data), image, distance, image.width, image.height)
        if not self._is_meant(found) and not (keep and rules.keep_changed):
            return found
        extension, data = image.extension, body.data
        if rules.resize_to is not None:
            small = shrink(data, rules.resize_to, rules.resize_quality, rules.max_pixels)
            if small is not None:
                extension, data = small.extension, small.data
                found = replace(found, width=small.width, height=small.height)
        spool.add(index, extension, data)
        return found

    def _is_meant(self, found: Found) -> bool:
        return found.distance is None or found.distance <= self._rules.max_distance


def _is_wanted(earlier: ImageRow | None) -> bool:
    return earlier is None or earlier.status in TRANSIENT


def _write_files(
    folder: str, shard: int, sources: Iterable[Iterable[Sample]], rows: Sequence[ImageRow]
) -> dict[str, int]:
    tar, parquet = (storage.join(folder, name(shard)) for name in (tar_name, rows_name))
    write_tar(tar, *sources)
    write_rows(parquet, rows)
    return {"tar_bytes": generations.size(tar), "parquet_bytes": generations.size(parquet)}


def in_turn(shard: int, rows: Sequence[CatalogRow], wanted: Iterable[int]) -> list[int]:
    """The order in which to ask: host after host, in another order in every shard.

    So tasks that run side by side ask different hosts at any moment.
    """

    def place(index: int) -> tuple[int, int]:
        try:
            host = urlsplit(rows[index].url).hostname or ""
        except ValueError:
            host = ""
        return zlib.crc32(f"{shard} {host}".encode()), index

    return sorted(wanted, key=place)


def describe(
    rows: Sequence[ImageRow], rules: Rules, seconds: float
) -> tuple[Counts, dict[str, object]]:
    """Counts and statistics of a shard; rows that are in the tar are out, others are rejected."""
    statuses = Counter(row.status.value for row in rows)
    kept = {Status.SUCCESS, Status.CONTENT_CHANGED} if rules.keep_changed else {Status.SUCCESS}
    rejected = {status: n for status, n in sorted(statuses.items()) if status not in kept}
    details = {
        "statuses": dict(sorted(statuses.items())),
        "transient": sum(row.status in TRANSIENT for row in rows),
        "bytes": sum(row.bytes or 0 for row in rows),
        "images_per_second": round(len(rows) / max(seconds, 1e-6), 1),
        "finished": round(time.time(), 3),
    }
    return Counts(len(rows), len(rows) - sum(rejected.values()), rejected), details
