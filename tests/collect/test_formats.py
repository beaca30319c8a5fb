"""The forms of answers of tools other than Label Studio."""

import gzip
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from tests.annotation_tools.tables import FIRST, question, rows_of, run, write_questions
from tests.collect import exports


@pytest.fixture
def collect(tmp_path):
    """Collects a text as a file; returns (image number, worker, label, response) of the votes and
    (image number, reason) of the rejects."""

    def collect(text, name, rows=None, **words):
        path = tmp_path / name
        path.write_text(text)
        asked = write_questions(tmp_path, rows or exports.QUESTIONS)
        run("collect", questions=asked, source=path, output=tmp_path / "out", **words)
        votes = [
            (v["image_id"] - FIRST, v["worker_id"], v.get("label"), v.get("response"))
            for v in rows_of(tmp_path / "out", "votes")
        ]
        rejects = [
            (r.get("image_id", FIRST - 1) - FIRST, r["reason"])
            for r in rows_of(tmp_path / "out", "rejects")
        ]
        return votes, sorted(rejects)

    return collect


def test_mturk(collect, tmp_path):
    votes, rejects = collect(exports.MTURK, "results.csv")
    assert votes == [(0, "mturk:A1", 8087, None), (6, "mturk:A1", 8087, "yes")]
    assert rejects == [(6, "rejected_assignment")]
    times = [vote["timestamp"].isoformat() for vote in rows_of(tmp_path / "out", "votes")]
    assert times == ["2026-07-01T17:06:02+00:00", "2026-11-24T18:05:09+00:00"]  # PDT, PST
    assert [vote["seconds"] for vote in rows_of(tmp_path / "out", "votes")] == [9.0, 9.0]


def test_mturk_answers_as_true_and_false(collect):
    header = "AssignmentId,WorkerId,AssignmentStatus,Input.question_id,Answer.a.no,Answer.a.yes\n"
    rows = f"1,A1,Approved,{exports.QUESTIONS[6]['question_id']},false,true\n"
    assert collect(header + rows, "results.csv")[0] == [(6, "mturk:A1", 8087, "yes")]


def test_crowdkit_names_questions_or_images(collect):
    votes, rejects = collect(exports.CROWDKIT, "votes.csv")
    assert votes == [  # `lamp` is the name of two classes, of which one was offered
        (0, "crowdkit:w1", 8087, None),
        (0, "crowdkit:w2", 11054, None),
        (6, "crowdkit:w1", 8087, "yes"),
    ]
    assert rejects == [(-1, "unknown_question")]


def test_toloka(collect, tmp_path):
    votes, rejects = collect(exports.TOLOKA, "assignments.tsv")
    assert votes == [(6, "toloka:w1", 8087, "yes")]
    assert rejects == [(7, "rejected_assignment")]
    (vote,) = rows_of(tmp_path / "out", "votes")
    assert vote["seconds"] == pytest.approx(9.333, abs=1e-3)


def test_prodigy(collect):
    votes, rejects = collect(exports.PRODIGY, "prodigy.jsonl")
    assert votes == [
        (0, "prodigy:ds-ann", 11054, None),
        (6, "prodigy:ds-ann", 8087, "yes"),
        (7, "prodigy:ds-ann", 8087, "no"),
    ]
    assert rejects == [(8, "skipped")]


def test_cvat_xml(collect):
    votes, rejects = collect(exports.CVAT_XML, "annotations.xml")
    assert votes == [(6, "cvat:ann", 8087, "yes"), (8, "cvat:ann", 8087, "no")]
    assert rejects == []


def test_cvat_xml_of_a_model_or_of_nobody(collect):
    text = exports.CVAT_XML.replace('source="manual"', 'source="auto"')
    assert collect(text, "annotations.xml")[1] == [(6, "prediction"), (8, "malformed")]
    nobody = exports.CVAT_XML.replace("<username>ann</username>", "")
    votes, rejects = collect(nobody, "nobody.xml", overwrite="true")
    assert votes == []
    assert rejects == [(6, "missing_worker"), (8, "missing_worker")]
    votes, _ = collect(nobody, "nobody.xml", overwrite="true", worker="bob")
    assert votes == [(6, "cvat:bob", 8087, "yes"), (8, "cvat:bob", 8087, "no")]


