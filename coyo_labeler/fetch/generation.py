"""How a shard's files get under their names: tar, then Parquet, then the receipt.

A later generation of a shard is staged whole in `_next/` and then moved into place, the receipt
last; a move that was cut off is finished by the next run. Its tar holds all images of the one
before, so that a reader finds at any moment every image that the Parquet file promises.
"""

import re

from coyo_labeler import storage
from coyo_labeler.receipts import Receipt, Receipts

#: Name of a shard's statistics, which are its receipt too.
RECEIPT_NAME = "{shard:05d}_stats.json"
STAGING = "_next"


def tar_name(shard: int) -> str:
    """File name of a shard's tar."""
    return f"{shard:05d}.tar"


def rows_name(shard: int) -> str:
    """File name of a shard's Parquet file."""
    return f"{shard:05d}.parquet"


def staging(output: str) -> str:
    """Where later generations are made."""
    return storage.join(output, STAGING)


def size(url: str) -> int:
    """Bytes of a file."""
    fs, path = storage.resolve(url)
    return int(fs.info(path)["size"])


def publish(output: str, shard: int) -> None:
    """Move a generation that is whole in `_next/` into place, or what is left of the move."""
    fs, folder = storage.resolve(output)
    for name in (tar_name(shard), rows_name(shard), RECEIPT_NAME.format(shard=shard)):
        staged = storage.join(folder, STAGING, name)
        if fs.exists(staged):
            fs.mv(staged, storage.join(folder, name))


def recover(receipts: Receipts) -> None:
    """Finish the moves that a killed run began, and forget what it had not finished making."""
    folder = staging(receipts.output)
    for shard in Receipts(folder, receipts.fingerprint, RECEIPT_NAME).read():
        publish(receipts.output, shard)
    storage.clear(folder)


def valid(receipts: Receipts) -> dict[int, Receipt]:
    """The receipts of whole shards: those whose files have the sizes that the receipt states.

    Two writers of one shard, each with answers of its own, could leave the tar of one and the rows
    of the other: such a shard does not count as finished.
    """
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
    return {
        shard: receipt
        for shard, receipt in receipts.read().items()
        if sizes.get(tar_name(shard)) == receipt.details["tar_bytes"]
        and sizes.get(rows_name(shard)) == receipt.details["parquet_bytes"]
    }
