"""Where the loop stands: what the manifests of its rounds say."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from coyo_labeler import storage
from coyo_labeler.manifest import Manifest, read_manifest

_NUMBER = re.compile(r"\d{3,}")

#: Folders of a round: the stages of which it consists.
VOTED, LEARNED, MERGED, REPORT = "voted", "learned", "merged", "report"
QUESTIONS, SENT, COLLECTED = "questions", "sent", "collected"


@dataclass(frozen=True)
class Standing:
    """The last round that has begun.

    number: of the round; 0 before the first. wanted: answers that were asked for. sent: the
    manifest of send, if it has sent anything. collected: that of collect. spent: answers collected
    in all rounds.
    """

    number: int
    wanted: int = 0
    sent: Manifest | None = None
    collected: Manifest | None = None
    spent: int = 0

    @property
    def answers(self) -> int:
        """Answers of the round so far."""
        return 0 if self.collected is None else self.collected.rows.rows_out

    def has_enough(self, enough: float) -> bool:
        """Whether this share of the answers is in."""
        return self.collected is not None and self.answers >= enough * self.wanted

    def is_late(self, max_hours: float | None, now: datetime) -> bool:
        """Whether the round has some answers, and had its hours to get more."""
        if max_hours is None or self.sent is None or self.answers == 0:
            return False
        finished = datetime.fromisoformat(self.sent.finished)
        return (now - finished).total_seconds() / 3600 >= max_hours


def folder_of(rounds: str, number: int, *parts: str) -> str:
    """The folder of a round, or one in it."""
    return storage.join(rounds, f"{number:03d}", *parts)


def find_standing(rounds: str) -> Standing:
    """Where the loop stands. Raises: DamagedFileError where a manifest is damaged."""
    numbers = _numbers(rounds)
    manifests = [read_manifest(folder_of(rounds, number, COLLECTED)) for number in numbers]
    spent = sum(manifest.rows.rows_out for manifest in manifests if manifest is not None)
    last = max((number for number in numbers if number > 0), default=0)
    if last == 0:
        return Standing(0, spent=0)
    questions = read_manifest(folder_of(rounds, last, QUESTIONS))
    sent = read_manifest(folder_of(rounds, last, SENT))
    if sent is not None and sent.rows.rows_out == 0:
        sent = None
    wanted = 0
    if questions is not None and sent is not None:
        wanted = sent_of(questions.details["answers"], sent)
    return Standing(last, wanted, sent, manifests[numbers.index(last)], spent)


def sent_of(number: int, sent: Manifest) -> int:
    """How many of so many questions, or answers that are wanted, were sent.

    A question has a row for each of its workers, where these are assigned.
    """
    return number * sent.rows.rows_out // max(sent.rows.rows_in, 1)


def _numbers(rounds: str) -> list[int]:
    fs, path = storage.resolve(rounds)
    fs.invalidate_cache(path)
    names = fs.ls(path, detail=False) if fs.isdir(path) else []
    words = [name.rstrip("/").rpartition("/")[2] for name in names]
    return sorted(int(word) for word in words if _NUMBER.fullmatch(word))


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
