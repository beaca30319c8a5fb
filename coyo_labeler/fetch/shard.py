"""One shard: its rows downloaded, verified, packed, and a receipt written last."""

import asyncio
import logging
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from urllib.parse import urlsplit

from coyo_labeler import storage
from coyo_labeler.errors import WorkError
from coyo_labeler.fetch import generation as generations
from coyo_labeler.fetch.client import Body, Client
from coyo_labeler.fetch.generation import rows_name, tar_name
from coyo_labeler.fetch.hosts import Budget, Rank
from coyo_labeler.fetch.pack import (
    ImageRow,
    Sample,
    Spool,
    digest,
    keys,
    read_rows,
    read_tar,
    write_rows,
    write_tar,
)
from coyo_labeler.fetch.resize import shrink
from coyo_labeler.fetch.status import TRANSIENT, FetchError, Status
from coyo_labeler.fetch.verify import Verified, hamming, verify
from coyo_labeler.formats.tar_digests import TAR_SHA256
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Receipt, Receipts

logger = logging.getLogger(__name__)

_HASH = re.compile(r"[0-9a-fA-F]{16}")


@dataclass(frozen=True)
class CatalogRow:
    """A row to fetch. imagehash: 16 hex digits, or None where it is not known."""

    id: int
    url: str | None
    imagehash: str | None = None
    fallback_urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """Checks, and what is kept. timeout_seconds: for an image, all its URLs included."""

    timeout_seconds: float = 30.0
    max_pixels: int = 64_000_000
    check_phash: bool = True
    max_distance: int = 4
    keep_changed: bool = False
    resize_to: int | None = None
    resize_quality: int = 95


@dataclass(frozen=True)
class FetchedImage:
    """An image that decodes, from one URL. width, height: as it is kept."""

    http_status: int
    bytes: int
    verified: Verified
    distance: int | None
    width: int
    height: int


