"""The stages of a round: what each reads, where it writes, and the user's settings for it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coyo_labeler import storage
from coyo_labeler.config.read import default_config, read_settings
from coyo_labeler.config.round import NESTED, RoundSettings
from coyo_labeler.errors import InputError
from coyo_labeler.manifest import REPLACE, Manifest
from coyo_labeler.round.standing import (
    COLLECTED,
    LEARNED,
    MERGED,
    QUESTIONS,
    REPORT,
    SENT,
    VOTED,
    Standing,
    folder_of,
)
from coyo_labeler.stages import STAGES, run_stage

#: Runs a stage with `key=value` words: its manifest, and whether there was work.
Runner = Callable[[str, Sequence[str]], tuple[Manifest, bool]]


def run_words(name: str, words: Sequence[str]) -> tuple[Manifest, bool]:
    """Run a stage of the package. Raises: InputError, WorkError as the stage does."""
    stage = STAGES.get(name)
    if stage is None:
        raise InputError(f"round: this version has no stage '{name}'; leave its settings out")
    return run_stage(
        stage, read_settings(stage.settings_class(), name, default_config(name), words)
    )


@dataclass(frozen=True)
class Steps:
    """The stages of the rounds below `settings.rounds`, run by `run`."""

    settings: RoundSettings
    run: Runner

    def check(self) -> None:
        """See that nobody sets what the loop sets.

        Raises: InputError naming the key.
        """
        for stage, keys in NESTED.items():
            wrong = sorted(keys & getattr(self.settings, stage).keys())
            if wrong:
                raise InputError(f"round: {stage}.{wrong[0]}: the loop sets it; leave it out")
        for stage, key in (("select", "budget"), ("send", "to")):
            if key not in getattr(self.settings, stage):
                raise InputError(f"round: {stage}.{key}: missing; give {stage}.{key}=…")

    def folder(self, number: int, *parts: str) -> str:
        """The folder of a round, or one in it."""
        return folder_of(self.settings.rounds, number, *parts)

    def votes(self) -> str:
        """The votes of all rounds; a folder 000 holds those from before the loop."""
        return storage.join(self.settings.rounds, "*", COLLECTED, "votes")

    def has_votes_before(self) -> bool:
        """Whether there are votes from before the loop, in the folder 000."""
        return storage.exists(self.folder(0, COLLECTED, "votes"))

    def merge(self, number: int) -> str:
        """Merge all votes of earlier rounds; returns the labels.

        With embeddings it merges, learns from that, and merges the votes with what was learned: the
        learner sees no vote of an image in its own prior.
        """
        settings = self.settings
        votes = self.votes()
        if settings.embeddings is None:
            return self._stage("merge", number, MERGED, beliefs=settings.beliefs, votes=votes)
        voted = self._stage("merge", number, VOTED, beliefs=settings.beliefs, votes=votes)
        learned = self._stage(
            "learn",
            number,
            LEARNED,
            embeddings=settings.embeddings,
            labels=voted,
            beliefs=settings.beliefs,
            votes=votes,
        )
        categorical = {"beliefs_are": "categorical"}
        return self._stage("merge", number, MERGED, beliefs=learned, votes=votes, **categorical)

    def report(self, number: int, labels: str) -> dict[str, Any] | None:
        """What report.json says of the labels' accuracy by the audit; None if nothing."""
        fixed: dict[str, object] = {"labels": labels, "votes": self.votes()}
        if self.settings.gold is not None and number > 1:
            fixed["gold_key"] = storage.join(self.settings.rounds, "*", QUESTIONS, "gold_key")
        self._run("report", number, REPORT, fixed)
        output = self.folder(number, REPORT)
        document = storage.read_json(storage.join(output, "report.json")) or {}
        audit: dict[str, Any] | None = (document.get("audit") or {}).get("labels")
        return audit

    def budget(self, spent: int) -> str:
        """Answers that the next round may ask for, when so many have been collected."""
        own = self.settings.select["budget"]
        if self.settings.budget is None or not own.isdecimal():  # select says what is wrong with it
            return own
        return str(min(int(own), self.settings.budget - spent))

    def select(self, number: int, labels: str, budget: str, has_votes: bool) -> Manifest:
        """Choose the questions of a round."""
        settings = self.settings
        fixed: dict[str, object] = {"labels": labels, "round": number, "budget": budget}
        fixed |= {"images": settings.images, "gold": settings.gold}
        fixed |= {"votes": self.votes() if has_votes else None}
        return self._run("select", number, QUESTIONS, fixed)

    def send(self, number: int) -> Manifest:
        """Give the questions of a round to the tool."""
        fixed: dict[str, object] = {"questions": self.folder(number, QUESTIONS)}
        return self._run("send", number, SENT, fixed | {"images": self.settings.images})

    def collect(self, number: int) -> Manifest:
        """Read the answers of a round."""
        sent = self.folder(number, SENT)
        fixed: dict[str, object] = {"questions": self.folder(number, QUESTIONS), "sent": sent}
        return self._run("collect", number, COLLECTED, fixed | {"source": self.source(number)})

    def source(self, number: int) -> str:
        """Where the answers of a round are."""
        if self.settings.source is None:
            return self.folder(number, SENT)
        return self.settings.source.replace("{round}", f"{number:03d}")

    def answers_are_there(self, number: int) -> bool:
        """Whether there is anything to collect from yet."""
        source = self.source(number)
        return source.startswith(("http://", "https://")) or storage.exists(source)

    def _stage(self, stage: str, number: int, part: str, **fixed: object) -> str:
        """Run a stage of a round, unless it is finished; returns its output."""
        self._run(stage, number, part, fixed)
        return self.folder(number, part)

    def _run(self, stage: str, number: int, part: str, fixed: Mapping[str, object]) -> Manifest:
        given: dict[str, str] = getattr(self.settings, stage)
        known = {
            "label_space": self.settings.label_space,
            **self._spark(),
            **{key: value for key, value in fixed.items() if value is not None},
            **{key: value for key, value in given.items() if key != "budget"},
            "output": self.folder(number, part),
        }
        try:
            return self.run(stage, [f"{key}={value}" for key, value in known.items()])[0]
        except InputError as error:
            if REPLACE not in str(error):
                raise
            # The outputs of a round cannot be chosen, and the key is that of the stage.
            remedy = f"go back to what it was, or replace them with {stage}.overwrite=true"
            raise InputError(str(error).replace(REPLACE, remedy)) from None

    def _spark(self) -> dict[str, object]:
        spark = self.settings.spark
        conf: dict[str, object] = {f"spark.conf.{k}": value for k, value in spark.conf.items()}
        return conf | ({"spark.master": spark.master} if spark.master is not None else {})


def answers_wanted(standing: Standing) -> str:
    """How many answers of a round there are, in words."""
    return f"{standing.answers:,} of {standing.wanted:,} answers"
