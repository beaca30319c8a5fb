import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.em.responses import Response
from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.votes import checks
from coyo_labeler.votes.checks import Reason, check
from coyo_labeler.votes.read import plan, read

SPACE = LabelSpace("imagenet21k", 21_841)


def table(**columns):
    return pa.table(columns)


def test_good_votes_pass_with_their_rows_counted_from_one():
    votes = table(image_id=[5, 6], worker_id=["ann", "bob"], label=[0, 21_840])
    checked = check(votes, file=2, first_row=10, space=SPACE)
    assert checked.rejects.num_rows == 0
    assert checked.votes["image_id"].to_pylist() == [5, 6]
    assert checked.votes["row"].to_pylist() == [11, 12]
    assert checked.votes["file"].to_pylist() == [2, 2]
    assert checked.votes["response"].to_pylist() == [Response.CHOICE] * 2


@pytest.mark.parametrize(
    ("vote", "reason", "detail"),
    [
        ((None, "ann", "1", None), Reason.MISSING_IMAGE, "image_id is missing"),
        (("x7", "ann", "1", None), Reason.BAD_IMAGE, "image_id 'x7' is not an integer"),
        (("1", None, "1", None), Reason.MISSING_WORKER, "worker_id is missing"),
        (("1", "  ", "1", None), Reason.MISSING_WORKER, "worker_id is missing"),
        (("1", "ann", None, None), Reason.MISSING_LABEL, "label is missing"),
        (("1", "ann", "cat", None), Reason.BAD_LABEL, "label 'cat' is not an integer"),
        (("1", "ann", "1.5", None), Reason.BAD_LABEL, "label '1.5' is not an integer"),
        (
            ("1", "ann", "30211", None),
            Reason.LABEL_OUTSIDE,
            "label 30211 is outside imagenet21k (0..21840)",
        ),
        (("1", "ann", "-1", None), Reason.LABEL_OUTSIDE, "label -1 is outside"),
        (("1", "ann", "9" * 18, None), Reason.LABEL_OUTSIDE, "label 9999"),
        (
            ("1", "ann", "3", "maybe"),
            Reason.UNKNOWN_RESPONSE,
            "response 'maybe' is none of yes, no, unsure",
        ),
    ],
)
def test_a_bad_vote_is_set_aside_with_the_reason(vote, reason, detail):
    good = ("8", "bob", "2", "yes")
    columns = zip(good, vote, good, strict=True)
    names = ("image_id", "worker_id", "label", "response")
    votes = table(
        **{n: pa.array(values, pa.string()) for n, values in zip(names, columns, strict=True)}
    )
    checked = check(votes, file=0, first_row=0, space=SPACE)
    assert checked.votes["row"].to_pylist() == [1, 3]
    (reject,) = checked.rejects.to_pylist()
    assert reject["row"] == 2
    assert reject["reason"] == reason
    assert reject["detail"].startswith(detail)


def test_responses_are_read_whatever_their_case_and_an_empty_one_is_a_choice():
    votes = table(
        image_id=[1, 1, 1, 1],
        worker_id=["a", "b", "c", "d"],
        label=[1, 1, 1, 1],
        response=["Yes", " no ", "UNSURE", ""],
    )
    checked = check(votes, 0, 0, SPACE)
    assert checked.votes["response"].to_pylist() == [1, 2, 3, 0]


def test_timestamps_are_read_as_utc_and_bad_ones_set_aside():
    votes = table(
        image_id=[1, 2, 3],
        worker_id=["a", "a", "a"],
        label=[1, 1, 1],
        timestamp=["1970-01-01T00:00:01Z", "yesterday", None],
    )
    checked = check(votes, 0, 0, SPACE)
    assert checked.votes["timestamp"].to_pylist() == [1_000_000, None]
    assert checked.rejects["reason"].to_pylist() == [Reason.BAD_TIMESTAMP]


def ids(values):
    """The ids that are read of a column, and how many rows are set aside."""
    n = len(values)
    checked = check(table(image_id=values, worker_id=["a"] * n, label=[1] * n), 0, 0, SPACE)
    assert set(checked.rejects["reason"].to_pylist()) <= {Reason.BAD_IMAGE}
    return checked.votes["image_id"].to_pylist(), checked.rejects.num_rows


