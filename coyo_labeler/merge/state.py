"""The state of a merge under `output/_state`: what a killed run goes on from.

Problems are written once, by the task that built them, and mapped into memory from then on: any
worker of the machine can take up any partition without copying it.
"""

import io
import json
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.em.loop import State
from coyo_labeler.em.model import Calibration, SkillCheckpoint
from coyo_labeler.em.problems import Problems
from coyo_labeler.merge.arrays_file import Record, read_arrays, write_arrays
from coyo_labeler.merge.cell_shards import ShardCells

FOLDER = "_state"
#: What tells that everything has been laid out: written last, removed first.
LAYOUT = "layout.json"

#: Files that a worker process keeps mapped.
_MAPPED = 128
_mapped: "OrderedDict[tuple[str, str], Any]" = OrderedDict()


@dataclass(frozen=True)
class Store:
    """Files of one run's state.

    run: stands for all that has been laid out, so that no stale map or copy is taken for it.
    """

    output: str
    run: str

    @classmethod
    def open(cls, output: str, run: str) -> "Store":
        """The store of what an unfinished run in `output` has laid out, or else a new one, `run`'s.

        So the copies that this machine has of it are used again.
        """
        kept: Any = storage.read_json(storage.join(output, FOLDER, LAYOUT))
        return cls(output, run if kept is None else kept["run"])

    def url(self, name: str, partition: int | None = None) -> str:
        """A file of the state; of a partition where given."""
        if partition is not None:
            stem, dot, suffix = name.partition(".")
            name = f"{stem}-{partition:05d}{dot}{suffix}"
        return storage.join(self.output, FOLDER, name)

    def write_array(self, name: str, array: NDArray[Any], partition: int | None = None) -> None:
        """Write one array."""
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        storage.write_bytes(self.url(name, partition), file.getvalue())

    def has_array(self, name: str, partition: int | None = None) -> bool:
        """Whether an array has been written."""
        return storage.exists(self.url(name, partition))

    def read_array(self, name: str, partition: int | None = None) -> NDArray[Any]:
        """The reverse of `write_array`."""
        array: NDArray[Any] = np.load(io.BytesIO(_read(self.url(name, partition))))
        return array

    def map_array(self, name: str, partition: int) -> NDArray[Any]:
        """An array of a partition, mapped."""
        array: NDArray[Any] = np.load(self._local(self.url(name, partition)), mmap_mode="r")
        return array

    def write_problems(self, problems: Problems, partition: int) -> None:
        """Write a partition's problems."""
        self._write_arrays(problems, self.url("problems.arrow", partition))

    def map_problems(self, partition: int) -> Problems:
        """A partition's problems, mapped."""
        return self._map(Problems, self.url("problems.arrow", partition))

    def write_shard(self, cells: ShardCells, shard: int) -> None:
        """Write a shard's cells."""
        self._write_arrays(cells, self.url("shard.arrow", shard))

    def map_shard(self, shard: int) -> ShardCells:
        """A shard's cells, mapped."""
        return self._map(ShardCells, self.url("shard.arrow", shard))

    def _write_arrays(self, record: Any, url: str) -> None:
        with storage.open_atomic(url) as file:
            write_arrays(record, pa.PythonFile(file, "w"))

    def _map(self, kind: type[Record], url: str) -> Record:
        key = (self.run, url)
        if key not in _mapped:
            _mapped[key] = read_arrays(kind, pa.memory_map(self._local(url)))
            if len(_mapped) > _MAPPED:
                _mapped.popitem(last=False)
        found: Record = _mapped[key]
        return found

    def _local(self, url: str) -> str:
        """A path on this machine of the file at `url`; fetched once if it lies elsewhere."""
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

    def forget(self, _: int = 0) -> None:
        """Let go of what this process has mapped, and of this machine's copies."""
        for key in list(_mapped):
            if key[0] == self.run:
                _mapped.pop(key, None)
        # Other tasks of this machine do the same.
        shutil.rmtree(self._copies, ignore_errors=True)

    def read_table(self, name: str, partition: int) -> pa.Table:
        """A Parquet table of a partition."""
        fs, path = storage.resolve(self.url(name, partition))
        return pq.read_table(path, filesystem=fs)

    def save_state(self, state: State) -> None:
        """Write what the next iteration needs, in place of what the one before wrote."""
        arrays = {
            name: value
            for name in ("counts", "log_class_prior")
            if (value := getattr(state, name)) is not None
        }
        kept = None if state.checkpoint is None else state.checkpoint.version
        plain = {key: value for key, value in asdict(state).items() if key not in _ARRAYS}
        plain["argmax_checksum"] = str(state.argmax_checksum)
        text = np.frombuffer(json.dumps(plain).encode(), dtype=np.uint8)
        file = io.BytesIO()
        np.savez(file, plain=text, **arrays)
        storage.write_bytes(self.url("iteration.npz"), file.getvalue())
        if kept is not None:
            self._forget_before(kept)

    def _forget_before(self, version: int) -> None:
        """Remove the skills that shards kept of earlier iterations."""
        fs, path = storage.resolve(self.url("skill-*.npy"))
        for name in fs.glob(path):
            if int(name.rsplit("/", 1)[-1].split("-")[1].removesuffix(".npy")) < version:
                fs.rm_file(name)

    def load_state(self) -> State | None:
        """The state after the last finished iteration, or None before the first."""
        try:
            data = _read(self.url("iteration.npz"))
        except FileNotFoundError:
            return None
        with np.load(io.BytesIO(data)) as arrays:
            plain: Mapping[str, Any] = json.loads(arrays["plain"].tobytes())
            given = {name: arrays[name] for name in _ARRAYS if name in arrays}
        accepted = plain["accepted_calibration"]
        return State(
            **given,
            checkpoint=SkillCheckpoint(**plain["checkpoint"]) if plain["checkpoint"] else None,
            calibration=Calibration(**plain["calibration"]),
            accepted_calibration=Calibration(**accepted) if accepted else None,
            true_share=plain["true_share"],
            argmax_checksum=int(plain["argmax_checksum"]),
            history=tuple(plain["history"]),
            stopped=plain["stopped"],
        )

    def clear(self) -> None:
        """Remove the state: the output is whole without it."""
        storage.remove(self.url(LAYOUT))
        storage.clear(storage.join(self.output, FOLDER))


_ARRAYS = ("counts", "log_class_prior")


def _read(url: str) -> bytes:
    fs, path = storage.resolve(url)
    data: bytes = fs.cat_file(path)
    return data