class ShardFetcher:
    """Fetches shards with one client; `fetch` writes a shard's files, whole or not at all.

    run: names what this run has not finished, so that other runs leave it alone. check_owner:
    raises WorkError where another run has taken over the output.
    """

    def __init__(
        self,
        client: Client,
        threads: ThreadPoolExecutor,
        rules: Rules,
        receipts: Receipts,
        run: str = "",
        check_owner: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._threads = threads
        self._rules = rules
        self._receipts = receipts
        self._run = run
        self._check_owner = check_owner
        self._begun = count()

    async def fetch(self, shard: int, rows: Sequence[CatalogRow], generation: int = 1) -> Receipt:
        """Fetch the rows of a shard; in a later generation, only its transient failures.

        A shard that is whole in this generation is left alone, so that a second writer does no
        harm.

        Raises: WorkError where another writer has changed the shard meanwhile, or another run has
        taken over the output.
        """
        await asyncio.to_thread(self._check_owner)
        before = await asyncio.to_thread(generations.current, self._receipts, shard)
        if before is not None and before.details["generation"] >= generation:
            return before
        start, turn = time.monotonic(), next(self._begun)
        rows = sorted(rows, key=lambda row: row.id)
        names = keys(shard, len(rows))
        earlier = {} if before is None else await asyncio.to_thread(self._read, shard)
        wanted = [index for index in range(len(rows)) if _is_wanted(earlier.get(names[index]))]
        spool = Spool()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    index: group.create_task(
                        self._fetch_row(index, names[index], rows[index], spool, (turn, rank))
                    )
                    for rank, index in enumerate(in_turn(shard, rows, wanted))
                }
            fetched = {index: task.result() for index, task in tasks.items()}
            kept = {
                index: earlier[name] for index, name in enumerate(names) if index not in fetched
            }
            return await asyncio.to_thread(
                self._write, shard, generation, fetched, kept, before, spool, start
            )
        finally:
            spool.close()

    def _read(self, shard: int) -> dict[str, ImageRow]:
        url = storage.join(self._receipts.output, rows_name(shard))
        return {row.key: row for row in read_rows(url)}

    def _write(
        self,
        shard: int,
        generation: int,
        fetched: Mapping[int, ImageRow],
        kept: Mapping[int, ImageRow],
        before: Receipt | None,
        spool: Spool,
        start: float,
    ) -> Receipt:
        """Put the shard's files in place, the receipt last, unless another writer has done so.

        fetched, kept: rows by index; kept ones are of the generation before.
        """
        self._check_owner()
        done = generations.current(self._receipts, shard)
        if done is not None and done.details["generation"] >= generation:
            return done
        if done != before:
            raise _changed(shard)
        output = self._receipts.output
        sources = [spool.samples(fetched)]
        folder = output
        if before is not None:
            folder = generations.staging(output, shard, self._run)
            index_of = {row.key: index for index, row in kept.items()}
            tar, sha256 = storage.join(output, tar_name(shard)), before.details.get(TAR_SHA256)
            sources.append(read_tar(tar, index_of, sha256))
        rows = [row for _, row in sorted({**fetched, **kept}.items())]
        written = _write_files(folder, shard, sources, rows)
        counts, details = describe(rows, self._rules, time.monotonic() - start)
        asked = {
            "asked": len(fetched),
            "asked_bytes": sum(row.bytes or 0 for row in fetched.values()),
        }
        receipt = Receipt(
            shard,
            self._receipts.fingerprint,
            counts,
            round(time.monotonic() - start, 3),
            {"generation": generation, **details, **asked, **written},
        )
        generations.receipts_of(folder, receipt.fingerprint).write(receipt)
        if before is not None:
            generations.publish(self._receipts, folder, receipt)
            if not generations.is_done(self._receipts, shard, generation):
                raise _changed(shard)
        return receipt

    async def _fetch_row(
        self, index: int, key: str, row: CatalogRow, spool: Spool, rank: Rank
    ) -> ImageRow:
        start = time.monotonic()
        blank = ImageRow(key, row.id, row.url, Status.SUCCESS, imagehash=row.imagehash)
        try:
            url, fetched = await self._first_good(index, row, spool, rank)
        except FetchError as error:
            return replace(
                blank,
                status=error.status,
                error=error.error,
                http_status=error.http_status,
                seconds=time.monotonic() - start,
            )
        except (OSError, MemoryError):  # the machine's fault, not the image's
            raise
        except Exception as error:
            # Strangers make up the answers, and whatever one raises in one of many parsers must not
            # end the work on all other rows. The message may hold the URL and is dropped.
            where = _origin_of(error)
            logger.warning("fetch: row %s of id %s: %s; please report it", key, row.id, where)
            seconds = time.monotonic() - start
            return replace(blank, status=Status.UNEXPECTED, error=where, seconds=seconds)
        changed = not self._matches(fetched)
        return replace(
            blank,
            status=Status.CONTENT_CHANGED if changed else Status.SUCCESS,
            error=f"pHash differs in {fetched.distance} bits" if changed else None,
            http_status=fetched.http_status,
            actual_imagehash=fetched.verified.imagehash,
            hash_distance=fetched.distance,
            sha256=fetched.verified.sha256,
            width=fetched.width,
            height=fetched.height,
            original_width=fetched.verified.width,
            original_height=fetched.verified.height,
            bytes=fetched.bytes,
            seconds=time.monotonic() - start,
            fetched_url=url,
        )

    async def _first_good(
        self, index: int, row: CatalogRow, spool: Spool, rank: Rank
    ) -> tuple[str | None, FetchedImage]:
        """The first URL with the catalog's image, else the first with any image.

        Raises: FetchError: the first transient failure, else the first one.
        """
        known = row.imagehash is not None and self._rules.check_phash
        if known and not _HASH.fullmatch(row.imagehash or ""):
            raise FetchError(Status.BAD_HASH, "the catalog's pHash is not 16 hex digits")

        async def use(body: Body) -> FetchedImage:
            # Decoding and hashing release the interpreter's lock: the event loop stays free.
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._take, index, row, body, spool, changed is None
            )

        urls = (row.url, *row.fallback_urls)
        left = self._rules.timeout_seconds
        changed: tuple[str | None, FetchedImage] | None = None
        errors: list[FetchError] = []
        for number, url in enumerate(urls):
            # The URLs left share the time left equally, so that all of them are tried.
            budget = Budget(left / (len(urls) - number), rank)
            try:
                fetched = await self._client.download(url, budget, use)
            except FetchError as error:
                errors.append(error.bare())
            else:
                if self._matches(fetched):
                    return url, fetched
                changed = changed or (url, fetched)
            left -= budget.seconds - max(0.0, budget.left)
        if changed is not None:
            return changed
        raise next((error for error in errors if error.status in TRANSIENT), errors[0])

    def _take(
        self, index: int, row: CatalogRow, body: Body, spool: Spool, keep: bool
    ) -> FetchedImage:
        """Verify a body, and keep it where it matches the catalog; runs in a thread.

        keep: whether to keep an image that has changed too, where the rules say so.
        """
        rules = self._rules
        verified = verify(body.data, rules.max_pixels, rules.check_phash)
        distance = None
        if row.imagehash is not None and verified.imagehash is not None:
            distance = hamming(row.imagehash, verified.imagehash)
        fetched = FetchedImage(
            body.http_status, len(body.data), verified, distance, verified.width, verified.height
        )
        if not self._matches(fetched) and not (keep and rules.keep_changed):
            return fetched
        extension, data = verified.extension, body.data
        if rules.resize_to is not None:
            small = shrink(data, rules.resize_to, rules.resize_quality, rules.max_pixels)
            if small is not None:
                extension, data = small.extension, small.data
                fetched = replace(fetched, width=small.width, height=small.height)
        spool.add(index, extension, data)
        return fetched

    def _matches(self, fetched: FetchedImage) -> bool:
        return fetched.distance is None or fetched.distance <= self._rules.max_distance


