"""Files of answers: what format each is in, and its answers one after another."""

import io
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa

from coyo_labeler import storage
from coyo_labeler.collect import label_studio
from coyo_labeler.collect.answers import Answer, clean
from coyo_labeler.collect.json_items import read_items
from coyo_labeler.collect.tables import LAYOUTS, PLAIN, ROLES, Layout, read_row
from coyo_labeler.errors import InputError
from coyo_labeler.formats.csv_files import read_columns, read_header

_KEY = "collect: source"

#: Bytes by which a file's kind is told, and JSON items that are looked at to tell the format.
_HEAD_BYTES = 4096
_LOOKED_AT = 200

#: First bytes of files that hold other files; CVAT's exports come as zip.
_PACKED = ((b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"\x1f\x8b", "gzip"))

_LOSSY = (
    "is Label Studio's {what}, which leaves out skipped tasks and renames the answers' column; "
    "export it again as JSON, or take what is there with format=columns "
    "columns.worker_id=annotator columns.timestamp=created_at columns.seconds=lead_time "
    "columns.answer=NAME"
)

#: Keys of an item that tell the format of JSON.
_BY_KEYS = (
    ("label_studio", {"annotations", "data"}),
    ("cvat", {"annotations", "job"}),
    ("prodigy", {"_task_hash", "answer"}),
    ("columns", {"answer"}),
)

#: Columns that tell the format of a table.
_BY_COLUMNS = (
    ("mturk", {"WorkerId", "AssignmentId", "AssignmentStatus"}),
    ("toloka", {"ASSIGNMENT:worker_id"}),
    ("crowdkit", {"task", "worker", "label"}),
)


@dataclass(frozen=True)
class SourceFile:
    """A file of answers. kind: xml, json, table or parquet. name: unique among the files."""

    url: str
    name: str
    kind: str
    delimiter: str
    format: str

    @property
    def where(self) -> str:
        """Setting and file, for messages."""
        return f"{_KEY}: {self.url}"


def find_files(source: str, wanted: str) -> list[SourceFile]:
    """The files at a path, in name order, each with its format. wanted: a format, or auto.

    Raises: InputError where there are none, or one in a format that cannot be used.
    """
    try:
        urls = sorted(storage.files_of(source, suffix=""))
    except FileNotFoundError:
        urls = []
    if not urls:
        raise InputError(
            f"{_KEY}: no files at {source}; give an export, a folder that holds them itself, a "
            "glob such as exports/*/*.json, or a URL"
        )
    repeated = Counter(posixpath.basename(url) for url in urls)
    files = []
    for number, url in enumerate(urls):
        base = posixpath.basename(url)
        name = base if repeated[base] == 1 else f"{number}/{base}"
        kind, delimiter = _kind_of(url)
        file = SourceFile(url, name, kind, delimiter, wanted)
        files.append(replace(file, format=_format_of(file)) if wanted == "auto" else file)
    examples = {file.format: file.name for file in reversed(files)}
    if len(examples) > 1:
        listed = ", ".join(f"{name}: {examples[name]}" for name in sorted(examples))
        raise InputError(
            f"{_KEY}: {source} holds files of several formats ({listed}); give a glob of one "
            "format, such as exports/*.json, and collect each into an output of its own"
        )
    return files


def _kind_of(url: str) -> tuple[str, str]:
    """What a file is by its first bytes, and what stands between the values of a table."""
    fs, path = storage.resolve(url)
    with fs.open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"PAR1"):
        return "parquet", ""
    packed = next((name for start, name in _PACKED if head.startswith(start)), None)
    if packed is not None:
        raise InputError(f"{_KEY}: {url} is a {packed} file; give what is in it, unpacked")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise InputError(f"{_KEY}: {url} is empty; export it again")
    if text.startswith(b"<"):
        return "xml", ""
    if text.startswith((b"{", b"[")):
        return "json", ""
    first = text.split(b"\n", 1)[0]
    # Of several that are as frequent the first one: commas.
    return "table", max((",", "\t", ";", "|"), key=lambda each: first.count(each.encode()))


def _format_of(file: SourceFile) -> str:
    if file.kind == "xml":
        return "cvat"
    if file.kind == "table":
        return _format_of_table(file, set(_header(file)))
    if file.kind == "parquet":
        with storage.open_parquet(_KEY, file.url) as parquet:
            return _format_of_table(file, set(parquet.schema_arrow.names))
    return _format_of_json(file)


def _format_of_json(file: SourceFile) -> str:
    is_empty = True
    for item in islice(_json_items(file), _LOOKED_AT):
        is_empty = False
        keys = item.keys() if isinstance(item, dict) else set()
        if {"annotation_id", "annotator"} <= keys:
            raise InputError(f"{file.where} {_LOSSY.format(what='JSON_MIN')}")
        for name, wanted in _BY_KEYS:
            if wanted <= keys:
                return name
    if is_empty:
        raise InputError(f"{file.where} is an empty list; export it again when there are answers")
    raise InputError(
        f"{file.where} is JSON in no form that is known; give format=, or format=columns and "
        "columns.NAME= for each column"
    )


def _format_of_table(file: SourceFile, header: set[str]) -> str:
    if {"annotation_id", "annotator"} <= header:
        raise InputError(f"{file.where} {_LOSSY.format(what='CSV')}")
    for name, columns in _BY_COLUMNS:
        if columns <= header:
            return name
    return "columns"