def test_ids_of_nineteen_digits_are_read_from_text_as_from_numbers():
    most, least = 2**63 - 1, -(2**63)
    good = [1_234_567_890_123_456_789, most, least, 0]
    assert ids(pa.array(list(map(str, good)))) == (good, 0)
    assert ids(pa.array(good)) == (good, 0)
    assert ids(pa.array([str(most + 1), str(least - 1), "9" * 20, "-", "+0007"])) == ([7], 4)
    assert ids(pa.array([most, most + 1], pa.uint64())) == ([most], 1)


def test_ids_in_floats_are_read_where_floats_are_exact():
    good = [8_589_934_592.0, 123_456_789_012.0, -1e15, 2.0**53 - 1]
    assert ids(pa.array([*good, 2.0**53, 1e19, 1.5, np.inf])) == ([int(x) for x in good], 4)


def test_times_of_all_kinds_are_read_together_and_none_by_itself(monkeypatch):
    """An hour is written in six ways; among 10,000 rows two cannot be read."""
    same = ["1970-01-01T01:00:00Z", "1970-01-01 01:00:00", "1970-01-01T03:00:00+02:00"]
    same += ["1970-01-01 01:00", "1970-01-01T01", "1970-01-01T01:00:00.000000"]
    times = [*(same * 1667)[:10_000], "1970-01-02", None]
    times[17], times[9_000] = "1970-13-01 00:00:00", "yesterday"
    n = len(times)
    casts, cast = [], checks._cast_or_null
    monkeypatch.setattr(checks, "_cast_or_null", lambda *a: casts.append(1) or cast(*a))
    votes = table(image_id=range(n), worker_id=["a"] * n, label=[1] * n, timestamp=times)
    checked = check(votes, 0, 0, SPACE)
    assert checked.rejects["row"].to_pylist() == [18, 9_001]
    hour = 3_600_000_000
    found = checked.votes["timestamp"].to_pylist()
    assert (set(found[:-2]), found[-2:]) == ({hour}, [24 * hour, None])
    assert len(casts) < 100


def test_nanoseconds_of_a_time_are_cut():
    times = pa.array([1_000_001_999], pa.timestamp("ns"))
    votes = table(image_id=[1], worker_id=["a"], label=[1], timestamp=times)
    assert check(votes, 0, 0, SPACE).votes["timestamp"].to_pylist() == [1_000_001]


def test_nanoseconds_of_a_text_are_cut_too():
    times = ["1970-01-01 00:00:01.123456789", "1970-01-01T00:00:01.1234567Z"]
    votes = table(image_id=[1, 2], worker_id=["a", "b"], label=[1, 1], timestamp=times)
    checked = check(votes, 0, 0, SPACE)
    assert checked.votes["timestamp"].to_pylist() == [1_123_456] * 2


def test_parquet_and_csv_are_read_alike_with_their_row_numbers(tmp_path):
    (tmp_path / "a.csv").write_text("worker_id,label,image_id\nann,3,7\nbob,4,8\n")
    splits = plan(str(tmp_path), rows_per_split=10)
    ((first, rows),) = read(splits[0])
    assert first == 0
    assert rows.select(["image_id", "worker_id", "label"]).to_pylist() == [
        {"image_id": "7", "worker_id": "ann", "label": "3"},
        {"image_id": "8", "worker_id": "bob", "label": "4"},
    ]


def test_row_numbers_go_on_over_the_row_groups_of_a_file(tmp_path):
    votes = pa.table({"image_id": range(10), "worker_id": ["a"] * 10, "label": [0] * 10})
    pq.write_table(votes, tmp_path / "v.parquet", row_group_size=4)
    splits = plan(str(tmp_path / "v.parquet"), rows_per_split=4)
    assert [split.first_row for split in splits] == [0, 4, 8]
    numbers = [
        (first, rows["image_id"].to_pylist()) for split in splits for first, rows in read(split)
    ]
    assert numbers == [(0, [0, 1, 2, 3]), (4, [4, 5, 6, 7]), (8, [8, 9])]


