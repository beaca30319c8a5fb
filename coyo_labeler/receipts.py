"""One receipt per finished shard: written last, so that a shard with a receipt is whole."""

import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from sys import intern
from typing import Annotated, Any

from fsspec import AbstractFileSystem
from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, TypeAdapter

from coyo_labeler import receipt_bundles, storage
from coyo_labeler.errors import WorkError
from coyo_labeler.listings import identity_of, list_folder, list_names, name_of
from coyo_labeler.manifest import Counts
from coyo_labeler.progress import Progress, every
from coyo_labeler.receipt_bundles import Bundles
from coyo_labeler.storage_errors import DamagedFileError, parsing
from coyo_labeler.written import Files, differing

logger = logging.getLogger(__name__)

#: Where the receipt of a shard lies below its output, unless a stage says otherwise.
RECEIPT = "_receipts/{shard:05d}.json"

#: Receipts that are read concurrently.
_READERS = 32
_MOST_PER_TASK = 64

#: Rest after a look at the receipts, in multiples of the time that the look took: a store lists
#: the files of 70,000 shards in many seconds.
_REST = 9


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a finished shard holds.

    fingerprint: of the run that wrote it (`Run.fingerprint`). rows: its counts. seconds: wall time
    that the shard took. details: further JSON values; `files` are those that the shard consists of,
    see `written`.
    """

    shard: int
    fingerprint: str
    rows: Counts
    seconds: FiniteFloat
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> Files:
        """What it says of its files; nothing where an earlier version wrote it."""
        files: Files = self.details.get("files", {})
        return files

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "shard": self.shard,
            "fingerprint": self.fingerprint,
            "rows": self.rows.to_json(),
            "seconds": round(self.seconds, 3),
            **self.details,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Receipt":
        """The reverse of `to_json`. Raises: ValueError where a value is of another type."""
        known = {"shard", "fingerprint", "rows", "seconds"}
        return _RECEIPT.validate_python(
            {
                **{key: document[key] for key in known},
                "rows": Counts.from_json(document["rows"]),
                "details": {
                    # Most say the same in every receipt: 70,000 hold it once.
                    intern(key): intern(value) if isinstance(value, str) else value
                    for key, value in document.items()
                    if key not in known
                },
            }
        )


_RECEIPT = TypeAdapter(Receipt)


def _described(file: list[int | str]) -> list[int | str]:
    if [type(part) for part in file] not in ([int, str], [int, str, str]):
        raise ValueError("a file has a number of bytes, a digest, and on object stores an ETag")
    return file


def total(receipts: Sequence[Receipt]) -> Counts:
    """The counts of many shards together."""
    rejected: dict[str, int] = {}
    for receipt in receipts:
        for reason, n in receipt.rows.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + n
    return Counts(
        sum(receipt.rows.rows_in for receipt in receipts),
        sum(receipt.rows.rows_out for receipt in receipts),
        rejected,
    )


def files_of(receipts: Iterable[Receipt]) -> dict[str, Any]:
    """The files of many shards together."""
    return {name: file for receipt in receipts for name, file in receipt.files.items()}


def sizes_of(receipts: Iterable[Receipt]) -> dict[str, int]:
    """The bytes of the files of many shards, by name below the output."""
    return {name: size for name, (size, *_) in files_of(receipts).items()}


class Details(BaseModel):
    """The form of a receipt's details: what a stage computes with. A stage adds its own fields."""

    model_config = ConfigDict(strict=True)

    files: dict[str, Annotated[list[int | str], AfterValidator(_described)]] = {}


