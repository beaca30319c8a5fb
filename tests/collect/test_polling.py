"""collect from a server of Label Studio: what has changed, and nothing twice."""

import pytest

from coyo_labeler.errors import InputError
from tests.annotation_tools.fake_label_studio import LEGACY, PERSONAL, FakeLabelStudio, serve
from tests.annotation_tools.tables import bytes_of, question, rows_of, run, write_questions

ROWS = [question(n) for n in range(5)]


@pytest.fixture
def fake():
    return FakeLabelStudio()


@pytest.fixture
def words(tmp_path, fake, monkeypatch):
    """Settings of collect; the questions have been sent."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", LEGACY)
    questions = write_questions(tmp_path, ROWS)
    with serve(fake) as url:
        run("send", questions=questions, to="label_studio", url=url, output=tmp_path / "sent")
        yield {
            "questions": questions,
            "source": tmp_path / "sent",
            "output": tmp_path / "collected",
            "page_size": 2,
        }


def answers(words):
    return [
        (row["image_id"] - ROWS[0]["image_id"], row["worker_id"], row.get("label"))
        for row in rows_of(words["output"], "votes")
    ]


def test_answers_on_all_pages_are_read(fake, words):
    for number, row in enumerate(ROWS):
        fake.answer(fake.task_of(row["question_id"]), 1 + number % 2, "8087")
    run("collect", **words)
    names = ("label_studio:ann@example.org", "label_studio:bob@example.org")
    assert answers(words) == [(n, names[n % 2], 8087) for n in range(5)]


def test_a_poll_without_news_changes_nothing(fake, words):
    fake.answer(1, 1, "8087")
    run("collect", **words)
    before = bytes_of(words["output"])
    assert not run("collect", **words)[1]
    assert bytes_of(words["output"]) == before


def test_a_poll_reads_what_is_new_or_changed(fake, words):
    first = fake.answer(1, 1, "8087")
    run("collect", **words)
    fake._clock += 1000  # beyond the overlap of two polls
    fake.change(first, "11054")
    fake.answer(3, 2, "5")
    manifest, worked = run("collect", **words)
    assert worked
    assert [label for _, _, label in answers(words)] == [11054, 5]
    assert (manifest.rows.rows_in, manifest.rows.rows_out) == (2, 2)
    fake.requests.clear()
    assert not run("collect", **words)[1]
    assert fake.requests.count("GET /api/tasks") == 1  # two tasks of five: one page


def test_a_folder_of_a_round_may_be_moved_between_two_polls(fake, words, tmp_path):
    """As `round` calls collect: the server is that of `sent`."""
    round_words = {**words, "sent": words["source"]}
    fake.answer(1, 1, "8087")
    run("collect", **round_words)
    fake.answer(2, 1, "8087")
    moved = words["source"].rename(tmp_path / "elsewhere")
    manifest, _ = run("collect", **{**round_words, "source": moved, "sent": moved})
    assert manifest.rows.rows_out == 2
    with pytest.raises(InputError, match="source was None, is 'http:"):
        run("collect", **{**round_words, "source": "http://127.0.0.1:9/projects/1", "sent": moved})


def test_an_answer_that_was_deleted_goes(fake, words):
    fake.answer(1, 1, "8087")
    fake.answer(1, 2, "5")
    run("collect", **words)
    fake.tasks[1]["annotations"].pop()
    fake.tasks[1]["updated_at"] = fake.now()
    run("collect", **words)
    assert [label for _, _, label in answers(words)] == [8087]


def test_polls_and_a_fresh_read_give_the_same_tables(fake, words, tmp_path):
    for number in (1, 4, 2):
        fake.answer(number, 1, "8087")
        run("collect", **words)
    fake.answer(2, 1, "none")
    fake.answer(5, 2, None)
    run("collect", **words)
    run("collect", **{**words, "output": tmp_path / "fresh", "page_size": 100})
    assert bytes_of(words["output"]) == bytes_of(tmp_path / "fresh")
    reasons = [row["reason"] for row in rows_of(words["output"], "rejects")]
    assert sorted(reasons) == ["second_answer", "skipped"]


def test_a_project_may_be_named_by_its_url(fake, words, tmp_path):
    fake.answer(1, 1, "8087")
    with serve(fake) as url:
        source = f"{url}/projects/1/data?tab=3"
        run("collect", **{**words, "source": source, "output": tmp_path / "by_url"})
        run("collect", **words)
        assert bytes_of(tmp_path / "by_url") == bytes_of(words["output"])
        with pytest.raises(InputError, match="no GET /api/projects/9"):
            run("collect", **{**words, "source": f"{url}/projects/9", "output": tmp_path / "no"})


def test_a_url_of_no_project_is_named(words, tmp_path):
    with pytest.raises(InputError, match="names no project; give https://HOST/projects/N"):
        run("collect", **{**words, "source": "http://127.0.0.1:1/x", "output": tmp_path / "no"})


def test_a_busy_server_and_a_short_token_are_no_obstacle(fake, words, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", PERSONAL)
    fake.fail_gets, fake.uses_per_access = 1, 3
    for number in range(1, 6):
        fake.answer(number, 1, "8087")
    run("collect", **words)
    assert len(answers(words)) == 5
    assert fake.refreshes > 1


def test_hashed_workers_have_no_name_in_any_file(fake, words, monkeypatch):
    monkeypatch.setenv("COYO_LABELER_WORKER_KEY", "a key")
    fake.answer(1, 1, "8087")
    run("collect", **words, hash_workers="true")
    (vote,) = rows_of(words["output"], "votes")
    assert len(vote["worker_id"]) == len("label_studio:") + 20
    kept = b"".join(p.read_bytes() for p in words["output"].rglob("*") if p.is_file())
    assert b"ann@example.org" not in kept
    fake.answer(2, 1, "5")
    run("collect", **words, hash_workers="true")
    assert [row["worker_id"] for row in rows_of(words["output"], "votes")] == [
        vote["worker_id"]
    ] * 2
    monkeypatch.setenv("COYO_LABELER_WORKER_KEY", "another key")
    with pytest.raises(InputError, match="COYO_LABELER_WORKER_KEY in the environment is not"):
        run("collect", **words, hash_workers="true")


def test_secrets_are_in_no_file(fake, words, tmp_path, caplog):
    fake.answer(1, 1, "8087")
    run("collect", **words)
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert LEGACY.encode() not in kept
    assert LEGACY not in caplog.text
