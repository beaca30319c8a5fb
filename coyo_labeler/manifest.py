"""One run of one stage on one output folder: may it start, is there work, do the counts add up?"""

import logging
import posixpath
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter

from coyo_labeler import storage
from coyo_labeler.config.base import StageSettings
from coyo_labeler.errors import CountError, InputError, WorkError
from coyo_labeler.inputs import (
    MANIFEST,
    RUN,
    digest,
    files_by_content,
    fingerprint_input,
    sha256_of_input,
)
from coyo_labeler.listings import find_files, list_names
from coyo_labeler.patterns import remove_folder
from coyo_labeler.redact import redact_settings, redact_texts
from coyo_labeler.storage_errors import DamagedFileError, asking, parsing
from coyo_labeler.table_files import FILES, Tables, count_tables, difference, list_tables, tables_of

logger = logging.getLogger(__name__)


#: What to do where an output holds results of other settings.
REPLACE = "choose another output, or replace them with overwrite=true"

#: What a number of rows may be in a document, which need not come from this program.
_Number = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class Counts:
    """Rows of one table that a stage read, wrote and rejected, the latter by reason."""

    rows_in: _Number
    rows_out: _Number
    rejected: Mapping[str, _Number] = field(default_factory=dict)

    def check(self, what: str) -> None:
        """Raises: CountError unless rows in = rows out + rows rejected."""
        rejected = sum(self.rejected.values())
        if self.rows_in != self.rows_out + rejected:
            raise CountError(
                f"{what}: {self.rows_in:,} rows in, but {self.rows_out:,} out + {rejected:,} "
                "rejected; no manifest was written. Do not use this output; run again with "
                "overwrite=true and report this as a bug"
            )

    def to_json(self) -> dict[str, Any]:
        """The form in manifests and summaries, without reasons that rejected nothing."""
        rejected = {reason: n for reason, n in sorted(self.rejected.items()) if n}
        return {"in": self.rows_in, "out": self.rows_out, "rejected": rejected}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Counts":
        """The reverse of `to_json`. Raises: ValueError where a count is no number."""
        names = {"rows_in": "in", "rows_out": "out", "rejected": "rejected"}
        return _COUNTS.validate_python({key: document[name] for key, name in names.items()})


_COUNTS = TypeAdapter(Counts)


