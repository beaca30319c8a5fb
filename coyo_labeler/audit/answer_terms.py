"""How probable each answer is in each state of its image, for choices and for verifications."""

from dataclasses import dataclass

import numpy as np

from coyo_labeler.audit.inputs import NO_CLASS, Answer, Answers, Judged
from coyo_labeler.audit.terms import COLUMN, Terms, pairs_of
from coyo_labeler.em.segments import F64, I32, I64, Bool, distinct, find


@dataclass(frozen=True)
class _Choices:
    """Every choice, or "none of these", with every state of its image; arrays are (pairs,).

    answer, state: indices. said, truth, base: the class that was chosen, that of the state, and
    the label before the answers. options: how many answers there were to choose from. right:
    whether the choice is right in the state. is_base: whether the state is that of `base`.
    offered_base: whether `base` was among the options.
    """

    answer: I64
    state: I64
    said: I32
    truth: I32
    base: I32
    options: I64
    right: Bool
    is_base: Bool
    offered_base: Bool


def add_choices(
    terms: Terms,
    constant: F64,
    judged: Judged,
    answers: Answers,
    offsets: I64,
    label: I32,
    classes: int,
    skill: I64,
    share: F64,
) -> None:
    """Answers that choose a class or "none of these": right, lured by `base`, or astray.

    share: (states,) of the probability outside `base`, by the table.
    """
    is_choice = np.isin(answers.answer, (Answer.CHOICE, Answer.NONE))
    answer, state = pairs_of(answers, np.flatnonzero(is_choice), offsets)
    if not len(answer):
        return
    choices = _choices(judged, answers, answer, state, label, classes)
    _add_right(terms, choices, answers.worker, skill)
    earlier = _earlier_mistakes(answers, answer, choices.said, choices.truth, classes)
    said_state = _state_of(judged, answers, offsets, label, classes)[answer]
    _add_wrong(terms, constant, choices, earlier, share[said_state])


def _choices(
    judged: Judged, answers: Answers, answer: I64, state: I64, label: I32, classes: int
) -> _Choices:
    """What was offered, chosen and right in every pair of an answer and a state."""
    base = judged.base[answers.image[answer]]
    said, truth = answers.label[answer], label[state]
    lists = answers.offered
    lengths = np.diff(lists.offsets)
    limited = lengths > 0
    key = np.repeat(np.arange(len(answers)), lengths) * np.int64(classes) + lists.label
    key = distinct(np.asarray(key, dtype=np.int64))
    own = answers.label >= 0
    own_key = np.flatnonzero(own) * np.int64(classes) + answers.label[own]
    extra = np.zeros(len(answers), dtype=np.int64)
    extra[own] = limited[own] & ~find(key, own_key)[1]
    # One more is "none of these", but where all classes are offered: nobody means that then.
    options = np.where(limited, np.minimum(lengths + extra + 1, classes), classes)[answer]
    offered_true = _is_offered(key, answer, truth, limited, classes)
    offered_true |= (said == truth) & (truth >= 0)
    offered_base = _is_offered(key, answer, base, limited, classes) & (base >= 0)
    right_answer = np.where(offered_true & (truth >= 0), truth, NO_CLASS)
    # Without a list, OTHER's true class can be chosen, but it was not: nobody named it.
    could_be_none = limited[answer] & ~offered_true
    return _Choices(
        answer=answer,
        state=state,
        said=said,
        truth=truth,
        base=base,
        options=options,
        right=np.where(said >= 0, said == right_answer, could_be_none),
        is_base=(truth == base) & (base >= 0),
        offered_base=offered_base,
    )


