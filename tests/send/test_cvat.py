"""send to CVAT, and collect from it: one task for each asked class, jobs for each worker."""

import json

import pytest
from cvat_sdk.api_client import models

from coyo_labeler.errors import InputError, WorkError
from tests.annotation_tools.fake_cvat import TOKEN, FakeCvat
from tests.annotation_tools.fake_label_studio import serve
from tests.annotation_tools.tables import FIRST, bytes_of, question, rows_of, run, write_questions

LAMP = "r0001 lamp: a piece of furniture holding one or more electric light bulbs (8087)"
ROWS = [
    *[question(n, "verify", worker_id=("ann", "bob")[n % 2]) for n in range(6)],
    question(6, "verify", label=5, question_id="r0001:animal"),
    question(7, "verify", label=None, candidates=[5, 8087], question_id="r0001:set"),
]


@pytest.fixture
def fake():
    return FakeCvat()


@pytest.fixture
def words(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", TOKEN)
    with serve(fake) as url:
        yield {
            "questions": write_questions(tmp_path, ROWS),
            "to": "cvat",
            "url": url,
            "output": tmp_path / "sent",
        }


def test_each_class_has_a_task_and_each_worker_a_job(words, fake):
    manifest, _ = run("send", **words)
    names = sorted(task["name"] for task in fake.tasks.values())
    assert names[0].startswith("r0001 animal or 1 more (set ")
    assert names[1].startswith("r0001 animal: a living organism ")
    assert names[1].endswith(" (5)")
    assert names[2] == LAMP
    assert manifest.rows.rows_out == 8
    (lamps,) = (n for n, task in fake.tasks.items() if task["name"] == names[2])
    jobs = [job for job in fake.jobs.values() if job["task_id"] == lamps]
    assert [job["assignee"]["username"] for job in jobs] == ["ann", "bob"]
    assert [len(job["files"]) for job in jobs] == [3, 3]
    assert [label["name"] for label in fake.tasks[lamps]["labels"]] == ["yes", "no", "unsure"]
    assert fake.data[lamps]["job_file_mapping"] == [job["files"] for job in jobs]


def test_answers_come_back_as_votes(words, fake, tmp_path):
    run("send", **words)
    by_name = {task["name"]: n for n, task in fake.tasks.items()}
    for job in fake.jobs.values():
        job["assignee"] = job["assignee"] or fake.users[0]
    lamps = [j for j in fake.jobs.values() if j["task_id"] == by_name[LAMP]]
    fake.tag(lamps[1]["id"], lamps[1]["start_frame"], "no")  # bob's first image: the second one
    (other,) = (j for j in fake.jobs.values() if fake.tasks[j["task_id"]]["name"].find("set") > 0)
    fake.tag(other["id"], 0, "yes")
    given = {
        "questions": words["questions"],
        "source": tmp_path / "sent",
        "output": tmp_path / "collected",
    }
    run("collect", **given)
    votes = rows_of(tmp_path / "collected", "votes")
    short = [(v["image_id"] - FIRST, v["worker_id"], v.get("label"), v["response"]) for v in votes]
    assert short == [(1, "cvat:bob", 8087, "no"), (7, "cvat:ann", None, "yes")]
    assert votes[1]["candidates"] == [5, 8087]
    reads, before = fake.annotation_reads, bytes_of(tmp_path / "collected")
    assert not run("collect", **given)[1]
    assert fake.annotation_reads == reads  # no job has changed
    assert bytes_of(tmp_path / "collected") == before
    fake.tag(lamps[1]["id"], lamps[1]["start_frame"], "unsure")
    assert run("collect", **given)[1]
    assert fake.annotation_reads == reads + 1
    assert rows_of(tmp_path / "collected", "votes")[0]["response"] == "unsure"


def test_several_answers_are_replicas(tmp_path, fake, words):
    write_questions(tmp_path, [question(n, "verify", overlap=3) for n in range(2)])
    run("send", **words)
    assert fake.tasks[1]["initial_replicas"] == 3
    assert [job["type"] for job in fake.jobs.values()] == ["annotation", *["replica"] * 3]


def test_a_second_run_sends_nothing_twice_and_finishes_an_empty_task(words, fake, tmp_path):
    run("send", **words)
    tasks = dict(fake.tasks)
    (tmp_path / "sent" / "_manifest.json").unlink()
    empty = min(tasks)
    fake.tasks[empty] = {**tasks[empty], "size": 0}  # killed before it got its images
    run("send", **words)
    assert len(fake.tasks) == len(tasks)
    assert empty not in fake.tasks
    assert all(task["size"] for task in fake.tasks.values())


def test_images_that_cannot_be_read_are_named(words, fake):
    fake.fails_to_read = True
    with pytest.raises(WorkError, match="cannot read the images of task 1: no such file"):
        run("send", **words)
    fake.fails_to_read = False
    run("send", **words, job_images=3)  # nothing had been asked, so other settings are taken
    assert all(task["size"] for task in fake.tasks.values())
    with pytest.raises(InputError, match="job_images was 3, is 4"):
        run("send", **words, job_images=4)


def test_images_whose_urls_end_alike_are_in_different_tasks(tmp_path, words, fake):
    """CVAT names what it downloads by the last part of its URL, and takes a name once."""
    urls = [f"https://{host}.example/a%20b.jpg?width=9" for host in ("one", "two")]
    rows = [question(n, "verify", url=url) for n, url in enumerate(urls)]
    write_questions(tmp_path, rows)
    run("send", **words)
    assert [data["job_file_mapping"] for data in fake.data.values()] == [[["a b.jpg"]]] * 2
    assert sorted(url for data in fake.data.values() for url in data["remote_files"]) == urls


def test_a_worker_that_the_server_does_not_know_is_named(tmp_path, fake, words):
    write_questions(tmp_path, [question(0, "verify", worker_id="carl")])
    with pytest.raises(InputError, match="worker carl is no user of CVAT"):
        run("send", **words)
    assert fake.tasks == {}


def test_a_wrong_token_is_named(words, monkeypatch):
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "wrong-secret")
    with pytest.raises(InputError, match=r"401.*CVAT_ACCESS_TOKEN") as error:
        run("send", **words)
    assert "wrong-secret" not in str(error.value)


