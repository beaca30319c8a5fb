"""One exported Parquet file: rows read, chosen and written, batch after batch."""

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
    """What became of a shard's rows. labels: labels that were written, over all images.

    nbytes: of a Parquet file's rows in memory.
    re_encoded: images whose bytes are not those of the tar. images: samples of the tar, and how
    many of them have no labels. faults: how many have neither labels nor a picture with an id, by
    reason.
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
    """Write the chosen rows of a shard, atomically. metadata: of the file, key by key.

    Raises: InputError naming the image or file at fault.
    """
    written = Written()
    told = schema.with_metadata(metadata or None)
    storage.write_tables(url, told, _chosen(shard, schema, choice, written))
    return written


def _chosen(
    shard: Shard, schema: pa.Schema, choice: Choice, written: Written
) -> Iterator[pa.Table]:
    for rows in read_shard(shard, schema):
        kept, rejects = choose(rows, choice)
        written.rows_in += rows.num_rows
        written.rows_out += kept.num_rows
        written.labels += sum(len(chunk.flatten()) for chunk in kept["labels"].chunks)
        written.nbytes += kept.nbytes
        written.rejects.append(rejects)
        yield kept