@dataclass(frozen=True)
class Receipts:
    """The receipts of an output folder.

    name: file name of a receipt below `output`, with `{shard:05d}` in it. details: the form of
    their details; a receipt of another form counts as damaged.
    """

    output: str
    fingerprint: str
    name: str = RECEIPT
    details: type[Details] = Details

    def write(self, receipt: Receipt) -> None:
        """Declare a shard finished; called when all its files have their final names."""
        storage.write_json(
            storage.join(self.output, self.name.format(shard=receipt.shard)), receipt.to_json()
        )

    def get(self, shard: int) -> Receipt | None:
        """The receipt of one shard by this run; None without one, or where it is damaged."""
        url = storage.join(self.output, self.name.format(shard=shard))
        try:
            document = storage.read_json(url, "its shard is done again")
            with parsing(url, "its shard is done again"):
                return None if document is None else self._parse(shard, document)
        except DamagedFileError as error:
            logger.warning("%s", error)
            return None

    def _parse(self, shard: int, document: Mapping[str, Any]) -> Receipt | None:
        """The receipt that a document holds, where it is by this run."""
        if document["fingerprint"] != self.fingerprint:
            return None
        receipt = Receipt.from_json(document)
        self.details.model_validate(dict(receipt.details))
        if receipt.shard != shard:
            raise ValueError(f"it is of shard {receipt.shard}")
        return receipt

    def shards(self) -> set[int]:
        """Numbers of the shards that have a receipt file, by one listing of the folder."""
        fs, parent, pattern = self._folder()
        matches = map(pattern.fullmatch, list_names(fs, parent))
        return {int(match[1]) for match in matches if match}

    def _listed(self, besides: Collection[int] = ()) -> dict[int, str]:
        """The shards that have a receipt file, with its identity, besides those given."""
        fs, parent, pattern = self._folder()

        def shard_of(name: str) -> int | None:
            match = pattern.fullmatch(name)
            return int(match[1]) if match else None

        def is_wanted(name: str) -> bool:
            return (shard := shard_of(name)) is not None and shard not in besides

        return {
            shard: identity_of(info)
            for info in list_folder(fs, parent, is_wanted)
            if (shard := shard_of(name_of(info))) is not None
        }

    def _folder(self) -> tuple[AbstractFileSystem, str, re.Pattern[str]]:
        """Where the receipts lie, and the form of their names."""
        fs, path = storage.resolve(self.output)
        parent, _, base = storage.join(path, self.name).rpartition("/")
        return fs, parent, re.compile(re.escape(base).replace(r"\{shard:05d\}", r"(\d{5,})"))

    def read(self) -> dict[int, Receipt]:
        """All receipts by this run, by shard: from bundles where they are there, else each file.

        Those that were read from their own files are bundled for the next run.
        """
        bundles = self.bundles(self._listed())
        bundled = bundles.receipts
        read = self.get_all(bundles.versions.keys() - bundled.keys())
        bundles.add(read.values())
        return {**bundled, **read}

    def bundles(self, versions: Mapping[int, str]) -> Bundles:
        """The bundles of the output. versions: see `Bundles`."""
        return Bundles.load(self.output, versions, self._parse)

    def split_intact(
        self, receipts: Mapping[int, Receipt]
    ) -> tuple[dict[int, Receipt], dict[int, Receipt]]:
        """The receipts whose files are as they were written, and the others."""
        wrong = differing(self.output, files_of(receipts.values()))
        if wrong:
            name, why = min(wrong.items())
            logger.warning(
                "%s %s (and %d more); its shard is written anew",
                storage.join(self.output, name),
                why,
                len(wrong) - 1,
            )
        changed = {n: each for n, each in receipts.items() if wrong.keys() & each.files.keys()}
        return {n: each for n, each in receipts.items() if n not in changed}, changed

    def remove(self, shard: int) -> None:
        """Declare a shard unfinished, before its files are removed or replaced."""
        storage.remove(storage.join(self.output, self.name.format(shard=shard)))

    def require(
        self, stage: str, shards: Iterable[int], known: Mapping[int, Receipt] | None = None
    ) -> list[Receipt]:
        """The receipts of all these shards, in order: what a manifest is made from.

        known: receipts that were read before. A receipt that no listing showed is asked for by its
        name.

        Raises: WorkError where a shard has none.
        """
        wanted = sorted(shards)
        receipts = dict(self.read() if known is None else known)
        receipts |= self.get_all(shard for shard in wanted if shard not in receipts)
        missing = [shard for shard in wanted if shard not in receipts]
        if missing:
            raise WorkError(
                f"{stage}: {len(missing):,} shards are incomplete (the first is {missing[0]:05d}); "
                "run the same command again: it writes these and keeps the others"
            )
        return [receipts[shard] for shard in wanted]

    def get_all(self, shards: Iterable[int]) -> dict[int, Receipt]:
        """The receipts of those shards that have one, read concurrently: object stores are slow."""
        wanted = sorted(shards)
        if not wanted:
            return {}
        # A task of the pool takes longer to begin than a receipt on a local disk to be read.
        size = max(1, min(_MOST_PER_TASK, len(wanted) // _READERS))
        groups = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        with ThreadPoolExecutor(min(_READERS, len(groups)), "receipts") as pool:
            read = pool.map(lambda group: [self.get(shard) for shard in group], groups)
            receipts = chain.from_iterable(read)
            return {receipt.shard: receipt for receipt in receipts if receipt is not None}

    @contextmanager
    def watch(
        self,
        label: str,
        total_shards: int,
        facts: Callable[[Sequence[Receipt]], Mapping[str, Any]],
        interval_seconds: float = 2.0,
        known: Mapping[int, Receipt] | None = None,
        redo: Collection[int] = (),
        bundle: Callable[[], object] | None = None,
    ) -> Iterator[dict[int, Receipt]]:
        """Show the shards done while the `with` block runs, and `facts` of the receipts so far.

        New receipts are bundled, some thousand at a time. known: what `read` has just returned,
        where it was called. redo: shards whose receipts will be replaced; they count as done after
        that. bundle: called in place of bundling them, and not for the last ones. Yields the
        receipts by shard; after the block it holds all of them.
        """
        redo = self.shards() & set(redo)  # most have no receipt that could be taken for a new one
        earlier = self.read() if known is None else known
        seen = {shard: receipt for shard, receipt in earlier.items() if shard not in redo}
        before = self._listed(besides=seen.keys()) if redo else {}
        new: dict[int, Receipt] = {}
        versions: dict[int, str] = {}
        next_look = 0.0
        save = bundle or (lambda: Bundles(self.output, versions).add(new.values()))
        many = receipt_bundles.BUNDLED
        last = receipt_bundles.FEWEST if bundle is None else many

        def look(progress: Progress, at_least: int) -> None:
            listed = self._listed(besides=seen.keys())
            old = {shard for shard in redo if listed.get(shard) == before.get(shard)}
            found = self.get_all(listed.keys() - old)
            seen.update(found)
            new.update(found)
            versions.update(listed)
            progress.update(len(seen), **facts(list(seen.values())))
            if len(new) >= at_least:
                save()
                new.clear()
                versions.clear()

        def look_now_and_then(progress: Progress) -> None:
            nonlocal next_look
            began = time.monotonic()
            if began >= next_look:
                look(progress, many)
                next_look = time.monotonic() + _REST * (time.monotonic() - began)

        with Progress(label, total_shards, "shards", done=len(seen)) as progress:
            try:
                with every(interval_seconds, lambda: look_now_and_then(progress)):
                    yield seen
            finally:
                look(progress, last)