def test_choices_are_refused(tmp_path, words):
    write_questions(tmp_path, [question(0)])
    with pytest.raises(InputError, match="CVAT asks yes-or-no questions only"):
        run("send", **words)


def test_nothing_that_must_stay_here_leaves(words, fake):
    run("send", **words)
    text = "\n".join(fake.bodies).lower()
    for word in ("uncertain", "audit", "gold", "purpose", "risk", "0.28125", "0.40625"):
        assert word not in text


def test_the_bodies_in_files_are_those_that_a_server_gets(tmp_path, fake, words):
    run("send", **words)
    run("send", questions=words["questions"], to="cvat_files", output=tmp_path / "files")
    files = sorted((tmp_path / "files" / "tasks").glob("*.json"))
    documents = [json.loads(path.read_text()) for path in files]
    of_server = {task["name"]: fake.data[number] for number, task in fake.tasks.items()}
    assert len(documents) == 3
    for document in documents:
        name = document["POST /api/tasks"]["name"]
        assert document["POST /api/tasks/{id}/data"] == of_server[name]


def test_the_bodies_are_those_of_the_sdk(words, fake):
    run("send", **words)
    for number, data in fake.data.items():
        task = {
            k: v for k, v in fake.tasks[number].items() if k not in {"id", "size", "all_labels"}
        }
        task["labels"] = [models.PatchedLabelRequest(**label) for label in task["labels"]]
        models.TaskWriteRequest(**task)
        models.DataRequest(**data)


def test_an_export_of_a_task_finds_its_questions_by_name_and_frame(tmp_path, words):
    run("send", questions=words["questions"], to="cvat_files", output=tmp_path / "files")
    name = next(
        row["project"]
        for row in rows_of(tmp_path / "files", "sent")
        if row["question_id"] == "r0001:set"
    )
    text = f"""<annotations><meta><task><id>3</id><name>{name}</name></task></meta>
      <image id="0" name="whatever.jpg"><tag label="yes" source="manual"/></image></annotations>"""
    (tmp_path / "export.xml").write_text(text)
    run(
        "collect",
        questions=words["questions"],
        source=tmp_path / "export.xml",
        sent=tmp_path / "files",
        output=tmp_path / "collected",
        worker="ann",
    )
    (vote,) = rows_of(tmp_path / "collected", "votes")
    assert (vote["question_id"], vote["response"]) == ("r0001:set", "yes")