def _add_right(terms: Terms, choices: _Choices, worker: I32, skill: I64) -> None:
    """Whether each choice is right: by its worker, and by whether `base` is."""
    kinds, kind = np.unique(2 * worker[choices.answer] + choices.is_base, return_inverse=True)
    ones = np.ones(len(kinds))
    rows = terms.rows_of(
        [
            (np.full(len(kinds), COLUMN["choice"]), ones),
            (np.where(kinds % 2 == 1, -1, COLUMN["wrong_base"]), ones),
            (skill[kinds // 2], ones),
        ]
    )
    terms.add(choices.state, rows[kind], np.where(choices.right, 1.0, -1.0))


def _add_wrong(
    terms: Terms, constant: F64, choices: _Choices, earlier: tuple[I64, I64], share: F64
) -> None:
    """Where wrong choices fall: on `base`, on an earlier mistake, on what is probable, evenly.

    earlier: of `_earlier_mistakes`. share: (pairs,) of the class that was chosen, by the table.
    """
    state, said, options = choices.state, choices.said, choices.options
    wrong, is_base, offered_base = ~choices.right, choices.is_base, choices.offered_base
    lured = wrong & ~is_base & offered_base & (options > 2)
    row = terms.rows_of([(np.array([COLUMN["lure"]]), np.ones(1))])
    on_base = lured & (said == choices.base)
    astray = np.maximum(options - 2, 1)
    terms.add(
        state[lured],
        np.full(int(lured.sum()), row[0]),
        np.where(on_base[lured], 1.0, -1.0),
        -np.log(astray[lured]),
    )
    even = wrong & ~lured & ~(offered_base & (options <= 2) & ~is_base)
    strays = lured & ~on_base
    wrong_before, same_before = earlier
    again = (even | strays) & (said >= 0) & (options > 2) & (wrong_before > 0)
    share_before = same_before[again] / wrong_before[again]
    others = options[again] - np.where(strays[again], 2, 1)
    terms.mix(
        constant,
        state[again],
        COLUMN["again"],
        1.0 / np.maximum(others, 1),
        np.maximum(share_before, 1e-9),
    )
    alike = even & is_base & (said >= 0) & (options > 2) & ~again
    even &= ~alike & ~again
    strays &= ~again
    np.subtract.at(constant, state[even], np.log(np.maximum(options[even] - 1, 1)))
    terms.mix(constant, state[alike], COLUMN["alike"], 1.0 / (options[alike] - 1), share[alike])
    np.subtract.at(constant, state[strays], np.log(astray[strays]))


def _earlier_mistakes(
    answers: Answers, answer: I64, said: I32, truth: I32, classes: int
) -> tuple[I64, I64]:
    """Of each pair of a choice and a state: earlier choices for the image that are wrong in that
    state, and those of them for the same class, (pairs,) each.

    Pólya's urn: in which order the answers are taken does not matter to their joint probability.
    """
    chosen = np.flatnonzero((answers.answer == Answer.CHOICE) & (answers.label >= 0))
    size = np.int64(len(answers) + 1)
    image = answers.image * classes
    by_class = np.sort((image[chosen] + answers.label[chosen]) * size + chosen)
    by_image = np.sort(answers.image[chosen] * size + chosen)

    def earlier(keys: I64, key: I64) -> I64:
        return np.searchsorted(keys, key * size + answer) - np.searchsorted(keys, key * size)

    mine = answers.image[answer]
    named = np.where(said >= 0, earlier(by_class, image[answer] + np.maximum(said, 0)), 0)
    right = np.where(truth >= 0, earlier(by_class, image[answer] + np.maximum(truth, 0)), 0)
    return earlier(by_image, mine) - right, np.where(said == truth, 0, named)


def _state_of(judged: Judged, answers: Answers, offsets: I64, label: I32, classes: int) -> I64:
    """The state of the class that each answer names, (answers,); of no meaning if it names none."""
    image = np.repeat(np.arange(len(judged)), np.diff(offsets))
    inside = np.flatnonzero(label >= 0)
    key = image[inside] * classes + label[inside]
    index, _ = find(key, answers.image * classes + np.maximum(answers.label, 0))
    return np.asarray(inside[index])


def _is_offered(key: I64, answer: I64, label: I32, limited: Bool, classes: int) -> Bool:
    """Whether the question of each answer offered a class; `OTHER` is not among the offered."""
    listed = find(key, answer * np.int64(classes) + np.maximum(label, 0))[1]
    return np.asarray((label >= 0) & (listed | ~limited[answer]))


def add_verifications(
    terms: Terms,
    judged: Judged,
    answers: Answers,
    offsets: I64,
    label: I32,
    skill: I64,
    bias: I64,
) -> None:
    """Answers yes, no and unsure to "is it this class (one of these)?"."""
    asks = np.isin(answers.answer, (Answer.YES, Answer.NO, Answer.UNSURE))
    answer, state = pairs_of(answers, np.flatnonzero(asks), offsets)
    if not len(answer):
        return
    truth = label[state]
    lists = answers.offered
    width = np.int64(max(int(label.max()), int(lists.label.max(initial=0)), 0) + 1)
    owner = np.repeat(np.arange(len(answers)), np.diff(lists.offsets))
    key = distinct(np.asarray(owner * width + lists.label, dtype=np.int64))
    in_set = find(key, answer * width + np.maximum(truth, 0))[1] & (truth >= 0)
    asked = answers.label[answer]
    true = np.where(asked >= 0, truth == asked, in_set)
    unsure = answers.answer[answer] == Answer.UNSURE
    if unsure.any():
        rows = terms.rows_of(
            [
                (np.full(2, COLUMN["unsure"]), np.ones(2)),
                (np.full(2, COLUMN["unsure_true"]), np.array([-0.5, 0.5])),
            ]
        )
        terms.add(state, rows[true.astype(np.int64)], np.where(unsure, 1.0, -1.0))
    sure = ~unsure
    answer, state, true = answer[sure], state[sure], true[sure]
    if not len(answer):
        return
    worker = answers.worker[answer]
    kinds, kind = np.unique(2 * worker + true, return_inverse=True)
    yes = kinds % 2 == 1
    ones = np.ones(len(kinds))
    rows = terms.rows_of(
        [
            (np.full(len(kinds), COLUMN["verify"]), ones),
            (np.full(len(kinds), COLUMN["yes"]), np.where(yes, 1.0, -1.0)),
            (skill[kinds // 2], ones),
            (bias[kinds // 2], np.where(yes, 1.0, -1.0)),
        ]
    )
    right = (answers.answer[answer] == Answer.YES) == true
    terms.add(state, rows[kind], np.where(right, 1.0, -1.0))
