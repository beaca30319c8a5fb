"""The classes that an image may have, and how probable each answer is under each of them.

Every probability is a product of constants and of logistic terms σ(± (x·p + offset)) to the power
of 1 or −1, so that fitting and sampling need no other formula. x is a row of `Model.design`, p the
parameters. A mixture σ(−h) B + σ(h) S is such a product: B σ(−h) / σ(−(h + log S / B)).

An image's state is its class: one of those that its answers, its labels or gold name, or any other
(lumped). The prior of the state `base` is a logistic calibration of the table's probability; the
other states share the rest as the table says, mixed with evenly.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from coyo_labeler.audit.inputs import NO_CLASS, Answer, Answers, Judged
from coyo_labeler.em.segments import F64, I32, I64, Bool, bin_sum, distinct, find, offsets_of

#: Probabilities of labels are kept within these bounds before their log-odds are taken.
_P_LOW, _P_HIGH = 0.002, 0.998
#: The label of the lumped state.
OTHER = NO_CLASS
#: The classes of a set that become states of their own.
_SET_CLASSES = 64

#: Prior mean and standard deviation of each parameter that all workers share, in log-odds.
#: choice: right answers of choices. wrong_base: how much more often where `base` is wrong. lure:
#: how much more often a wrong choice falls on `base` than on another class. verify: right answers
#: of verifications. yes: how much more often where yes is right, and less often where no is.
#: unsure, unsure_true: unsure answers, and how much more often where yes is right. level, slope,
#: weight: calibration of the table. even: how much of the probability outside `base` is
#: spread evenly, against what the table says. alike: how many of the wrong choices are those that
#: the table takes for probable too, where `base` is right. again: how many of the wrong choices
#: repeat a wrong choice that another worker made for the image, beyond chance.
PRIORS = {
    "choice": (1.2, 0.9),
    "wrong_base": (0.0, 0.4),
    "lure": (0.2, 0.8),
    "verify": (1.2, 0.9),
    "yes": (0.0, 0.35),
    "unsure": (-2.5, 1.5),
    "unsure_true": (0.0, 0.5),
    "level": (1.0, 2.0),
    "slope": (0.8, 0.6),
    "weight": (0.0, 0.7),
    "even": (-1.5, 1.0),
    "alike": (-1.5, 1.2),
    "again": (-1.5, 1.2),
}
SHARED = tuple(PRIORS)
_COLUMN = {name: index for index, name in enumerate(SHARED)}


@dataclass(frozen=True)
class Model:
    """The states of n images and the terms of their probabilities.

    Of states, ordered by image: offsets: (n + 1,). label: (states,), `OTHER` if lumped. constant:
    (states,) log of what does not depend on parameters.

    Of terms, one for each (state, kind of factor): state: (terms,). kind: (terms,) index of the
    logistic factor. Of kinds: row: (kinds,) row of `design`. sign, offset, power: (kinds,).

    design: (rows, parameters). skill, bias: (workers,) column of each worker's parameter, −1 if he
    has none.
    """

    offsets: I64
    label: I32
    constant: F64
    state: I64
    kind: I64
    row: I64
    sign: F64
    offset: F64
    power: F64
    design: sparse.csr_matrix
    skill: I64
    bias: I64

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.offsets) - 1


class _Terms:
    """Terms under construction."""

    def __init__(self) -> None:
        self.parts: list[tuple[I64, I64, F64, F64, F64]] = []
        self.design: list[tuple[I64, I64, F64]] = []
        self.rows = 0

    def rows_of(self, columns: list[tuple[I64, F64]]) -> I64:
        """New rows of the design: entries (column, value), each (rows,); column −1 is left out."""
        n = len(columns[0][0])
        rows = self.rows + np.arange(n)
        for column, value in columns:
            used = column >= 0
            self.design.append((rows[used], column[used], value[used]))
        self.rows += n
        return rows

    def add(
        self, state: I64, row: I64, sign: F64, offset: F64 | float = 0.0, power: float = 1.0
    ) -> None:
        """Terms of states, (terms,) each."""
        shape = sign.shape
        self.parts.append(
            (state, row, sign, np.broadcast_to(offset, shape), np.broadcast_to(power, shape))
        )

    def mix(self, constant: F64, state: I64, column: int, even: F64, said: F64) -> None:
        """The factor σ(−h) even + σ(h) said of each state, (terms,); h: the parameter `column`.

        constant: (states,), to which its constant part is added.
        """
        if not len(state):
            return
        row = np.full(len(state), self.rows_of([(np.array([column]), np.ones(1))])[0])
        np.add.at(constant, state, np.log(even))
        minus = -np.ones(len(state))
        self.add(state, row, minus)
        self.add(state, row, minus, np.log(said) - np.log(even), -1.0)


def build(judged: Judged, answers: Answers, classes: int, workers: int) -> Model:
    """The model of these images and answers. classes: size of the label space."""
    offsets, label = _states(judged, answers, classes)
    image = np.repeat(np.arange(len(judged)), np.diff(offsets))
    terms = _Terms()
    constant = np.zeros(len(label))
    said, even = _shares(judged, image, label, classes)
    outside = np.flatnonzero((label != judged.base[image]) & (judged.truth[image] < 0))
    terms.mix(constant, outside, _COLUMN["even"], said[outside], even[outside])
    _calibrate(terms, judged, image, label)
    skill, bias, parameters = _columns(answers, workers)
    _choices(terms, constant, judged, answers, offsets, label, classes, skill, said)
    _verifications(terms, judged, answers, offsets, label, skill, bias)
    state, *factor = (np.concatenate(part) for part in zip(*terms.parts, strict=True))
    kinds, kind = np.unique(np.stack(factor), axis=1, return_inverse=True)
    rows, columns, values = (np.concatenate(part) for part in zip(*terms.design, strict=True))
    design = sparse.csr_matrix((values, (rows, columns)), shape=(terms.rows, parameters))
    return Model(
        offsets=offsets,
        label=label,
        constant=constant,
        state=state,
        kind=kind.ravel(),
        row=kinds[0].astype(np.int64),
        sign=kinds[1],
        offset=kinds[2],
        power=kinds[3],
        design=design,
        skill=skill,
        bias=bias,
    )


def _states(judged: Judged, answers: Answers, classes: int) -> tuple[I64, I32]:
    """The offsets and labels of all states; the lumped one of an image comes last."""
    n = len(judged)
    c = classes
    keys = [
        np.arange(n)[known] * c + labels[known]
        for labels in (judged.base, judged.label, judged.truth)
        for known in (labels >= 0,)
    ]
    named = answers.label >= 0
    keys.append(answers.image[named] * c + answers.label[named])
    # "None of these" and questions about a set speak of every class that was offered.
    lists = answers.offered
    lengths = np.diff(lists.offsets)
    owner = np.repeat(np.arange(len(answers)), lengths)
    rank = np.arange(len(lists.label)) - np.repeat(lists.offsets[:-1], lengths)
    about = (answers.answer == Answer.NONE) | ((answers.answer != Answer.CHOICE) & ~named)
    wanted = about[owner] & (rank < _SET_CLASSES)
    keys.append(answers.image[owner[wanted]] * c + lists.label[wanted])
    key = distinct(np.concatenate(keys))
    image = key // c
    # Where the truth is known, no other state is possible.
    truth = judged.truth[image]
    kept = (truth < 0) | (key % c == truth)
    key, image = key[kept], image[kept]
    listed = np.bincount(image, minlength=n)
    lumped = (judged.truth < 0) & (listed < c)
    offsets = offsets_of(listed + lumped)
    label = np.full(offsets[-1], OTHER, dtype=np.int32)
    before = np.concatenate([[0], np.cumsum(lumped)])[:-1]
    label[np.arange(len(key)) + before[image]] = key % c
    return offsets, label


def _shares(judged: Judged, image: I64, label: I32, classes: int) -> tuple[F64, F64]:
    """Each state's share of the probability outside `base`: by the table, and spread evenly.

    Both (states,), above 0; of no meaning for `base` itself.
    """
    n = len(judged)
    lists = judged.believed
    owner = np.repeat(np.arange(n), np.diff(lists.offsets))
    other = lists.label != judged.base[owner]
    total = bin_sum(owner, lists.value, n)
    outside = bin_sum(owner[other], lists.value[other], n)
    has_base = judged.base >= 0
    unlisted = classes - np.diff(lists.offsets) - (has_base & (bin_sum(owner, ~other, n) == 0))
    rest = np.where(unlisted > 0, np.maximum(1.0 - total, 1e-6), 0.0)
    mass = outside + rest
    many = np.maximum(classes - has_base, 1)
    key = owner * classes + lists.label
    order = np.argsort(key)
    inside = label >= 0
    index, listed = find(key[order], image[inside] * classes + label[inside])
    given = (rest / np.maximum(unlisted, 1))[image[inside]]
    said = np.zeros(len(label))
    said[inside] = np.where(listed, lists.value[order][index], given) if len(key) else given
    said /= np.maximum(mass, 1e-9)[image]
    even = np.where(inside, 1.0 / many[image], 0.0)
    for share in (said, even):
        share[(label == judged.base[image]) & inside] = 0.0
        taken = bin_sum(image, share, n)
        share[~inside] = 1.0 - taken[image[~inside]]
    return np.maximum(said, 1e-9), np.maximum(even, 1e-9)


def _calibrate(terms: _Terms, judged: Judged, image: I64, label: I32) -> None:
    """The prior of `base`: a logistic function of its log-odds and of the image's weight."""
    p = np.clip(judged.probability, _P_LOW, _P_HIGH)
    odds = np.log(p) - np.log1p(-p)
    odds = odds - (odds.mean() if len(odds) else 0.0)
    weight = -np.log(np.where(np.isnan(judged.inclusion), 1.0, judged.inclusion))
    spread = weight.std() if len(weight) else 0.0
    weight = (weight - weight.mean()) / spread if spread > 1e-3 else np.zeros(len(judged))
    n = len(judged)
    columns = [
        (np.full(n, _COLUMN[name]), values)
        for name, values in (
            ("level", np.ones(n)),
            ("slope", odds),
            ("weight", weight),
        )
    ]
    rows = terms.rows_of(columns)
    free = ((judged.base >= 0) & (judged.truth < 0))[image]
    is_base = label == judged.base[image]
    terms.add(np.flatnonzero(free), rows[image[free]], np.where(is_base[free], 1.0, -1.0))


