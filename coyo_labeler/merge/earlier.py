"""What an earlier merge left, for another one to begin with: its tables, written and read here.

A warm start uses the skills of its workers for the first iteration. An increment adds new votes to
it and does not go through the earlier votes again: an image's earlier posterior is its belief now,
the earlier counts of workers stay as they are, and the expected counts of the new votes are added.
So the E-step covers only the images with new votes, which incremental EM allows (Neal & Hinton
1998). All other images keep their posterior: later skills do not change it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, FiniteFloat

from coyo_labeler import storage
from coyo_labeler.em.cells import CellSpace
from coyo_labeler.em.model import Calibration, Model, WorkerModel
from coyo_labeler.em.partitions import EarlierCounts
from coyo_labeler.em.segments import F64, I64, Bool, distinct, find
from coyo_labeler.em.tallies import COLUMNS, COMPARED
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import cast_table, check_types
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space
from coyo_labeler.inputs import MANIFEST
from coyo_labeler.manifest import read_manifest
from coyo_labeler.parquet_pages import read_tables
from coyo_labeler.storage_errors import parsing

#: Folders of the tables that only another merge reads.
SKILLS_FOLDER, CLASSES_FOLDER, TALLY_FOLDER = "skills", "classes", "tally"

#: What to do about a file of it that is damaged.
_REMEDY = "merge all votes once more, anew, or leave warm_start out"

#: A class that the earlier merge did not see starts with this part of an even share: it may occur
#: now.
_UNSEEN = 1e-3


class _Curve(BaseModel):
    knots: tuple[FiniteFloat, ...]
    a: tuple[FiniteFloat, ...]
    b: tuple[FiniteFloat, ...]
    fades: bool
    tied: bool = False


class _Calibration(BaseModel):
    a: FiniteFloat
    b: FiniteFloat
    curve: _Curve | None = None


class _Details(BaseModel):
    """What a merge's manifest says of its parameters."""

    worker_model: WorkerModel
    calibration: _Calibration
    class_prior: str | None = None
    true_share: FiniteFloat | None = None


def classes_table(log_class_prior: F64, counts: F64) -> pa.Table:
    """schemas.CLASSES, from log shares (C,) and the expected images of each class, (C,)."""
    label = np.arange(len(log_class_prior), dtype=np.int32)
    return pa.table([label, np.exp(log_class_prior), counts], schema=schemas.CLASSES)


def tally_table(workers: Sequence[str], tally: NDArray[np.int64]) -> pa.Table:
    """The tally (J, 5) as schemas.TALLY."""
    return pa.table([pa.array(workers, pa.string()), *tally.T], schema=schemas.TALLY)


def skills_table(workers: Sequence[str], space: CellSpace, cells: I64, counts: F64) -> pa.Table:
    """The counts of those cells (keys, sorted) that are no confusions, as schemas.SKILLS."""
    confusion = space.model.worker_model == "confusion"
    listed = (cells < space.constants) & (counts > 0)
    if confusion:
        listed &= cells >= space.choices
    keys, listed_counts = cells[listed], counts[listed]
    choice = keys < space.choices
    outcomes = np.where(choice, 2, space.answers)
    row, outcome = np.divmod(np.where(choice, keys, keys - space.choices), outcomes)
    number = max(space.model.workers, 1)
    return pa.table(
        [
            pa.array(workers, pa.string()).take(pa.array(row % number)),
            pa.array(np.where(choice, "choice", "answer").tolist(), pa.string()),
            pa.array(row >= number, mask=np.full(len(keys), not confusion)),
            outcome.astype(np.int32),
            listed_counts,
        ],
        schema=schemas.SKILLS,
    )


