"""What was chosen and why not more, for the manifest and in sentences."""

from collections.abc import Mapping
from typing import Any

from coyo_labeler.config.select import SelectSettings
from coyo_labeler.select import score
from coyo_labeler.select.choose import PURPOSES, Cuts
from coyo_labeler.select.finish import Written
from coyo_labeler.select.index import ASKED_BEFORE, MAX_VOTES, TWIN, Counted, Kind


def left_over(counted: Counted, asked: int) -> dict[str, int]:
    """Images that are not asked about, by reason."""
    not_chosen = int(counted.kinds.sum()) - asked
    return counted.left_out | ({"not_chosen": not_chosen} if not_chosen else {})


def describe(
    settings: SelectSettings, counted: Counted, cuts: Cuts, written: Written
) -> Mapping[str, Any]:
    """The details of the manifest; `summary` says it in sentences."""
    fresh, repeat, gold = counted.kinds.tolist()
    outside = cuts.sizes.audit / cuts.fresh_outside if cuts.fresh_outside else 0.0
    details = {
        "round": settings.round,
        "questions": {name: written.questions[name] for name in PURPOSES},
        "answers": written.answers,
        "budget": settings.budget,
        "images": {"without_votes": fresh, "open_again": repeat, "gold": gold},
        "audit": {
            "images": fresh,
            "drawn_outside_the_top": cuts.sizes.audit,
            "probability_outside_the_top": outside,
        },
        "lowest_score_at_the_top": score.score_of(cuts.top.low) if cuts.top.inside else None,
        "with_key": written.keyed,
        "assigned": dict(sorted(written.assigned.items())),
    }
    return {**details, "summary": _sentences(settings, counted, written)}


def _sentences(settings: SelectSettings, counted: Counted, written: Written) -> list[str]:
    total = written.questions.total()
    if total == 0:
        return [_nothing(settings, counted)]
    by_purpose = ", ".join(f"{written.questions[name]:,} {name}" for name in PURPOSES)
    lines = [f"{_some(total, 'question')} for {_some(written.answers, 'answer')} ({by_purpose})"]
    unspent = settings.budget - written.answers
    available = int(counted.kinds.sum())
    if total == available and unspent >= settings.overlap:
        lines.append(
            f"the budget is {settings.budget:,} answers, but only {_some(available, 'image')} can "
            f"be asked about ({_left_out(counted)}): {_some(unspent, 'answer')} left over"
        )
    elif unspent >= settings.overlap:
        why = []
        why += [key for key in ("max_per_class", "max_per_pair") if getattr(settings, key)]
        if settings.max_per_worker is not None:
            why.append("max_per_worker")
        if settings.overlap > 1:
            why.append("max_votes")
        by = f", by {' or '.join(why)}" if why else ""
        lines.append(f"{_some(unspent, 'answer')} of the budget left over{by}")
    if written.unassigned:
        lines.append(
            f"{_some(written.unassigned, 'answer')} without a worker: those who are left have "
            "answered about these images before, or have their quota; name more workers or raise "
            "max_per_worker"
        )
    if written.shown < total:
        lines.append(
            f"{_some(total - written.shown, 'question')} without URL and key: give images=PATH, or "
            "the tool that asks must find them by image_id"
        )
    if counted.gold_images > counted.gold_known:
        missing = counted.gold_images - counted.gold_known
        lines.append(f"gold: {missing:,} of {counted.gold_images:,} images are not in the labels")
    return lines


def _some(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _nothing(settings: SelectSettings, counted: Counted) -> str:
    if counted.images == 0:
        return "there is nothing to ask about: the labels have no rows"
    if counted.kinds[: Kind.GOLD].sum() == 0:
        return (
            f"there is nothing left to ask about: all {counted.images:,} images are finished "
            f"({_left_out(counted)})"
        )
    return (
        f"no question fits the settings: budget={settings.budget} with overlap={settings.overlap}"
    )


def _left_out(counted: Counted) -> str:
    words = {
        ASKED_BEFORE: "have votes that settle them",
        MAX_VOTES: "have max_votes",
        TWIN: "are near twins of others",
        "no_class": "have no class to ask for",
    }
    parts = [f"{n:,} {words[reason]}" for reason, n in sorted(counted.left_out.items()) if n]
    return ", ".join(parts) or f"there are {counted.images:,} in all"
