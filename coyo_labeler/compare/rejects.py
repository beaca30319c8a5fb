"""Records that were left out: how many by table and reason, and the first of each by name."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coyo_labeler.compare.records import BrokenRecordError, Id, Reason

#: Records that are named per table and reason.
NAMED = 5


class Named(NamedTuple):
    """A record that was left out. file: its file. number: its index in the list, where known. id:
    its own, where it has one. image: the file name of its image. what: what is wrong with it.
    """

    file: str
    what: str
    number: int | None = None
    id: Id | None = None
    image: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without what is not known."""
        return {key: value for key, value in self._asdict().items() if value is not None}

    def __str__(self) -> str:
        which = f"[{self.number}]" if self.number is not None else f"id {self.id}"
        return f"{self.file} {which}{f' on {self.image}' if self.image else ''}: {self.what}"


@dataclass
class Rejects:
    """Counts and names, to be added up in the order of the files and images."""

    counts: Counter[tuple[str, Reason]] = field(default_factory=Counter)
    named: dict[tuple[str, Reason], list[Named]] = field(default_factory=dict)

    def add(self, table: str, error: BrokenRecordError, record: Named) -> None:
        """Count a record. table: images, categories or annotations."""
        key = (table, error.reason)
        self.counts[key] += 1
        named = self.named.setdefault(key, [])
        if len(named) < NAMED:
            named.append(record)

    def merge(self, other: "Rejects") -> None:
        """Add those of a later part."""
        self.counts += other.counts
        for key, records in other.named.items():
            named = self.named.setdefault(key, [])
            named += records[: NAMED - len(named)]

    def of(self, table: str) -> dict[str, int]:
        """The counts of a table by reason, sorted by name."""
        return {
            reason.value: count
            for (name, reason), count in sorted(self.counts.items())
            if name == table
        }

    def to_json(self) -> dict[str, Any]:
        """By table and reason, the count and the named records."""
        tables: dict[str, Any] = {}
        for (table, reason), count in sorted(self.counts.items()):
            named = [record.to_json() for record in self.named[table, reason]]
            tables.setdefault(table, {})[reason.value] = {"count": count, "first": named}
        return tables
