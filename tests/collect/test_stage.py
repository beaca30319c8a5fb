"""collect from files: every answer is a vote or a reject, and the same twice."""

import json
import logging

import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from tests.annotation_tools.tables import FIRST, bytes_of, question, rows_of, run, write_questions
from tests.collect import exports


@pytest.fixture
def asked(tmp_path):
    return write_questions(tmp_path, exports.QUESTIONS)


def collect(tmp_path, asked, text, name="export.json", **words):
    path = tmp_path / name
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    given = {"questions": asked, "source": path, "output": tmp_path / "collected", **words}
    manifest, worked = run("collect", **given)
    return manifest, worked, tmp_path / "collected"


def short(rows, *columns):
    return [tuple(row.get(column) for column in columns) for row in rows]


def test_an_export_of_label_studio_becomes_votes_and_rejects(tmp_path, asked):
    manifest, _, out = collect(tmp_path, asked, exports.LABEL_STUDIO)
    votes, rejects = rows_of(out, "votes"), rows_of(out, "rejects")
    assert short(votes, "image_id", "worker_id", "label", "response") == [
        (FIRST, "label_studio:3", 11054, None),
        (FIRST, "label_studio:ann@example.org", 8087, None),
        (FIRST + 6, "label_studio:3", 8087, "no"),
        (FIRST + 6, "label_studio:ann@example.org", 8087, "yes"),
        (FIRST + 7, "label_studio:3", 8087, "unsure"),
    ]
    assert sorted(short(rejects, "question_id", "reason", "answer")) == [
        (f"r0001:{FIRST}", "second_answer", "none"),
        (f"r0001:{FIRST + 1}", "skipped", None),
        (f"r0001:{FIRST + 1}", "unknown_choice", "NOT_A_CLASS"),
        (f"r0001:{FIRST + 3}", "ground_truth", "8087"),
    ]
    assert manifest.rows.rows_in == manifest.rows.rows_out + len(rejects) == 9
    first = votes[1]
    assert first["purpose"] == "uncertain"
    assert first["inclusion_probability"] == 0.28125
    assert first["seconds"] == 3.25
    assert first["candidates"] == [8087, 11054, 5]
    assert first["timestamp"].isoformat() == "2026-11-25T17:32:01.258017+00:00"


def test_gold_answers_are_marked_by_their_purpose(tmp_path, asked):
    _, _, out = collect(tmp_path, asked, [exports.task(2, exports.annotation(1, 2, "none"))])
    (vote,) = rows_of(out, "votes")
    assert (vote["purpose"], vote["response"], vote["candidates"]) == (
        "gold",
        "none",
        [8087, 11054, 5],
    )
    assert "label" not in vote


def test_collecting_twice_changes_nothing(tmp_path, asked):
    _, _, out = collect(tmp_path, asked, exports.LABEL_STUDIO)
    before = bytes_of(out)
    collect(tmp_path, asked, exports.LABEL_STUDIO)
    assert bytes_of(out) == before
    again = tmp_path / "again"
    run("collect", questions=asked, source=tmp_path / "export.json", output=again)
    assert bytes_of(again) == before


def test_a_longer_export_in_the_same_file_updates_the_tables(tmp_path, asked):
    _, _, out = collect(tmp_path, asked, exports.LABEL_STUDIO[:1])
    assert len(rows_of(out, "votes")) == 2
    manifest, worked, _ = collect(tmp_path, asked, exports.LABEL_STUDIO)
    assert worked
    assert len(rows_of(out, "votes")) == 5
    assert manifest.rows.rows_in == 9


