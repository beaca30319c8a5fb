"""The work on each shard: label it, write its files, then its receipt.

Importing this does not load torch: a Spark driver plans the work of machines that have a teacher.
"""

import posixpath
import re
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import FiniteFloat

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats.image_shards import Shard
from coyo_labeler.label.spec import TeacherSpec
from coyo_labeler.listings import list_names
from coyo_labeler.machine import keep_freed_memory
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import RECEIPT, Details, Receipt, Receipts
from coyo_labeler.written import describe_files

if TYPE_CHECKING:
    from coyo_labeler.label.model import Teacher
    from coyo_labeler.label.predict import ShardResult

#: Entries of a teacher's fingerprint: the sha256 of its weights, and of the list of labels.
WEIGHTS, LABEL_SPACE = "teacher.weights_sha256", "teacher.label_space_sha256"

#: Entries that settings do not fix: they depend on files, on a model hub or on timm.
_FOUND = (
    WEIGHTS,
    LABEL_SPACE,
    "teacher.activation",
    "teacher.model_label_space",
    "teacher.preprocess",
)

#: Folders of the output that are there only where they are needed.
BELOW, EMBEDDINGS = "below_threshold", "embeddings"

#: Where the files of a shard may lie below the output.
_FOLDERS = ("", "failures", BELOW, EMBEDDINGS)


class ShardDetails(Details):
    """The details of a shard's receipt."""

    stamp: str
    busy_seconds: FiniteFloat
    finished: FiniteFloat
    device: str
    weights_sha256: str


@dataclass(frozen=True)
class Job:
    """The work of a run, as every process gets it.

    min_top1: sampling threshold. decode_threads: per GPU; None: one per core. teacher: the entries
    of the teacher's fingerprint that are known beforehand; a process whose teacher differs refuses
    to work.
    """

    spec: TeacherSpec
    output: str
    fingerprint: str
    min_top1: float = 0.0
    decode_threads: int | None = None
    teacher: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """A device with its share of the cores.

    device: as torch names it. cores: how many it may use. name: of the device in progress and
    receipts. facts: further entries of its receipts.
    """

    device: str
    cores: int
    name: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Committed:
    """One shard is on disk with its receipt, or its tar was damaged."""

    shard: int
    url: str
    damage: str | None


def label_and_commit(
    job: Job, teacher: "Teacher", slot: Slot, shards: Iterable[Shard]
) -> Iterator[Committed]:
    """Label the shards that have no receipt yet, and write each as it is done.

    A damaged tar is returned, not raised, so that the other shards go on.

    Raises: InputError where the teacher is not that of the job.
    """
    from coyo_labeler.label.predict import label_shards  # noqa: PLC0415

    _refuse_another(job, teacher)
    keep_freed_memory()
    receipts = Receipts(job.output, job.fingerprint, details=ShardDetails)
    missing = (shard for shard in shards if receipts.get(shard.number) is None)
    for result in label_shards(
        teacher,
        missing,
        cores=slot.cores,
        decode_threads=job.decode_threads,
        min_top1=job.min_top1,
    ):
        if result.damage is None:
            names = _write(job.output, result, teacher.fingerprint)
            receipts.write(_receipt(job, slot, result, teacher, names))
        yield Committed(result.shard.number, result.shard.url, result.damage)


def read_teacher(output: str, number: int) -> dict[str, str]:
    """The entries of a finished shard's teacher that settings do not fix, for `Job.teacher`."""
    metadata = storage.read_footer("output", storage.join(output, _name(number))).metadata
    return {key: metadata[key.encode()].decode() for key in _FOUND}


def _refuse_another(job: Job, teacher: "Teacher") -> None:
    for key, expected in job.teacher.items():
        actual = teacher.fingerprint[key]
        if actual != expected:
            raise InputError(
                f"label: output: {job.output} was begun with another teacher "
                f"({key.removeprefix('teacher.')} was {expected}, is {actual}); put the files back "
                "with which it was begun, or choose another output"
            )


def remove_shard(output: str, number: int) -> None:
    """Remove the files of a shard, its receipt first."""
    storage.remove(storage.join(output, RECEIPT.format(shard=number)))
    for folder in _FOLDERS:
        storage.remove(storage.join(output, folder, _name(number)))


def remove_unfinished(output: str, finished: Container[int]) -> None:
    """Remove the files of shards without a receipt, which a killed run leaves behind.

    Files of other names are left alone.
    """
    fs, path = storage.resolve(output)
    for folder in _FOLDERS:
        parent = storage.join(path, folder)
        matches = map(re.compile(r"(\d{5,})\.parquet").fullmatch, list_names(fs, parent))
        unfinished = [match[0] for match in matches if match and int(match[1]) not in finished]
        for name in unfinished:
            with suppress(FileNotFoundError):  # the listing was late
                fs.rm_file(storage.join(parent, name))


def _name(number: int) -> str:
    return f"{number:05d}.parquet"


def _write(output: str, result: "ShardResult", fingerprint: Mapping[str, str]) -> list[str]:
    """Write the files of a shard; returns their names below the output."""
    tables = {
        "": (result.beliefs, fingerprint),
        "failures": (result.failures, None),
        BELOW: (result.below if result.below.num_rows else None, fingerprint),
        EMBEDDINGS: (result.embeddings, fingerprint),
    }
    names = []
    for folder, (table, metadata) in tables.items():
        if table is not None:
            names.append(posixpath.join(folder, _name(result.shard.number)))
            storage.write_parquet(storage.join(output, names[-1]), table, metadata)
    return names


def _receipt(
    job: Job, slot: Slot, result: "ShardResult", teacher: "Teacher", names: Sequence[str]
) -> Receipt:
    counts = Counts(result.samples, result.beliefs.num_rows, result.rejected)
    details = {
        "stamp": result.shard.stamp,
        "ids": str(result.shard.ids),
        "busy_seconds": round(result.busy_seconds, 3),
        "finished": round(time.time(), 3),
        "device": slot.name,
        "weights_sha256": teacher.fingerprint[WEIGHTS],
        **slot.facts,
        "files": describe_files(job.output, names),
    }
    return Receipt(result.shard.number, job.fingerprint, counts, result.seconds, details)
