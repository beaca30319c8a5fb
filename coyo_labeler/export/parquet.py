"""Writes one exported Parquet file: reads, chooses and writes its rows batch by batch."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.export.choose import Choice, choose, count_reasons
from coyo_labeler.export.plan import Shard, read_shard
from coyo_labeler.formats import schemas
from coyo_labeler.manifest import Counts


@dataclass
class Written:
    """The result for a shard's rows.

    labels: labels written, over all images. nbytes: size in memory of a Parquet file's rows.
    re_encoded: images whose bytes differ from those in the tar. images: samples of the tar;
    unlabelled: how many of them have no labels. faults: samples with neither labels nor a usable
    picture and id, by reason.
    """

    rows_in: int = 0
    rows_out: int = 0
    labels: int = 0
    nbytes: int = 0
    re_encoded: int = 0
    images: int = 0
    unlabelled: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    rejects: list[pa.Table] = field(default_factory=list)

    def counts(self) -> Counts:
        """Rows in, out and rejected by reason."""
        return Counts(self.rows_in, self.rows_out, dict(count_reasons(self.rejected())))

    def rejected(self) -> pa.Table:
        """All rejects (schemas.EXPORT_REJECTS)."""
        return pa.concat_tables([schemas.EXPORT_REJECTS.empty_table(), *self.rejects])


def write_shard(
    url: str, shard: Shard, schema: pa.Schema, metadata: dict[str, str], choice: Choice
) -> Written:
    """Write the chosen rows of a shard, atomically. metadata: of the file.

    Raises: InputError naming the image or file at fault.
    """
    written = Written()
    file_schema = schema.with_metadata(metadata or None)
    storage.write_tables(url, file_schema, _chosen(shard, schema, choice, written))
    return written


def _chosen(
    shard: Shard, schema: pa.Schema, choice: Choice, written: Written
) -> Iterator[pa.Table]:
    for rows in read_shard(shard, schema):
        chosen, rejects = choose(rows, choice)
        written.rows_in += rows.num_rows
        written.rows_out += chosen.num_rows
        written.labels += sum(len(chunk.flatten()) for chunk in chosen["labels"].chunks)
        written.nbytes += chosen.nbytes
        written.rejects.append(rejects)
        yield chosen
