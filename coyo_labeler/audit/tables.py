"""Votes and labels of asked images as tables, to the arrays of `inputs`.

The label that an image would have without its own answers (`Judged.base`) is that of a second
table, `before`, if there is one; else the answers are divided out of the posterior.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coyo_labeler.audit.inputs import NO_CLASS, Answer, Answers, Judged, Lists
from coyo_labeler.em.segments import F64, I32, I64, Bool, distinct, find, offsets_of
from coyo_labeler.em.sets import set_questions
from coyo_labeler.errors import InputError
from coyo_labeler.formats.collected import COLUMNS
from coyo_labeler.formats.label_lists import check_label_lists, read_label_lists

#: Labels of an image that are looked at.
TOP_LABELS = 20

_RESPONSES = ("", "yes", "no", "unsure", "none")
#: The accuracy with which answers are divided out where the merge left none.
_ACCURACY = 0.8


@dataclass(frozen=True)
class Crowd:
    """Votes as numbers. All arrays but the names are (answers,).

    answers: about images by index in `image`. image: (images,) ids, rising. workers, rounds: names.
    inclusion, round: (images,) as `Judged` has them. purpose: text, "" if unknown. seconds: NaN if
    unknown.
    """

    answers: Answers
    image: I64
    workers: tuple[str, ...]
    rounds: tuple[str, ...]
    inclusion: F64
    round: I32
    purpose: NDArray[np.str_]
    seconds: F64


def read_crowd(votes: pa.Table, classes: int) -> Crowd:
    """The answers in a table of votes (COLUMNS; columns after `label` may be missing).

    Of several answers of a worker to one question the last counts. Answers are ordered by round.

    Raises: InputError naming the first row that is no vote.
    """
    votes = _complete(votes)
    answer = _answers(votes)
    label = pc.fill_null(votes["label"], NO_CLASS).to_numpy().astype(np.int32)
    ids = votes["image_id"].to_numpy()
    _check(votes, ids, answer, label, classes)
    keep = _last(votes, ids, answer, label)
    rounds, number = _rounds(votes.take(pa.array(keep)))
    order = np.argsort(number, kind="stable")
    keep, number = keep[order], number[order]
    votes, answer, label, ids = votes.take(pa.array(keep)), answer[keep], label[keep], ids[keep]
    image = distinct(ids)
    index = find(image, ids)[0]
    names = votes["worker_id"].combine_chunks().dictionary_encode()
    workers = tuple(names.dictionary.to_pylist())
    offered = votes["candidates"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(offered), 0).to_numpy(zero_copy_only=False)
    flat = offered.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
    lists = Lists(offsets_of(lengths.astype(np.int64)), flat)
    purpose = np.asarray(pc.fill_null(votes["purpose"], "").to_pylist(), dtype=np.str_)
    inclusion = votes["inclusion_probability"].to_numpy()
    chance, first = _design(index, len(image), inclusion, number, purpose)
    worker = names.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return Crowd(
        answers=Answers(index, worker, answer, label, lists),
        image=image,
        workers=workers,
        rounds=rounds,
        inclusion=chance,
        round=first,
        purpose=purpose,
        seconds=votes["seconds"].to_numpy().astype(np.float64),
    )


def _complete(votes: pa.Table) -> pa.Table:
    """All columns of COLUMNS, null where there are none, without chunks that differ in type."""
    columns = [
        votes[field.name].cast(field.type)
        if field.name in votes.column_names
        else pa.nulls(votes.num_rows, field.type)
        for field in COLUMNS
    ]
    return pa.table(columns, schema=COLUMNS).combine_chunks()


def _answers(votes: pa.Table) -> NDArray[np.int8]:
    """The code of each response, −1 if it is none. A verification of a set is yes, no or unsure."""
    words = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(votes["response"], "")))
    code = pc.fill_null(pc.index_in(words, value_set=pa.array(_RESPONSES)), -1)
    return np.asarray(code.to_numpy()).astype(np.int8)


def _check(
    votes: pa.Table, ids: NDArray[np.generic], answer: NDArray[np.int8], label: I32, classes: int
) -> None:
    """Refuse rows that are no votes. Raises: InputError naming the first."""
    for name in ("image_id", "worker_id"):
        if votes[name].null_count:
            raise InputError(f"votes: a row has no {name}; drop it")
    asks = (answer >= Answer.YES) & (answer <= Answer.UNSURE)
    offers = pc.fill_null(pc.list_value_length(votes["candidates"]), 0).to_numpy() > 0
    names_none = (label < 0) & (votes["label"].is_null().to_numpy())
    unknown = names_none & ((answer == Answer.CHOICE) | (asks & ~offers))
    outside = ~names_none & ((label < 0) | (label >= classes))
    offered = pc.list_flatten(votes["candidates"]).to_numpy()
    for wrong, what in (
        (answer < 0, "has a response that is none of yes, no, unsure and none; fix or drop it"),
        (outside, f"names a class outside label_space (0..{classes - 1}); set label_space"),
        (unknown, "names no class; fix or drop it"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(
                f"votes: the answer of '{votes['worker_id'][row]}' about image {ids[row]} {what}"
            )
    if len(offered) and (offered.min() < 0 or offered.max() >= classes):
        raise InputError(
            f"votes: candidates name a class outside label_space (0..{classes - 1}); set "
            "label_space to the one that the questions were made with"
        )


def _last(
    votes: pa.Table, ids: NDArray[np.generic], answer: NDArray[np.int8], label: I32
) -> NDArray[np.int64]:
    """The rows that count: the last of a worker's answers to a question, by time, then row."""
    worker = votes["worker_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    asks = (answer >= Answer.YES) & (answer <= Answer.UNSURE)
    asked = np.where(asks, label.astype(np.int64), -2)
    sets = np.flatnonzero(asks & (label < 0))
    lists = votes["candidates"].combine_chunks().take(pa.array(sets))
    lengths = np.asarray(pc.list_value_length(lists)).astype(np.int64)
    asked[sets] = set_questions(offsets_of(lengths), np.asarray(pc.list_flatten(lists)))
    time = pc.fill_null(votes["timestamp"].cast(pa.int64()), np.iinfo(np.int64).min).to_numpy()
    order = np.lexsort((np.arange(len(ids)), time, asked, worker, ids))
    same = np.ones(max(len(ids) - 1, 0), dtype=bool)
    for column in (ids, worker, asked):
        same &= column[order][1:] == column[order][:-1]
    return np.sort(order[~np.append(same, False)]) if len(ids) else order


def _rounds(votes: pa.Table) -> tuple[tuple[str, ...], I32]:
    """The names of the rounds, in order, and the number of each answer's round.

    A question_id begins with its round and a colon. Rounds are ordered as numbers where they are
    numbers; answers without a question are of the first.
    """
    question = pc.fill_null(votes["question_id"], "")
    names = pc.if_else(
        pc.match_substring(question, ":"),
        pc.list_element(pc.split_pattern(pc.binary_join_element_wise(question, "", ":"), ":"), 0),
        "",
    )
    encoded = names.combine_chunks().dictionary_encode()
    listed = encoded.dictionary.to_pylist()
    order = sorted(range(len(listed)), key=lambda i: (*_as_number(listed[i]), listed[i]))
    rank = np.empty(len(listed), dtype=np.int32)
    rank[order] = np.arange(len(listed))
    return tuple(listed[i] for i in order), rank[encoded.indices.to_numpy()]


def _as_number(name: str) -> tuple[int, int]:
    """A key that sorts numbers by value, before other names; digits within a name count too."""
    digits = "".join(c for c in name if c.isascii() and c.isdigit())
    return (len(digits), int(digits)) if name and digits == name else (0 if not name else 99, 0)


def _design(
    index: I64, images: int, inclusion: F64, number: I32, purpose: NDArray[np.str_]
) -> tuple[F64, I32]:
    """The inclusion probability of each image and its round: of the first that drew it.

    An image that is only asked about again, for what was answered before, was not drawn then.
    """
    drawn = ~np.isnan(inclusion) & (purpose != "repeat")
    chance, first = np.full(images, np.nan), np.zeros(images, dtype=np.int32)
    order = np.flatnonzero(drawn)
    order = order[np.lexsort((number[order], index[order]))]
    owner = index[order]
    lead = np.ones(len(owner), dtype=bool)
    lead[1:] = owner[1:] != owner[:-1]
    chance[owner[lead]] = inclusion[order[lead]]
    first[owner[lead]] = number[order[lead]]
    return chance, first


@dataclass(frozen=True)
class LabelRows:
    """Rows of a labels table for some images, by id: lists of at most `TOP_LABELS` classes."""

    image: I64
    believed: Lists

    @classmethod
    def read(cls, rows: pa.Table, source: str, classes: int) -> "LabelRows":
        """From the columns `id, labels, label_probs`.

        Raises: InputError naming the row at fault.
        """
        rows = rows.sort_by("id")
        lists = read_label_lists(rows, source)
        check_label_lists(lists, source, classes=classes, distinct=True, falling=True)
        believed = Lists(lists.offsets, lists.label.astype(np.int32), lists.probability)
        return cls(lists.image.astype(np.int64), believed)

    def of(self, image: I64) -> Lists:
        """The lists of these images, (n,) ids; empty where there is no row."""
        index, known = find(self.image, image)
        lengths = np.where(
            known, np.diff(self.believed.offsets)[index] if len(self.image) else 0, 0
        )
        offsets = offsets_of(lengths)
        start = np.where(known, self.believed.offsets[index], 0)
        at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)
        return Lists(offsets, self.believed.label[at], self.believed.value[at])


