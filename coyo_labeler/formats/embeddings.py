"""Features of images, as `label` writes them below embeddings/: columns `id` and `embedding`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.errors import InputError
from coyo_labeler.formats.columns import check_columns
from coyo_labeler.formats.label_lists import read_ids
from coyo_labeler.formats.parquet_splits import parquet_files, read_footers

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

#: Where they lie below an output of `label`.
FOLDER = "embeddings"
_COLUMNS = ("id", "embedding")


@dataclass(frozen=True)
class EmbeddingFile:
    """A Parquet file of features. key: the setting that named it. first_row: rows before it."""

    key: str
    url: str
    first_row: int
    rows: int


@dataclass(frozen=True)
class Embeddings:
    """All files of a folder, in name order. features: numbers per image."""

    files: tuple[EmbeddingFile, ...]
    features: int

    @property
    def rows(self) -> int:
        """Images of all files."""
        return sum(file.rows for file in self.files)


def find_embeddings(key: str, url: str) -> Embeddings:
    """The files at a URL: a file, a folder, a glob or an output of `label`.

    Raises: InputError where there is none, or a file lacks a column, has one of another type, or
    features of another length than the first file.
    """
    folder = storage.locate(url, FOLDER)
    urls = parquet_files(key, folder, "give the output of label embeddings=true")
    files, row = [], 0
    length = 0
    for file, metadata in zip(urls, read_footers(key, urls), strict=True):
        schema = metadata.schema.to_arrow_schema()
        check_columns(key, file, schema.names, _COLUMNS, "write them with label embeddings=true")
        kind = schema.field("embedding").type
        if not _is_vector(kind):
            raise InputError(
                f"{key}: {file}: column 'embedding' is {kind}; it must be a list of floats"
            )
        files.append(EmbeddingFile(key, file, row, metadata.num_rows))
        row += metadata.num_rows
        if metadata.num_rows:
            own = kind.list_size if pa.types.is_fixed_size_list(kind) else _first_length(key, file)
            length = length or own
            _check_length(key, file, length, own, None)
    if not row:
        raise InputError(f"{key}: {folder} holds no image; give the output of label")
    if not length:
        raise InputError(f"{key}: {urls[0]}: embeddings are empty lists; give features")
    return Embeddings(tuple(files), length)


def read_embeddings(
    file: EmbeddingFile, features: int, batch_rows: int
) -> Iterator[tuple[I64, F32]]:
    """Ids (n,) and features (n, features) of a file, some rows at a time.

    Raises: InputError naming an image without features, with another number of them, or with one
    that is not finite.
    """
    with storage.open_parquet(file.key, file.url) as parquet:
        batches = parquet.iter_batches(batch_rows, columns=list(_COLUMNS), use_threads=False)
        while True:
            with storage.parsing_parquet(file.key, file.url):
                batch = next(batches, None)
            if batch is None:
                return
            yield _arrays(file, batch, features)


def _arrays(file: EmbeddingFile, batch: pa.RecordBatch, features: int) -> tuple[I64, F32]:
    ids = read_ids(batch.column("id"), f"{file.key}: {file.url}")
    vectors = batch.column("embedding")
    if vectors.null_count:
        missing = int(np.argmax(vectors.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(
            f"{file.key}: {file.url}: id {ids[missing]} has no embedding; drop the row"
        )
    lengths = pc.list_value_length(vectors).to_numpy(zero_copy_only=False)
    if len(ids) and (lengths != features).any():
        wrong = int(np.argmax(lengths != features))
        _check_length(file.key, file.url, features, int(lengths[wrong]), int(ids[wrong]))
    values = vectors.flatten()
    if values.null_count:
        raise InputError(f"{file.key}: {file.url}: an embedding has a null in it; drop the row")
    matrix = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    matrix = matrix.reshape(len(ids), features)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        wrong = int(np.argmin(finite))
        raise InputError(
            f"{file.key}: {file.url}: id {ids[wrong]} has a feature that is not finite; drop the "
            "row"
        )
    return ids, matrix


def _is_vector(kind: pa.DataType) -> bool:
    is_list = (
        pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    )
    return bool(is_list and pa.types.is_floating(kind.value_type))


def _first_length(key: str, url: str) -> int:
    with storage.open_parquet(key, url) as parquet, storage.parsing_parquet(key, url):
        batch = next(parquet.iter_batches(1, columns=["embedding"]))
    length = pc.list_value_length(batch.column(0))[0].as_py()
    return int(length or 0)


def _check_length(key: str, url: str, wanted: int, length: int, image: int | None) -> None:
    if length != wanted:
        where = url if image is None else f"{url}: id {image}"
        raise InputError(
            f"{key}: {where} has {length:,} features, the images before have {wanted:,}; give the "
            "features of one teacher"
        )
