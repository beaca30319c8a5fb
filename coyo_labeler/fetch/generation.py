"""How a shard's files get under their names: tar, then Parquet file, then receipt.

A later generation of a shard is staged in a folder of its own below `_next/`. Once it is whole, its
files are moved into place, the receipt last; the next process finishes a move that was interrupted.
The tar of a generation holds all images of the one before, so that a reader finds at any moment
every image that the Parquet file promises.

Tar, Parquet file and receipt hold the same digest. Two writers of one shard, each with its own
answers from the hosts, can leave the tar of one beside the rows of the other: such a shard does not
count as whole.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from pydantic import FiniteFloat

from coyo_labeler import storage
from coyo_labeler.formats import tars
from coyo_labeler.formats.tar_digests import ROWS_DIGEST, STAGING
from coyo_labeler.listings import etag_of, identity_of, list_folder, list_names, name_of
from coyo_labeler.patterns import move_file
from coyo_labeler.receipts import Details, Receipt, Receipts

#: Name of a shard's statistics, which are also its receipt.
RECEIPT_NAME = "{shard:05d}_stats.json"

#: What the names of a shard's three files end in.
_ENDINGS = (".tar", ".parquet", "_stats.json")

#: After so long without a byte, a generation that another run is making counts as abandoned. The
#: clocks of machines and stores may differ by minutes.
ABANDONED_SECONDS = 6 * 3600.0

_HEAD_BYTES = 512  # of a tar: its first header
_TAIL_BYTES = 16 * 2**10  # of a Parquet file: its footer, and some more
_SHARDS_AT_ONCE = 256  # whose files are read together


class ShardDetails(Details):
    """The details of a shard's receipt."""

    generation: int
    tar_bytes: int
    parquet_bytes: int
    transient: int
    bytes: int
    finished: FiniteFloat
    asked: int
    asked_bytes: int


def receipts_of(output: str, fingerprint: str) -> Receipts:
    """The receipts of the shards in an output, or in a folder of `staging`."""
    return Receipts(output, fingerprint, RECEIPT_NAME, ShardDetails)


def tar_name(shard: int) -> str:
    """File name of a shard's tar."""
    return f"{shard:05d}.tar"


def rows_name(shard: int) -> str:
    """File name of a shard's Parquet file."""
    return f"{shard:05d}.parquet"


def size(url: str) -> int:
    """Bytes of a file."""
    fs, path = storage.resolve(url)
    return int(fs.info(path)["size"])


def staging(output: str, shard: int, run: str) -> str:
    """A new folder in which a run makes a later generation of a shard."""
    return storage.join(output, STAGING, f"{shard:05d}-{run}-{uuid.uuid4().hex}")


def publish(receipts: Receipts, staged: str, receipt: Receipt) -> None:
    """Move a generation that is whole in its folder into place, or the rest of a move.

    Nothing is moved where a file is missing that was not moved before: a receipt alone would turn a
    whole shard into one that counts as torn.
    """
    fs, folder = storage.resolve(receipts.output)
    _, source = storage.resolve(staged)
    shard = receipt.shard
    names = (tar_name(shard), rows_name(shard), RECEIPT_NAME.format(shard=shard))
    fs.invalidate_cache(source)
    staged_files = {name for name in names[:2] if fs.exists(storage.join(source, name))}
    if not staged_files | _moved(fs, folder, receipt) >= set(names[:2]):
        return
    for name in names:
        # Another process may move the same files; one that is not here has been moved.
        with suppress(FileNotFoundError):
            if fs.exists(storage.join(source, name)):
                move_file(fs, storage.join(source, name), storage.join(folder, name))
    with suppress(FileNotFoundError):
        storage.clear(staged)


def recover(receipts: Receipts, run: str = "") -> None:
    """Finish the moves that killed runs began, and remove what they had not finished making.

    run: its own unfinished generations are removed at once, since none of its tasks is running.
    Those of other runs may still be in the making, so they are left alone until they are old.
    """
    for staged in _staged(receipts.output, ""):
        _finish(receipts, staged)
    for staged in _staged(receipts.output, ""):
        if _run_of(staged) == run or _is_old(staged):
            storage.clear(staged)
    fs, folder = storage.resolve(storage.join(receipts.output, STAGING))
    with suppress(OSError):  # it is not empty, or the filesystem has no folders
        fs.rmdir(folder)


