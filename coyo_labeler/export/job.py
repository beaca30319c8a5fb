"""What a task does with one shard: write its file and its rejects, then its receipt."""

import time
from dataclasses import dataclass

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.export.choose import Choice
from coyo_labeler.export.images import write_tfrecord, write_webdataset
from coyo_labeler.export.parquet import Written, write_shard
from coyo_labeler.export.plan import Shard
from coyo_labeler.export.tars import Tar
from coyo_labeler.export.tfrecord import shard_name
from coyo_labeler.receipts import Details, Receipt, Receipts
from coyo_labeler.written import describe_files

#: The folder of rejected rows. Readers of datasets skip folders whose name begins with `_`.
REJECTS = "_rejects"


class ShardDetails(Details):
    """The details of a shard's receipt."""

    file: str
    bytes: int
    nbytes: int
    labels: int
    re_encoded: int
    images: int
    unlabelled: int
    faults: dict[str, int]


@dataclass(frozen=True)
class ExportJob:
    """The settings that all tasks of a run share.

    shards: number of exported files. schema: columns of the copy. metadata: key-value metadata of
    its Parquet files.
    """

    format: str
    output: str
    fingerprint: str
    name: str
    shards: int
    choice: Choice
    schema: pa.Schema
    metadata: dict[str, str]

    @property
    def receipts(self) -> Receipts:
        """The receipts of the run, one per shard."""
        return Receipts(self.output, self.fingerprint, details=ShardDetails)


def file_of(job: ExportJob, number: int, tar: Tar | None = None) -> str:
    """The path of a shard's file, relative to the output."""
    if job.format == "huggingface":
        return f"data/train-{number:05d}-of-{job.shards:05d}.parquet"
    if job.format == "tfrecord":
        return shard_name(job.name, number, job.shards)
    if tar is not None:
        return f"{tar.name}.tar"
    return f"part-{number:05d}.parquet"


def export_rows(job: ExportJob, shard: Shard) -> None:
    """Write one Parquet file of the copy, unless its receipt exists."""
    if job.receipts.get(shard.number) is not None:
        return
    start = time.monotonic()
    name = file_of(job, shard.number)
    url = storage.join(job.output, name)
    written = write_shard(url, shard, job.schema, job.metadata, job.choice)
    _commit(job, shard.number, name, written, start)


def export_images(job: ExportJob, tar: Tar, rows: pa.Table) -> None:
    """Write one tar or TFRecord file of the copy, unless its receipt exists."""
    if job.receipts.get(tar.number) is not None:
        return
    start = time.monotonic()
    name = file_of(job, tar.number, tar)
    write = write_tfrecord if job.format == "tfrecord" else write_webdataset
    written = write(storage.join(job.output, name), tar, rows, job.choice)
    _commit(job, tar.number, name, written, start)


def _commit(job: ExportJob, number: int, name: str, written: Written, start: float) -> None:
    rejects = f"{REJECTS}/part-{number:05d}.parquet"
    storage.write_parquet(storage.join(job.output, rejects), written.rejected())
    fs, path = storage.resolve(storage.join(job.output, name))
    details = {
        "file": name,
        "bytes": int(fs.size(path)),
        "nbytes": written.nbytes,
        "labels": written.labels,
        "re_encoded": written.re_encoded,
        "images": written.images,
        "unlabelled": written.unlabelled,
        "faults": dict(written.faults),
        "files": describe_files(job.output, [name, rejects]),
    }
    seconds = time.monotonic() - start
    job.receipts.write(Receipt(number, job.fingerprint, written.counts(), seconds, details))