def test_the_latest_version_of_an_answer_counts_whatever_the_order_of_files(tmp_path, asked):
    old = exports.task(0, exports.annotation(1, 2, "8087"))
    late = {"updated_at": "2026-11-26T00:00:00Z"}
    new = exports.task(0, exports.annotation(1, 2, "11054", **late))
    for number, names in enumerate((("a", "b"), ("b", "a"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, task in zip(names, (old, new), strict=True):
            (folder / f"{name}.json").write_text(json.dumps([task]))
        out = tmp_path / f"out{number}"
        manifest, _ = run("collect", questions=asked, source=folder, output=out)
        assert short(rows_of(out, "votes"), "label") == [(11054,)]
        assert manifest.rows.rows_in == 1
        assert manifest.details["earlier_versions"] == 1
    assert bytes_of(tmp_path / "out0") == bytes_of(tmp_path / "out1")


def test_answers_after_the_deadline_are_rejected(tmp_path, asked):
    _, _, out = collect(
        tmp_path, asked, exports.LABEL_STUDIO, deadline="2026-11-25T17:32:01.300000Z"
    )
    reasons = [row["reason"] for row in rows_of(out, "rejects")]
    assert reasons.count("after_deadline") == 6 - reasons.count("unknown_choice")
    assert len(rows_of(out, "votes")) == 1


def test_workers_are_hashed_on_request(tmp_path, asked, monkeypatch):
    monkeypatch.setenv("COYO_LABELER_WORKER_KEY", "a key")
    _, _, out = collect(tmp_path, asked, exports.LABEL_STUDIO, hash_workers="true")
    workers = {row["worker_id"] for row in rows_of(out, "votes")}
    assert len(workers) == 2
    assert all(worker.startswith("label_studio:") and len(worker) == 33 for worker in workers)
    kept = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    assert b"ann@example.org" not in kept
    monkeypatch.setenv("COYO_LABELER_WORKER_KEY", "another key")
    other = tmp_path / "other"
    run(
        "collect",
        questions=asked,
        source=tmp_path / "export.json",
        output=other,
        hash_workers="true",
    )
    assert not workers & {row["worker_id"] for row in rows_of(other, "votes")}


def test_names_of_users_may_come_from_a_file(tmp_path, asked):
    users = tmp_path / "users.json"
    users.write_text(json.dumps([{"id": 3, "email": "bob@example.org", "username": ""}]))
    _, _, out = collect(tmp_path, asked, exports.LABEL_STUDIO, users=users)
    assert {row["worker_id"] for row in rows_of(out, "votes")} == {
        "label_studio:ann@example.org",
        "label_studio:bob@example.org",
    }


def test_auto_says_what_it_took_the_source_for(tmp_path, asked, caplog):
    with caplog.at_level(logging.INFO, "coyo_labeler"):
        manifest, _, _ = collect(tmp_path, asked, exports.MTURK, "results.csv")
    assert "taken for answers of mturk; if it is not, set format" in caplog.text
    assert manifest.details["format"] == "mturk"


@pytest.mark.parametrize(
    ("text", "name", "what"),
    [
        ('"annotation_id","annotator","answer"\n1,2,"yes"\n', "a.csv", "CSV"),
        ('[{"annotation_id": 1, "annotator": 2, "answer": "yes"}]', "a.json", "JSON_MIN"),
    ],
)
def test_exports_that_lose_skips_are_refused(tmp_path, asked, text, name, what):
    with pytest.raises(InputError, match=f"is Label Studio's {what}, which leaves out skipped"):
        collect(tmp_path, asked, text, name)


@pytest.mark.parametrize(
    ("text", "name", "error"),
    [
        ("", "a.csv", "is empty"),
        ("[1, 2]", "a.json", "JSON in no form that is known"),
        (" [ ]", "a.json", "an empty list; export it again when there are answers"),
        ('[{"annotations": [], "data": {}},', "a.json", "not readable JSON"),
        ("<a><b></a>", "a.xml", "no export of CVAT: it begins with <a>; export the job"),
        ("<annotations><b></annotations>", "a.xml", "not readable XML"),
        ("<!DOCTYPE x><annotations/>", "a.xml", "has a document type"),
        (
            "question_id,answer\nx,yes\n",
            "a.csv",
            "no column for worker_id .*columns.worker_id=NAME",
        ),
        ("who,what\nann,yes\n", "a.csv", "no column for question_id and worker_id and answer"),
        ("Hello", "a.txt", "no column for question_id and worker_id and answer"),
    ],
)
def test_what_cannot_be_read_is_one_error(tmp_path, asked, text, name, error):
    with pytest.raises(InputError, match=error):
        collect(tmp_path, asked, text, name)


@pytest.mark.parametrize("text", ["task,worker,label", "task,worker,label\n"])
def test_a_table_without_rows_holds_no_answers_yet(tmp_path, asked, text, caplog):
    manifest, _, _ = collect(tmp_path, asked, text, "a.csv")
    assert (manifest.rows.rows_in, manifest.rows.rows_out) == (0, 0)
    assert "there are no answers at" in caplog.text


def test_files_of_two_formats_are_refused(tmp_path, asked):
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "a.csv").write_text(exports.MTURK)
    (folder / "b.csv").write_text(exports.CROWDKIT)
    with pytest.raises(InputError, match=r"several formats \(crowdkit: b.csv, mturk: a.csv\)"):
        run("collect", questions=asked, source=folder, output=tmp_path / "out")


def test_a_question_id_for_two_questions_is_refused(tmp_path):
    rows = [question(0), {**question(1), "question_id": question(0)["question_id"]}]
    with pytest.raises(InputError, match="stands for two different questions"):
        collect(tmp_path, write_questions(tmp_path, rows), exports.LABEL_STUDIO)


def test_the_files_that_send_wrote_hold_no_answers(tmp_path, asked):
    run("send", questions=asked, to="csv", output=tmp_path / "sent")
    with pytest.raises(InputError, match=r"files that send wrote \(csv\); give the answers"):
        run("collect", questions=asked, source=tmp_path / "sent", output=tmp_path / "out")


def test_tables_have_their_schemas_also_where_they_are_empty(tmp_path, asked):
    import pyarrow.parquet as pq  # noqa: PLC0415

    _, _, out = collect(tmp_path, asked, [exports.task(2)])
    assert pq.read_schema(out / "votes" / "part-00000.parquet") == schemas.COLLECTED_VOTES
    assert pq.read_schema(out / "rejects" / "part-00000.parquet") == schemas.COLLECT_REJECTS