def test_cvat_jobs_of_the_api(collect):
    votes, rejects = collect(json.dumps(exports.CVAT_JOB), "job.json")
    assert votes == [(6, "cvat:ann", 8087, "yes")]
    assert rejects == [(8, "prediction")]


def test_what_cvat_merged_out_of_replicas_is_nobodys_answer(collect):
    tags = [{"frame": 10, "label_id": 33, "source": "consensus", "attributes": []}]
    merged = {**exports.CVAT_JOB, "annotations": {"tags": tags}}
    assert collect(json.dumps(merged), "job.json") == ([], [(6, "prediction")])


def test_cvat_by_the_class_in_the_name_of_the_task(collect):
    rows = [question(6, "verify"), question(6, "verify", label=5, question_id="other")]
    job = {**exports.CVAT_JOB, "task_name": "r0001 animal (5)"}
    assert collect(json.dumps(job), "job.json", rows)[0] == [(6, "cvat:ann", 5, "yes")]


def test_a_map_of_columns_reads_any_table(collect):
    text = f"frage,wer,was,wann\n{exports.QUESTIONS[6]['question_id']},ann,ja,1795627941\n"
    columns = {"question_id": "frage", "worker_id": "wer", "answer": "was", "timestamp": "wann"}
    words = {f"columns__{ours}": theirs for ours, theirs in columns.items()}
    votes, _ = collect(text, "antworten.csv", **words, answers__ja="yes", answers__nein="no")
    assert votes == [(6, "file:ann", 8087, "yes")]


def test_a_column_has_the_role_that_the_user_gave_it_and_no_other(collect):
    text = f"image_id,annotator,label\n{FIRST},ann,11054\n{FIRST + 6},ann,yes\n"
    words = {"columns__worker_id": "annotator", "columns__answer": "label"}
    votes, _ = collect(text, "votes.csv", **words)
    assert votes == [(0, "file:ann", 11054, None), (6, "file:ann", 8087, "yes")]


@pytest.mark.parametrize("between", [", ", "|", " | "])
def test_blanks_and_bars_between_columns_are_understood(collect, between):
    rows = (("task", "worker", "label"), (exports.QUESTIONS[6]["question_id"], "ann", "no"))
    text = "".join(between.join(row) + "\n" for row in rows)
    assert collect(text, "votes.csv")[0] == [(6, "crowdkit:ann", 8087, "no")]


def test_a_task_may_be_the_url_of_its_image(collect):
    text = "task,worker,label\nhttps://images.example/6.jpg?x=1,ann,no\n"
    assert collect(text, "votes.csv")[0] == [(6, "crowdkit:ann", 8087, "no")]


def test_a_project_of_other_people_names_its_images_alone(collect):
    task = {**exports.task(6, exports.annotation(1, 2, "yes")), "data": {"image": "s3://b/6.jpg"}}
    assert collect(json.dumps([task]), "export.json")[0] == [(6, "label_studio:2", 8087, "yes")]