@dataclass(frozen=True)
class Outcome:
    """What a stage did.

    rows: counts of the main flow (source rows, images). tables: counts of other inputs (votes), by
    name. details: further JSON values for the manifest. files: bytes of files of the tables, by
    name below the output, where receipts describe them: a listing may not show them yet.
    """

    rows: Counts
    tables: Mapping[str, Counts] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What `_manifest.json` of a finished output holds.

    files: number and bytes of the files of each folder of a table; {} where an earlier version
    wrote it. See `table_files`.
    """

    stage: str
    version: str
    fingerprint: str
    finished: str
    seconds: FiniteFloat
    rows: Counts
    tables: Mapping[str, Counts]
    details: Mapping[str, Any]
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    files: Tables = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        document = asdict(self)
        document["rows"] = self.rows.to_json()
        document["tables"] = {name: counts.to_json() for name, counts in self.tables.items()}
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Manifest":
        """The reverse of `to_json`. Raises: ValueError where a value is of another type."""
        tables = {name: Counts.from_json(counts) for name, counts in document["tables"].items()}
        rows = Counts.from_json(document["rows"])
        read = {**document, "rows": rows, "tables": tables, "files": tables_of(document)}
        return _MANIFEST.validate_python(read)


_MANIFEST = TypeAdapter(Manifest)


class _Claim(BaseModel):
    """The form of `_run.json`."""

    stage: str
    fingerprint: str
    shaping: dict[str, Any]
    inputs: dict[str, str]


@dataclass(frozen=True)
class Run:
    """A stage's claim on its output folder.

    fingerprint: digest of the settings that shape the output and of the content of the inputs,
    except for inputs that are checked by shard. done: the manifest, where an earlier run with the
    same settings and inputs has finished. resumed: whether an earlier run with the same fingerprint
    began. inputs_changed: whether an input that is checked by shard has changed since then. token:
    of this run alone; the claim holds that of the run which works on the output.
    """

    stage: str
    output: str
    fingerprint: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    started: float
    resumed: bool = False
    done: Manifest | None = None
    inputs_changed: bool = False
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    def begin(
        cls,
        stage: str,
        settings: StageSettings,
        prepare: Callable[[], object] = lambda: None,
    ) -> "Run":
        """Check the inputs, and claim `settings.output` or say that it is finished.

        prepare: called where there is work, before anything is claimed or removed; what it raises
        leaves the output as it was.

        Raises: InputError where an input is missing or unfinished, or where the output holds
        results of other settings or files that are not ours.
        """
        files = files_by_content(settings)
        inputs = {
            key: fingerprint_input(stage, key, url)
            for key in settings.inputs
            if key not in files and (url := getattr(settings, key)) is not None
        }
        inputs |= {key: sha256_of_input(stage, key, url) for key, url in files.items()}
        config = settings.model_dump(mode="json")
        shaping = settings.shaping()
        whole = {key: text for key, text in inputs.items() if key not in settings.inputs_by_shard}
        fingerprint = digest({"config": shaping, "inputs": whole})
        run = cls(stage, settings.output, fingerprint, config, inputs, time.time())
        return run._claim(shaping, settings, prepare)

    def _claim(
        self, shaping: Mapping[str, Any], settings: StageSettings, prepare: Callable[[], object]
    ) -> "Run":
        claimed = self._read_claim(settings)
        if claimed is None:
            self._refuse_foreign_files()
            prepare()
        elif claimed["fingerprint"] != self.fingerprint or claimed["stage"] != self.stage:
            has_results = claimed.get("effects") or self._has_results()
            if not settings.overwrite and has_results:
                raise InputError(
                    f"{self.stage}: output: {self.output} holds the results of another run "
                    f"({_difference(claimed, self, shaping)}); {REPLACE}"
                )
            prepare()
            self._clear(shaping)
        elif claimed.get("clearing"):  # a run with these settings was killed while it cleared
            prepare()
            self._clear(shaping)
        else:
            changed = claimed["inputs"] != dict(self.inputs)
            done = None if changed else self._read_whole_manifest()
            if not done:
                prepare()
                storage.remove_temporaries(self.output)
                self._write_document({**claimed, "token": self.token})
            return replace(self, resumed=True, done=done, inputs_changed=changed)
        self._write_claim(shaping)
        return self

    def _read_claim(self, settings: StageSettings) -> dict[str, Any] | None:
        """What `_run.json` says, or None; a damaged one counts as that of a run to clear.

        Raises: InputError where it is damaged, so that nobody knows whose results these are.
        """
        url = storage.join(self.output, RUN)
        try:
            with asking(f"{self.stage}: output: {self.output}"):
                claimed = storage.read_json(url)
            with parsing(url):
                if claimed is not None:
                    _Claim.model_validate(claimed)
        except DamagedFileError as error:
            if self._has_results() and not settings.overwrite:
                raise InputError(
                    f"{self.stage}: output: {error}; with what settings its results were made is "
                    f"not known: {REPLACE}"
                ) from None
            return {"stage": self.stage, "fingerprint": self.fingerprint, "clearing": True}
        return claimed

    def _read_whole_manifest(self) -> Manifest | None:
        """The manifest, if it and the tables are as they were; else None.

        The output is unfinished then, and the run writes what is missing.
        """
        try:
            manifest = read_manifest(self.output)
            if manifest is None:
                return None
            wrong = difference(self.output, manifest.files)
            if wrong is None:
                return manifest
        except DamagedFileError as error:
            wrong = str(error)
        logger.warning("%s: %s; the run goes on", self.stage, wrong)
        storage.remove(storage.join(self.output, MANIFEST))
        return None

    def _clear(self, shaping: Mapping[str, Any]) -> None:
        """Remove all that an earlier run left, so that it never looks finished meanwhile.

        The manifest goes first. Then a claim of this run says that the rest is being cleared; it
        is never absent, and so no stage takes what is left for a table of its own.
        """
        storage.remove(storage.join(self.output, MANIFEST))
        self._write_claim(shaping, clearing=True)
        fs, path = storage.resolve(self.output)
        fs.invalidate_cache(path)
        for name in fs.ls(path, detail=False):
            if name.rstrip("/").rpartition("/")[2] != RUN:
                remove_folder(fs, name)

    def reopen(self) -> None:
        """Begin to work on an output that is finished; it is unfinished again until `finish`."""
        storage.remove(storage.join(self.output, MANIFEST))
        claimed = storage.read_json(storage.join(self.output, RUN))
        self._write_document({**(claimed or {}), "token": self.token})

    def note_effects(self) -> None:
        """From here on other settings are refused: the run has changed something on a server."""
        self.check_owner()
        claimed = storage.read_json(storage.join(self.output, RUN))
        self._write_document({**(claimed or {}), "effects": True})

    def check_owner(self) -> None:
        """Check that no other run has claimed the output since this one did.

        Raises: WorkError where one has, or where the claim was removed.
        """
        claimed = storage.read_json(storage.join(self.output, RUN))
        if claimed is None:
            raise WorkError(
                f"{self.stage}: output: {self.output} was removed or emptied while this run worked "
                "on it; run the same command again"
            )
        if claimed.get("token") != self.token:
            raise WorkError(
                f"{self.stage}: output: another run has taken over {self.output} since this one "
                "began, so this one stops; what is finished is kept, and the other run goes on "
                "with it"
            )

    def accept_inputs(self, settings: StageSettings) -> None:
        """Continue with inputs that changed, after the stage has found that it can.

        The output is unfinished again until `finish`.
        """
        storage.remove(storage.join(self.output, MANIFEST))
        self._write_claim(settings.shaping())

    def _write_claim(self, shaping: Mapping[str, Any], clearing: bool = False) -> None:
        document = {
            "stage": self.stage,
            "version": version("coyo-labeler"),
            "fingerprint": self.fingerprint,
            "token": self.token,
            "shaping": redact_settings(shaping),
            "inputs": self.inputs,
        }
        self._write_document(document | ({"clearing": True} if clearing else {}))

    def _write_document(self, claim: Mapping[str, Any]) -> None:
        storage.write_json(storage.join(self.output, RUN), claim)

    def _has_results(self) -> bool:
        """Whether there is a file but the claim; folders alone are left by a start that failed."""
        fs, path = storage.resolve(self.output)
        claim = posixpath.join(path, RUN)
        return any(name != claim for name in find_files(fs, path))

    def _refuse_foreign_files(self) -> None:
        fs, path = storage.resolve(self.output)
        if fs.isfile(path):
            raise InputError(f"{self.stage}: output: {self.output} is a file; give a folder")
        if not all(map(storage.is_temporary, list_names(fs, path))):
            raise InputError(
                f"{self.stage}: output: {self.output} is not empty and was not written by this "
                "stage; choose another folder"
            )

    def finish(self, outcome: Outcome) -> Manifest:
        """Check that no row was lost or doubled, then write the manifest.

        Temporary files of killed writers are removed first.

        Raises: CountError where the counts do not add up; WorkError, see `check_owner`.
        """
        self.check_owner()
        outcome.rows.check(self.stage)
        for name, counts in outcome.tables.items():
            counts.check(f"{self.stage}: {name}")
        storage.remove_temporaries(self.output)
        files = {**list_tables(self.output), **outcome.files}
        manifest = Manifest(
            stage=self.stage,
            version=version("coyo-labeler"),
            fingerprint=self.fingerprint,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.time() - self.started, 3),
            rows=outcome.rows,
            tables=outcome.tables,
            details=redact_texts(outcome.details),
            config=redact_settings(self.config),
            inputs=self.inputs,
            files=count_tables(files),
        )
        if files:
            storage.write_json(storage.join(self.output, FILES), files)
        storage.write_json(storage.join(self.output, MANIFEST), manifest.to_json())
        return manifest


def read_manifest(output: str) -> Manifest | None:
    """The manifest of a finished output folder, or None. Raises: DamagedFileError."""
    url = storage.join(output, MANIFEST)
    remedy = "run its stage again"
    document = storage.read_json(url, remedy)
    if document is None:
        return None
    with parsing(url, remedy):
        return Manifest.from_json(document)


def _difference(claimed: Mapping[str, Any], run: Run, shaping: Mapping[str, Any]) -> str:
    if claimed["stage"] != run.stage:
        return f"of the stage {claimed['stage']}"
    before = {**claimed["shaping"], **{f"content of {k}": v for k, v in claimed["inputs"].items()}}
    now = {**redact_settings(shaping), **{f"content of {k}": v for k, v in run.inputs.items()}}
    changed = [
        key
        if key.startswith("content of")
        else f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    return "changed: " + ", ".join(changed)
