"""Files on any fsspec filesystem: written whole or not at all, found by URL, folder or glob."""

import hashlib
import json
import os
import posixpath
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from coyo_labeler import extras
from coyo_labeler.errors import InputError, WorkError, one_line
from coyo_labeler.listings import find_files, list_folder
from coyo_labeler.parquet_pages import UnfoldedError, open_guarded
from coyo_labeler.patterns import has_magic, move_file, pattern_of, remove_folder
from coyo_labeler.s3_uploads import abort_uploads
from coyo_labeler.storage_errors import REFUSALS, DamagedFileError, filling, parsing, writing

#: How every Parquet file of the package is written: each page has a CRC-32 of its bytes.
PARQUET: Mapping[str, Any] = {"compression": "zstd", "write_page_checksum": True}

#: Ends temporary names. They begin with a dot, so that Spark and pyarrow skip them.
_TEMPORARY_SUFFIX = ".tmp"

#: Characters of a file's name that its temporary name keeps: names have 255 bytes at most.
_STEM = 50

#: Protocols whose URLs begin with a bucket's name alone.
_BUCKETS = {"s3", "s3a", "gs", "gcs"}

_COPIED_BYTES = 8 * 2**20  # at a time

#: Bytes of a JSON document at most: parsed, each may take thirty.
_MAX_JSON_BYTES = 32 * 2**20

#: Filesystems on which a file is visible while it is being written. On all others (object stores)
#: a file appears when its writer commits it, so it is put under its final name at once.
_VISIBLE_WHILE_WRITTEN = {"file", "memory", "hdfs", "arrow_hdfs", "webhdfs", "sftp", "ssh", "smb"}


def resolve(url: str) -> tuple[AbstractFileSystem, str]:
    """The filesystem of an fsspec URL and the path in it.

    A path of this machine (relative, absolute, in `~/`, or behind `file://`) is taken as it is: no
    character has a meaning, and nothing in it is percent-decoded.

    Raises: InputError where the URL's protocol is unknown or its package is not installed;
    WorkError where HDFS cannot be reached.
    """
    local = local_path(url)
    if local is not None:
        return fsspec.filesystem("file"), local
    protocol, _, rest = url.partition("://")
    if protocol in _BUCKETS and "@" in rest.partition("/")[0]:
        raise InputError(
            f"{url}: a URL of {protocol}:// begins with the name of a bucket and takes no user or "
            "password; give them in the environment"
        )
    try:
        return url_to_fs(url)  # type: ignore[no-any-return]
    except ValueError as error:
        raise InputError(f"{url}: {error}") from None
    except ImportError as error:
        module = getattr(error.__cause__, "name", None) or ""
        raise extras.MissingPackageError(f"{url}: {error}: {extras.remedy(module)}") from None
    except OSError as error:  # of HDFS, which is reached through libraries of Java and Hadoop
        missing = re.match(r"Unable to load (libhdfs|libjvm)", str(error))
        if missing is None:
            raise WorkError(f"{url} cannot be reached: {one_line(error)}") from error
        raise InputError(
            f"{url}: {missing[1]}.so was not found; set JAVA_HOME, ARROW_LIBHDFS_DIR to the folder "
            "of libhdfs.so, and CLASSPATH to `hadoop classpath --glob` (docs/cluster.md)"
        ) from None


def local_path(url: str) -> str | None:
    """The absolute path of a file of this machine; None for a URL of another filesystem."""
    protocol, separator, path = url.partition("://")
    if not separator:
        path = url.removeprefix("file:")
    elif protocol not in ("file", "local"):
        return None
    if path == "~" or path.startswith("~/"):
        path = str(Path(path).expanduser())
    if not path.startswith("/"):
        path = posixpath.join(Path.cwd(), path.removeprefix("./"))
    return path.rstrip("/") or "/"


def absolute(url: str) -> str:
    """The URL without what depends on the process: the working folder, and `~/`."""
    path = local_path(url)
    return url if path is None or url.startswith(("/", "file:///")) else path


def is_local(fs: AbstractFileSystem) -> bool:
    """Whether a filesystem is that of this machine."""
    return bool(_protocols(fs) & {"file", "local"})


def _protocols(fs: AbstractFileSystem) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def join(url: str, *parts: str) -> str:
    """`url/part/part`, whether or not the URL ends in slashes."""
    return posixpath.join(url.rstrip("/") or "/", *parts)