def test_a_missing_column_names_those_that_are_there(tmp_path):
    (tmp_path / "v.csv").write_text("image,worker_id,label\n1,a,2\n")
    message = r"has no column 'image_id' \(its columns: image, worker_id, label\); rename its"
    with pytest.raises(InputError, match=message):
        plan(str(tmp_path), 10)


def test_files_of_another_name_are_told_what_to_be(tmp_path):
    (tmp_path / "v.tsv").write_text("image_id\tworker_id\tlabel\n1\ta\t2\n")
    with pytest.raises(InputError, match=r"v\.tsv; give Parquet or CSV, in files named so$"):
        plan(str(tmp_path / "v.tsv"), 10)


@pytest.mark.parametrize("first", [b"image_id,worker_id,label\n", b""])
def test_a_csv_of_one_endless_line_takes_no_memory_and_says_why(tmp_path, first):
    path = tmp_path / "votes.csv"
    with path.open("wb") as file:
        file.write(first)
        for _ in range(40):
            file.write(b"7" * 2**20)
    pattern = (
        r"a row of more than 16,777,216 bytes"
        if first
        else r"first line has more than 1,048,576 bytes"
    )
    with pytest.raises(InputError, match=pattern):
        for split in plan(str(path), 1000):
            list(read(split))


def test_a_csv_row_with_too_many_values_is_named(tmp_path):
    path = tmp_path / "v.csv"
    path.write_text("image_id,worker_id,label\n1,a,2\n1,a,2,9\n")
    with pytest.raises(InputError, match="is not a readable CSV file"):
        list(read(plan(str(path), 10)[0]))


UUID = uuid.UUID(int=7)


def test_uuids_of_workers_are_their_text(tmp_path):
    ids = pa.array([UUID.bytes, None], pa.uuid())
    votes = table(image_id=[1, 2], worker_id=ids, label=[0, 1])
    pq.write_table(votes, tmp_path / "v.parquet")
    (split,) = plan(str(tmp_path), rows_per_split=10)
    ((_, rows),) = read(split)
    checked = check(rows, 0, 0, SPACE)
    assert checked.votes["worker_id"].to_pylist() == [str(UUID)]
    assert checked.rejects["reason"].to_pylist() == [Reason.MISSING_WORKER]


def test_worker_ids_that_are_no_text_are_named(tmp_path):
    votes = table(image_id=[1, 2], worker_id=[b"ann", b"\xff"], label=[0, 1])
    pq.write_table(votes, tmp_path / "v.parquet")
    (split,) = plan(str(tmp_path), rows_per_split=10)
    with pytest.raises(InputError, match=r"v\.parquet: column 'worker_id' has b'\\xff' in row 2"):
        list(read(split))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_csv_in_another_encoding_is_told(tmp_path, encoding):
    path = tmp_path / "v.csv"
    path.write_bytes("image_id,worker_id,label\n1,ann,0\n".encode(encoding))
    with pytest.raises(InputError, match=r"v\.csv is not encoded as UTF-8; save it again as UTF-8"):
        plan(str(path), rows_per_split=10)


def test_a_value_in_another_encoding_is_told(tmp_path):
    path = tmp_path / "v.csv"
    path.write_bytes("image_id,worker_id,label\n1,Zoë,0\n".encode("latin-1"))
    (split,) = plan(str(path), rows_per_split=10)
    with pytest.raises(InputError, match=r"v\.csv is not encoded as UTF-8"):
        list(read(split))


@pytest.mark.parametrize("name", ["v.csv", "v.parquet"])
@pytest.mark.parametrize("column", ["label", "response"])
def test_two_columns_of_one_name_are_refused(tmp_path, name, column):
    names = ["image_id", "worker_id", "label", "response", column]
    votes = pa.table([["1"], ["ann"], ["0"], ["yes"], ["no"]], names=names)
    if name.endswith("csv"):
        (tmp_path / name).write_text(",".join(names) + "\n1,ann,0,yes,no\n")
    else:
        pq.write_table(votes, tmp_path / name)
    with pytest.raises(InputError, match=f"{name} has two columns '{column}'; rename or drop one"):
        plan(str(tmp_path), rows_per_split=10)


