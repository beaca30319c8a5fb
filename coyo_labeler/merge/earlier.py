"""Skills that an earlier merge found, for another one to begin with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.model import Calibration
from coyo_labeler.em.segments import F64, I64, Bool, distinct, find
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas

FOLDER = "skills"

CLASSES_FOLDER = "classes"

#: A class that was not seen then starts with this part of an even share, for it can be seen now.
_UNSEEN = 1e-3


def classes_table(log_class_prior: F64, counts: F64) -> pa.Table:
    """The shares of all classes, log (C,), and the expected images of each, (C,)."""
    label = np.arange(len(log_class_prior), dtype=np.int32)
    return pa.table([label, np.exp(log_class_prior), counts], schema=schemas.CLASSES)


def skills_table(names: Sequence[str], space: CellSpace, cells: I64, counts: F64) -> pa.Table:
    """The counts of cells (keys, sorted) that are no confusions, as schemas.SKILLS."""
    confusion = space.model.worker_model == "confusion"
    small = (cells < space.constants) & (counts > 0)
    if confusion:
        small &= cells >= space.choices
    keys, kept = cells[small], counts[small]
    choice = keys < space.choices
    outcomes = np.where(choice, 2, space.answers)
    row, outcome = np.divmod(np.where(choice, keys, keys - space.choices), outcomes)
    workers = max(space.model.workers, 1)
    return pa.table(
        [
            pa.array(names, pa.string()).take(pa.array(row % workers)),
            pa.array(np.where(choice, "choice", "answer").tolist(), pa.string()),
            pa.array(row >= workers, mask=np.full(len(keys), not confusion)),
            outcome.astype(np.int32),
            kept,
        ],
        schema=schemas.SKILLS,
    )


@dataclass(frozen=True)
class Earlier:
    """An earlier output of merge: where, how its workers were modelled, its calibration."""

    url: str
    worker_model: str
    calibration: Calibration
    true_share: float

    def log_class_prior(self, classes: int) -> F64 | None:
        """The log share of each class, (C,); None where it was not estimated or C was another."""
        share = self._of_classes("share", classes)
        if share is None:
            return None
        share = np.maximum(share, _UNSEEN / classes)
        return np.asarray(np.log(share / share.sum()))

    def class_counts(self, classes: int) -> F64:
        """The expected number of images of each class, (C,)."""
        images = self._of_classes("images", classes)
        return np.zeros(classes) if images is None else images

    def _of_classes(self, column: str, classes: int) -> F64 | None:
        found = list(read_tables(storage.join(self.url, CLASSES_FOLDER), schemas.CLASSES))
        if not found or found[0].num_rows != classes:
            return None
        return np.asarray(found[0][column].to_numpy())


def read_earlier(url: str, worker_model: str) -> Earlier:
    """What there is. worker_model: as wanted; auto: any.

    Raises: InputError where there is no finished merge, or one of another worker model.
    """
    manifest: Any = storage.read_json(storage.join(url, "_manifest.json"))
    if manifest is None or manifest["stage"] != "merge":
        raise InputError(f"warm_start: {url} is no finished output of merge; give one")
    before = manifest["details"]["worker_model"]
    if worker_model not in ("auto", before):
        raise InputError(
            f"warm_start: {url} has workers of the model {before}, not {worker_model}; set "
            f"worker_model={before} or leave warm_start out"
        )
    found = manifest["details"]["calibration"]
    share = manifest["details"].get("true_share")
    calibration = Calibration(found["a"], found["b"])
    return Earlier(url, before, calibration, 0.5 if share is None else share)


def earlier_counts(earlier: Earlier, workers: Sequence[str], space: CellSpace, cells: I64) -> F64:
    """What the earlier merge counted in each of these cells (keys, sorted), 0 where nothing.

    Workers and classes that are not known here are left out.
    """
    counts = np.zeros(len(cells))
    names = pa.array(workers, pa.string())
    for keys, found in _earlier_cells(earlier.url, names, space):
        place, here = find(cells, keys)
        np.add.at(counts, place[here], found[here])
    return counts


def earlier_cells(earlier: Earlier, workers: Sequence[str], space: CellSpace) -> I64:
    """All cells (keys, sorted) in which the earlier merge counted something."""
    names = pa.array(workers, pa.string())
    keys = [keys for keys, _ in _earlier_cells(earlier.url, names, space)]
    return distinct(np.sort(np.concatenate([np.zeros(0, np.int64), *keys])))


def _earlier_cells(url: str, names: pa.Array, space: CellSpace) -> Iterator[tuple[I64, F64]]:
    model = space.model
    if model.worker_model == "confusion":
        for table in read_tables(storage.join(url, "confusions"), schemas.CONFUSIONS):
            worker, known = _numbers(table, names)
            true, voted = table["true_label"].to_numpy(), table["voted_label"].to_numpy()
            known &= (true < model.classes) & (voted < model.classes)
            keys = space.choice_keys(true[known], worker[known], voted[known])
            yield keys, table["count"].to_numpy()[known]
    for table in read_tables(storage.join(url, FOLDER), schemas.SKILLS):
        worker, known = _numbers(table, names)
        choice = np.asarray(pc.equal(table["kind"], "choice"))
        outcome = table["outcome"].to_numpy().astype(np.int64)
        true = np.asarray(pc.fill_null(table["true"], False)).astype(np.int64)
        row = worker.astype(np.int64) + true * model.workers
        keys = np.where(choice, 2 * worker + outcome, space.choices + row * space.answers + outcome)
        yield keys[known], table["count"].to_numpy()[known]


def read_tables(url: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """The files of a table that merge wrote, in name order; none where the folder is not there."""
    for file_url in sorted(storage.files_of(url)) if storage.exists(url) else ():
        fs, path = storage.resolve(file_url)
        yield pq.read_table(path, filesystem=fs, columns=schema.names)


def _numbers(table: pa.Table, names: pa.Array) -> tuple[NDArray[np.int32], Bool]:
    """The number of each row's worker, and whether he is known."""
    found = pc.index_in(table["worker_id"], value_set=names).combine_chunks()
    known = np.asarray(pc.is_valid(found)).astype(bool)
    return pc.fill_null(found, 0).to_numpy(zero_copy_only=False).astype(np.int32), known
