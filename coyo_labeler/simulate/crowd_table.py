"""A crowd from a table of confusions, as a team measured it or as a merge estimated it."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import cast_table, check_columns
from coyo_labeler.simulate.crowd import Crowd
from coyo_labeler.simulate.inference import SkillPrior, estimate_skills

F64 = NDArray[np.float64]

#: A table of probabilities of answers.
PROBABILITIES = pa.schema(
    [
        pa.field("worker_id", pa.string()),
        pa.field("true_label", pa.int32()),
        pa.field("voted_label", pa.int32()),
        pa.field("probability", pa.float64()),
    ]
)

#: How far the answers to one class may be from summing to one.
_TOLERANCE = 0.01
#: More numbers than this in all matrices are a mistake.
_MOST_CELLS = 200_000_000


def read_crowd(url: str, classes: int | None) -> Crowd:
    """The workers of a table.

    url: a Parquet table with `probability`, or with `count`, as merge writes it to confusions/; or
    the output of a merge. classes: how many there are; None: as many as the table names.

    Raises: InputError naming the row or worker at fault.
    """
    table, counted = _read(storage.locate(url, "confusions"))
    worker, names = _encode(table["worker_id"])
    truth = table["true_label"].to_numpy().astype(np.int64)
    voted = table["voted_label"].to_numpy().astype(np.int64)
    value = table.column(3).to_numpy()
    _check(url, table, truth, voted, value, classes)
    size = classes or int(max(truth.max(), voted.max())) + 1
    if len(names) * size * size > _MOST_CELLS:
        raise InputError(
            f"crowd: {url}: {len(names):,} workers of {size:,} classes are too many to simulate; "
            "give fewer of them"
        )
    theta = np.zeros((len(names), size, size))
    np.add.at(theta, (worker, truth, voted), value)
    if counted:
        prior = SkillPrior(accuracy=min(max(_share_right(theta), 0.01), 0.99))
        log_theta = estimate_skills(theta.transpose(0, 2, 1), prior).log_theta
        theta = np.exp(log_theta.transpose(0, 2, 1).astype(np.float64))
    else:
        theta = _completed(url, theta, names)
    return Crowd(theta / theta.sum(axis=2, keepdims=True), names)


def largest_label(url: str) -> int:
    """The highest class that a table of confusions names. Raises: InputError, see `read_crowd`."""
    table, _ = _read(storage.locate(url, "confusions"))
    return int(max(np.max(table["true_label"].to_numpy()), np.max(table["voted_label"].to_numpy())))


def _read(folder: str) -> tuple[pa.Table, bool]:
    files = sorted(storage.files_of(folder)) if storage.exists(folder) else []
    if not files:
        raise InputError(
            f"crowd: {folder} is neither uniform:<accuracy>, structured:<accuracy>, a Parquet "
            "table of confusions, nor the output of a merge"
        )
    tables, counted = [], False
    for file in files:
        with storage.open_parquet("crowd", file) as parquet:
            present = parquet.schema_arrow.names
            counted = "count" in present and "probability" not in present
            schema = schemas.CONFUSIONS if counted else PROBABILITIES
            check_columns("crowd", file, present, schema.names)
            with storage.parsing_parquet("crowd", file):
                read = parquet.read(columns=schema.names)
        tables.append(cast_table(read, schema, f"crowd: {file}", 0))
    table = pa.concat_tables(tables)
    for name in table.column_names:
        if table[name].null_count:
            raise InputError(f"crowd: {folder}: column '{name}' has a null; drop the row")
    if not table.num_rows:
        remedy = "merge with worker_model=confusion" if counted else "give those of some workers"
        raise InputError(f"crowd: {folder} has no row, so no confusions of any worker; {remedy}")
    return table, counted


def _encode(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Workers by number, in the order of their names."""
    names = sorted(set(column.to_pylist()))
    number = {name: index for index, name in enumerate(names)}
    return np.array([number[name] for name in column.to_pylist()], np.int64), tuple(names)


def _check(
    url: str,
    table: pa.Table,
    truth: NDArray[np.int64],
    voted: NDArray[np.int64],
    value: F64,
    classes: int | None,
) -> None:
    for name, labels in (("true_label", truth), ("voted_label", voted)):
        outside = np.flatnonzero((labels < 0) | (labels >= (classes or 2**31)))
        if len(outside):
            raise InputError(
                f"crowd: {url}: row {outside[0] + 1}: {name} {labels[outside[0]]} is outside the "
                f"classes of gold (0..{(classes or 2**31) - 1}); give the crowd of these classes, "
                "or set label_space"
            )
    name = table.column_names[3]
    most = 1 + _TOLERANCE if name == "probability" else np.inf
    wrong = np.flatnonzero(~((value >= 0) & (value <= most) & np.isfinite(value)))
    if len(wrong):
        raise InputError(
            f"crowd: {url}: row {wrong[0] + 1}: {name} {value[wrong[0]]:g} is not "
            f"{'between 0 and 1' if name == 'probability' else '0 or more'}; correct it"
        )


def _share_right(counts: F64) -> float:
    total = counts.sum()
    return float(np.trace(counts, axis1=1, axis2=2).sum() / total) if total > 0 else 0.5


def _completed(url: str, theta: F64, names: tuple[str, ...]) -> F64:
    """Rows of classes that a worker's table lacks are the mean of the other workers'."""
    total = theta.sum(axis=2)
    wrong = np.argwhere((total > 0) & (np.abs(total - 1) > _TOLERANCE))
    if len(wrong):
        worker, truth = wrong[0]
        raise InputError(
            f"crowd: {url}: the probabilities of worker '{names[worker]}' for class {truth} sum to "
            f"{total[worker, truth]:.3f}; they must sum to 1"
        )
    given = total > 0
    known = given.sum(axis=0)
    missing = np.flatnonzero(known == 0)
    if len(missing):
        raise InputError(
            f"crowd: {url} says of no worker what becomes of class {missing[0]}; add its rows"
        )
    mean = theta.sum(axis=0) / known[:, np.newaxis]
    return np.where(given[:, :, np.newaxis], theta, mean[np.newaxis])
