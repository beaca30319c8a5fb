"""The rounds of the demo: `coyo-labeler round` asks, simulated annotators answer, it collects."""

import logging
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coyo_labeler import storage
from coyo_labeler.config.demo import DemoSettings
from coyo_labeler.demo import annotators
from coyo_labeler.manifest import read_manifest
from coyo_labeler.round.standing import COLLECTED, QUESTIONS, SENT, find_standing, folder_of

logger = logging.getLogger(__name__)

#: Rounds of questions, and answers wanted in each: 0.35 votes per image over both (Liao, Kar &
#: Fidler 2021), but for those about gold.
ROUNDS, ANSWERS_PER_ROUND = 2, 342
#: Share of the questions that are about digits whose class is known.
GOLD_SHARE = 0.095
#: Answers per question. Two people who contradict each other show who errs.
OVERLAP = 2
#: Digits that a question offers; what the image shows is sometimes none of them.
CANDIDATES = 5

#: Runs a stage or the command `round`, given its name and `key=value` arguments.
Runner = Callable[[str, Sequence[str]], None]


def ask(settings: DemoSettings, truth: Mapping[int, int], run: Runner) -> None:
    """Run both rounds, or what is missing of them, and copy their votes to `votes/`.

    truth: class of every image, by id.
    """
    out = settings.output
    rounds, users = storage.join(out, "rounds"), _answers(out, "users")
    if not storage.exists(users):
        annotators.write_users(users)
    for number in range(1, ROUNDS + 1):
        standing = find_standing(rounds)
        if standing.number < number or (standing.number == number and standing.sent is None):
            logger.info("── round %d: select the riskiest images, send the questions", number)
            run("round", _words(out))
        answers = _answers(out, f"{number:03d}")
        if not storage.exists(answers):
            sent = folder_of(rounds, number, SENT)
            annotators.write_answers(sent, answers, truth, number, settings.seed)
        if read_manifest(folder_of(rounds, number, COLLECTED)) is None:
            logger.info("── round %d: collect the answers of simulated annotators", number)
            run("round", _words(out))
        votes = storage.files_of(folder_of(rounds, number, COLLECTED, "votes"))
        for file in sorted(votes):
            name = f"{number:03d}-{posixpath.basename(file)}"
            if not storage.exists(storage.join(out, "votes", name)):
                storage.copy(file, storage.join(out, "votes", name))


def _answers(out: str, name: str) -> str:
    return storage.join(out, "answers", f"{name}.json")


def _words(out: str) -> list[str]:
    """The arguments of every call of `coyo-labeler round`."""
    return [
        f"rounds={out}/rounds",
        f"beliefs={out}/beliefs",
        f"label_space={out}/source/labels.txt",
        f"source={_answers(out, '{round}')}",
        f"select.budget={ANSWERS_PER_ROUND}",
        f"select.overlap={OVERLAP}",
        f"gold={out}/known",
        f"select.gold_share={GOLD_SHARE}",
        f"select.candidates={CANDIDATES}",
        "send.to=label_studio_files",
        f"collect.users={_answers(out, 'users')}",
    ]


def counts(out: str) -> list[dict[str, Any]]:
    """What each round asked and got: questions by purpose, votes, and rejected answers."""
    found = []
    for number in range(1, ROUNDS + 1):
        folder = storage.join(out, "rounds")
        asked = read_manifest(folder_of(folder, number, QUESTIONS))
        collected = read_manifest(folder_of(folder, number, COLLECTED))
        if asked is not None and collected is not None:
            questions = dict(asked.details["questions"])
            found.append({"questions": questions, "answers": collected.rows.to_json()})
    return found
