"""What lies at the inputs of a stage, as digests that change with it."""

import hashlib
import json
from typing import Any

from coyo_labeler import storage
from coyo_labeler.config.base import StageSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LISTED
from coyo_labeler.storage_errors import DamagedFileError

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

    Raises: InputError where there is nothing, or an unfinished stage.
    """
    if not storage.exists(url):
        raise InputError(f"{stage}: {key}: nothing at {url}; give an existing file, folder or glob")
    fs, path = storage.resolve(url)
    if fs.isdir(path):
        finished = _read_of_input(stage, key, storage.join(url, MANIFEST))
        if finished is not None:
            return digest(finished)
        begun = _read_of_input(stage, key, storage.join(url, RUN))
        if begun is not None:
            raise InputError(
                f"{stage}: {key}: {begun.get('stage')} has not finished in {url}; run it again "
                "first"
            )
    files = storage.files_of(url, suffix="")
    if not files:
        raise InputError(f"{stage}: {key}: {url} holds no files")
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
