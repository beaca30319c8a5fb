"""One step of the loop: where it stands, what comes next, and a sentence that says it."""

from coyo_labeler.annotation_tools.records import SERVERS
from coyo_labeler.config.round import RoundSettings
from coyo_labeler.errors import InputError
from coyo_labeler.manifest import Manifest
from coyo_labeler.round.lock import locked
from coyo_labeler.round.standing import QUESTIONS, SENT, Standing, find_standing, now, sent_of
from coyo_labeler.round.steps import Runner, Steps, answers_wanted, run_words
from coyo_labeler.round.stopping import by_accuracy, by_budget, by_gain


def run_round(settings: RoundSettings, run: Runner = run_words) -> str:
    """Do the next step of the loop below `settings.rounds`; returns a sentence about it.

    run: what runs a stage. A step that was killed is gone on with: every stage of it that has
    finished is kept. While one process is at it, another one does nothing.

    Raises: InputError, WorkError as the stages do.
    """
    steps = Steps(settings, run)
    steps.check()
    with locked(settings.rounds) as is_held:
        if not is_held:
            return f"another run works on {settings.rounds}; nothing was done"
        standing = find_standing(settings.rounds)
        if standing.number == 0:
            return _ask(steps, 1, standing)
        if standing.sent is None:
            return _ask(steps, standing.number, standing)
        if standing.has_enough(settings.enough):
            return _ask(steps, standing.number + 1, standing)
        return _collect(steps, standing)


def _collect(steps: Steps, standing: Standing) -> str:
    """Look for answers of the round that has been sent; after `max_hours` go on with what is there.

    A round without any answer does not end: the next one would ask the same.
    """
    settings, number = steps.settings, standing.number
    if settings.source is None and settings.send["to"] not in SERVERS:
        return (
            f"round {number} waits for answers to {steps.folder(number, SENT)}; say where they "
            "will be with source=PATH"
        )
    if not steps.answers_are_there(number):
        return f"round {number} waits for answers: there is nothing at {steps.source(number)} yet"
    steps.collect(number)
    after = find_standing(settings.rounds)
    if after.has_enough(settings.enough):
        return f"round {number} has {answers_wanted(after)}; the next run begins round {number + 1}"
    if after.is_late(settings.max_hours, now()):
        return _ask(steps, number + 1, after)
    return f"round {number} has {answers_wanted(after)} so far and waits for more"


def _ask(steps: Steps, number: int, standing: Standing) -> str:
    """Merge what was answered, and ask the questions of a round; or stop."""
    settings = steps.settings
    has_votes = standing.spent > 0 or steps.has_votes_before()
    labels = steps.merge(number) if has_votes else settings.beliefs
    reason = by_budget(settings, standing.spent)
    if reason is None and has_votes and settings.wanted_accuracy is not None:
        reason = by_accuracy(settings, steps.report(number, labels))
    if reason is not None:
        return _stopped(reason, labels)
    budget = steps.budget(standing.spent)
    chosen = steps.select(number, labels, budget, has_votes)
    questions = steps.folder(number, QUESTIONS)
    if chosen.rows.rows_out == 0:
        return _stopped(" ".join(chosen.details["summary"]), labels)
    reason = by_gain(settings, questions, labels)
    if reason is not None:
        return _stopped(reason, labels)
    sent = steps.send(number)
    if sent.rows.rows_out == 0:
        raise InputError(
            f"round: none of the {chosen.rows.rows_out:,} questions of round {number} could be "
            f"sent ({_left_out(sent)}); {steps.folder(number, SENT)}/rejects says why: change the "
            "settings, and run once with select.overwrite=true send.overwrite=true"
        )
    merged = f"merged {standing.spent:,} answers and " if standing.spent else ""
    left = f"; not sent: {_left_out(sent)}" if sent.rows.rows_out < sent.rows.rows_in else ""
    return (
        f"round {number}: {merged}sent {sent_of(chosen.rows.rows_out, sent):,} questions for "
        f"{sent_of(chosen.details['answers'], sent):,} answers to {settings.send['to']}{left}"
    )


def _left_out(sent: Manifest) -> str:
    """Why questions were not sent, and how many."""
    reasons = sent.rows.to_json()["rejected"]
    return ", ".join(f"{reason} {n:,}" for reason, n in reasons.items())


def _stopped(reason: str, labels: str) -> str:
    return f"stopped: {reason}; the labels are in {labels}"