def is_done(receipts: Receipts, shard: int, generation: int) -> bool:
    """Whether a shard is whole in a generation, or in a later one."""
    done = _whole(receipts, shard)
    return done is not None and done.details["generation"] >= generation


def current(receipts: Receipts, shard: int) -> Receipt | None:
    """The receipt of a whole shard, or None, after finishing the moves that others have left."""
    for staged in _staged(receipts.output, f"{shard:05d}-"):
        _finish(receipts, staged)
    return _whole(receipts, shard)


#: Whole shards with the identities of their three files.
Known = dict[int, tuple[str, Receipt]]


def valid(receipts: Receipts, known: Known | None = None) -> dict[int, Receipt]:
    """The receipts of whole shards, whose two files agree with the receipt's digest.

    known: what the same run has found whole before. Its shards, and on stores with ETags those in
    bundles, are not read again while their files are the same; the others are added.
    """
    known = {} if known is None else known
    fs, folder = storage.resolve(receipts.output)
    sizes, versions, has_etags = _list_shards(fs, folder)
    whole = {
        shard: known[shard][1]
        for shard in versions.keys() & known.keys()
        if versions[shard] and versions[shard] == known[shard][0]
    }
    bundles = receipts.bundles(versions)
    bundled = bundles.receipts
    if has_etags:
        whole = {**bundled, **whole}
    read = receipts.get_all(versions.keys() - whole.keys() - bundled.keys())
    unsure = {n: each for n, each in (*bundled.items(), *read.items()) if n not in whole}
    whole |= _agreeing(fs, folder, unsure, sizes)
    known |= {shard: (versions[shard], receipt) for shard, receipt in whole.items()}
    bundles.add(receipt for shard, receipt in whole.items() if shard not in bundled)
    return dict(sorted(whole.items()))


def _list_shards(
    fs: AbstractFileSystem, folder: str
) -> tuple[dict[str, int], dict[int, str], bool]:
    """The files of shards that lie in a folder, by one listing.

    Returns the bytes of each file by name, the identities of all three files of each shard that
    has a receipt, joined ("" where one of them has none), and whether all files have ETags.
    """
    pattern = re.compile(r"(\d{5,})(\.tar|\.parquet|_stats\.json)")
    sizes: dict[str, int] = {}
    identities: dict[str, str] = {}
    has_etags = True
    for info in list_folder(fs, folder, lambda name: pattern.fullmatch(name) is not None):
        name = name_of(info)
        sizes[name], identities[name] = info["size"], identity_of(info)
        has_etags &= etag_of(info) is not None
    versions = {}
    for name in identities:
        match = pattern.fullmatch(name)
        if match and match[2] == "_stats.json":
            own = [identities.get(match[1] + ending, "") for ending in _ENDINGS]
            versions[int(match[1])] = " ".join(own) if all(own) else ""
    return sizes, versions, has_etags


def _staged(output: str, prefix: str) -> list[str]:
    """The folders of later generations whose names begin with a prefix."""
    fs, folder = storage.resolve(storage.join(output, STAGING))
    names = list_names(fs, folder)
    return [storage.join(output, STAGING, name) for name in names if name.startswith(prefix)]


def _finish(receipts: Receipts, staged: str) -> None:
    """Publish what was made whole, unless the shard has got as far without it."""
    made = receipts_of(staged, receipts.fingerprint).read()
    for shard, receipt in made.items():
        if is_done(receipts, shard, receipt.details["generation"]):
            with suppress(FileNotFoundError):
                storage.clear(staged)
        else:
            publish(receipts, staged, receipt)


def _run_of(staged: str) -> str:
    """The run that made a folder of `staging`."""
    return "-".join(staged.rpartition("/")[2].split("-")[1:-1])


def _is_old(staged: str) -> bool:
    """Whether nothing was written into a folder for `ABANDONED_SECONDS`."""
    fs, folder = storage.resolve(staged)
    try:
        written = [fs.modified(name) for name in fs.find(folder)] or [fs.modified(folder)]
    except FileNotFoundError:  # another process has moved or removed it
        return False
    latest = max(time if time.tzinfo else time.replace(tzinfo=UTC) for time in written)
    return bool((datetime.now(UTC) - latest).total_seconds() > ABANDONED_SECONDS)


