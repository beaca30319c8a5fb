"""What a merge wrote, as rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def posterior(folder):
    """{id: row} of a posterior folder."""
    tables = [pq.read_table(path) for path in sorted(Path(folder, "posterior").glob("*.parquet"))]
    return {row["id"]: row for row in pa.concat_tables(tables).to_pylist()}


def read_rows(folder, name):
    tables = [pq.read_table(path) for path in sorted(Path(folder, name).glob("*.parquet"))]
    return pa.concat_tables(tables).to_pylist()


def tables_of(folder):
    """All that a run found, rounded far below what it is good for, sorted by key."""
    rows = [
        {**row, "label_probs": np.round(row["label_probs"], 6).tolist()}
        for _, row in sorted(posterior(folder).items())
    ]
    workers = [
        {k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()}
        for row in read_rows(folder, "workers")
    ]
    confusions = sorted(
        (row["worker_id"], row["true_label"], row["voted_label"], round(row["count"], 9))
        for row in read_rows(folder, "confusions")
    )
    return rows, workers, confusions
