"""Small tables of questions, and settings of the two stages."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler.formats import schemas
from coyo_labeler.manifest import Manifest
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage

#: Ids above 2^53, which a browser rounds.
FIRST = 2**53 + 1


def question(number: int, kind: str = "choice", **fields: Any) -> dict[str, Any]:
    """A question of schemas.QUESTIONS; the tenth image of a round, say."""
    image_id = FIRST + number
    is_choice = kind == "choice"
    label = None if is_choice else 8087
    return {
        "question_id": f"r0001:{image_id}" + ("" if is_choice else f":{label}"),
        "image_id": image_id,
        "key": f"00000_{number:05d}",
        "url": f"https://images.example/{number}.jpg?signature=SECRETSIGNATURE",
        "kind": kind,
        "label": label,
        "candidates": [8087, 11054, 5] if is_choice else None,
        "candidate_probs": [0.625, 0.25, 0.0625] if is_choice else None,
        "purpose": ("uncertain", "audit", "gold")[number % 3],
        "inclusion_probability": 0.28125,
        "overlap": 1,
        "risk": 0.40625,
        "worker_id": None,
        **fields,
    }


def write_questions(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write questions as select does; returns their folder."""
    path = folder / "questions"
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schemas.QUESTIONS), path / "part-0.parquet")
    return path


def run(stage: str, **words: Any) -> tuple[Manifest, bool]:
    """Run send or collect; a word's dots are written as double underscores."""
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in words.items()]
    return run_stage(STAGES[stage], read_stage_settings(STAGES[stage], overrides))


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table of an output, without the columns that are null."""
    rows = pq.read_table(folder / table).to_pylist()
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The bytes of the tables of an output."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("*/*.parquet")}