def _moved(fs: AbstractFileSystem, folder: str, receipt: Receipt) -> set[str]:
    """The files of a generation that are in place already."""
    shard = receipt.shard
    sizes = {}
    for name in (tar_name(shard), rows_name(shard)):
        fs.invalidate_cache(folder)
        with suppress(FileNotFoundError):
            sizes[name] = fs.info(storage.join(folder, name))["size"]
    return {name for name in sizes if _is_of(fs, folder, receipt, name, sizes[name])}


def _is_of(fs: AbstractFileSystem, folder: str, receipt: Receipt, name: str, size: int) -> bool:
    """Whether a file is the one that a receipt describes."""
    path = storage.join(folder, name)
    digest = receipt.details.get("digest")
    try:
        if name == tar_name(receipt.shard):
            mark = digest if receipt.rows.rows_out else None
            head = fs.cat_file(path, start=0, end=_HEAD_BYTES)
            return bool(size == receipt.details["tar_bytes"] and tars.mark_of(head) == mark)
        tail = fs.cat_file(path, start=max(0, size - receipt.details["parquet_bytes"]), end=size)
        return bool(size == receipt.details["parquet_bytes"] and _digest_of(tail) == digest)
    except FileNotFoundError:
        return False


def _whole(receipts: Receipts, shard: int) -> Receipt | None:
    receipt = receipts.get(shard)
    if receipt is None:
        return None
    fs, folder = storage.resolve(receipts.output)
    fs.invalidate_cache(folder)
    try:
        sizes = {
            name: fs.info(storage.join(folder, name))["size"]
            for name in (tar_name(shard), rows_name(shard))
        }
    except FileNotFoundError:
        return None
    return dict(_agreeing(fs, folder, {shard: receipt}, sizes)).get(shard)


def _agreeing(
    fs: AbstractFileSystem, folder: str, receipts: Mapping[int, Receipt], sizes: Mapping[str, int]
) -> Iterator[tuple[int, Receipt]]:
    """The receipts whose files have the sizes and the digest that they state.

    Only a few kilobytes of each file are read, and many files at once where the filesystem can.
    """
    sized = (
        (shard, receipt)
        for shard, receipt in receipts.items()
        if sizes.get(tar_name(shard)) == receipt.details["tar_bytes"]
        and sizes.get(rows_name(shard)) == receipt.details["parquet_bytes"]
    )
    while group := list(islice(sized, _SHARDS_AT_ONCE)):
        heads = _read_ends(fs, folder, {tar_name(shard): (0, _HEAD_BYTES) for shard, _ in group})
        ends = {rows_name(shard): sizes[rows_name(shard)] for shard, _ in group}
        spans = {name: (max(0, end - _TAIL_BYTES), end) for name, end in ends.items()}
        tails = _read_ends(fs, folder, spans)
        long = {
            name: (end - _footer_bytes(tails[name]), end)
            for name, end in ends.items()
            if _footer_bytes(tails[name]) > len(tails[name])
        }
        tails |= _read_ends(fs, folder, long)
        for shard, receipt in group:
            digest = receipt.details.get("digest")
            # A tar without images has no member to hold a mark.
            mark = digest if receipt.rows.rows_out else None
            agreed = tars.mark_of(heads[tar_name(shard)]) == mark
            if agreed and _digest_of(tails[rows_name(shard)]) == digest:
                yield shard, receipt


def _read_ends(
    fs: AbstractFileSystem, folder: str, spans: Mapping[str, tuple[int, int]]
) -> dict[str, bytes]:
    """Bytes [start, end) of files, by name; empty for a file that is no longer there."""
    if not spans:
        return {}
    paths = [storage.join(folder, name) for name in spans]
    starts, ends = zip(*spans.values(), strict=True)
    contents = fs.cat_ranges(paths, list(starts), list(ends), on_error="return")
    return {
        name: data if isinstance(data, bytes) else b""
        for name, data in zip(spans, contents, strict=True)
    }


def _footer_bytes(tail: bytes) -> int:
    """Bytes of a Parquet file's footer, with its length and magic number behind it."""
    return int.from_bytes(tail[-8:-4], "little") + 8


def _digest_of(tail: bytes) -> str | None:
    """The digest in a Parquet file's footer; tail: its end."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail)).metadata or {}
    except pa.ArrowInvalid:
        return None
    digest = metadata.get(ROWS_DIGEST.encode())
    return None if digest is None else digest.decode()