def test_the_word_none_is_no_class_of_this_name(collect, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\nnone\nunsure\n")
    rows = [question(n, candidates=[0, 1]) for n in range(3)]
    ids = [row["question_id"] for row in rows]
    text = f"task,worker,label\n{ids[0]},ann,none\n{ids[1]},ann,1\n{ids[2]},ann,unsure\n"
    votes, _ = collect(text, "votes.csv", rows, label_space=tmp_path / "classes.txt")
    assert [vote[2:] for vote in votes] == [(None, "none"), (1, None), (None, "unsure")]


def test_semicolons_and_a_mark_of_the_encoding_are_understood(collect):
    text = f"\ufeffquestion_id;worker_id;answer\r\n{exports.QUESTIONS[6]['question_id']};ann;no\r\n"
    assert collect(text, "votes.csv")[0] == [(6, "file:ann", 8087, "no")]


def test_a_column_of_comments_is_not_taken_for_the_answer(collect):
    header = "AssignmentId,WorkerId,AssignmentStatus,Input.question_id,Answer.q,Answer.comment\n"
    text = header + f"1,A1,Approved,{exports.QUESTIONS[6]['question_id']},yes,too dark\n"
    assert collect(text, "results.csv")[1] == [(6, "malformed")]
    named = collect(text, "results.csv", columns__answer="Answer.q", overwrite="true")
    assert named[0] == [(6, "mturk:A1", 8087, "yes")]


def test_a_filled_in_csv_of_send_comes_back(tmp_path):
    asked = write_questions(tmp_path, [question(0), question(1), question(6, "verify")])
    run("send", questions=asked, to="csv", output=tmp_path / "sent")
    folder = tmp_path / "filled"
    folder.mkdir()
    for kind in ("choice", "verify"):
        table = pa.csv.read_csv(
            tmp_path / "sent" / kind / "questions-00000.csv",
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        )
        answers = {"choice": ["11054", "none"], "verify": ["unsure"]}[kind]
        workers = pa.array(["ann"] * len(answers))
        table = table.set_column(table.schema.get_field_index("answer"), "answer", [answers])
        table = table.set_column(table.schema.get_field_index("worker_id"), "worker_id", workers)
        pa.csv.write_csv(table, folder / f"{kind}.csv")
    run("collect", questions=asked, source=folder, output=tmp_path / "out")
    votes = [(v.get("label"), v.get("response")) for v in rows_of(tmp_path / "out", "votes")]
    assert votes == [(11054, None), (None, "none"), (8087, "unsure")]


def test_a_worker_whom_select_assigned_keeps_the_id(tmp_path):
    """select knows workers by the ids of votes, and send writes them into its files."""
    workers = ["file:ann", "label_studio:bob@example.org", "carl", "a:b"]
    asked = write_questions(tmp_path, [question(n, worker_id=w) for n, w in enumerate(workers)])
    run("send", questions=asked, to="csv", output=tmp_path / "sent")
    (tmp_path / "filled").mkdir()
    for path in (tmp_path / "sent").glob("*.csv"):
        text = path.read_text()
        assert text.endswith(",\n")
        (tmp_path / "filled" / path.name).write_text(text[:-1] + "11054\n")
    run("collect", questions=asked, source=tmp_path / "filled", output=tmp_path / "out")
    votes = [vote["worker_id"] for vote in rows_of(tmp_path / "out", "votes")]
    assert votes == ["file:ann", "label_studio:bob@example.org", "file:carl", "file:a:b"]


def test_the_hash_of_a_worker_whom_select_assigned_is_not_hashed_again(collect, tmp_path):
    questions = [row["question_id"] for row in exports.QUESTIONS]
    header = "question_id,worker_id,answer\n"
    collect(f"{header}{questions[0]},ann,8087\n", "one.csv", hash_workers="true")
    (worker,) = {vote["worker_id"] for vote in rows_of(tmp_path / "out", "votes")}
    text = f"{header}{questions[6]},{worker},yes\n{questions[0]},file:ann,8087\n"
    collect(text, "two.csv", hash_workers="true", overwrite="true")
    other, again = [vote["worker_id"] for vote in rows_of(tmp_path / "out", "votes")]
    assert again == worker
    assert other != worker
    assert "ann" not in other


def test_a_question_id_that_a_spreadsheet_took_for_a_time_is_explained(collect, tmp_path):
    text = "question_id,worker_id,answer\n01:17:00,ann,8087\n1:17,ann,8087\n"
    assert collect(text, "answers.csv")[1] == [(-1, "unknown_question")] * 2
    details = [row["detail"] for row in rows_of(tmp_path / "out", "rejects")]
    assert [("import the column" in detail) for detail in sorted(details)] == [True, False]


def test_parquet_with_our_names(tmp_path):
    asked = write_questions(tmp_path, exports.QUESTIONS)
    table = pa.table(
        {
            "image_id": [FIRST, FIRST + 6, FIRST + 99],
            "worker_id": ["ann", "ann", "ann"],
            "answer": ["8087", "no", "no"],
            "timestamp": pa.array([1_000, 2_000, 3_000], pa.timestamp("ns")),
        }
    )
    pq.write_table(table, tmp_path / "votes.parquet")
    run("collect", questions=asked, source=tmp_path / "votes.parquet", output=tmp_path / "out")
    votes = [(v["image_id"] - FIRST, v.get("response")) for v in rows_of(tmp_path / "out", "votes")]
    assert votes == [(0, None), (6, "no")]
    assert [r["reason"] for r in rows_of(tmp_path / "out", "rejects")] == ["unknown_question"]


def test_a_verification_of_a_set_keeps_the_set(collect, tmp_path):
    rows = [question(0, "verify", label=None, candidates=[5, 8087], question_id="set")]
    text = "question_id,worker_id,answer\nset,ann,No\n"
    votes, _ = collect(text, "votes.csv", rows)
    assert votes == [(0, "file:ann", None, "no")]
    assert rows_of(tmp_path / "out", "votes")[0]["candidates"] == [5, 8087]


@pytest.mark.parametrize(
    ("answer", "label", "response"),
    [
        ("8087", 8087, None),
        ("8087.0", 8087, None),
        ("8087 = lamp: a piece of furniture", 8087, None),
        ("unsure = I am not sure", None, "unsure"),
        ("n03636649", 8087, None),
        ("table lamp", 11054, None),
        ("none of these", None, "none"),
        ("UNSURE", None, "unsure"),
    ],
)
def test_a_choice_may_be_named_in_several_ways(collect, answer, label, response):
    text = f"question_id,worker_id,answer\n{exports.QUESTIONS[0]['question_id']},ann,{answer}\n"
    assert collect(text, "votes.csv")[0] == [(0, "file:ann", label, response)]


def archive(**files):
    """A zip file, as CVAT's exports are."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (archive(annotations=exports.CVAT_XML), "is a zip file; give what is in it, unpacked"),
        (archive(), "is a zip file"),
        (gzip.compress(exports.MTURK.encode()), "is a gzip file"),
        (json.dumps(exports.LABEL_STUDIO).encode("utf-16"), "is not encoded as UTF-8"),
        (exports.MTURK.replace("Approve,Reject", "Reject,Reject").encode(), "columns of one name"),
        (exports.CVAT_XML.replace("?>", "?><!DOCTYPE a>", 1).encode(), "has a document type"),
        (b"<!doctype html><p>Please log in</p>", "is not readable XML"),
        (b"PAR1", "is not a readable Parquet file"),
    ],
)
def test_what_is_no_export_is_named(tmp_path, content, error):
    asked = write_questions(tmp_path, exports.QUESTIONS)
    (tmp_path / "export").write_bytes(content)
    with pytest.raises(InputError, match=error):
        run("collect", questions=asked, source=tmp_path / "export", output=tmp_path / "out")


def test_parquet_with_the_columns_of_crowdkit_is_taken_for_it(tmp_path):
    asked = write_questions(tmp_path, exports.QUESTIONS)
    question_id = exports.QUESTIONS[0]["question_id"]
    row = {"task": [question_id], "worker": ["w1"], "label": [8087]}
    pq.write_table(pa.table(row), tmp_path / "votes.parquet")
    run("collect", questions=asked, source=tmp_path / "votes.parquet", output=tmp_path / "out")
    (vote,) = rows_of(tmp_path / "out", "votes")
    assert (vote["worker_id"], vote["label"]) == ("crowdkit:w1", 8087)
