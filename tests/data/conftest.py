from pathlib import Path

import pytest

from tests.data.shards import FIRST_ID, Folders, row_of, write_labels, write_tar


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Write tars of the given sizes with beliefs beside them; returns both folders."""

    def write(*sizes: int, table: bool = False) -> tuple[str, str]:
        first = FIRST_ID
        for shard, size in enumerate(sizes):
            ids = list(range(first, first + size))
            write_tar(tmp_path / f"images/{shard:05d}.tar", ids, table)
            rows = {image_id: row_of(image_id) for image_id in ids}
            write_labels(tmp_path / f"beliefs/{shard:05d}.parquet", rows)
            first += size
        return str(tmp_path / "images"), str(tmp_path / "beliefs")

    return write