def first_labels(lists: Lists) -> tuple[I32, F64]:
    """The first class of each list and its probability; `NO_CLASS` and 0 for an empty list."""
    n = len(lists.offsets) - 1
    label, probability = np.full(n, NO_CLASS, dtype=np.int32), np.zeros(n)
    some = np.diff(lists.offsets) > 0
    label[some] = lists.label[lists.offsets[:-1][some]]
    probability[some] = lists.value[lists.offsets[:-1][some]]
    return label, probability


def judge(
    crowd: Crowd,
    inside: Bool,
    labels: LabelRows,
    before: LabelRows | None,
    truth: I32,
    accuracies: F64 | None,
    classes: int,
) -> tuple[Judged, Answers]:
    """The judged images and the answers about them.

    inside: (images,) of `crowd.image`, which are in the labels table. before: the labels without
    these answers; `labels` itself where those were made without them; None if unknown: the answers
    are then divided out. truth: (images,) or `NO_CLASS`. accuracies: (workers,) of a merge.
    """
    image = crowd.image[inside]
    number = np.cumsum(inside) - 1
    about = inside[crowd.answers.image]
    answers = _only(crowd.answers, about, number)
    label, _ = first_labels(labels.of(image))
    if before is None:
        believed = divide_out(labels.of(image), answers, accuracies, classes)
    else:
        believed = before.of(image)
    base, probability = first_labels(believed)
    judged = Judged(
        label=label,
        base=base,
        probability=np.minimum(probability, 1.0),
        believed=believed,
        inclusion=crowd.inclusion[inside],
        round=crowd.round[inside],
        truth=truth[inside],
    )
    return judged, answers