def layout_of(name: str, columns: Mapping[str, str]) -> Layout:
    """The columns of a format, with those that the user named.

    Raises: InputError for a name that is no role of a column.
    """
    for role in columns:
        if role not in ROLES:
            raise InputError(f"collect: columns: '{role}' is none of {', '.join(ROLES)}")
    layout = LAYOUTS[name]
    # A column that the user gave another role, such as `label` for the answer, has lost its own.
    own = {
        role: column for role, column in layout.columns.items() if column not in columns.values()
    }
    return replace(layout, columns={**own, **columns})


def read_files(
    files: Sequence[SourceFile], columns: Mapping[str, str], worker: str | None
) -> Iterator[Answer]:
    """The answers of the files, in the order of files and rows.

    columns: of tables, by role, where they differ from those of the format. worker: who answered,
    where a table does not say.

    Raises: InputError where a file cannot be read as what it is.
    """
    for file in files:
        if file.format == "label_studio":
            yield from _read_label_studio(file)
        elif file.format == "cvat":
            yield from _read_cvat(file)
        else:
            yield from _read_table(file, layout_of(file.format, columns), worker)


def _read_label_studio(file: SourceFile) -> Iterator[Answer]:
    if file.kind != "json":
        raise InputError(f"{file.where} is not JSON; export it from Label Studio as JSON")
    for number, task in enumerate(_json_items(file)):
        yield from label_studio.read_task(task, f"{file.name} task {number + 1}")


def _read_cvat(file: SourceFile) -> Iterator[Answer]:
    from coyo_labeler.collect import cvat  # noqa: PLC0415  # needs defusedxml, which an extra installs

    if file.kind == "xml":
        fs, path = storage.resolve(file.url)
        with fs.open(path, "rb") as opened:
            yield from cvat.read_xml(opened, file.name, file.where)
    elif file.kind == "json":
        for number, document in enumerate(_json_items(file)):
            yield from cvat.read_job(document, f"{file.name} job {number + 1}")
    else:
        raise InputError(f"{file.where} is neither XML nor JSON; export it as CVAT for images 1.1")


def _json_items(file: SourceFile) -> Iterator[Any]:
    fs, path = storage.resolve(file.url)
    with fs.open(path, "rb") as opened:
        yield from read_items(io.TextIOWrapper(opened, "utf-8-sig"), file.where)


def _read_table(file: SourceFile, layout: Layout, worker: str | None) -> Iterator[Answer]:
    if file.kind == "table":  # one without rows too: it may be something else altogether
        _check_columns(file, dict.fromkeys(_header(file)), layout, worker)
    for number, row in enumerate(_rows(file)):
        if number == 0 and file.kind != "table" and isinstance(row, dict):
            _check_columns(file, row, layout, worker)
        yield read_row(row, layout, f"{file.name} row {number + 1}")


def _header(file: SourceFile) -> list[str]:
    """The names of a table's columns, without the blanks that people type behind commas."""
    return [name.strip() for name in read_header(_KEY, file.url, file.delimiter)]


def _rows(file: SourceFile) -> Iterator[Any]:
    if file.kind == "json":
        yield from _json_items(file)
    elif file.kind == "parquet":
        yield from _parquet_rows(file.url)
    elif file.kind == "table":
        names = read_header(_KEY, file.url, file.delimiter)
        header = [name.strip() for name in names]
        if len(set(header)) < len(header):
            raise InputError(f"{file.where} has two columns of one name; rename or drop one")
        for table in read_columns(_KEY, file.url, names, file.delimiter):
            yield from table.rename_columns(header).to_pylist()
    else:
        raise InputError(f"{file.where} is XML, not a table; give format=cvat for CVAT's export")


def _parquet_rows(url: str) -> Iterator[dict[str, Any]]:
    with storage.open_parquet(_KEY, url) as parquet:
        for batch in parquet.iter_batches(50_000):
            # pandas writes nanoseconds, for which Python has no type.
            fields = [
                pa.field(field.name, pa.timestamp("us", field.type.tz))
                if pa.types.is_timestamp(field.type)
                else field
                for field in batch.schema
            ]
            table = pa.Table.from_batches([batch])
            yield from table.cast(pa.schema(fields), safe=False).to_pylist()


def _check_columns(
    file: SourceFile, row: Mapping[str, Any], layout: Layout, worker: str | None
) -> None:
    """Raises: InputError naming what the table lacks."""
    present = {role for role, column in layout.columns.items() if _has(row, column)}
    lacking = []
    if not present & {"question_id", "image_id", "image"}:
        lacking.append("question_id")
    if "worker_id" not in present and worker is None:
        lacking.append("worker_id")
    has_answers = any(layout.prefix and name.startswith(layout.prefix) for name in row)
    if "answer" not in present and not has_answers:
        lacking.append("answer")
    if lacking:
        shown = ", ".join(clean(str(name), 60) for name in list(row)[:30])
        hint = " ".join(f"columns.{role}=NAME" for role in lacking)
        known = "" if layout.tool == PLAIN.tool else f" as a table of {layout.tool}"
        raise InputError(
            f"{file.where} has no column for {' and '.join(lacking)}{known} (its columns: "
            f"{shown}); give {hint}"
        )


def _has(row: Mapping[str, Any], column: str) -> bool:
    first, _, rest = column.partition(".")
    inner = row.get(first)
    return column in row or (bool(rest) and isinstance(inner, Mapping) and _has(inner, rest))
