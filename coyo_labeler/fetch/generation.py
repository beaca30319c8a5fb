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
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from coyo_labeler import storage
from coyo_labeler.fetch.pack import DIGEST
from coyo_labeler.formats import tars
from coyo_labeler.receipts import Receipt, Receipts

#: Name of a shard's statistics, which are also its receipt.
RECEIPT_NAME = "{shard:05d}_stats.json"
STAGING = "_next"

_HEAD_BYTES = 512  # of a tar: its first header
_TAIL_BYTES = 16 * 2**10  # of a Parquet file: its footer, and some more
_SHARDS_AT_ONCE = 256  # whose files are read together


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


def staging(output: str, shard: int) -> str:
    """A new folder in which to make a later generation of a shard."""
    return storage.join(output, STAGING, f"{shard:05d}-{uuid.uuid4().hex}")


def publish(output: str, staged: str, shard: int) -> None:
    """Move a generation that is whole in its folder into place, or what is left of the move."""
    fs, folder = storage.resolve(output)
    _, source = storage.resolve(staged)
    for name in (tar_name(shard), rows_name(shard), RECEIPT_NAME.format(shard=shard)):
        # Another may be about the same; where a file is gone, it has been moved.
        with suppress(FileNotFoundError):
            if fs.exists(storage.join(source, name)):
                fs.mv(storage.join(source, name), storage.join(folder, name))
    with suppress(FileNotFoundError):
        storage.clear(staged)


def recover(receipts: Receipts) -> None:
    """Finish the moves that a killed run began, and forget what it had not finished making."""
    for staged in _staged(receipts.output, ""):
        _finish(receipts, staged)
    storage.clear(storage.join(receipts.output, STAGING))


def current(receipts: Receipts, shard: int) -> Receipt | None:
    """The receipt of a whole shard, or None, after finishing the moves that others have left."""
    for staged in _staged(receipts.output, f"{shard:05d}-"):
        _finish(receipts, staged)
    return _whole(receipts, shard)


def valid(receipts: Receipts) -> dict[int, Receipt]:
    """The receipts of whole shards, whose two files agree with the receipt's digest."""
    fs, folder = storage.resolve(receipts.output)
    fs.invalidate_cache(folder)
    if not fs.isdir(folder):
        return {}
    pattern = re.compile(r"/(\d{5,}\.(?:tar|parquet))$")
    sizes = {
        match[1]: info["size"]
        for info in fs.ls(folder, detail=True)
        if (match := pattern.search(info["name"]))
    }
    return dict(_agreeing(fs, folder, receipts.read(), sizes))


def _staged(output: str, prefix: str) -> list[str]:
    """The folders of later generations whose names begin with a prefix."""
    fs, folder = storage.resolve(storage.join(output, STAGING))
    fs.invalidate_cache(folder)
    if not fs.isdir(folder):
        return []
    names = (name.rstrip("/").rpartition("/")[2] for name in fs.ls(folder, detail=False))
    return [storage.join(output, STAGING, name) for name in names if name.startswith(prefix)]


def _finish(receipts: Receipts, staged: str) -> None:
    """Publish what was made whole, unless the shard has got as far without it."""
    made = Receipts(staged, receipts.fingerprint, RECEIPT_NAME).read()
    for shard, receipt in made.items():
        done = _whole(receipts, shard)
        if done is None or done.details["generation"] < receipt.details["generation"]:
            publish(receipts.output, staged, shard)


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
    digest = metadata.get(DIGEST.encode())
    return None if digest is None else digest.decode()
