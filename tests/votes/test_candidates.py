"""Votes about sets of classes, and the probability with which images were asked about."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.em.responses import Response
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.votes.checks import Reason, check
from coyo_labeler.votes.read import plan, read

SPACE = LabelSpace("pets", 40, ("cat", "dog", *map(str, range(2, 40))))


def vote(**columns):
    given = {"image_id": [1], "worker_id": ["ann"], "label": [None], **columns}
    return check(pa.table(given), file=0, first_row=0, space=SPACE)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ("3 17 29", [3, 17, 29]),
        ("[29, 3, 17, 3]", [3, 17, 29]),
        ("[3 17]", [3, 17]),
        ("17,3; 5|29", [3, 5, 17, 29]),
        ('["dog", "cat"]', [0, 1]),
        ([17, 3], [3, 17]),
        (["dog", "7"], [1, 7]),
    ],
)
def test_a_set_is_read_from_lists_and_texts(candidates, expected):
    checked = vote(response=["none"], candidates=[candidates])
    assert checked.rejects.num_rows == 0
    row = checked.votes.to_pylist()[0]
    assert row["candidates"] == expected
    assert (row["label"], row["response"]) == (-1, Response.NO)


def test_a_set_of_one_is_its_class_and_a_label_goes_before_candidates():
    single = vote(response=["none"], candidates=[[7]]).votes.to_pylist()[0]
    assert (single["label"], single["candidates"], single["response"]) == (7, None, Response.NO)
    labelled = vote(label=[4], response=["yes"], candidates=[[7, 8]]).votes.to_pylist()[0]
    assert (labelled["label"], labelled["candidates"]) == (4, None)
    choice = vote(label=[4], candidates=["what?"]).votes.to_pylist()[0]
    assert (choice["label"], choice["response"]) == (4, Response.CHOICE)


@pytest.mark.parametrize(
    ("columns", "reason", "detail"),
    [
        ({"response": ["none"]}, Reason.MISSING_CANDIDATES, "needs candidates"),
        ({"response": ["none"], "candidates": [[]]}, Reason.MISSING_CANDIDATES, "needs candidates"),
        ({"response": ["none"], "candidates": [" "]}, Reason.MISSING_CANDIDATES, "needs"),
        ({"response": ["yes"], "candidates": ["3 x"]}, Reason.BAD_CANDIDATES, "'3 x' are not"),
        ({"response": ["no"], "candidates": ["[1, {}]"]}, Reason.BAD_CANDIDATES, "are not classes"),
        ({"response": ["no"], "candidates": [[3, None]]}, Reason.BAD_CANDIDATES, "are not classes"),
        ({"response": ["no"], "candidates": [[3, 40]]}, Reason.CANDIDATE_OUTSIDE, "outside pets"),
        ({"response": ["no"], "candidates": ["-1 3"]}, Reason.CANDIDATE_OUTSIDE, "outside pets"),
        (
            {"response": ["none"], "label": [3], "candidates": [[3, 4]]},
            Reason.UNEXPECTED_LABEL,
            "names no class, but label is '3'",
        ),
        ({"candidates": [[3, 4]]}, Reason.MISSING_LABEL, "label is missing"),
        ({"response": ["unsure"]}, Reason.MISSING_LABEL, "label is missing"),
        (
            {"label": [1], "inclusion_probability": [0.0]},
            Reason.BAD_PROBABILITY,
            "'0.0' is not a number above 0, up to 1",
        ),
        ({"label": [1], "inclusion_probability": ["1.5"]}, Reason.BAD_PROBABILITY, "'1.5'"),
        ({"label": [1], "inclusion_probability": ["half"]}, Reason.BAD_PROBABILITY, "'half'"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_a_reason(columns, reason, detail):
    checked = vote(**columns)
    assert checked.votes.num_rows == 0
    assert checked.rejects["reason"].to_pylist() == [reason]
    assert detail in checked.rejects["detail"][0].as_py()


@pytest.mark.parametrize("value", [None, float("nan"), "", 0.25, "2.5e-1"])
def test_a_probability_may_be_missing(value):
    checked = vote(label=[1], inclusion_probability=[value])
    expected = 0.25 if value in (0.25, "2.5e-1") else None
    assert checked.votes["inclusion_probability"].to_pylist() == [expected]


def test_the_output_of_collect_is_read_from_its_folder_of_votes(tmp_path):
    rows = [
        {"image_id": 1, "worker_id": "ann", "label": 3, "inclusion_probability": 1.0},
        {"image_id": 2, "worker_id": "bob", "response": "none", "candidates": [3, 5]},
        {"image_id": 2, "worker_id": "cid", "response": "yes", "candidates": [3, 5]},
    ]
    (tmp_path / "votes").mkdir()
    (tmp_path / "rejects").mkdir()
    table = pa.Table.from_pylist(rows, schema=schemas.COLLECTED_VOTES)
    pq.write_table(table, tmp_path / "votes" / "part-00000.parquet")
    empty = schemas.COLLECT_REJECTS.empty_table()
    pq.write_table(empty, tmp_path / "rejects" / "part-00000.parquet")
    (split,) = plan(str(tmp_path), 100)
    ((_, read_rows),) = read(split)
    votes = check(read_rows, 0, 0, SPACE).votes
    assert votes["response"].to_pylist() == [Response.CHOICE, Response.NO, Response.YES]
    assert votes["candidates"].to_pylist() == [None, [3, 5], [3, 5]]
    assert votes["inclusion_probability"].to_pylist() == [1.0, None, None]


@pytest.mark.parametrize(
    "candidates",
    [
        [[3, 1, 2], None, [0, 1], []],
        ["3 1 2", None, "[0, 1]", ""],
        ["[3, 1, 2]", None, "b|c", " "],
    ],
)
def test_of_choices_it_is_counted_how_many_classes_were_offered(candidates):
    """The last answer is about a set; there is nothing to be counted."""
    votes = {
        "image_id": range(5),
        "worker_id": ["a"] * 5,
        "label": [1, 1, 1, 1, None],
        "response": [None, None, "", None, "no"],
        "candidates": [*candidates, candidates[0]],
    }
    checked = check(pa.table(votes), 0, 0, SPACE)
    assert checked.rejects.num_rows == 0
    assert checked.votes["offered"].to_pylist() == [3, 0, 2, 0, 0]


def test_a_csv_holds_sets_as_text(tmp_path):
    (tmp_path / "votes.csv").write_text(
        "image_id,worker_id,label,response,candidates\n1,ann,,none,3 17\n2,bob,5,,\n"
    )
    (split,) = plan(str(tmp_path), 100)
    ((_, rows),) = read(split)
    assert check(rows, 0, 0, SPACE).votes["candidates"].to_pylist() == [[3, 17], None]


def test_candidates_of_another_kind_are_refused(tmp_path):
    table = pa.table({"image_id": [1], "worker_id": ["a"], "label": [0], "candidates": [5.5]})
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(InputError, match="column 'candidates' is double, it must be list"):
        plan(str(tmp_path), 100)
