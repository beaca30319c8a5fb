"""What a merge wrote, as rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def posterior(folder):
    """{id: row} of a posterior folder."""
    tables = [pq.read_table(path) for path in sorted(Path(folder, "posterior").glob("*.parquet"))]
    return {row["id"]: row for row in pa.concat_tables(tables).to_pylist()}


def read_rows(folder, name):
    tables = [pq.read_table(path) for path in sorted(Path(folder, name).glob("*.parquet"))]
    return pa.concat_tables(tables).to_pylist()


def tables_of(folder):
    """{table: its rows, sorted by key}, of all tables with results."""
    return {
        "posterior": [row for _, row in sorted(posterior(folder).items())],
        "workers": sorted(read_rows(folder, "workers"), key=lambda row: row["worker_id"]),
        "confusions": sorted(read_rows(folder, "confusions"), key=_names),
        "skills": sorted(read_rows(folder, "skills"), key=_names),
    }


def _names(row):
    return [str(value) for value in row.values() if not isinstance(value, float)]


def assert_same_tables(folder, other, within=1e-9):
    """The tables of two runs agree: float64 columns to 1e-9, all others value for value.

    `label_probs`, `risk` and `entropy` are float32: coarser than 1e-9, so they must be equal.
    """
    tables, others = tables_of(folder), tables_of(other)
    for name in ("posterior", "workers", "confusions", "skills"):
        assert len(tables[name]) == len(others[name]), name
        for row, same in zip(tables[name], others[name], strict=True):
            if name == "posterior":
                assert row == same
                continue
            plain = {key for key, value in row.items() if not isinstance(value, float)}
            assert {key: row[key] for key in plain} == {key: same[key] for key in plain}
            for key in row.keys() - plain:
                assert row[key] == pytest.approx(same[key], abs=within, rel=within), (name, row)
