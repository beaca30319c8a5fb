"""The state of a merge under `output/_state`: what a killed run resumes from.

Problems are written once, by the task that built them, and mapped into memory from then on: any
process of a machine can take up any partition without copying it.
"""

import errno
import io
import json
import logging
import re
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.em.inputs import Inputs
from coyo_labeler.em.loop import State
from coyo_labeler.em.model import Calibration, SkillCheckpoint
from coyo_labeler.em.problems import Problems
from coyo_labeler.errors import WorkError, one_line
from coyo_labeler.merge.arrays_file import Record, read_arrays, write_arrays
from coyo_labeler.merge.cell_shards import ShardCells
from coyo_labeler.merge.checksums import (
    CheckedWriter,
    check_file,
    check_sealed,
    seal,
    with_checksum,
    without_checksum,
)
from coyo_labeler.storage_errors import DamagedFileError, parsing

logger = logging.getLogger(__name__)

FOLDER = "_state"
#: Says that everything has been prepared: written last, removed first.
_PREPARED = "prepared.json"
#: The version of the files under `_state`. A run that another version left unfinished starts anew.
_VERSION = 5
_CHECKPOINT = "iteration.npz"
_CHECKPOINT_ARRAYS = ("counts", "log_class_prior")

#: What Arrow and NumPy raise for a file that is cut short or damaged, beside OSError.
_DAMAGED = (
    pa.ArrowException,
    AttributeError,
    BadZipFile,
    EOFError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)

#: Files that a process keeps mapped.
_MAPPED = 128
_mapped: "OrderedDict[tuple[str, str], Any]" = OrderedDict()


@dataclass(frozen=True)
class Written:
    """A file that is complete. name: below the output. file: see `written.describe_files`."""

    name: str
    rows: int
    file: Sequence[Any]


