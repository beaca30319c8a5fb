"""Which votes can be used, and what is wrong with the others."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.em.responses import Response
from coyo_labeler.errors import one_line
from coyo_labeler.formats import schemas
from coyo_labeler.formats.class_names import classes_or_null, why_no_class
from coyo_labeler.formats.columns import is_text, whole_or_null, without_views
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import find_label_tree
from coyo_labeler.votes.candidates import count_offered, read_sets
from coyo_labeler.votes.nodes import Nodes

#: Characters of a value in a message.
_SHOWN = 60


def response_words(response: pa.ChunkedArray) -> pa.Array:
    """Numbers of `Response` as a table of votes has them: null for a choice, yes, no, unsure."""
    return pa.array([None, "yes", "no", "unsure"]).take(response.combine_chunks())


class Reason(StrEnum):
    """Why a vote was rejected."""

    MISSING_IMAGE = "missing_image"
    BAD_IMAGE = "bad_image"
    MISSING_WORKER = "missing_worker"
    MISSING_LABEL = "missing_label"
    BAD_LABEL = "bad_label"
    LABEL_OUTSIDE = "label_outside"
    UNKNOWN_RESPONSE = "unknown_response"
    UNEXPECTED_LABEL = "unexpected_label"
    MISSING_CANDIDATES = "missing_candidates"
    BAD_CANDIDATES = "bad_candidates"
    CANDIDATE_OUTSIDE = "candidate_outside"
    BAD_TIMESTAMP = "bad_timestamp"
    BAD_PROBABILITY = "bad_inclusion_probability"
    DUPLICATE = "duplicate"


#: The detail of a vote that another vote of the same worker replaces.
DUPLICATE_DETAIL = "the worker has another vote on this question"

#: What may be an ISO 8601 time, and one that ends with its zone. (The end of a date alone looks
#: like a zone.)
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(Z|[+-][0-9:]+)?)?$"
_ZONED = r"[T ].*(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"


@dataclass(frozen=True)
class Checked:
    """votes: as schemas.VOTES_CHECKED. rejects: as schemas.VOTES_REJECTS, in row order."""

    votes: pa.Table
    rejects: pa.Table


def check(
    table: pa.Table, file: int, first_row: int, space: LabelSpace, nodes: Nodes | None = None
) -> Checked:
    """Divide the votes of a table into those that can be used and the rejects.

    table: image_id, worker_id, label and perhaps response, timestamp, candidates and
    inclusion_probability, of any type. file: number of its file. first_row: rows of the file before
    the table. An answer about a set of one class is about that class. nodes: where answers about a
    node of the tree are about all classes at or below it.
    """
    n = table.num_rows
    reasons = np.full(n, "", dtype=object)
    image, worker = table["image_id"], _text(table["worker_id"])
    label = table["label"]
    image_number, label_number = whole_or_null(image), classes_or_null(label, space)
    blank_worker = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(worker, "")), "")

    _mark(reasons, pc.is_null(image, nan_is_null=True), Reason.MISSING_IMAGE)
    _mark(reasons, pc.is_null(image_number), Reason.BAD_IMAGE)
    _mark(reasons, blank_worker, Reason.MISSING_WORKER)
    response, is_none, unknown = _responses(table)
    unlabelled = np.asarray(pc.is_null(label, nan_is_null=True)).astype(bool)
    about_set = unlabelled & (is_none | _has_candidates(table)) & (response != Response.CHOICE)
    sets = read_sets(_column(table, "candidates"), about_set, space, nodes)
    no_label = pa.array(~about_set & ~is_none & unlabelled)
    _mark(reasons, no_label, Reason.MISSING_LABEL)
    _mark(reasons, pa.array(is_none & ~unlabelled), Reason.UNEXPECTED_LABEL)
    _mark(reasons, pa.array(sets.missing), Reason.MISSING_CANDIDATES)
    _mark(reasons, pa.array(sets.bad), Reason.BAD_CANDIDATES)
    _mark(reasons, pa.array(sets.outside), Reason.CANDIDATE_OUTSIDE)
    classes = sets.classes
    if nodes is not None:
        asks = ~unlabelled & ~is_none & (response != Response.CHOICE)
        label_number, about_set, classes = _about_nodes(
            label, label_number, asks, about_set, classes, nodes
        )
    _mark(reasons, pc.and_(pc.is_null(label_number), pa.array(~about_set)), Reason.BAD_LABEL)
    outside = pc.or_(pc.less(label_number, 0), pc.greater_equal(label_number, space.size))
    _mark(reasons, pc.fill_null(outside, False), Reason.LABEL_OUTSIDE)
    _mark(reasons, unknown, Reason.UNKNOWN_RESPONSE)
    timestamp, unreadable = _timestamps(table)
    _mark(reasons, unreadable, Reason.BAD_TIMESTAMP)
    probability, improbable = _probabilities(table)
    _mark(reasons, improbable, Reason.BAD_PROBABILITY)

    bad = reasons != ""
    rows = np.arange(first_row + 1, first_row + n + 1)
    good = pa.array(~bad)
    within, candidates = _labels(pc.if_else(good, label_number, 0), about_set, classes)
    votes = pa.table(
        [
            _combine(image_number),
            worker,
            within,
            pa.array(response),
            candidates,
            count_offered(_column(table, "candidates"), response == Response.CHOICE),
            timestamp,
            probability,
            pa.array(np.full(n, file, dtype=np.int32)),
            pa.array(rows),
        ],
        schema=schemas.VOTES_CHECKED,
    )
    if bad.any():
        votes = votes.filter(good)
    return Checked(votes, _rejects(table, rows, reasons, bad, space))


def _rejects(
    table: pa.Table,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    reasons: np.ndarray[tuple[int], np.dtype[np.object_]],
    bad: np.ndarray[tuple[int], np.dtype[np.bool_]],
    space: LabelSpace,
) -> pa.Table:
    where = np.flatnonzero(bad)
    kept = table.take(pa.array(where))
    none = pa.nulls(len(where), pa.string())
    texts = {
        name: _text(kept[name]) if name in kept.column_names else none
        for name in ("image_id", "worker_id", "label", "response", "timestamp")
    }
    for name in schemas.VOTES_COLLECTED_OPTIONAL.names:
        values = kept[name].to_pylist() if name in kept.column_names else []
        texts[name] = pa.array([_shown(value) for value in values], pa.string()) if values else none
    plain = {name: column.to_pylist() for name, column in texts.items()}
    details = [
        explain(Reason(reasons[row]), {name: plain[name][i] for name in plain}, space)
        for i, row in enumerate(where)
    ]
    return pa.table(
        [
            pa.array(rows[where]),
            *(texts[name] for name in ("image_id", "worker_id", "label", "response")),
            pa.array(reasons[where].tolist(), pa.string()),
            pa.array(details, pa.string()),
        ],
        schema=schemas.VOTES_REJECTS,
    )


def explain(reason: Reason, vote: dict[str, str | None], space: LabelSpace) -> str:
    """What is wrong with a vote, in words."""
    return {
        Reason.MISSING_IMAGE: "image_id is missing",
        Reason.BAD_IMAGE: f"image_id '{vote['image_id']}' is not an integer of 64 bits"
        " (a float from 2^53 on is not exact)",
        Reason.MISSING_WORKER: "worker_id is missing",
        Reason.MISSING_LABEL: "label is missing",
        Reason.BAD_LABEL: f"label {why_no_class(vote['label'], space)}{_why_no_node(vote, space)}",
        Reason.LABEL_OUTSIDE: f"label {vote['label']} is outside {space.describe()}",
        Reason.UNKNOWN_RESPONSE: f"response '{vote['response']}' is none of yes, no, unsure, none",
        Reason.UNEXPECTED_LABEL: f"response none names no class, but label is '{vote['label']}'; "
        "the classes that were offered belong in candidates",
        Reason.MISSING_CANDIDATES: f"response '{vote['response']}' without a label needs "
        "candidates, the classes that it is about",
        Reason.BAD_CANDIDATES: f"candidates '{vote.get('candidates')}' are not classes of "
        f"{space.describe()} (as a list, or as text such as 3 17 29)",
        Reason.CANDIDATE_OUTSIDE: f"candidates '{vote.get('candidates')}' has a class outside "
        f"{space.describe()}",
        Reason.BAD_PROBABILITY: f"inclusion_probability '{vote.get('inclusion_probability')}' is "
        "not a number above 0, up to 1",
        Reason.BAD_TIMESTAMP: f"timestamp '{vote.get('timestamp')}' is not an ISO 8601 time",
        Reason.DUPLICATE: DUPLICATE_DETAIL,
    }[reason]


def _why_no_node(vote: dict[str, str | None], space: LabelSpace) -> str:
    tree = find_label_tree(space)
    if tree is None or tree.find_above((vote["label"] or "").strip()) is None:
        return ""
    return ", but a node above the classes; with tree=true a verification may be about it"


def remedy(reason: str) -> str:
    """What the user can do about a vote that was rejected for `reason`."""
    if reason in (Reason.LABEL_OUTSIDE, Reason.CANDIDATE_OUTSIDE):
        return "drop the row, set label_space, or set on_bad_vote=reject to set such rows aside"
    return "fix or drop the row, or set on_bad_vote=reject to set such rows aside"


def _mark(
    reasons: np.ndarray[tuple[int], np.dtype[np.object_]],
    where: pa.ChunkedArray | pa.Array,
    reason: Reason,
) -> None:
    """Give `reason` to the rows of `where` that have none yet."""
    mask = np.asarray(where).astype(bool)
    if mask.any():
        reasons[mask & (reasons == "")] = str(reason)


def _text(column: pa.ChunkedArray) -> pa.Array:
    return _combine(column.cast(pa.string()))


def _combine(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _column(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    return table[name] if name in table.column_names else None


def _shown(value: object) -> str | None:
    """A value of an optional column in a message; a long list is cut."""
    return None if value is None else one_line(value, _SHOWN)


def _has_candidates(table: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    column = _column(table, "candidates")
    if column is None:
        return np.zeros(table.num_rows, dtype=bool)
    return np.asarray(pc.is_valid(column)).astype(bool)


def _about_nodes(
    label: pa.ChunkedArray,
    label_number: pa.Array,
    asks: np.ndarray[tuple[int], np.dtype[np.bool_]],
    about_set: np.ndarray[tuple[int], np.dtype[np.bool_]],
    classes: pa.Array,
    nodes: Nodes,
) -> tuple[pa.Array, np.ndarray[tuple[int], np.dtype[np.bool_]], pa.Array]:
    """The label numbers, which votes are about sets, and the sets, where nodes are asked about.

    asks: the verifications with a label.
    """
    number = _combine(nodes.numbers(label, label_number))
    node = np.asarray(pc.fill_null(number, -1)).astype(np.int64)
    known = asks & (node >= 0) & (node < nodes.tree.nodes)
    known &= (node < nodes.tree.classes) | np.asarray(label_number.is_null()).astype(bool)
    node = np.where(known, node, -1)
    as_set = nodes.is_set(node)
    if as_set.any():
        mask = pa.array(as_set)
        classes = pc.if_else(mask, nodes.sets_of(np.where(as_set, node, -1)), classes)
    whole = nodes.whole_classes(classes)
    is_class = pa.array(whole >= 0)
    label_number = pc.if_else(is_class, pa.array(whole), _combine(label_number))
    return label_number, (about_set | as_set) & (whole < 0), classes


def _labels(
    label: pa.Array | pa.ChunkedArray,
    about_set: np.ndarray[tuple[int], np.dtype[np.bool_]],
    classes: pa.Array,
) -> tuple[pa.Array, pa.Array]:
    """The label of each vote, −1 where it is about a set, and the sets. A set of one is a label."""
    if not about_set.any():
        return _combine(label).cast(pa.int32()), pa.nulls(len(classes), classes.type)
    single = pc.equal(pc.fill_null(pc.list_value_length(classes), 0), 1)
    first = pc.list_element(pc.if_else(single, classes, pa.scalar([-1], classes.type)), 0)
    label = pc.if_else(pa.array(about_set), first.cast(pa.int64()), _combine(label))
    several = pc.and_(pa.array(about_set), pc.invert(single))
    sets = classes.take(pc.if_else(several, pa.array(np.arange(len(classes))), None))
    return _combine(label).cast(pa.int32()), sets


def _responses(
    table: pa.Table,
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.int8]],
    np.ndarray[tuple[int], np.dtype[np.bool_]],
    pa.Array,
]:
    """The codes of the responses, which are `none` (its code is no), and which are unknown.

    A null or empty one is a choice.
    """
    n = table.num_rows
    if "response" not in table.column_names:
        nothing = np.zeros(n, dtype=bool)
        return np.full(n, Response.CHOICE, dtype=np.int8), nothing, pa.array(nothing)
    text = pc.fill_null(_text(table["response"]), "")
    words = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    values = pa.array(["", "yes", "no", "unsure", "none"])
    code = pc.index_in(words, value_set=values)
    unknown = pc.is_null(code)
    number = pc.fill_null(code, 0).to_numpy(zero_copy_only=False).astype(np.int8)
    is_none = number == len(values) - 1
    return np.where(is_none, np.int8(Response.NO), number), is_none, unknown


def _probabilities(table: pa.Table) -> tuple[pa.Array, pa.Array]:
    """The inclusion probabilities, null where not known, and which values are none."""
    column = _column(table, "inclusion_probability")
    if column is None:
        nothing = pa.array(np.zeros(table.num_rows, dtype=bool))
        return pa.nulls(table.num_rows, pa.float64()), nothing
    values = without_views(_combine(column))
    if is_text(values.type):
        text = pc.utf8_trim_whitespace(values.cast(pa.string()))
        given = pc.not_equal(text, "")
        matches = pc.match_substring_regex(
            text, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?$", ignore_case=True
        )
        number = pc.if_else(matches, text, None).cast(pa.float64())
    else:
        number = values.cast(pa.float64())
        given = pc.invert(pc.is_null(number, nan_is_null=True))
    possible = pc.fill_null(pc.and_(pc.greater(number, 0), pc.less_equal(number, 1)), False)
    given = pc.fill_null(given, False)
    return pc.if_else(possible, number, None), pc.and_(given, pc.invert(possible))


def _timestamps(table: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Microseconds since 1970 or null, and which values could not be read."""
    n = table.num_rows
    if "timestamp" not in table.column_names:
        return pa.nulls(n, pa.int64()), pa.array(np.zeros(n, dtype=bool))
    column = _combine(table["timestamp"])
    if pa.types.is_timestamp(column.type):
        # Nanoseconds, as pandas writes them, are truncated.
        moment = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        return moment.cast(pa.int64()), pa.array(np.zeros(n, dtype=bool))
    text = column.cast(pa.string())
    text = pc.if_else(pc.match_substring_regex(text, _TIME), text, None)
    text = pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")  # nanoseconds, again
    zoned = pc.fill_null(pc.match_substring_regex(text, _ZONED), False)
    with_zone = _cast_or_null(pc.if_else(zoned, text, None), pa.timestamp("us", "UTC"))
    without = _cast_or_null(pc.if_else(zoned, None, text), pa.timestamp("us"))
    read = pc.coalesce(with_zone.cast(pa.int64()), without.cast(pa.int64()))
    return read, pc.and_(pc.is_null(read), pc.is_valid(column))


def _cast_or_null(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Texts as `kind`, null where that fails.

    By halves, for Arrow does not say which text it cannot cast.
    """
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        if len(text) == 1:
            return pa.nulls(1, kind)
    middle = len(text) // 2
    halves = (text.slice(0, middle), text.slice(middle))
    return pa.concat_arrays([_cast_or_null(half, kind) for half in halves])
