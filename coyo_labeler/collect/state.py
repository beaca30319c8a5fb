"""The answers of a server as the last poll found them, so that the next asks for what is new."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler import storage
from coyo_labeler.formats import schemas
from coyo_labeler.storage_errors import parsing

#: The file in the output; readers of tables skip its name.
STATE = "_answers.parquet"

_META = "coyo_labeler"


@dataclass(frozen=True)
class Polled:
    """All answers of a server's projects (schemas.ANSWERS), and up to when they are complete.

    cursors: per project, what the tool needs to find changes. users: names of workers by number.
    key_check: of the key with which names are hashed, "" where they are not.
    """

    answers: pa.Table = field(default_factory=schemas.ANSWERS.empty_table)
    cursors: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[int, str] = field(default_factory=dict)
    key_check: str = ""

    @property
    def stamp(self) -> str:
        """Changes with the answers and the names of workers."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.answers.schema) as writer:
            writer.write_table(self.answers, max_chunksize=1 << 16)
        named = json.dumps(sorted(self.users.items())).encode()
        return hashlib.sha256(sink.getvalue().to_pybytes() + named).hexdigest()[:16]


def read_state(output: str) -> Polled:
    """What the last poll left in an output; nothing where there was none.

    Raises: DamagedFileError, InputError where it cannot be read.
    """
    url = storage.join(output, STATE)
    if not storage.exists(url):
        return Polled()
    remedy = "run with overwrite=true, which reads all answers again"
    with storage.open_parquet("collect: output", url, remedy) as parquet:
        answers = parquet.read()
    with parsing(url, remedy):
        document = json.loads((answers.schema.metadata or {})[_META.encode()])
        users = {int(number): name for number, name in document["users"].items()}
        answers = answers.replace_schema_metadata().cast(schemas.ANSWERS)
        return Polled(answers, document["cursors"], users, document["key_check"])


def write_state(output: str, polled: Polled) -> None:
    """Write what a poll found, whole or not at all."""
    document = {
        "cursors": dict(sorted(polled.cursors.items())),
        "key_check": polled.key_check,
        "users": {str(number): name for number, name in sorted(polled.users.items())},
    }
    metadata = {_META: json.dumps(document)}
    storage.write_parquet(storage.join(output, STATE), polled.answers, metadata)


def replace_groups(answers: pa.Table, groups: Collection[str], changed: pa.Table) -> pa.Table:
    """The answers, with those of some groups replaced, in an order that their content decides."""
    is_old = pc.is_in(answers["group"], value_set=pa.array(sorted(groups), pa.string()))
    joined = pa.concat_tables([answers.filter(pc.invert(is_old)), changed])
    keys = [(name, "ascending") for name in ("group", "answer_id")]
    return joined.take(pc.sort_indices(joined, keys)).combine_chunks()
