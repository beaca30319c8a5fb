"""Who can be asked, and how likely each worker is to be right about a class."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.em.segments import F64, I32, I64
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.columns import check_columns
from coyo_labeler.formats.csv_files import read_columns, read_header
from coyo_labeler.formats.parquet_splits import plan_splits, read_footers, read_split

#: Of a worker about whom nothing is known, as merge's `prior_accuracy`.
_ACCURACY = 0.8
#: How many votes the accuracy over all classes weighs in that of one class, as `prior_strength`.
_STRENGTH = 10.0


@dataclass(frozen=True)
class Workers:
    """The workers, sorted by id.

    accuracy: (W,) over all classes. by_class: the deviation of single classes from it, (n,) each:
    `label` (the class), `worker` (index), `deviation`, by class.
    """

    names: tuple[str, ...]
    accuracy: F64
    label: I64
    worker: I64
    deviation: F64

    def expected_accuracy(self, label: I32, probability: F64) -> F64:
        """How likely each worker is to be right about an image, (W,).

        label, probability: (k,) the classes that it may have. What they leave over counts as the
        worker's accuracy over all classes.
        """
        expected = self.accuracy.copy()
        low = np.searchsorted(self.label, label, "left")
        high = np.searchsorted(self.label, label, "right")
        for first, end, p in zip(low.tolist(), high.tolist(), probability.tolist(), strict=True):
            if end > first:
                expected[self.worker[first:end]] += p * self.deviation[first:end]
        return expected


def read_workers(workers: str | None, labels: str) -> Workers:
    """The workers at a URL, or those of an output of merge at `labels`.

    workers: an output of merge, a table with worker_id and perhaps accuracy (Parquet or CSV), or a
    text file with one id per line. Confusions are taken where an output of merge has them.

    Raises: InputError where there are none, or a row cannot be used.
    """
    url = storage.locate(workers or labels, "workers")
    if workers is None and url == labels:
        raise InputError(
            "workers: nobody knows who can be asked; give workers=PATH: an output of merge, a "
            "table of worker_id, or a text file of one id per line"
        )
    ids, accuracy = _read(url)
    _check(ids, accuracy, url)
    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    names = tuple(ids[i] for i in order)
    known = np.array([np.nan if accuracy[i] is None else accuracy[i] for i in order], dtype=float)
    mean = float(np.nanmean(known)) if np.isfinite(known).any() else _ACCURACY
    known = np.where(np.isfinite(known), known, mean)
    confusions = storage.join(workers or labels, "confusions")
    is_merge = url != (workers or labels)
    if not (is_merge and storage.exists(confusions) and storage.files_of(confusions)):
        nothing = np.zeros(0, dtype=np.int64)
        return Workers(names, known, nothing, nothing, np.zeros(0))
    return Workers(names, known, *_by_class(confusions, names, known))


def _read(url: str) -> tuple[list[str | None], list[float | None]]:
    try:
        is_table = bool(storage.files_of(url))
    except FileNotFoundError:
        raise InputError(f"workers: nothing at {url}; give an existing file or folder") from None
    if is_table:
        return _read_parquet(url)
    files = sorted(storage.files_of(url, ".csv"))
    if files:
        return _read_csv(files)
    fs, path = storage.resolve(url)
    if fs.isdir(path):
        raise InputError(f"workers: no Parquet or CSV files at {url}")
    name = url.rsplit("/", 1)[-1]
    if "." in name and not name.endswith(".txt"):
        raise InputError(
            f"workers: {url} is neither Parquet nor CSV; give a table of worker_id, or a .txt of "
            "one id per line"
        )
    try:
        lines = storage.read_text(url).splitlines()
    except UnicodeDecodeError:
        raise InputError(
            f"workers: {url} is not UTF-8 text; give one worker id per line, or a table"
        ) from None
    ids: list[str | None] = [line.strip() for line in lines if line.strip()]
    return ids, [None] * len(ids)


def _read_parquet(url: str) -> tuple[list[str | None], list[float | None]]:
    files = sorted(storage.files_of(url))
    (footer,) = read_footers("workers", files[:1])
    has_accuracy = "accuracy" in footer.schema.to_arrow_schema().names
    names = ["worker_id", "accuracy"] if has_accuracy else ["worker_id"]
    fields = [schemas.WORKERS.field(name).with_nullable(True) for name in names]
    tables = [
        table
        for split in plan_splits("workers", url, pa.schema(fields), 10**9)
        for table in read_split(split)
    ]
    table = pa.concat_tables(tables or [pa.schema(fields).empty_table()])
    accuracy = table["accuracy"].to_pylist() if has_accuracy else [None] * len(table)
    return table["worker_id"].to_pylist(), accuracy


def _read_csv(files: list[str]) -> tuple[list[str | None], list[float | None]]:
    ids: list[str | None] = []
    accuracy: list[float | None] = []
    for file in files:
        header = read_header("workers", file)
        check_columns("workers", file, header, ["worker_id"])
        names = [name for name in ("worker_id", "accuracy") if name in header]
        for table in read_columns("workers", file, names):
            ids += table["worker_id"].to_pylist()
            texts = table["accuracy"].to_pylist() if "accuracy" in names else [None] * len(table)
            accuracy += [_number(text, file) for text in texts]
    return ids, accuracy


def _number(text: str | None, file: str) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"workers: {file} has the accuracy '{text[:40]}'; give a number from 0 to 1, or none"
        ) from None


def _check(ids: list[str | None], accuracy: list[float | None], url: str) -> None:
    if not ids:
        raise InputError(f"workers: {url} names nobody; give one worker id per row")
    seen: set[str] = set()
    for number, (name, value) in enumerate(zip(ids, accuracy, strict=True), 1):
        if name is None or not name.strip():
            raise InputError(f"workers: {url}: row {number} has no worker_id; drop it")
        if name in seen:
            raise InputError(f"workers: {url}: row {number}: {name} is named twice; drop one")
        seen.add(name)
        if value is not None and not 0 <= value <= 1:
            raise InputError(
                f"workers: {url}: row {number}: {name} has the accuracy {value:g}, which is not "
                "between 0 and 1"
            )


def _by_class(url: str, names: tuple[str, ...], accuracy: F64) -> tuple[I64, I64, F64]:
    """Deviations of θ_j(c, c) from the accuracy a_j of worker j: (n,) class, worker, deviation.

    θ_j(c, c) = (n_j(c, c) + s a_j) / (n_j(c) + s), of expected counts n and the strength s.
    """
    tables = [
        table
        for split in plan_splits("workers", url, schemas.CONFUSIONS, 10**9)
        for table in read_split(split)
    ]
    table = pa.concat_tables(tables or [schemas.CONFUSIONS.empty_table()]).combine_chunks()
    index = table["worker_id"].combine_chunks().dictionary_encode()
    code_of = {name: code for code, name in enumerate(names)}
    codes = np.array([code_of.get(name, -1) for name in index.dictionary.to_pylist()] or [-1])
    worker = codes[np.asarray(index.indices)].astype(np.int64) if len(table) else codes[:0]
    truth, voted, count = (
        table[name].to_numpy() for name in ("true_label", "voted_label", "count")
    )
    kept = worker >= 0
    key = truth[kept].astype(np.int64) * len(names) + worker[kept]
    cells, inverse = np.unique(key, return_inverse=True)
    total = np.bincount(inverse, count[kept], len(cells))
    is_right = truth[kept] == voted[kept]
    right = np.bincount(inverse, np.where(is_right, count[kept], 0.0), len(cells))
    label, of = cells // len(names), cells % len(names)
    base = accuracy[of]
    return label, of, (right + _STRENGTH * base) / (total + _STRENGTH) - base