def _only(answers: Answers, kept: Bool, number: I64) -> Answers:
    """Some of the answers, about images of other numbers."""
    lengths = np.where(kept, np.diff(answers.offered.offsets), 0)
    entries = np.repeat(kept, np.diff(answers.offered.offsets))
    return Answers(
        image=number[answers.image[kept]],
        worker=answers.worker[kept],
        answer=answers.answer[kept],
        label=answers.label[kept],
        offered=Lists(offsets_of(lengths[kept]), answers.offered.label[entries]),
    )


def divide_out(posterior: Lists, answers: Answers, accuracies: F64 | None, classes: int) -> Lists:
    """The posterior of each image without its own answers, by falling probability.

    accuracies: (workers,) probability of a right answer, NaN where unknown. A right choice has
    probability a and each wrong one (1 − a) / (C − 1), as in one-coin Dawid & Skene.
    """
    n = len(posterior.offsets) - 1
    image = np.repeat(np.arange(n), np.diff(posterior.offsets))
    score = np.log(np.maximum(posterior.value, 1e-12))
    skill = np.full(int(answers.worker.max(initial=0)) + 1, _ACCURACY)
    if accuracies is not None:
        skill = np.where(np.isnan(accuracies), _ACCURACY, accuracies)
    a = np.clip(skill, 0.05, 0.99)[answers.worker]
    right = np.log(a) - np.log((1 - a) / max(classes - 1, 1))
    yes = np.log(a) - np.log(1 - a)
    change = np.select(
        [
            answers.answer == Answer.CHOICE,
            answers.answer == Answer.YES,
            answers.answer == Answer.NO,
        ],
        [right, yes, -yes],
        0.0,
    )
    key = image * classes + posterior.label
    order = np.argsort(key)
    named = answers.label >= 0
    wanted = answers.image[named] * classes + answers.label[named]
    index, listed = find(key[order], wanted)
    np.subtract.at(score, order[index[listed]], change[named][listed])
    if not len(score):
        return posterior
    some = np.diff(posterior.offsets) > 0
    starts = posterior.offsets[:-1][some]
    top = np.maximum.reduceat(score, starts)
    owner = (np.cumsum(some) - 1)[image]
    weight = np.exp(score - top[owner])
    probability = weight / np.add.reduceat(weight, starts)[owner]
    rank = np.lexsort((posterior.label, -probability, image))
    return Lists(posterior.offsets, posterior.label[rank], probability[rank])


def single_truths(image: Sequence[int] | I64, label: Sequence[int] | I32, wanted: I64) -> I32:
    """The true class of each wanted image; `NO_CLASS` where none or several are given."""
    ids = np.asarray(image, dtype=np.int64)
    labels = np.asarray(label, dtype=np.int32)
    pairs = np.unique(np.stack([ids, labels.astype(np.int64)]), axis=1)
    known, start, count = np.unique(pairs[0], return_index=True, return_counts=True)
    index, there = find(known, wanted)
    truth = np.full(len(wanted), NO_CLASS, dtype=np.int32)
    one = there & (count[index] == 1) if len(known) else there
    truth[one] = pairs[1][start[index[one]]]
    return truth