def _changed(shard: int) -> WorkError:
    return WorkError(
        f"fetch: shard {shard:05d} was changed by another writer; run the same command again when "
        "no other run writes to this output"
    )


def _is_wanted(earlier: ImageRow | None) -> bool:
    return earlier is None or earlier.status in TRANSIENT


def _origin_of(error: Exception) -> str:
    """The type of an exception and the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    module = trace.tb_frame.f_globals.get("__name__", "?")
    return f"{type(error).__name__} in {module}, line {trace.tb_lineno}"


def _write_files(
    folder: str, shard: int, sources: Iterable[Iterable[Sample]], rows: Sequence[ImageRow]
) -> dict[str, object]:
    """Write tar and Parquet file; returns their part of the receipt."""
    tar, parquet = (storage.join(folder, name(shard)) for name in (tar_name, rows_name))
    mark = digest(rows)
    sha256 = write_tar(tar, mark, *sources)
    write_rows(parquet, rows, mark)
    return {
        "tar_bytes": generations.size(tar),
        "parquet_bytes": generations.size(parquet),
        "digest": mark,
        TAR_SHA256: sha256,
    }


def in_turn(shard: int, rows: Sequence[CatalogRow], wanted: Iterable[int]) -> list[int]:
    """The order of requests: host after host, in a different order of hosts in every shard.

    So tasks that run side by side ask different hosts at any moment. Rows wait for their slots in
    this order (`Slots`).
    """

    def order(index: int) -> tuple[int, int]:
        try:
            host = urlsplit(rows[index].url or "").hostname or ""
        except ValueError:
            host = ""
        return zlib.crc32(f"{shard} {host}".encode()), index

    return sorted(wanted, key=order)


def describe(
    rows: Sequence[ImageRow], rules: Rules, seconds: float
) -> tuple[Counts, dict[str, object]]:
    """Counts and statistics of a shard; rows in the tar count as out, all others as rejected."""
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
