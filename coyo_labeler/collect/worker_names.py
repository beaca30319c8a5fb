"""Names of workers, hashed on request before anything is written."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

#: The environment's variable with the key of the hashes.
WORKER_KEY = "COYO_LABELER_WORKER_KEY"

#: A worker's id with a hash for the name, see `WorkerNames._digest`.
_HASHED = re.compile(r"[a-z_]+:[0-9a-f]{20}")

#: Bytes of a key that BLAKE2b takes.
_KEY_BYTES = 64


@dataclass(frozen=True)
class WorkerNames:
    """How names appear in what is written. key: of the hashes; None: names are not hashed."""

    key: bytes | None = None

    @classmethod
    def from_environment(cls, hash_workers: bool) -> "WorkerNames":
        """Names as a setting wants them; the key is a secret, and so in the environment."""
        key = os.environ.get(WORKER_KEY, "").encode()[:_KEY_BYTES]
        return cls(key if hash_workers else None)

    @property
    def check(self) -> str:
        """Tells two keys apart, and says nothing about either."""
        return "" if self.key is None else self._digest("a name that nobody has")

    def shown(self, name: str) -> str:
        """A name, or its hash. A worker's id that has a hash, as select assigns it, is kept."""
        return name if self.key is None or _HASHED.fullmatch(name) else self._digest(name)

    def _digest(self, name: str) -> str:
        assert self.key is not None
        return hashlib.blake2b(name.encode(), digest_size=10, key=self.key).hexdigest()

    def of_users(self, users: Mapping[int, str]) -> dict[int, str]:
        """Names by the tool's number, as they are shown."""
        return {number: self.shown(name) for number, name in users.items()}

    def of_answers(self, answers: pa.Table) -> pa.Table:
        """Answers (schemas.ANSWERS) with their workers' names as they are shown."""
        if self.key is None:
            return answers
        coded = answers["worker"].combine_chunks().dictionary_encode()
        shown = pa.array([self.shown(name) for name in coded.dictionary.to_pylist()], pa.string())
        position = answers.schema.get_field_index("worker")
        column = shown.take(coded.indices)
        return answers.set_column(position, answers.schema.field(position), column)
