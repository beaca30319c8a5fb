"""send to a server of Label Studio: every question once, whatever happens."""

import json
import logging
from base64 import b64decode
from pathlib import Path

import pytest

from coyo_labeler.annotation_tools.server import Server, Token
from coyo_labeler.errors import InputError, WorkError
from tests.annotation_tools.fake_label_studio import LEGACY, PERSONAL, FakeLabelStudio, serve
from tests.annotation_tools.tables import question, rows_of, run, write_questions
from tests.tars import write_members


@pytest.fixture
def fake():
    return FakeLabelStudio()


@pytest.fixture
def url(fake, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", LEGACY)
    with serve(fake) as address:
        yield address


def words(tmp_path: Path, url: str, rows=None, **more):
    questions = write_questions(tmp_path, rows or [question(n) for n in range(7)])
    return {
        "questions": questions,
        "to": "label_studio",
        "url": url,
        "output": tmp_path / "sent",
        "batch_size": 3,
        **more,
    }


def sent_ids(fake) -> list[str]:
    return [task["data"]["question_id"] for task in fake.tasks.values()]


def test_each_question_is_one_task_in_the_order_of_select(tmp_path, fake, url):
    manifest, _ = run("send", **words(tmp_path, url))
    expected = [question(n)["question_id"] for n in range(7)]
    assert sent_ids(fake) == expected
    assert (manifest.rows.rows_in, manifest.rows.rows_out) == (7, 7)
    rows = rows_of(tmp_path / "sent", "sent")
    assert [(row["question_id"], row["task"]) for row in rows] == [
        (question_id, number) for number, question_id in enumerate(expected, 1)
    ]
    assert manifest.details["projects"] == [{"id": 1, "title": "r0001 · choice"}]


def test_a_second_run_and_one_that_lost_its_record_send_nothing_twice(tmp_path, fake, url):
    given = words(tmp_path, url)
    run("send", **given)
    assert not run("send", **given)[1]
    before = rows_of(tmp_path / "sent", "sent")
    (tmp_path / "sent" / "_manifest.json").unlink()
    (tmp_path / "sent" / "sent" / "part-00000.parquet").unlink()
    run("send", **given)
    assert len(fake.tasks) == 7
    assert len(fake.projects) == 1
    assert rows_of(tmp_path / "sent", "sent") == before


def test_a_run_that_died_between_two_batches_goes_on(tmp_path, fake, url):
    given = words(tmp_path, url, retries=0)
    fake.capacity = 3
    with pytest.raises(WorkError, match=r"the disk is full.*run the same command again"):
        run("send", **given)
    assert len(fake.tasks) == 3
    fake.capacity = None
    run("send", **given)
    assert sent_ids(fake) == [question(n)["question_id"] for n in range(7)]


def test_a_start_that_failed_is_repeated_with_the_setting_corrected(tmp_path, fake, url):
    with pytest.raises(InputError, match="cannot be reached"):
        run("send", **words(tmp_path, "http://127.0.0.1:9", retries=0))
    project = {"title": "r0001 · choice", "label_config": "<View></View>"}
    fake.projects[7] = {"id": 7, **project}
    with pytest.raises(InputError, match="give project=NAME"):
        run("send", **words(tmp_path, url))
    manifest, _ = run("send", **words(tmp_path, url, project="lamps"))
    assert manifest.rows.rows_out == len(fake.tasks) == 7


def test_no_image_is_copied_for_a_server_that_is_not_there(tmp_path, fake, url):
    document = json.dumps({"id": question(0)["image_id"]}).encode()
    members = [("00000_00000.jpg", b"an image"), ("00000_00000.json", document)]
    write_members(tmp_path / "tars" / "00000.tar", members)
    given = {"images": tmp_path / "tars", "document_root": tmp_path, "retries": 0}
    with pytest.raises(InputError, match="cannot be reached"):
        run("send", **words(tmp_path, "http://127.0.0.1:9", **given))
    assert [p.name for p in tmp_path.joinpath("sent").rglob("*")] == ["_run.json"]
    run("send", **words(tmp_path, url, **given))
    assert tmp_path.joinpath("sent", "images").exists()


def test_after_the_first_task_another_server_is_refused(tmp_path, fake, url):
    fake.capacity = 3
    with pytest.raises(WorkError, match="the disk is full"):
        run("send", **words(tmp_path, url, retries=0))
    with pytest.raises(InputError, match=r"url was .*, is .*overwrite=true"):
        run("send", **words(tmp_path, "http://127.0.0.1:9", retries=0))


@pytest.mark.parametrize("taken", [True, False])
def test_an_import_without_an_answer_is_looked_up_before_it_is_repeated(tmp_path, fake, url, taken):
    fake.fail_imports, fake.take_before_failing = 2, taken
    run("send", **words(tmp_path, url))
    assert sorted(sent_ids(fake)) == sorted(question(n)["question_id"] for n in range(7))


def test_an_overloaded_server_is_asked_again(tmp_path, fake, url):
    fake.fail_gets = 2
    run("send", **words(tmp_path, url))
    assert len(fake.tasks) == 7


def test_nothing_that_must_stay_here_leaves(tmp_path, fake, url, caplog):
    rows = [question(n) for n in range(4)] + [question(9, "verify")]
    with caplog.at_level(logging.DEBUG):
        run("send", **words(tmp_path, url, rows))
    text = "\n".join(fake.bodies)
    for word in ("uncertain", "audit", "gold", "purpose", "risk", "inclusion"):
        assert word not in text.lower()
    for number in ("0.625", "0.28125", "0.40625"):
        assert number not in text
    kept = [p.read_bytes() for p in tmp_path.joinpath("sent").rglob("*") if p.is_file()]
    assert not any(LEGACY.encode() in data or b"SECRETSIGNATURE" in data for data in kept)
    assert LEGACY not in caplog.text


def test_kinds_overlaps_and_workers_have_projects_of_their_own(tmp_path, fake, url):
    rows = [
        question(0, overlap=2),
        question(1),
        question(2, "verify", worker_id="ann"),
        question(3, "verify", worker_id="bob"),
    ]
    run("send", **words(tmp_path, url, rows, project="pets"))
    projects = {p["title"]: p for p in fake.projects.values()}
    assert projects.keys() == {
        "pets · choice",
        "pets · choice · 2 answers",
        "pets · verify · ann",
        "pets · verify · bob",
    }
    assert projects["pets · choice · 2 answers"]["maximum_annotations"] == 2
    config = projects["pets · verify · ann"]["label_config"]
    assert all(f'hotkey="{key}"' in config for key in "ynu")


@pytest.mark.parametrize(
    "other", [{"candidates": [8087, 5]}, {"url": "https://images.example/other/3.jpg"}]
)
def test_another_loop_whose_questions_have_the_same_ids_is_not_mixed_up(tmp_path, fake, url, other):
    run("send", **words(tmp_path / "one", url))
    rows = [question(n, "verify", question_id=f"r0001:x{n}") for n in range(2)]
    given = words(tmp_path / "two", url, [*rows, question(3, **other), question(9)])
    with pytest.raises(
        InputError, match=r"task 4 of project 1 .* asks something else.*project=NAME"
    ):
        run("send", **given)
    assert len(fake.tasks) == 7
    run("send", **given, project="two")
    assert len(fake.tasks) == 11


def test_an_image_whose_signature_is_new_is_the_same(tmp_path, fake, url):
    run("send", **words(tmp_path / "one", url))
    again = [question(n, url=f"https://images.example/{n}.jpg?signature=x") for n in range(9)]
    run("send", **words(tmp_path / "two", url, again))
    assert len(fake.tasks) == 9


def test_rounds_in_one_project_that_want_other_numbers_of_answers_are_apart(tmp_path, fake, url):
    for number, overlap in enumerate((1, 2)):
        folder = tmp_path / str(number)
        run("send", **words(folder, url, [question(number, overlap=overlap)], project="pets"))
    assert {p["title"]: p["maximum_annotations"] for p in fake.projects.values()} == {
        "pets · choice": 1,
        "pets · choice · 2 answers": 2,
    }


def test_titles_fit_into_what_the_server_takes_and_are_found_again(tmp_path, fake, url):
    workers = [f"firstname.lastname@department.of.the.university.{n}" for n in range(2)]
    rows = [question(n, "verify", worker_id=worker) for n, worker in enumerate(workers)]
    given = words(tmp_path, url, rows, project="  The second campaign,  about lamps")
    run("send", **given)
    (tmp_path / "sent" / "_manifest.json").unlink()
    run("send", **given)
    titles = [project["title"] for project in fake.projects.values()]
    assert len(titles) == len(set(titles)) == len(fake.tasks) == 2
    assert all(title.startswith("The second camp… · verify · firstname") for title in titles)


def test_a_choice_offers_names_with_definitions_none_and_unsure(tmp_path, fake, url):
    run("send", **words(tmp_path, url, [question(0)]))
    choices = fake.tasks[1]["data"]["choices"]
    assert [choice["value"] for choice in choices] == ["8087", "11054", "5", "none", "unsure"]
    assert "table lamp" in choices[1]["html"]
    assert "n04380533" in choices[1]["html"]
    assert "a lamp that sits on a table" in choices[1]["html"]


def test_large_ids_are_texts(tmp_path, fake, url):
    run("send", **words(tmp_path, url, [question(0)]))
    numbers = json.dumps(fake.tasks[1]["data"], indent=0).splitlines()
    assert not any(line.strip(",").isdecimal() and int(line.strip(",")) > 2**53 for line in numbers)
    assert fake.tasks[1]["data"]["image_id"] == str(2**53 + 1)


def test_a_personal_token_buys_access_and_renews_it(tmp_path, fake, url, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", PERSONAL)
    fake.uses_per_access = 3
    run("send", **words(tmp_path, url))
    assert len(fake.tasks) == 7
    assert fake.refreshes > 1
    assert not any(PERSONAL in authorization for authorization in fake.authorizations)


@pytest.mark.parametrize("token", ["0" * 40, "eyJx.eyJx.x"])
def test_a_wrong_token_is_named(tmp_path, url, monkeypatch, token):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    with pytest.raises(InputError, match=r"credentials.*401.*LABEL_STUDIO_API_KEY") as error:
        run("send", **words(tmp_path, url))
    assert token not in str(error.value)


def test_a_missing_token_is_named(tmp_path, url, monkeypatch):
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    with pytest.raises(InputError, match="set LABEL_STUDIO_API_KEY in the environment"):
        run("send", **words(tmp_path, url))


@pytest.mark.parametrize("token", ["two words", "two\nlines", "tök🙂"])
def test_what_cannot_be_a_token_is_no_header(tmp_path, url, monkeypatch, token):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    with pytest.raises(InputError, match="LABEL_STUDIO_API_KEY in the environment is no") as error:
        run("send", **words(tmp_path, url))
    assert token not in str(error.value)


class Echo:
    """A server that answers whatever it is asked with the credentials that it got."""

    def __init__(self, status: int) -> None:
        self.status = status

    def respond(self, method, url, headers, body):
        return self.status, {"detail": f"{headers.get('Authorization')} {body.decode()}"}


@pytest.mark.parametrize("status", [302, 400, 401, 403, 500])
@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_credentials_that_a_server_repeats_are_in_no_message(tmp_path, monkeypatch, status, token):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    with (
        serve(Echo(status)) as address,
        pytest.raises((InputError, WorkError), match="Label Studio at") as error,
    ):
        run("send", **words(tmp_path, address, retries=0))
    assert token not in str(error.value)


def test_the_proxy_gets_the_name_and_password_of_its_url(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:p%40ss@127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    server = Server("send", "Label Studio", "http://x.example", Token("Token", "t"), "V")
    headers = server._pool.proxy_headers
    assert b64decode(headers["proxy-authorization"].removeprefix("Basic ")) == b"me:p@ss"


def test_a_server_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", LEGACY)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1 cannot be reached.*check the URL"):
        run("send", **words(tmp_path, "http://127.0.0.1:1", retries=0))


def test_a_project_that_asks_in_another_way_is_left_alone(tmp_path, fake, url):
    fake.projects[1] = {"id": 1, "title": "r0001 · choice", "label_config": "<View/>"}
    with pytest.raises(InputError, match="another labelling configuration; give project=NAME"):
        run("send", **words(tmp_path, url))


def test_a_server_that_is_something_else_is_named(tmp_path, fake, url):
    fake.users = ["not", "a user"]
    fake.users[0] = {"hello": "world"}
    with pytest.raises(InputError, match="answered without 'id'; check the URL"):
        run("send", **words(tmp_path, url))