def _columns(answers: Answers, workers: int) -> tuple[I64, I64, int]:
    """The columns of the workers' parameters (skill, bias), and the number of all columns."""
    said = answers.answer != Answer.UNSURE
    votes = np.bincount(answers.worker[said], minlength=workers)
    verifies = said & np.isin(answers.answer, (Answer.YES, Answer.NO))
    verified = np.bincount(answers.worker[verifies], minlength=workers)
    skill = np.full(workers, -1, dtype=np.int64)
    skill[votes > 0] = len(SHARED) + np.arange((votes > 0).sum())
    bias = np.full(workers, -1, dtype=np.int64)
    first = len(SHARED) + int((votes > 0).sum())
    bias[verified > 0] = first + np.arange((verified > 0).sum())
    return skill, bias, first + int((verified > 0).sum())


def _pairs(answers: Answers, chosen: I64, offsets: I64) -> tuple[I64, I64]:
    """Every chosen answer with every state of its image: (answer, state), (pairs,) each."""
    lengths = np.diff(offsets)[answers.image[chosen]]
    answer = np.repeat(chosen, lengths)
    starts = offsets_of(lengths)[:-1]
    first = offsets[answers.image[chosen]] - starts
    return answer, np.arange(len(answer)) + np.repeat(first, lengths)