def test_a_quoted_value_may_lie_across_two_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("coyo_labeler.formats.csv_files._BLOCK_BYTES", 256)
    comment = '"' + "looks like a dog\n" * 8 + '"'
    lines = [f"{image},ann,{image % 3},{comment}\n" for image in range(40)]
    (tmp_path / "v.csv").write_text("image_id,worker_id,label,comment\n" + "".join(lines))
    (split,) = plan(str(tmp_path), rows_per_split=10)
    tables = list(read(split))
    assert len(tables) > 1
    assert [first for first, _ in tables] == [sum(t.num_rows for _, t in tables[:i])
                                             for i in range(len(tables))]  # fmt: skip
    images = [image for _, rows in tables for image in rows["image_id"].to_pylist()]
    assert images == [str(image) for image in range(40)]


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "binary", "category"])
def test_votes_may_name_their_class_in_any_type_of_text(tmp_path, kind):
    space = LabelSpace("space.txt", 4, ("cat", "dog", "crane", "crane"))
    labels = pa.array(["dog", " cat ", "2", "crane", "dgo", None])
    kinds = {"large_string": pa.large_string(), "string_view": pa.string_view()}
    kinds |= {"string": pa.string(), "binary": pa.binary()}
    labels = labels.dictionary_encode() if kind == "category" else labels.cast(kinds[kind])
    workers = pa.array(["ann"] * 6).cast(labels.type if kind != "binary" else pa.string())
    votes = table(image_id=range(6), worker_id=workers, label=labels)
    pq.write_table(votes, tmp_path / "v.parquet")
    (split,) = plan(str(tmp_path), rows_per_split=10)
    ((_, rows),) = read(split)
    checked = check(rows, 0, 0, space)
    assert checked.votes["label"].to_pylist() == [1, 0, 2]
    rejects = checked.rejects.to_pylist()
    assert [(row["row"], row["reason"], row["label"]) for row in rejects] == [
        (4, Reason.BAD_LABEL, "crane"),
        (5, Reason.BAD_LABEL, "dgo"),
        (6, Reason.MISSING_LABEL, None),
    ]
    assert rejects[0]["detail"] == (
        "label 'crane' is the name of several classes of space.txt (2 and 3)"
    )
    assert rejects[1]["detail"] == (
        "label 'dgo' is not an integer and not the name of a class of space.txt (0..3)"
    )


@pytest.mark.parametrize(
    ("labels", "used"),
    [
        (pa.array([1.0, 0.5, None]), [1]),
        (pa.array([True, False, None]), []),
        (pa.array([Decimal("1.00"), Decimal("0.50"), None]), [1]),
        (pa.array([5, 6, None], pa.timestamp("us")), []),
        (pa.array([5, 6, None], pa.date32()), []),
        (pa.array([5, 6, None], pa.time64("us")), []),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_labels_of_other_types_are_classes_where_they_are_whole_numbers(tmp_path, labels, used):
    votes = table(image_id=range(3), worker_id=["a", "b", "c"], label=labels)
    pq.write_table(votes, tmp_path / "v.parquet")
    try:
        (split,) = plan(str(tmp_path), rows_per_split=10)
    except InputError as error:
        assert "column 'label' is " in str(error)
        assert "it must be int32; write it as that" in str(error)
        assert not used
        return
    ((_, rows),) = read(split)
    checked = check(rows, 0, 0, SPACE)
    assert checked.votes["label"].to_pylist() == used
    assert checked.rejects["reason"].to_pylist()[-1] == Reason.MISSING_LABEL


def test_a_line_break_in_the_name_of_a_csv_column_is_part_of_it(tmp_path):
    (tmp_path / "v.csv").write_text('image_id,"a\nnote",worker_id,label\n1,"x\ny",ann,0\n')
    (split,) = plan(str(tmp_path), rows_per_split=10)
    ((_, rows),) = read(split)
    assert rows.select(["image_id", "worker_id", "label"]).to_pylist() == [
        {"image_id": "1", "worker_id": "ann", "label": "0"}
    ]
