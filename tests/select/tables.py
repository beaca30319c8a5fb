"""Labels, votes and gold typed in as tables, and the stage run on them."""

import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler.formats import schemas
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage

CLASSES = 6


def write_labels(folder, rows, files=2, groups=2, posterior=False):
    """rows: {id: {"probs": {class: p}, "votes": n, "hash": text}}; all but the first are optional.

    groups: rows of a row group. posterior: the output of a merge, not beliefs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema = schemas.POSTERIOR if posterior else schemas.BELIEFS
    for number in range(files):
        own = [(image, row) for i, (image, row) in enumerate(rows.items()) if i % files == number]
        tops = [max(row["probs"].values(), default=0.0) for _, row in own]
        columns = {
            "id": [image for image, _ in own],
            "url": [f"http://x/{image}.jpg" for image, _ in own],
            "imagehash": [row.get("hash") for _, row in own],
            "labels": [list(row["probs"]) for _, row in own],
            "label_probs": [list(row["probs"].values()) for _, row in own],
            "width": [640] * len(own),
            "height": [480] * len(own),
            "n_votes": [row.get("votes", 0) for _, row in own],
            "risk": [1 - top for top in tops],
            "entropy": [1 - top for top in tops],
        }
        table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
        pq.write_table(table, folder / f"{number:05d}.parquet", row_group_size=groups)
    return str(folder)


def write_csv(path, header, rows):
    lines = [header, *(",".join("" if v is None else str(v) for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def select(tmp_path, output="out", spark=None, **settings):
    """The manifest of a run; without a session in threads."""
    space = tmp_path / "space.txt"
    space.write_text("\n".join(f"class {c}" for c in range(CLASSES)))
    given = {"label_space": space, "output": tmp_path / output, "budget": 4}
    given |= {"engine": "local" if spark is None else "spark", **settings}
    words = [f"{key}={value}" for key, value in given.items()]
    return run_stage(STAGES["select"], read_stage_settings(STAGES["select"], words), spark)[0]


def questions(tmp_path, output="out"):
    """The questions by image id."""
    rows = pq.read_table(tmp_path / output / "questions").to_pylist()
    assert len({row["question_id"] for row in rows}) == len(rows)
    return {row["image_id"]: row for row in rows}


def gold_key(tmp_path, output="out"):
    return pq.read_table(tmp_path / output / "gold_key").to_pylist()