@contextmanager
def open_atomic(url: str) -> Iterator[IO[bytes]]:
    """A binary file to write that appears under `url` complete on success, and never on an error.

    A second writer of the same URL is harmless: each writes under its own temporary name, and the
    last rename wins.
    """
    fs, path = resolve(url)
    parent = posixpath.dirname(path)
    with writing(url):
        fs.makedirs(parent, exist_ok=True)
    if _protocols(fs) & _VISIBLE_WHILE_WRITTEN:
        temporary = posixpath.join(
            parent, f".{posixpath.basename(path)[:_STEM]}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}"
        )
        try:
            with filling(url), _opened(fs, temporary, url) as file:
                yield file
                if is_local(fs):  # bytes before the name, in case the machine loses power
                    file.flush()
                    os.fsync(file.fileno())
            with writing(url):
                move_file(fs, temporary, path)
        except BaseException:
            with suppress(OSError):  # the error above says more
                fs.rm_file(temporary)
            raise
    else:
        with writing(url):
            file = fs.open(path, "wb", autocommit=False)
        try:
            yield file
        except BaseException:
            file.discard()
            raise
        with writing(url):
            file.close()
            file.commit()


def _opened(fs: AbstractFileSystem, path: str, url: str) -> IO[bytes]:
    with writing(url):
        file: IO[bytes] = fs.open(path, "wb")
    return file


def write_bytes(url: str, data: bytes) -> None:
    """Write a small file atomically; on an object store by one request, which leaves no upload."""
    fs, path = resolve(url)
    if _protocols(fs) & _VISIBLE_WHILE_WRITTEN:
        with open_atomic(url) as file:
            file.write(data)
    else:
        with writing(url):
            fs.pipe_file(path, data)


