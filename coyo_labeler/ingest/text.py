"""Text that is no UTF-8, which Spark hands on as it is and most readers of Parquet refuse."""

import pyarrow as pa


def readable(rows: pa.Table) -> pa.Table:
    """Rows in whose text columns each invalid byte has become U+FFFD; mostly the same rows."""
    for index, field in enumerate(rows.schema):
        if pa.types.is_string(field.type) and not _is_valid(rows[index]):
            raw = rows[index].cast(pa.binary()).to_pylist()
            texts = [None if data is None else data.decode(errors="replace") for data in raw]
            rows = rows.set_column(index, field, pa.array(texts, field.type))
    return rows


def _is_valid(column: pa.ChunkedArray) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