def _choices(
    terms: _Terms,
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
    answer, state = _pairs(answers, np.flatnonzero(is_choice), offsets)
    if not len(answer):
        return
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
    options = np.where(limited, lengths + extra + 1, classes)[answer]
    offered_true = _is_offered(key, answer, truth, limited, classes)
    offered_true |= (said == truth) & (truth >= 0)
    offered_base = _is_offered(key, answer, base, limited, classes) & (base >= 0)
    right_answer = np.where(offered_true & (truth >= 0), truth, NO_CLASS)
    # Without a list, OTHER's true class can be chosen, but it was not: nobody named it.
    could_be_none = limited[answer] & ~offered_true
    right = np.where(said >= 0, said == right_answer, could_be_none)
    is_base = (truth == base) & (base >= 0)

    worker = answers.worker[answer]
    kinds, kind = np.unique(2 * worker + is_base, return_inverse=True)
    ones = np.ones(len(kinds))
    rows = terms.rows_of(
        [
            (np.full(len(kinds), _COLUMN["choice"]), ones),
            (np.where(kinds % 2 == 1, -1, _COLUMN["wrong_base"]), ones),
            (skill[kinds // 2], ones),
        ]
    )
    terms.add(state, rows[kind], np.where(right, 1.0, -1.0))
    lured = ~right & ~is_base & offered_base & (options > 2)
    row = terms.rows_of([(np.array([_COLUMN["lure"]]), np.ones(1))])
    on_base = lured & (said == base)
    astray = np.maximum(options - 2, 1)
    terms.add(
        state[lured],
        np.full(int(lured.sum()), row[0]),
        np.where(on_base[lured], 1.0, -1.0),
        -np.log(astray[lured]),
    )
    even = ~right & ~lured & ~(offered_base & (options <= 2) & ~is_base)
    strays = lured & ~on_base
    wrong_before, same_before = _earlier_mistakes(answers, answer, said, truth, classes)
    again = (even | strays) & (said >= 0) & (options > 2) & (wrong_before > 0)
    share_before = same_before[again] / wrong_before[again]
    others = options[again] - np.where(strays[again], 2, 1)
    terms.mix(
        constant,
        state[again],
        _COLUMN["again"],
        1.0 / np.maximum(others, 1),
        np.maximum(share_before, 1e-9),
    )
    alike = even & is_base & (said >= 0) & (options > 2) & ~again
    even &= ~alike & ~again
    strays &= ~again
    np.subtract.at(constant, state[even], np.log(np.maximum(options[even] - 1, 1)))
    likely = share[_state_of(judged, answers, offsets, label, classes)[answer[alike]]]
    terms.mix(constant, state[alike], _COLUMN["alike"], 1.0 / (options[alike] - 1), likely)
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


def _verifications(
    terms: _Terms,
    judged: Judged,
    answers: Answers,
    offsets: I64,
    label: I32,
    skill: I64,
    bias: I64,
) -> None:
    """Answers yes, no and unsure to "is it this class (one of these)?"."""
    asks = np.isin(answers.answer, (Answer.YES, Answer.NO, Answer.UNSURE))
    answer, state = _pairs(answers, np.flatnonzero(asks), offsets)
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
                (np.full(2, _COLUMN["unsure"]), np.ones(2)),
                (np.full(2, _COLUMN["unsure_true"]), np.array([-0.5, 0.5])),
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
            (np.full(len(kinds), _COLUMN["verify"]), ones),
            (np.full(len(kinds), _COLUMN["yes"]), np.where(yes, 1.0, -1.0)),
            (skill[kinds // 2], ones),
            (bias[kinds // 2], np.where(yes, 1.0, -1.0)),
        ]
    )
    right = (answers.answer[answer] == Answer.YES) == true
    terms.add(state, rows[kind], np.where(right, 1.0, -1.0))