def write_json(url: str, document: Mapping[str, Any]) -> None:
    """Write a JSON document atomically, keys in the order given."""
    write_bytes(url, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(
    url: str, remedy: str = "remove it", max_bytes: int = _MAX_JSON_BYTES
) -> dict[str, Any] | None:
    """A JSON document, or None where there is no such file. remedy: what to do, for messages.

    Raises: DamagedFileError where it is no JSON object, or larger than `max_bytes`; InputError
    where it cannot be read.
    """
    fs, path = resolve(url)
    try:
        data = read_start(fs, path, max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise InputError(
            f"{url} cannot be read ({error.strerror}); let this user read it"
        ) from None
    except IsADirectoryError:
        raise DamagedFileError(f"{url} is a folder, not a file; {remedy}") from None
    with parsing(url, remedy):
        if len(data) > max_bytes:
            raise ValueError(f"more than {max_bytes:,} bytes")
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("no JSON object")
        if b"\\ud" in data.lower():  # half a surrogate pair cannot be written again
            json.dumps(document, ensure_ascii=False).encode()
    return document


def read_start(fs: AbstractFileSystem, path: str, max_bytes: int) -> bytes:
    """The first bytes of a file, by one request."""
    try:
        return bytes(fs.cat_file(path, start=0, end=max_bytes))
    except OSError as error:  # object stores refuse any range of an empty file
        if isinstance(error, REFUSALS) or fs.size(path):
            raise
        return b""


def write_parquet(url: str, table: pa.Table, metadata: Mapping[str, str] | None = None) -> None:
    """Write a table atomically as zstd Parquet; `metadata` joins its key-value metadata."""
    added = {key.encode(): value.encode() for key, value in (metadata or {}).items()}
    merged = {**(table.schema.metadata or {}), **added}
    with open_atomic(url) as file:
        pq.write_table(table.replace_schema_metadata(merged or None), file, **PARQUET)


def write_tables(url: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write tables one after another into one Parquet file, atomically; returns the rows."""
    rows = 0
    with (
        open_atomic(url) as file,
        pq.ParquetWriter(file, schema, **PARQUET) as writer,
    ):
        for table in tables:
            writer.write_table(table)
            rows += table.num_rows
    return rows


@contextmanager
def open_parquet(
    key: str, url: str, remedy: str = "remove or replace it"
) -> Iterator[pq.ParquetFile]:
    """A Parquet file to read; the checksums of its pages are compared, where it has them.

    For messages: key: the setting that names it, remedy: what to do.

    Raises: InputError where it is no Parquet file.
    """
    fs, path = resolve(url)
    with fs.open(path, "rb") as file:
        with parsing_parquet(key, url, remedy):
            parquet = open_guarded(file)
        try:
            yield parquet
        except (OSError, UnfoldedError) as error:
            with parsing_parquet(key, url, remedy):
                raise error


@contextmanager
def parsing_parquet(key: str, url: str, remedy: str = "remove or replace it") -> Iterator[None]:
    """Reading a Parquet file inside the `with` block. See `open_parquet`.

    Arrow raises OSError for content too, without a number; those with one are of the store.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(
            f"{key}: {url} is not a readable Parquet file ({one_line(error, 300)}); {remedy}"
        ) from None


def read_footer(key: str, url: str, remedy: str = "remove or replace it") -> pq.FileMetaData:
    """The metadata of a Parquet file. See `open_parquet`."""
    with open_parquet(key, url, remedy) as parquet:
        return parquet.metadata


def copy(source: str, target: str) -> None:
    """Copy a file atomically from any filesystem to any other."""
    fs, path = resolve(source)
    with fs.open(path, "rb") as reader, open_atomic(target) as writer:
        shutil.copyfileobj(reader, writer, _COPIED_BYTES)


def remove_temporaries(url: str) -> int:
    """Remove what killed writers left in a folder and below; returns the number of files.

    On S3 these are uploads that were never completed: they are in no listing, and are paid for.
    """
    fs, path = resolve(url)
    if _protocols(fs) & {"s3", "s3a"}:
        abort_uploads(fs, path)
    visible = bool(_protocols(fs) & _VISIBLE_WHILE_WRITTEN)
    stale = [name for name in find_files(fs, path) if is_temporary(name)] if visible else []
    for name in stale:
        with suppress(FileNotFoundError):
            fs.rm_file(name)
    return len(stale)


def is_temporary(name: str) -> bool:
    """Whether a file is one that a writer had not finished."""
    return posixpath.basename(name).startswith(".") and name.endswith(_TEMPORARY_SUFFIX)


def files_of(url: str, suffix: str = ".parquet") -> dict[str, dict[str, Any]]:
    """The data files at a URL, sorted by name: {URL: fsspec's info}.

    url: a file, a folder (the files directly in it, as Spark reads it; names that begin with `_` or
    `.` are not data) or a glob of either.
    """
    fs, path = resolve(url)
    matches: dict[str, dict[str, Any]]
    is_pattern = is_glob(url)
    matches = fs.glob(pattern_of(fs, path), detail=True) if is_pattern else {path: fs.info(path)}
    infos: dict[str, dict[str, Any]] = {}
    for name, info in matches.items():
        if info["type"] == "directory":
            infos.update({child["name"]: child for child in list_folder(fs, name)})
        else:
            infos[name] = info
    return {
        fs.unstrip_protocol(name): info
        for name, info in sorted(infos.items())
        if info["type"] == "file"
        and name.endswith(suffix)
        and not posixpath.basename(name).startswith(("_", "."))
    }


def is_glob(url: str) -> bool:
    """Whether a URL is a pattern: it has `*`, `?` or `[`, and nothing has that very name."""
    if not has_magic(url):
        return False
    fs, path = resolve(url)
    return not fs.exists(path)


def exists(url: str) -> bool:
    """Whether there is a file or folder, or anything that a glob matches."""
    fs, path = resolve(url)
    return bool(fs.exists(path) or (is_glob(url) and fs.glob(pattern_of(fs, path))))


def locate(url: str, subfolder: str) -> str:
    """`url/subfolder` where that exists (a stage's table), else `url` itself."""
    nested = join(url, subfolder)
    return nested if not is_glob(url) and exists(nested) else url


def clear(url: str) -> None:
    """Remove a folder and everything in it."""
    fs, path = resolve(url)
    if fs.exists(path):
        remove_folder(fs, path)


def remove(url: str) -> None:
    """Remove a file, if it is there."""
    fs, path = resolve(url)
    with suppress(FileNotFoundError):
        fs.rm_file(path)


def version_of(info: Mapping[str, Any]) -> str:
    """The version of a file's content, from fsspec's info: its ETag, else its time."""
    stamps = (info.get(name) for name in ("ETag", "etag", "mtime", "LastModified", "created"))
    return str(next((stamp for stamp in stamps if stamp is not None), ""))


def sha256_of(url: str) -> str:
    """The sha256 of a file's bytes, which are read in blocks."""
    fs, path = resolve(url)
    with fs.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(url: str) -> str:
    """A UTF-8 text file, without the mark that some editors put in front."""
    fs, path = resolve(url)
    return str(fs.cat_file(path), "utf-8-sig")