@dataclass(frozen=True)
class StateFolder:
    """The files of one run's state, in a folder of its own below `_state`.

    run: the name of the run that prepared them, so that no stale map or copy is used, and two runs
    never mix their files.
    """

    output: str
    run: str

    @classmethod
    def open(cls, output: str, fingerprint: str, token: str) -> "StateFolder":
        """The state of the unfinished run in `output`, or else a new one.

        An unfinished run keeps its name, so that its copies on this machine are used again. The
        state of a run with another fingerprint, which was copied here, does not count.
        """
        name = f"{fingerprint}-{token}"
        prepared = cls(output, name)._read_prepared()
        if _is_of_this_version(prepared):
            if prepared["run"].rpartition("-")[0] == fingerprint:
                return cls(output, prepared["run"])
            logger.warning(
                "merge: the state in %s is of a run with other settings or inputs; it is not used",
                storage.join(output, FOLDER),
            )
            storage.remove(cls(output, name)._prepared)
        return cls(output, name)

    # What has been prepared, and the checkpoint of EM.

    def read_prepared(self) -> dict[str, Any] | None:
        """What `write_prepared` wrote, or None where there is nothing that can be used."""
        prepared = self._read_prepared()
        if prepared and not _is_of_this_version(prepared):
            logger.warning(
                "merge: %s was left unfinished by another version of this program; it starts anew",
                self.output,
            )
            return None
        return prepared

    def _read_prepared(self) -> dict[str, Any] | None:
        try:
            prepared = storage.read_json(self._prepared, "the run starts anew")
            if _is_of_this_version(prepared):
                with parsing(self._prepared, "the run starts anew"):
                    check_sealed(prepared)
            return prepared
        except DamagedFileError as error:
            logger.warning("merge: %s", error)
            return None

    def write_prepared(self, prepared: Mapping[str, Any]) -> None:
        """Write a JSON document that says that everything has been prepared."""
        document = {"version": _VERSION, "run": self.run, **prepared}
        storage.write_json(self._prepared, seal(document))

    def save_checkpoint(self, state: State) -> None:
        """Write what the next iteration needs, in place of the checkpoint before."""
        arrays = {
            name: value
            for name in _CHECKPOINT_ARRAYS
            if (value := getattr(state, name)) is not None
        }
        plain = {
            key: value for key, value in asdict(state).items() if key not in _CHECKPOINT_ARRAYS
        }
        plain["argmax_checksum"] = str(state.argmax_checksum)  # JSON has no integers of 64 bits
        text = np.frombuffer(json.dumps(plain).encode(), dtype=np.uint8)
        file = io.BytesIO()
        np.savez(file, plain=text, **arrays)
        storage.write_bytes(self._url(_CHECKPOINT), file.getvalue())
        if state.checkpoint is not None:
            self._remove_skills_before(state.checkpoint.version)

    def load_checkpoint(self) -> State | None:
        """The state of EM after the last finished iteration, or None before the first."""
        try:
            data = _read(self._url(_CHECKPOINT))
        except FileNotFoundError:
            return None
        try:
            with parsing(self._url(_CHECKPOINT), "EM starts at its first iteration"):
                return _state_of(data)
        except DamagedFileError as error:
            logger.warning("merge: %s", error)
            return None

    def _remove_skills_before(self, version: int) -> None:
        """Remove the skills that shards kept of earlier iterations."""
        fs, path = storage.resolve(storage.join(self.output, FOLDER))
        for name in fs.ls(path, detail=False):
            of_version = re.search(r"/skill-(\d+)[^/]*\.npy$", name)
            if of_version and int(of_version[1]) < version:
                fs.rm_file(name)

    # The files of partitions and shards.

    def write_votes(self, votes: pa.Table, partition: int) -> None:
        """Write the checked votes of a partition."""
        with (
            storage.open_atomic(self._url("votes.arrow", partition)) as file,
            closing(CheckedWriter(file)) as checked,
        ):
            with pa.ipc.new_stream(pa.PythonFile(checked, "w"), votes.schema) as writer:
                writer.write_table(votes)
            checked.end()

    def read_votes(self, partition: int) -> pa.Table:
        """The reverse of `write_votes`."""
        url = self._url("votes.arrow", partition)
        with self._reading(url):
            return pa.ipc.open_stream(without_checksum(_read(url))).read_all()

    def remove_votes(self, partitions: int) -> None:
        """Remove the votes of all partitions: problems have been made of them."""
        for partition in range(partitions):
            storage.remove(self._url("votes.arrow", partition))

    def write_voted_ids(self, ids: NDArray[np.int64], number: int) -> None:
        """Write some ids (n,) of voted images, sorted and distinct; number: of the file."""
        self.write_array("voted-ids.npy", ids, number)

    def map_voted_ids(self, number: int) -> NDArray[np.int64]:
        """The reverse of `write_voted_ids`, mapped."""
        url = self._url("voted-ids.npy", number)
        with self._reading(url):
            path = self._local(url)
            check_file(path)
            ids: NDArray[np.int64] = np.load(path, mmap_mode="r")
        return ids

    def write_inputs(self, inputs: Inputs, partition: int) -> None:
        """Write what a partition's problems will be built from."""
        self._write_record(inputs, self._url("inputs.arrow", partition))

    def read_inputs(self, partition: int) -> Inputs:
        """The reverse of `write_inputs`, mapped; not kept, for it is read once."""
        url = self._url("inputs.arrow", partition)
        with self._reading(url):
            return read_arrays(Inputs, pa.memory_map(self._local(url)))

    def remove_inputs(self, partitions: int) -> None:
        """Remove the inputs of all partitions: problems have been made of them."""
        for partition in range(partitions):
            storage.remove(self._url("inputs.arrow", partition))

    def write_problems(self, problems: Problems, partition: int) -> None:
        """Write a partition's problems."""
        self._write_record(problems, self._url("problems.arrow", partition))

    def map_problems(self, partition: int) -> Problems:
        """A partition's problems, mapped."""
        return self._map_record(Problems, self._url("problems.arrow", partition))

    def write_shard(self, cells: ShardCells, shard: int) -> None:
        """Write a shard's cells."""
        self._write_record(cells, self._url("shard.arrow", shard))

    def map_shard(self, shard: int) -> ShardCells:
        """A shard's cells, mapped."""
        return self._map_record(ShardCells, self._url("shard.arrow", shard))

    def write_table(self, name: str, table: pa.Table, partition: int) -> None:
        """Write a Parquet table of a partition."""
        storage.write_parquet(self._url(f"{name}.parquet", partition), table)

    def read_table(self, name: str, partition: int) -> pa.Table:
        """The reverse of `write_table`."""
        url = self._url(f"{name}.parquet", partition)
        fs, path = storage.resolve(url)
        with self._reading(url):
            return pq.read_table(path, filesystem=fs, page_checksum_verification=True)

    def write_array(self, name: str, array: NDArray[Any], number: int | None = None) -> None:
        """Write one array; number: of the partition or shard that it belongs to."""
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        storage.write_bytes(self._url(name, number), with_checksum(file.getvalue()))

    def read_array(self, name: str, number: int | None = None) -> NDArray[Any]:
        """The reverse of `write_array`."""
        url = self._url(name, number)
        with self._reading(url):
            array: NDArray[Any] = np.load(io.BytesIO(without_checksum(_read(url))))
        return array

    # What the posterior consists of.

    def write_written(self, written: Written) -> None:
        """Write down that a file of the posterior is complete."""
        document = {"rows": written.rows, "file": written.file}
        storage.write_json(self._url(_written_name(written.name)), seal(document))

    def read_written(self, name: str) -> Written | None:
        """The reverse of `write_written`, or None where it was not called for this file."""
        url = self._url(_written_name(name))
        try:
            document = storage.read_json(url)
            with parsing(url):
                if document is None:
                    return None
                check_sealed(document)
                return Written(name, document["rows"], document["file"])
        except DamagedFileError:
            return None

    # The end.

    def release(self, _: int = 0) -> None:
        """Let go of what this process has mapped, and of this machine's copies."""
        for key in list(_mapped):
            if key[0] == self.run:
                _mapped.pop(key, None)
        # Other tasks of this machine do the same.
        shutil.rmtree(self._copies, ignore_errors=True)

    def remove(self) -> None:
        """Remove the state: the output is whole without it."""
        storage.remove(self._prepared)
        storage.clear(storage.join(self.output, FOLDER))

    @property
    def _prepared(self) -> str:
        return storage.join(self.output, FOLDER, _PREPARED)

    def _url(self, name: str, number: int | None = None) -> str:
        if number is not None:
            stem, dot, suffix = name.partition(".")
            name = f"{stem}-{number:05d}{dot}{suffix}"
        return storage.join(self.output, FOLDER, self.run, name)

    def _write_record(self, record: Any, url: str) -> None:
        with storage.open_atomic(url) as file:
            write_arrays(record, pa.PythonFile(file, "w"))

    def _map_record(self, kind: type[Record], url: str) -> Record:
        key = (self.run, url)
        if key not in _mapped:
            with self._reading(url):
                _mapped[key] = read_arrays(kind, pa.memory_map(self._local(url)))
            if len(_mapped) > _MAPPED:
                _mapped.popitem(last=False)
        record: Record = _mapped[key]
        return record

    @contextmanager
    def _reading(self, url: str) -> Iterator[None]:
        """Reading a file of this folder. A damaged one is not used again: the next run starts anew.

        Raises: WorkError where it is missing, cut short or damaged.
        """
        try:
            yield
        except (*_DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
                raise
            prepared = self._read_prepared()
            if prepared is not None and prepared.get("run") == self.run:
                storage.remove(self._prepared)
            raise WorkError(
                f"merge: {url} is missing, cut short or damaged ({one_line(error, 200)}); run the "
                "same command again: it prepares the votes anew"
            ) from error

    def _local(self, url: str) -> str:
        """A path on this machine of the file at `url`, copied once if it lies elsewhere."""
        fs, path = storage.resolve(url)
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        if protocols & {"file", "local"}:
            return path
        copy = self._copies / path.rsplit("/", 1)[-1]
        if not copy.exists():
            storage.write_bytes(str(copy), fs.cat_file(path))
        return str(copy)

    @property
    def _copies(self) -> Path:
        return Path(tempfile.gettempdir()) / f"coyo_labeler-{self.run}"


def _state_of(data: bytes) -> State:
    """The reverse of what `save_checkpoint` writes."""
    with np.load(io.BytesIO(data)) as arrays:
        plain: Mapping[str, Any] = json.loads(arrays["plain"].tobytes())
        given = {name: arrays[name] for name in _CHECKPOINT_ARRAYS if name in arrays}
    accepted = plain["accepted_calibration"]
    return State(
        **given,
        checkpoint=SkillCheckpoint(**plain["checkpoint"]) if plain["checkpoint"] else None,
        calibration=Calibration.from_json(plain["calibration"]),
        accepted_calibration=Calibration.from_json(accepted) if accepted else None,
        true_share=plain["true_share"],
        argmax_checksum=int(plain["argmax_checksum"]),
        weighted_objective=plain["weighted_objective"],
        history=tuple(plain["history"]),
        stopped=plain["stopped"],
    )


def _written_name(name: str) -> str:
    return f"written-{name.replace('/', '-')}.json"


def _is_of_this_version(prepared: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    is_ours = prepared is not None and prepared.get("version") == _VERSION
    return is_ours and isinstance(prepared.get("run"), str)  # type: ignore[union-attr]


def _read(url: str) -> bytes:
    fs, path = storage.resolve(url)
    data: bytes = fs.cat_file(path)
    return data
