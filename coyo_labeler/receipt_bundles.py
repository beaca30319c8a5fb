"""Receipts of many shards in one file, so that a run which resumes reads few files.

A bundle is a copy and never says that a shard is done. A receipt in it counts only where the
listing shows the very file that it was copied from: same ETag, or same size, time and inode. All
others are read from their own files, so a bundle may be missing, damaged or late. The name of a
bundle is the digest of its content: two runs that write the same one write the same file.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

from coyo_labeler import storage
from coyo_labeler.listings import list_names
from coyo_labeler.storage_errors import DamagedFileError, parsing

if TYPE_CHECKING:
    from coyo_labeler.receipts import Receipt

logger = logging.getLogger(__name__)

#: Where bundles lie below the output. Readers of tables skip folders whose names begin with `_`.
FOLDER = "_receipt_bundles"

#: Receipts in a bundle at most.
BUNDLED = 4096

#: Fewer receipts than this are read one by one: that takes no longer than a listing or two.
FEWEST = 256

_SUFFIX = ".jsonl"
_READERS = 8
_MAX_BYTES = 2**28

#: Makes a receipt of the JSON document of a shard; None where it is of another run.
Parse = Callable[[int, Any], "Receipt | None"]


@dataclass
class Bundles:
    """The bundles of an output, as far as they hold the receipts that lie in it now.

    versions: {shard: version of its receipt} by a listing that was made before any receipt was
    read. by_name: for each bundle, the receipts of these versions in it, by shard.
    """

    output: str
    versions: Mapping[int, str]
    by_name: dict[str, dict[int, "Receipt"]] = field(default_factory=dict)

    @classmethod
    def load(cls, output: str, versions: Mapping[int, str], parse: Parse) -> "Bundles":
        """Read the bundles of an output; none where a few receipts are all that there is."""
        if len(versions) < FEWEST:
            return cls(output, versions)
        fs, folder = storage.resolve(storage.join(output, FOLDER))
        names = sorted(name for name in list_names(fs, folder) if name.endswith(_SUFFIX))
        read = partial(_read, fs, folder, versions, parse)
        with ThreadPoolExecutor(_READERS, "bundles") as pool:
            return cls(output, versions, dict(zip(names, pool.map(read, names), strict=True)))

    @property
    def receipts(self) -> dict[int, "Receipt"]:
        """The receipts in all bundles, by shard."""
        return {shard: receipt for held in self.by_name.values() for shard, receipt in held.items()}

    def add(self, receipts: Iterable["Receipt"]) -> None:
        """Bundle receipts that were read from their own files, if they are many.

        Bundles that have become small are written anew with them, and removed.
        """
        added = {receipt.shard: receipt for receipt in receipts if self.versions[receipt.shard]}
        if len(added) < FEWEST:
            return
        small = {name: held for name, held in self.by_name.items() if len(held) < BUNDLED // 2}
        for held in small.values():
            added |= held
        written = set()
        shards = sorted(added)
        for start in range(0, len(shards), BUNDLED):
            group = shards[start : start + BUNDLED]
            data = _to_lines((self.versions[shard], added[shard]) for shard in group)
            written.add(_name_of(data))
            storage.write_bytes(storage.join(self.output, FOLDER, _name_of(data)), data)
        for name in small.keys() - written:
            storage.remove(storage.join(self.output, FOLDER, name))


def _to_lines(entries: Iterable[tuple[str, "Receipt"]]) -> bytes:
    lines = (
        json.dumps([receipt.shard, version, receipt.to_json()]) for version, receipt in entries
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32] + _SUFFIX


def _read(
    fs: AbstractFileSystem, folder: str, versions: Mapping[int, str], parse: Parse, name: str
) -> dict[int, "Receipt"]:
    """The receipts in a bundle that are of these versions; none where it is damaged."""
    path = storage.join(folder, name)
    receipts = {}
    try:
        data = storage.read_start(fs, path, _MAX_BYTES)
        with parsing(path, "its receipts are read one by one"):
            if _name_of(data) != name:
                raise ValueError("its name is not the digest of its content")
            for shard, version, document in map(json.loads, data.splitlines()):
                if versions.get(shard) == version:
                    receipt = parse(shard, document)
                    if receipt is not None:
                        receipts[shard] = receipt
    except FileNotFoundError:  # another run has removed it
        return {}
    except DamagedFileError as error:
        logger.warning("%s", error)
        return {}
    return receipts