@dataclass(frozen=True)
class Earlier:
    """A finished output of merge, at `url`: how its workers were modelled, and what it found.

    config: its settings. Its tables are read when they are asked for; the counts of cells, which
    can be many, by the tasks that hold these cells.
    """

    url: str
    worker_model: WorkerModel
    estimated_class_prior: bool
    calibration: Calibration
    true_share: float
    config: Mapping[str, Any]

    def check_increment(self, space: LabelSpace) -> None:
        """Raises: InputError where votes cannot be added to this merge."""
        if self.config.get("truth") != "single":
            raise InputError(
                f"incremental: {self.url} was made with truth=multi; merge all votes together"
            )
        label_space = self.config.get("label_space")
        if not isinstance(label_space, str):
            raise InputError(f"incremental: the manifest of {self.url} names no label space")
        if load_label_space(label_space) != space:
            raise InputError(
                f"incremental: {self.url} was made in the label space {label_space}; set "
                f"label_space={label_space}"
            )

    @property
    def posterior_url(self) -> str:
        """Where the posterior is."""
        return storage.join(self.url, "posterior")

    def with_workers(self, workers: Sequence[str]) -> list[str]:
        """The workers of both merges, sorted; workers: those of the new votes."""
        return sorted({*workers, *self._tally["worker_id"].to_pylist()})

    def add_tally(self, workers: Sequence[str], tally: NDArray[np.int64]) -> NDArray[np.int64]:
        """The votes of both merges by worker, (J, 5); workers: all, sorted; tally: of new votes.

        The columns of agreement count agreement with the machine. New votes are compared with the
        earlier posterior instead, so theirs are left out.
        """
        index = np.searchsorted(workers, self._tally["worker_id"].to_pylist())
        added = tally.copy()
        added[:, COMPARED:] = 0
        added[index] += np.stack([self._tally[name].to_numpy() for name in COLUMNS], axis=1)
        return added

    @cached_property
    def _tally(self) -> pa.Table:
        tables = list(_read_tables(storage.join(self.url, TALLY_FOLDER), schemas.TALLY))
        if not tables:
            raise InputError(
                f"incremental: {self.url} has no {TALLY_FOLDER}/; merge all votes once more, anew"
            )
        return pa.concat_tables(tables)

    def first_class_prior(self, model: Model) -> F64 | None:
        """The log class prior to begin from, (C,), where it is estimated."""
        return self.log_class_prior(model.classes) if model.estimate_class_prior else None

    def log_class_prior(self, classes: int) -> F64 | None:
        """The log share of each class, (C,); None where it was not estimated or C was different."""
        share = self._of_classes("share", classes)
        if share is None:
            return None
        share = np.maximum(share, _UNSEEN / classes)
        return np.asarray(np.log(share / share.sum()))

    def _of_classes(self, column: str, classes: int) -> F64 | None:
        tables = list(_read_tables(storage.join(self.url, CLASSES_FOLDER), schemas.CLASSES))
        if not tables or tables[0].num_rows != classes:
            return None
        return np.asarray(tables[0][column].to_numpy())

    def counts_of(self, workers: Sequence[str], space: CellSpace, cells: I64) -> F64:
        """Its count of each of these cells (keys, sorted), 0 where it has none.

        Counts of workers and classes that do not occur here are left out.
        """
        counts = np.zeros(len(cells))
        for keys, key_counts in self._counted(workers, space):
            index, known = find(cells, keys)
            np.add.at(counts, index[known], key_counts[known])
        return counts

    def counts(self, workers: Sequence[str], space: CellSpace) -> EarlierCounts:
        """All of its counts, for an increment to add to."""
        keys = [keys for keys, _ in self._counted(workers, space)]
        cells = distinct(np.sort(np.concatenate([np.zeros(0, np.int64), *keys])))
        classes = space.model.classes
        images = self._of_classes("images", classes)
        return EarlierCounts(
            cells,
            self.counts_of(workers, space, cells),
            np.zeros(classes) if images is None else images,
        )

    def _counted(self, workers: Sequence[str], space: CellSpace) -> Iterator[tuple[I64, F64]]:
        """Keys of cells and their counts, table by table."""
        model, names = space.model, pa.array(workers, pa.string())
        if model.worker_model == "confusion":
            for table in _read_tables(storage.join(self.url, "confusions"), schemas.CONFUSIONS):
                worker, known = _number_workers(table, names)
                true, voted = table["true_label"].to_numpy(), table["voted_label"].to_numpy()
                known &= (true < model.classes) & (voted < model.classes)
                keys = space.choice_keys(true[known], worker[known], voted[known])
                yield keys, table["count"].to_numpy()[known]
        for table in _read_tables(storage.join(self.url, SKILLS_FOLDER), schemas.SKILLS):
            worker, known = _number_workers(table, names)
            choice = np.asarray(pc.equal(table["kind"], "choice"))
            outcome = table["outcome"].to_numpy().astype(np.int64)
            true = np.asarray(pc.fill_null(table["true"], False)).astype(np.int64)
            row = worker.astype(np.int64) + true * model.workers
            answer_keys = space.choices + row * space.answers + outcome
            keys = np.where(choice, 2 * worker + outcome, answer_keys)
            yield keys[known], table["count"].to_numpy()[known]


def read_earlier(url: str | None, worker_model: str) -> Earlier | None:
    """The earlier merge at `url`, None without one. worker_model: the one wanted; auto: any.

    Raises: InputError where there is no finished merge, or one of another worker model.
    """
    if url is None:
        return None
    manifest = read_manifest(url)
    if manifest is None or manifest.stage != "merge":
        raise InputError(f"warm_start: {url} is no finished output of merge; give one")
    with parsing(storage.join(url, MANIFEST), _REMEDY):
        details = _Details.model_validate(manifest.details)
    before = details.worker_model
    if worker_model not in ("auto", before):
        raise InputError(
            f"warm_start: {url} has workers of the model {before}, not {worker_model}; set "
            f"worker_model={before} or leave warm_start out"
        )
    calibration = Calibration.from_json(details.calibration.model_dump())
    share = 0.5 if details.true_share is None else details.true_share
    # An earlier version does not say what its class prior was, but had no `auto`.
    prior = details.class_prior or manifest.config.get("class_prior")
    return Earlier(url, before, prior == "estimated", calibration, share, manifest.config)


def _read_tables(url: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """The files of a table that merge wrote, in name order; none where the folder is not there.

    Raises: InputError naming a file that is not readable, lacks a column, or has other values.
    """
    for file_url in sorted(storage.files_of(url)) if storage.exists(url) else ():
        with storage.open_parquet("warm_start", file_url, _REMEDY) as parquet:
            check_types("warm_start", file_url, parquet.schema_arrow, schema, _REMEDY)
            with storage.parsing_parquet("warm_start", file_url, _REMEDY):
                tables = list(read_tables(parquet, schema.names))
        source = f"warm_start: {file_url}"
        cast = (cast_table(table, schema, source) for table in tables)
        yield pa.concat_tables([schema.empty_table(), *cast])


def _number_workers(table: pa.Table, names: pa.Array) -> tuple[NDArray[np.int32], Bool]:
    """The index of each row's worker among names, and whether it is one of them."""
    index = pc.index_in(table["worker_id"], value_set=names).combine_chunks()
    known = np.asarray(pc.is_valid(index)).astype(bool)
    return pc.fill_null(index, 0).to_numpy(zero_copy_only=False).astype(np.int32), known
