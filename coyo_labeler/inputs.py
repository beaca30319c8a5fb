"""What lies at the inputs of a stage, as digests that change with it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from coyo_labeler import storage
from coyo_labeler.config.base import StageSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LISTED
from coyo_labeler.listings import is_folder
from coyo_labeler.storage_errors import DamagedFileError, asking
from coyo_labeler.table_files import Tables, difference, tables_of

MANIFEST = "_manifest.json"  # the run is complete
RUN = "_run.json"  # a run with these settings began


def files_by_content(settings: StageSettings) -> dict[str, str]:
    """URLs of the files that enter the fingerprint by their sha256, by key.

    A key outside `inputs` counts only where a file of that name exists. What is neither a file nor
    a known label space is left to the stage, which says what it could be.
    """
    given = {key: getattr(settings, key) for key in sorted(settings.by_content)}
    return {
        key: url
        for key, url in given.items()
        if url is not None
        and (key in settings.inputs or (url not in LISTED and storage.exists(url)))
    }


def fingerprint_input(stage: str, key: str, url: str) -> str:
    """A digest of what lies at an input URL, without reading the data.

    For another stage's output it is that of its manifest; else of names, sizes and modification
    times (or ETags).

    Raises: InputError where there is nothing, an unfinished stage, or a finished one whose tables
    have lost or gained a file since.
    """
    with asking(f"{stage}: {key}: {url}"):
        is_there = storage.exists(url)
    if not is_there:
        raise InputError(f"{stage}: {key}: nothing at {url}; give an existing file, folder or glob")
    fs, path = storage.resolve(url)
    if is_folder(fs, path):
        finished = _read_of_input(stage, key, storage.join(url, MANIFEST))
        if finished is not None:
            _check_tables(stage, key, url, finished, tables_of(finished))
            return digest(finished)
        begun = _read_of_input(stage, key, storage.join(url, RUN))
        if begun is not None:
            raise InputError(
                f"{stage}: {key}: {begun.get('stage')} has not finished in {url}; run it again "
                "first"
            )
        _check_table_of_a_stage(stage, key, url)
    files = storage.files_of(url, suffix="")
    if not files and is_folder(fs, path):
        # The tables of a stage's output, copied without its manifest.
        files = storage.files_of(storage.join(url, "*"), suffix="")
    if not files:
        raise InputError(
            f"{stage}: {key}: {url} holds no files; give the folder in which the files lie"
        )
    first = min(files)
    return digest(
        [
            [
                name.removeprefix(first.rpartition("/")[0]),
                info.get("size"),
                storage.version_of(info),
            ]
            for name, info in files.items()
        ]
    )


def _check_table_of_a_stage(stage: str, key: str, url: str) -> None:
    """Check a folder that is one table of a stage's output, such as `posterior/` of a merge."""
    output, _, folder = url.rstrip("/").rpartition("/")
    if not output or output.endswith(":/"):
        return
    try:
        finished = storage.read_json(storage.join(output, MANIFEST))
        begun = storage.read_json(storage.join(output, RUN))
    except InputError:  # nothing that this user can read, and so no output of this user's
        return
    if finished is None and begun is not None:
        raise InputError(
            f"{stage}: {key}: {begun.get('stage')} has not finished in {output}; run it again first"
        )
    tables = {name: counts for name, counts in tables_of(finished or {}).items() if name == folder}
    _check_tables(stage, key, output, finished or {}, tables)


def _check_tables(
    stage: str, key: str, output: str, manifest: Mapping[str, Any], tables: Tables
) -> None:
    wrong = difference(output, tables)
    if wrong is not None:
        raise InputError(
            f"{stage}: {key}: {wrong}, so the output is not as {manifest.get('stage')} finished "
            "it; put it back, or run that stage again with its settings, which writes what is "
            "missing (a part of the files can be used from a folder without _manifest.json)"
        )


def _read_of_input(stage: str, key: str, url: str) -> dict[str, Any] | None:
    try:
        return storage.read_json(url, "run the stage that wrote it again")
    except DamagedFileError as error:
        raise InputError(f"{stage}: {key}: {error}") from None


def sha256_of_input(stage: str, key: str, url: str) -> str:
    """The sha256 of a file that is an input. Raises: InputError where there is none."""
    try:
        return storage.sha256_of(url)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{stage}: {key}: no file at {url}; give an existing file") from None


def digest(document: Any) -> str:
    """16 hex digits of a hash of a JSON document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
