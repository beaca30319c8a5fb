"""One shard: its rows downloaded, verified, packed, and a receipt written last."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar, TypeVarTuple

from coyo_labeler import storage
from coyo_labeler.fetch.client import Client
from coyo_labeler.fetch.pack import ImageRow, Spool, keys, write_rows, write_tar
from coyo_labeler.fetch.status import TRANSIENT, FetchError, Status
from coyo_labeler.fetch.verify import Verified, verify
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Receipt, Receipts

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

#: Name of a shard's statistics, which are its receipt too.
RECEIPT_NAME = "{shard:05d}_stats.json"


@dataclass(frozen=True)
class CatalogRow:
    """What to fetch. imagehash: 16 hex digits, or None where it is not known."""

    id: int
    url: str
    imagehash: str | None = None
    fallback_urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """Which images are kept. timeout_seconds: of an image, all its URLs included."""

    timeout_seconds: float
    max_pixels: int
    max_distance: int
    keep_changed: bool


@dataclass(frozen=True)
class _Found:
    """An image of one URL that decodes."""

    data: bytes
    http_status: int
    image: Verified


class ShardFetcher:
    """Fetches shards with one client; `fetch` writes a shard's files, whole or not at all."""

    def __init__(
        self, client: Client, threads: ThreadPoolExecutor, rules: Rules, receipts: Receipts
    ) -> None:
        self._client = client
        self._threads = threads
        self._rules = rules
        self._receipts = receipts

    async def fetch(self, shard: int, rows: Sequence[CatalogRow]) -> Receipt:
        """Fetch the rows of a shard, in the order of their ids, unless a receipt says it is done.

        Two that fetch one shard at the same time do no harm: each file is put in place whole.
        """
        done = self._receipts.get(shard)
        if done is not None:
            return done
        start = time.monotonic()
        rows = sorted(rows, key=lambda row: row.id)
        names = keys(shard, len(rows))
        spool = Spool()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._fetch_row(index, names[index], row, spool))
                    for index, row in enumerate(rows)
                ]
            results = [task.result() for task in tasks]
            return await asyncio.to_thread(self._write, shard, results, spool, start)
        finally:
            spool.close()

    def _write(self, shard: int, rows: list[ImageRow], spool: Spool, start: float) -> Receipt:
        output = self._receipts.output
        write_tar(storage.join(output, f"{shard:05d}.tar"), spool.images(), rows)
        write_rows(storage.join(output, f"{shard:05d}.parquet"), rows)
        receipt = describe(shard, self._receipts.fingerprint, rows, self._rules, start)
        self._receipts.write(receipt)
        return receipt

    async def _fetch_row(self, index: int, key: str, row: CatalogRow, spool: Spool) -> ImageRow:
        start = time.monotonic()
        blank = ImageRow(key, row.id, row.url, Status.SUCCESS, imagehash=row.imagehash)
        try:
            found = await self._first_good(row)
        except FetchError as error:
            failed = replace(
                blank, status=error.status, error=error.error, http_status=error.http_status
            )
            return replace(failed, seconds=time.monotonic() - start)
        image = found.image
        changed = not self._is_meant(image)
        if not changed or self._rules.keep_changed:
            await self._in_thread(spool.add, index, image.extension, found.data)
        return replace(
            blank,
            status=Status.CONTENT_CHANGED if changed else Status.SUCCESS,
            error=f"pHash differs in {image.distance} bits" if changed else None,
            http_status=found.http_status,
            actual_imagehash=image.imagehash,
            hash_distance=image.distance,
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            original_width=image.width,
            original_height=image.height,
            bytes=len(found.data),
            seconds=time.monotonic() - start,
        )

    async def _first_good(self, row: CatalogRow) -> _Found:
        """The image of the first URL that gives the one meant, else one that has changed.

        Raises: FetchError of the first transient failure, else of the first one.
        """
        urls = (row.url, *row.fallback_urls)
        deadline = self._rules.timeout_seconds
        changed: _Found | None = None
        errors: list[FetchError] = []
        for place, url in enumerate(urls):
            start = time.monotonic()
            try:
                # Each URL left has an equal share of the time left, so that all get a turn.
                body = await self._client.download(url, deadline / (len(urls) - place))
                image = await self._in_thread(
                    verify, body.data, row.imagehash, self._rules.max_pixels
                )
            except FetchError as error:
                errors.append(error)
            else:
                found = _Found(body.data, body.http_status, image)
                if self._is_meant(image):
                    return found
                changed = changed or found
            deadline = max(0.0, deadline - (time.monotonic() - start))
        if changed is not None:
            return changed
        raise next((error for error in errors if error.status in TRANSIENT), errors[0])

    def _is_meant(self, image: Verified) -> bool:
        return image.distance is None or image.distance <= self._rules.max_distance

    async def _in_thread(self, work: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Decoding and hashing leave the event loop free, and the interpreter's lock too."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def describe(
    shard: int, fingerprint: str, rows: Sequence[ImageRow], rules: Rules, start: float
) -> Receipt:
    """The receipt of a shard; rows that are in the tar are out, all others rejected by status."""
    statuses = Counter(row.status.value for row in rows)
    kept = {Status.SUCCESS, Status.CONTENT_CHANGED} if rules.keep_changed else {Status.SUCCESS}
    rejected = {status: n for status, n in statuses.items() if status not in kept}
    out = len(rows) - sum(rejected.values())
    seconds = time.monotonic() - start
    received = sum(row.bytes or 0 for row in rows)
    return Receipt(
        shard,
        fingerprint,
        Counts(len(rows), out, dict(sorted(rejected.items()))),
        seconds,
        {
            "statuses": dict(sorted(statuses.items())),
            "bytes": received,
            "images_per_second": round(len(rows) / seconds, 1),
            "finished": round(time.time(), 3),
        },
    )
