"""Writes one part of the catalog: consecutive whole shards, and the rows that were dropped."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import field_validator

from coyo_labeler import storage
from coyo_labeler.formats import schemas
from coyo_labeler.ingest.columns import outside
from coyo_labeler.ingest.phash import to_text
from coyo_labeler.ingest.statistics import Statistics
from coyo_labeler.ingest.text import readable
from coyo_labeler.ingest.twins import TwinGroups
from coyo_labeler.manifest import Counts
from coyo_labeler.receipts import Details, Receipt
from coyo_labeler.written import describe_files

#: Rows that are processed at once.
_CHUNK_ROWS = 50_000

#: Columns whose values hardly repeat, so that a dictionary would not pay.
_UNIQUE = frozenset({"id", "url", "imagehash", "fallback_urls", "detail", "kept_id"})


class PartDetails(Details):
    """The details of a part's receipt."""

    statistics: dict[str, list[int]]

    @field_validator("statistics")
    @classmethod
    def _histograms(cls, value: dict[str, list[int]]) -> dict[str, list[int]]:
        bins = {name: len(counts) for name, counts in Statistics().to_json().items()}
        if bins != {name: len(counts) for name, counts in value.items()}:
            raise ValueError(f"the histograms and their bins are {bins}")
        return value


def write_part(
    batches: Iterable[pa.RecordBatch],
    part: int,
    cuts: npt.NDArray[np.int64],
    schema: pa.Schema,
    output: str,
    fingerprint: str,
    max_fallback_urls: int,
) -> Receipt:
    """Write part-{part}.parquet in catalog/, rejects/ and duplicates/, each complete or absent.

    batches: the part's rows, of `schema`: the columns that `TwinGroups` takes, then reason and
    detail, then the carried columns. A row with a reason is a reject. These columns may be absent:
    sampled, where all rows are; near_of and near_distance, where all are null. cuts: (shards,)
    ascending, the position at which each shard begins. A shard is a row group sorted by id, so
    that a reader of one shard reads no more. Memory: a few shards and chunks of rows.
    """
    started = time.monotonic()
    statistics, rejected = Statistics(), Counter[str]()
    rows_in = rows_out = 0
    unfinished: pa.Table | None = None  # rows of a shard that may continue in the next chunk
    with ExitStack() as files:
        writers: dict[str, pq.ParquetWriter] = {}

        def write(name: str, rows: pa.Table, rows_per_group: int | None = None) -> None:
            if name not in writers:
                url = storage.join(output, _file_name(name, part))
                file = files.enter_context(storage.open_atomic(url))
                writer = pq.ParquetWriter(
                    file,
                    rows.schema,
                    **storage.PARQUET,
                    use_dictionary=[
                        column for column in rows.schema.names if column not in _UNIQUE
                    ],
                )
                writers[name] = files.enter_context(writer)
            if rows.num_rows:
                writers[name].write_table(rows, rows_per_group)

        groups = TwinGroups(max_fallback_urls)
        for chunk, ended in _chunks(batches, schema):
            rows = readable(chunk)
            rejects, accepted = _judged(rows)
            accepted = _complete(accepted)
            settled = groups.end(accepted) if ended else groups.add(accepted)
            rejects = pa.concat_tables([rejects, settled.rejects])
            statistics.add(settled.kept, settled.group_sizes)
            rows_in, rows_out = rows_in + rows.num_rows, rows_out + settled.kept.num_rows
            rejected.update(_counts(rejects["reason"]))
            write("rejects", rejects)
            write("duplicates", settled.duplicates)
            catalog = _to_catalog(settled.kept, cuts)
            if unfinished is not None:
                catalog = pa.concat_tables([unfinished, catalog])
            whole, unfinished = (catalog, None) if ended else _whole_shards(catalog)
            write("catalog", catalog.slice(0, 0))
            for shard in _by_shard(whole):
                write("catalog", shard, shard.num_rows)
    return Receipt(
        part,
        fingerprint,
        Counts(rows_in, rows_out, dict(rejected)),
        time.monotonic() - started,
        {
            "statistics": statistics.to_json(),
            "files": describe_files(output, [_file_name(name, part) for name in writers]),
        },
    )


def _file_name(table: str, part: int) -> str:
    return f"{table}/part-{part:05d}.parquet"


def _chunks(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> Iterator[tuple[pa.Table, bool]]:
    """At least one table of some `_CHUNK_ROWS` rows, each with whether it is the last."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if rows >= _CHUNK_ROWS:
            yield pa.Table.from_batches(waiting, schema), False
            waiting, rows = [], 0
        waiting.append(batch)
        rows += batch.num_rows
    yield pa.Table.from_batches(waiting, schema), True


def _judged(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows that have a reason, as rejects, and the others without the two columns."""
    accepted = pc.is_null(rows["reason"])
    rejects = rows.filter(pc.invert(accepted)).select(schemas.CATALOG_REJECTS.names)
    others = rows if rejects.num_rows == 0 else rows.filter(accepted)
    return rejects.cast(schemas.CATALOG_REJECTS), others.drop_columns(["reason", "detail"])


def _complete(rows: pa.Table) -> pa.Table:
    """The rows with the columns that may be absent, in the order of `TwinGroups`."""
    n = rows.num_rows
    defaults = {
        "sampled": pa.repeat(True, n),
        "near_of": pa.nulls(n, pa.int64()),
        "near_distance": pa.nulls(n, pa.int32()),
    }
    columns = dict(zip(rows.column_names, rows.columns, strict=True))
    own = {name: columns.pop(name) for name in ("position", "bits", "id", "url", "width", "height")}
    judged = {name: columns.pop(name, default) for name, default in defaults.items()}
    return pa.table({**own, **judged, **columns})


def _to_catalog(kept: pa.Table, cuts: npt.NDArray[np.int64]) -> pa.Table:
    """Kept rows with the columns of the catalog. cuts: see `write_part`."""
    shard = np.searchsorted(cuts, kept["position"].to_numpy(), side="right") - 1
    kept = kept.append_column("shard", pa.array(shard.astype(np.int32)))
    kept = kept.append_column("imagehash", to_text(kept["bits"].to_numpy()))
    ours = pa.schema([*schemas.CATALOG, *schemas.CATALOG_OPTIONAL])
    first = kept.schema.get_field_index("near_distance") + 1
    extras = list(kept.schema.remove_metadata())[first:-3]
    chosen = kept.select([*ours.names, *(field.name for field in extras)])
    named = [field.with_name(outside(field.name)) for field in extras]
    wanted = pa.schema([*ours, *named])
    return chosen.rename_columns(wanted.names).cast(wanted)


def _whole_shards(catalog: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of all shards but the last, and those of the last."""
    shard = catalog["shard"].to_numpy()
    last = int(np.searchsorted(shard, shard[-1])) if len(shard) else 0
    return catalog.slice(0, last), catalog.slice(last)


def _by_shard(catalog: pa.Table) -> Iterator[pa.Table]:
    """The rows of each shard, sorted by id."""
    shard = catalog["shard"].to_numpy()
    ends = [*np.flatnonzero(np.diff(shard)) + 1, len(shard)] if len(shard) else []
    begin = 0
    for end in ends:
        yield catalog.slice(begin, end - begin).sort_by("id")
        begin = end


def _counts(reasons: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in reasons.value_counts().to_pylist()}
