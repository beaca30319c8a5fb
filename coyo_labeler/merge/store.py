"""The state of a merge under `output/_state`: what a killed run goes on from.

Problems are written once, by the task that built them, and mapped into memory from then on: any
worker of the machine can take up any partition without copying it.
"""

import io
import json
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
from coyo_labeler.merge.arrays import I64
from coyo_labeler.merge.fit import State
from coyo_labeler.merge.model import Calibration
from coyo_labeler.merge.problems import Problems, read_problems, write_problems

FOLDER = "_state"

#: Partitions that a worker process keeps mapped.
_MAPPED = 64
_mapped: "OrderedDict[tuple[str, str, int], tuple[Problems, I64]]" = OrderedDict()


@dataclass(frozen=True)
class Store:
    """Files of one run's state. run: stands for the run, so that no stale map is taken for it."""

    output: str
    run: str

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

    def read_array(self, name: str, partition: int | None = None) -> NDArray[Any]:
        """The reverse of `write_array`."""
        array: NDArray[Any] = np.load(io.BytesIO(_read(self.url(name, partition))))
        return array

    def write_problems(self, problems: Problems, partition: int) -> None:
        """Write a partition's problems."""
        with storage.open_atomic(self.url("problems.arrow", partition)) as file:
            write_problems(problems, pa.PythonFile(file, "w"))

    def map_partition(self, partition: int) -> tuple[Problems, I64]:
        """A partition's problems, mapped, and the places of its cells among all."""
        key = (self.output, self.run, partition)
        if key not in _mapped:
            source = pa.memory_map(self._local(self.url("problems.arrow", partition)))
            _mapped[key] = (read_problems(source), self.read_array("places.npy", partition))
            if len(_mapped) > _MAPPED:
                _mapped.popitem(last=False)
        return _mapped[key]

    def _local(self, url: str) -> str:
        """A path on this machine of the file at `url`; fetched once if it lies elsewhere."""
        fs, path = storage.resolve(url)
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        if protocols & {"file", "local"}:
            return path
        copy = Path(tempfile.gettempdir()) / f"coyo_labeler-{self.run}" / path.rsplit("/", 1)[-1]
        if not copy.exists():
            storage.write_bytes(str(copy), fs.cat_file(path))
        return str(copy)

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
        plain = {key: value for key, value in asdict(state).items() if key not in _ARRAYS}
        plain["decisions"] = str(state.decisions)
        text = np.frombuffer(json.dumps(plain).encode(), dtype=np.uint8)
        file = io.BytesIO()
        np.savez(file, plain=text, **arrays)
        storage.write_bytes(self.url("iteration.npz"), file.getvalue())

    def load_state(self) -> State | None:
        """The state after the last finished iteration, or None before the first."""
        try:
            data = _read(self.url("iteration.npz"))
        except FileNotFoundError:
            return None
        with np.load(io.BytesIO(data)) as arrays:
            plain: Mapping[str, Any] = json.loads(arrays["plain"].tobytes())
            given = {name: arrays[name] for name in _ARRAYS if name in arrays}
        return State(
            **given,
            calibration=Calibration(**plain["calibration"]),
            before=Calibration(**plain["before"]),
            true_share=plain["true_share"],
            decisions=int(plain["decisions"]),
            history=tuple(plain["history"]),
            stopped=plain["stopped"],
        )

    def clear(self) -> None:
        """Remove the state: the output is whole without it."""
        storage.clear(storage.join(self.output, FOLDER))


_ARRAYS = ("counts", "log_class_prior")


def _read(url: str) -> bytes:
    fs, path = storage.resolve(url)
    data: bytes = fs.cat_file(path)
    return data
