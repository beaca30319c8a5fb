"""The classes that an image may have, and how probable each answer is under each of them.

An image's state is its class: one of those that its answers, its labels or gold name, or any other
(lumped). The prior of the state `base` is a logistic calibration of the table's probability; the
other states share the rest as the table says, mixed with evenly.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from coyo_labeler.audit.answer_terms import add_choices, add_verifications
from coyo_labeler.audit.inputs import NO_CLASS, Answer, Answers, Judged
from coyo_labeler.audit.terms import COLUMN, SHARED, Terms
from coyo_labeler.em.segments import F64, I32, I64, bin_sum, distinct, find, offsets_of

#: Probabilities of labels are kept within these bounds before their log-odds are taken.
_P_LOW, _P_HIGH = 0.002, 0.998
#: The highest log-odds at which the prior accuracy of a table is put. A table whose log-odds vary
#: less than this tells nothing: its prior is put there, and that much wider.
_SUREST = 2.2
_TELLING, _UNTOLD, _UNTOLD_SCALE = 0.05, 1.0, 1.7
#: The label of the lumped state.
OTHER = NO_CLASS
#: Workers with a skill of their own, those with most answers, and skills that all others share.
_OWN_SKILLS, _SHARED_SKILLS = 400, 100
#: The classes of a set that become states of their own.
_SET_CLASSES = 64


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


def build(judged: Judged, answers: Answers, classes: int, workers: int) -> Model:
    """The model of these images and answers. classes: size of the label space."""
    offsets, label = _states(judged, answers, classes)
    image = np.repeat(np.arange(len(judged)), np.diff(offsets))
    terms = Terms()
    constant = np.zeros(len(label))
    said, even = _shares(judged, image, label, classes)
    outside = np.flatnonzero((label != judged.base[image]) & (judged.truth[image] < 0))
    terms.mix(constant, outside, COLUMN["even"], said[outside], even[outside])
    _calibrate(terms, judged, answers, image, label, classes)
    skill, bias, parameters = _columns(answers, workers)
    add_choices(terms, constant, judged, answers, offsets, label, classes, skill, said)
    add_verifications(terms, judged, answers, offsets, label, skill, bias)
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


def _calibrate(
    terms: Terms, judged: Judged, answers: Answers, image: I64, label: I32, classes: int
) -> None:
    """The prior of `base`: logistic in its log-odds, the image's weight, and what was offered.

    At the mean of the log-odds it is near what the table says, but for tables that are surer than
    `_SUREST` or say the same of every image: these are not believed.
    """
    p = np.clip(judged.probability, _P_LOW, _P_HIGH)
    odds = np.log(p) - np.log1p(-p)
    centre = float(odds.mean()) if len(odds) else 0.0
    odds = odds - centre
    weight = -np.log(np.where(np.isnan(judged.inclusion), 1.0, judged.inclusion))
    spread = weight.std() if len(weight) else 0.0
    weight = (weight - weight.mean()) / spread if spread > 1e-3 else np.zeros(len(judged))
    tells = odds.std() > _TELLING if len(odds) else False
    start, scale = (min(centre, _SUREST), 1.0) if tells else (_UNTOLD, _UNTOLD_SCALE)
    n = len(judged)
    offered, first = _offered(judged, answers, classes)
    covariates = {
        "level": np.full(n, scale),
        "slope": odds,
        "weight": weight,
        "offered": offered,
        "first": first,
    }
    columns = [(np.full(n, COLUMN[name]), values) for name, values in covariates.items()]
    rows = terms.rows_of(columns)
    free = ((judged.base >= 0) & (judged.truth < 0))[image]
    is_base = label == judged.base[image]
    sign = np.where(is_base[free], 1.0, -1.0)
    terms.add(np.flatnonzero(free), rows[image[free]], sign, start)


def _offered(judged: Judged, answers: Answers, classes: int) -> tuple[F64, F64]:
    """Whether the question about each image offered `base`, and offered it first, (n,) each.

    A question is made from some table's opinion of the image. Where the judged table is another
    one, whether the two agree says much about which of its labels are right. Both are centred, so
    they say nothing of a table that the questions were made from. Of several questions about an
    image the first counts: later ones were made with its answers. Verifications of a class offer
    that class alone. Of images whose question offered all classes nothing is known: 0.
    """
    n = len(judged)
    image, question = np.unique(answers.image, return_index=True)
    base, label = judged.base[image], answers.label[question]
    choice = np.isin(answers.answer[question], (Answer.CHOICE, Answer.NONE))
    lists = answers.offered
    length = np.where(choice | (label < 0), np.diff(lists.offsets)[question], 0)
    length[length >= classes] = 0
    row = np.repeat(np.arange(len(image)), length)
    rank = np.arange(len(row)) - np.repeat(offsets_of(length)[:-1], length)
    hit = lists.label[lists.offsets[question][row] + rank] == base[row]
    listed = np.bincount(row[hit], minlength=len(image)) > 0
    lead = np.bincount(row[hit & (rank == 0)], minlength=len(image)) > 0
    single = ~choice & (label >= 0)
    offered, first = np.zeros(n), np.zeros(n)
    ordered = single | (choice & (length > 0))  # a set has no first class
    for target, found, known in ((offered, listed, single | (length > 0)), (first, lead, ordered)):
        value = np.where(single, label == base, found)[known]
        target[image[known]] = value - value.mean() if len(value) else value
    return offered, first


def _columns(answers: Answers, workers: int) -> tuple[I64, I64, int]:
    """The columns of the workers' parameters (skill, bias), and the number of all columns."""
    said = answers.answer != Answer.UNSURE
    verifies = said & np.isin(answers.answer, (Answer.YES, Answer.NO))
    first = len(SHARED)
    columns = []
    for counted in (said, verifies):
        group = _groups(np.bincount(answers.worker[counted], minlength=workers))
        columns.append(np.where(group >= 0, first + group, -1))
        first += int(group.max(initial=-1)) + 1
    return columns[0], columns[1], first


def _groups(votes: I64) -> I64:
    """The number of each worker's parameter, (workers,); −1 without votes.

    Where there are many workers, those with fewest votes share parameters.
    """
    group = np.full(len(votes), -1, dtype=np.int64)
    order = np.lexsort((np.arange(len(votes)), -votes))
    order = order[votes[order] > 0]
    rank = np.arange(len(order))
    shared = _OWN_SKILLS + (rank - _OWN_SKILLS) % _SHARED_SKILLS
    group[order] = np.where(rank < _OWN_SKILLS, rank, shared)
    return group
