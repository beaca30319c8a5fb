"""What a stage's output holds, without the times that differ from run to run."""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq

_TIMES = ("seconds",)


def content(output: str) -> dict:
    """Of every Parquet file its rows, sorted; of every tar its digest; by path.

    The part files that Spark writes differ in name from run to run: they count by folder.
    """
    root, found = Path(output), {}
    for file in sorted(root.rglob("*.tar")):
        found[str(file.relative_to(root))] = hashlib.sha256(file.read_bytes()).hexdigest()
    for file in sorted(root.rglob("*.parquet")):
        relative = file.relative_to(root)
        name = str(relative.parent) if file.name.startswith("part-") else str(relative)
        table = pq.read_table(file)
        table = table.drop_columns([name for name in _TIMES if name in table.column_names])
        found.setdefault(name, []).extend(sorted(map(repr, table.to_pylist())))
    return {name: sorted(rows) if isinstance(rows, list) else rows for name, rows in found.items()}


def digests(output: str) -> dict[str, str]:
    """sha256 of every Parquet file, by path: of stages whose files are the same to the byte."""
    root = Path(output)
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*.parquet"))
    }


def leftovers(output: str) -> list[str]:
    """Files of a killed writer."""
    return [str(file) for file in Path(output).rglob("*") if file.name.endswith(".tmp")]
